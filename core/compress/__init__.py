"""A model in, a smaller model out."""

from edge.runtimes import cut_off_reports

# Before any module of this package imports ONNX Runtime.
cut_off_reports()
