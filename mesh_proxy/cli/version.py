"""The version, in Envoy's form."""

from __future__ import annotations

from mesh_proxy import __version__


def version_string() -> str:
    """`<revision>/<version>/<status>/<build type>/<TLS library>`; a Python package has no revision of its own."""
    return f"0/{__version__}/Clean/RELEASE/OpenSSL"


def version_line(prog: str = "mesh-proxy") -> str:
    """What --version prints."""
    return f"{prog}  version: {version_string()}"


def version_number() -> int:
    """`server.version`: one number that grows with the version."""
    major, minor, patch = (int(part) for part in __version__.split("."))
    return major << 16 | minor << 8 | patch
