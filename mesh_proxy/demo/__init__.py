"""`mesh-proxy demo`: two versions of a service behind a real sidecar, traffic, and a table of who answered what."""

from mesh_proxy.demo.main import main

__all__ = ["main"]
