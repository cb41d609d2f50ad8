"""HTTP/2 and HPACK: our own codec, sans-IO, for both sides of a connection."""

from mesh_codecs.http2.connection import Http2Codec
from mesh_codecs.http2.engine import Http2Engine
from mesh_codecs.http2.engines import ENGINES, new_codec
from mesh_codecs.http2.frames import PREFACE
from mesh_codecs.http2.settings import Http2Settings

__all__ = ["ENGINES", "PREFACE", "Http2Codec", "Http2Engine", "Http2Settings", "new_codec"]
