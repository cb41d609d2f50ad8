"""The serializations whose bodies can be looked into; a message in any other passes as it is."""

from __future__ import annotations

from typing import Final

from mesh_codecs.dubbo.body import Body
from mesh_codecs.dubbo.fastjson2_body import FastJson2Body
from mesh_codecs.dubbo.frame import COMPACTED_JAVA, FASTJSON2, HESSIAN2, JAVA, NATIVE_JAVA
from mesh_codecs.dubbo.hessian2_body import Hessian2Body
from mesh_codecs.dubbo.java_body import JavaBody

BODIES: Final[dict[int, Body]] = {
    HESSIAN2: Hessian2Body(),
    FASTJSON2: FastJson2Body(),
    JAVA: JavaBody(JAVA),
    COMPACTED_JAVA: JavaBody(COMPACTED_JAVA),
    NATIVE_JAVA: JavaBody(NATIVE_JAVA),
}
"""per serialization id"""
