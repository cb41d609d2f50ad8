"""The choice of the HTTP/2 engine (`codec_engine`)."""

from __future__ import annotations

from typing import Final

from mesh_codecs.http2.connection import Http2Codec
from mesh_codecs.http2.engine import Http2Engine
from mesh_codecs.http2.settings import Http2Settings

ENGINES: Final = ("mesh", "h2")
"""our own, and the `h2` library"""


def new_codec(engine: str, *, downstream: bool, settings: Http2Settings) -> Http2Engine:
    """A codec of the named engine.

    Raises:
        ImportError: the engine's library is not installed.
    """
    if engine == "h2":
        from mesh_codecs.http2.h2_engine import H2Codec

        return H2Codec(downstream=downstream, settings=settings)
    assert engine == "mesh", engine
    return Http2Codec(downstream=downstream, settings=settings)
