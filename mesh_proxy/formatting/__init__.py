"""Envoy's substitution formatter: `%REQ(:PATH)%` and its kin, for access logs, header values and local replies."""

from mesh_proxy.formatting.formatter import DEFAULT_FORMAT, Formatter, compile_format

__all__ = ["DEFAULT_FORMAT", "Formatter", "compile_format"]
