"""A model in, a smaller model out."""

import os

# ONNX Runtime's wheels report to their maker from the import on, and put an identifier into the
# home folder; what its API can switch off later comes too late for both.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
