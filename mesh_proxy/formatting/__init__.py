"""Envoy's substitution formatter: `%REQ(:PATH)%` and its kin, for access logs, header values and local replies."""

from mesh_proxy.formatting.formatter import DEFAULT_FORMAT, compile_format
from mesh_proxy.formatting.json_format import SparseJson, compile_json
from mesh_proxy.formatting.line import Formatter, PlannedLine
from mesh_proxy.formatting.usual import UsualLines

__all__ = ["DEFAULT_FORMAT", "Formatter", "PlannedLine", "SparseJson", "UsualLines", "compile_format", "compile_json"]
