"""The serializations whose bodies can be looked into; a message in any other passes as it is."""

from __future__ import annotations

from typing import Final

from mesh_codecs.dubbo.body import Body
from mesh_codecs.dubbo.frame import HESSIAN2
from mesh_codecs.dubbo.hessian2_body import Hessian2Body

BODIES: Final[dict[int, Body]] = {HESSIAN2: Hessian2Body()}
"""per serialization id"""
