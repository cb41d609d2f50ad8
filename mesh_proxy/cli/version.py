"""The version, in Envoy's form."""

from __future__ import annotations

from importlib.util import find_spec

from mesh_proxy import __version__


def build_kind() -> str:
    """`compiled` where the data path is machine code (`hatch_build.py`), or `interpreted`."""
    spec = find_spec("mesh_codecs.events")
    return "interpreted" if spec is None or spec.origin is None or spec.origin.endswith(".py") else "compiled"


def version_string() -> str:
    """`<revision>/<version>/<status>/<build type>/<TLS library>`; a Python package has no revision of its own."""
    return f"0/{__version__}/Clean/RELEASE/OpenSSL"


def version_line(prog: str = "mesh-proxy") -> str:
    """What --version prints."""
    return f"{prog}  version: {version_string()} ({build_kind()})"


def version_number() -> int:
    """`server.version`: one number that grows with the version."""
    major, minor, patch = (int(part) for part in __version__.split("."))
    return major << 16 | minor << 8 | patch
