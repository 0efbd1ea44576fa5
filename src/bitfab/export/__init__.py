"""Integer graphs for others: ONNX files in three styles, and tables of all parameters."""

from bitfab.export.onnx_file import Style, export_onnx
from bitfab.export.tables import export_tables

__all__ = ["Style", "export_onnx", "export_tables"]
