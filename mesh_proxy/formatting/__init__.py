"""Envoy's substitution formatter: `%REQ(:PATH)%` and its kin, for access logs, header values and local replies."""

from mesh_proxy.formatting.formatter import DEFAULT_FORMAT, Formatter, compile_format
from mesh_proxy.formatting.json_format import compile_json

__all__ = ["DEFAULT_FORMAT", "Formatter", "compile_format", "compile_json"]
