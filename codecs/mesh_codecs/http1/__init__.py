"""HTTP/1.1 without I/O, strict and fast: `DownstreamHttp1` faces who calls us, `UpstreamHttp1` whom we call.

An accepted upgrade is a `ResponseHeaders` of status 101 on either side, an accepted CONNECT one of 2xx; after it `Data`
events carry the bytes of the tunnel.
"""

from __future__ import annotations

from mesh_codecs.http1.downstream import DownstreamHttp1
from mesh_codecs.http1.settings import Http1Settings, UnderscoreAction
from mesh_codecs.http1.upstream import UpstreamHttp1

__all__ = ["DownstreamHttp1", "Http1Settings", "UnderscoreAction", "UpstreamHttp1"]
