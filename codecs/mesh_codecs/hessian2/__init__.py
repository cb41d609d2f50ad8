"""Hessian 2, the default serialization of Dubbo: stepping over values, reading them, writing them."""

from mesh_codecs.hessian2.read import Reader
from mesh_codecs.hessian2.skip import MAX_DEPTH, Tables, skip
from mesh_codecs.hessian2.values import ClassDef, Date, Long, Map, Object, Ref, TypedList
from mesh_codecs.hessian2.write import Writer, dumps

__all__ = [
    "MAX_DEPTH",
    "ClassDef",
    "Date",
    "Long",
    "Map",
    "Object",
    "Reader",
    "Ref",
    "Tables",
    "TypedList",
    "Writer",
    "dumps",
    "skip",
]
