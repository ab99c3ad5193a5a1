import os
import subprocess
import sys
from pathlib import Path

import pytest

from edge.runtimes import import_runtime

ROOT = Path(__file__).parents[2]
SILENT = """
import os, sys, time
from edge.backends import load_backend
from edge.target import Target, Tolerance
name, path = sys.argv[1:]
target = Target(name, "x86_64", name, "cpu", "float32", "m.onnx", "verified", Tolerance(0, 0, ""))
load_backend({"m.onnx": open(path, "rb").read()}, target, threads=1)
time.sleep(0.5)  # a reporter begins in a thread of its own
links = {os.readlink(f"/proc/self/fd/{fd}") for fd in map(str, range(3, 64))
         if os.path.islink(f"/proc/self/fd/{fd}")}
assert not any(link.startswith("socket:") for link in links), links
assert not any(os.path.expanduser("~") in link for link in links), links
"""
MODEL = """
<ir_version: 9, opset_import: ["" : 18]>
small (float[batch, 4] x) => (float[batch, 4] y) { y = Relu(x) }
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc of Linux")
@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_runtime_reports_to_nobody_and_leaves_the_home_alone(tmp_path, name):
    pytest.importorskip(name)
    parser = pytest.importorskip("onnx.parser")
    (tmp_path / "m.onnx").write_bytes(parser.parse_model(MODEL).SerializeToString())
    home = tmp_path / "home"
    home.mkdir()
    # Nothing of the variables by which a runtime knows tests and CI, and keeps quiet there.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SILENT, name, str(tmp_path / "m.onnx")]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path, timeout=60)
    assert list(home.rglob("*")) == []


def test_a_missing_runtime_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        ModuleNotFoundError, match=r"onnxruntime is not installed .*pip install \.\[edge\]"
    ):
        import_runtime("onnxruntime")
