import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from edge.runtimes import import_runtime
from tests.core.convert.targets.portable import build, parity_of, small_source

FLOAT, BFLOAT = "x86_64-openvino-cpu", "x86_64-openvino-cpu-bf16"


@pytest.mark.parametrize(("target_id", "low", "high"), [(FLOAT, 0, 1e-4), (BFLOAT, 1e-3, 0.5)])
def test_each_precision_is_the_one_asked_for(tmp_path, target_id, low, high):
    source = small_source()
    converter, made = build(source, tmp_path / "a", "openvino", target_id)
    if target_id == BFLOAT and not has_bfloat16():
        # The runtime says what it took instead, and the backend does not accept it.
        with pytest.raises(ValueError, match="asks for precision='bfloat16', openvino took"):
            converter.open(made)
        return
    parity = parity_of(source, converter, made)
    logits = [case.outputs[0] for case in parity.cases]
    assert all(output.passed for output in logits), parity.problems
    assert low < max(output.max_absolute for output in logits) < high
    assert parity.facts["provider"] == "CPU"
    assert parity.facts["precision"] == made.target.precision


def has_bfloat16():
    openvino = import_runtime("openvino")
    return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")


def test_axes_stay_free_and_every_size_is_right(tmp_path):
    source = small_source()
    converter, made = build(source, tmp_path / "a", "openvino", FLOAT)
    assert made.files == ("small.xml", "small.bin")
    assert '<data shape="?,3,?,8" element_type="f32"' in made.path.read_text()
    parity = parity_of(source, converter, made)
    assert parity.passed, parity.problems
    assert {output.name for output in parity.cases[0].outputs} == {"logits", "label"}
    assert len(parity.cases) == 7


def test_an_axis_that_became_a_number_is_refused(tmp_path):
    source = small_source()
    model = onnx.load_from_string(source.onnx)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 8
    with pytest.raises(ValueError, match="axis='height' of input 'image' became the number 8"):
        build(replace(source, onnx=model.SerializeToString()), tmp_path / "a", "openvino", FLOAT)


def test_weights_stay_float32(tmp_path):
    source = small_source()
    _, made = build(source, tmp_path / "a", "openvino", BFLOAT)
    assert 'element_type="f16"' not in made.path.read_text()
    assert made.path.with_suffix(".bin").stat().st_size > 4 * (8 * 3 * 9 + 8 * 16)


def test_two_folders_give_equal_bytes_without_paths(tmp_path):
    source = small_source()
    found = []
    for name in ("one", "another_folder"):
        _, made = build(source, tmp_path / name, "openvino", FLOAT)
        found.append([(made.folder / file).read_bytes() for file in made.files])
    assert found[0] == found[1]
    assert str(tmp_path).encode() not in found[0][0]
    assert b"portable.onnx" not in found[0][0]


def test_an_operator_openvino_lacks_is_named(tmp_path):
    source = small_source()
    model = onnx.load_from_string(source.onnx)
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "Fold", "vendor"
    model.opset_import.append(onnx.helper.make_opsetid("vendor", 1))
    with pytest.raises(ValueError, match=r"No conversion rule found for operations: vendor\.Fold"):
        build(replace(source, onnx=model.SerializeToString()), tmp_path / "a", "openvino", FLOAT)


SILENT = """
import os, sys, threading
seen = []
def watch(event, arguments):
    if event.startswith(("socket.", "subprocess.", "os.system", "os.mkdir")):
        seen.append((event, str(arguments)))
    mode = arguments[1] if event == "open" else None
    if isinstance(mode, str) and set(mode) & set("wax+"):
        seen.append((event, str(arguments[0])))
from pathlib import Path
from edge.runtimes import import_runtime
from tests.core.convert.targets.portable import build, parity_of, small_source
folder = Path(sys.argv[1])
threads = threading.active_count()
sys.addaudithook(watch)
source = small_source()
converter, made = build(source, folder, "openvino", "x86_64-openvino-cpu")
assert parity_of(source, converter, made).passed
outside = [item for item in seen if str(folder) not in item[1]]
assert not outside, outside
assert threading.active_count() == threads, threading.enumerate()
assert "openvino" in sys.modules and not sys.modules.get("openvino_telemetry")
links = [os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd")
         if os.path.islink(f"/proc/self/fd/{name}")]
assert not [link for link in links if link.startswith("socket:")], links
import socket
socket.socket().close()
assert any(event.startswith("socket.") for event, _ in seen), "the watch does not see"
"""


def test_converting_reports_nothing_and_leaves_the_home_alone(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    # Without the variables by which a runtime keeps quiet in tests and in CI.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [sys.executable, "-c", SILENT, str(tmp_path / "build")],
        check=True,
        timeout=100,
        env=environment,
        cwd=Path(__file__).parents[4],
    )
    assert not list(home.rglob("*"))
