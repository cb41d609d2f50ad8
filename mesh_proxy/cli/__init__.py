"""The command line: `mesh-proxy` and `python -m mesh_proxy`."""

from mesh_proxy.cli.main import main

__all__ = ["main"]
