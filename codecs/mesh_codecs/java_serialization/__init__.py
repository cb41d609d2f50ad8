"""Java's own object serialization as far as Dubbo's java, nativejava and compactedjava need it: primitive data between objects,
stepping over objects, the entries of a map."""

from mesh_codecs.java_serialization.primitives import PrimitiveReader
from mesh_codecs.java_serialization.read import ObjectReader
from mesh_codecs.java_serialization.walker import MapEntries, Walker

__all__ = ["MapEntries", "ObjectReader", "PrimitiveReader", "Walker"]
