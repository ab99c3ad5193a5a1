import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edge.arrays import read_npz, write_npz
from edge.bundle import Bundle
from edge.pipeline import Pipeline
from edge.run import first_values, main

ROOT = Path(__file__).parents[2]
PHOTO = np.random.default_rng(2).random((2, 12, 10, 3), dtype=np.float32)


@pytest.fixture
def sample(tmp_path):
    path = tmp_path / "x.npz"
    path.write_bytes(write_npz({"photo": PHOTO}))
    return path


def test_a_sample_gives_the_pipelines_outputs(trusted, small_bundle, sample, tmp_path, capsys):
    arguments = [str(small_bundle), "--input", str(sample), "--threads", "1"]
    assert main([*arguments, "--output", str(tmp_path / "y.npz")]) == 0
    printed = capsys.readouterr().out
    for part in ("portable-onnx (verified)", "provider CPUExecutionProvider, float32", "2 x 4"):
        assert part in printed
    assert "passed on 8 rows; largest error: logits" in printed
    assert "ms, median of 5 runs here" in printed
    expected = Pipeline.open(Bundle.open(small_bundle), threads=1).predict({"photo": PHOTO})
    found = read_npz((tmp_path / "y.npz").read_bytes())
    assert set(found) == set(expected)
    for name, array in expected.items():
        assert np.array_equal(found[name], array)
        assert first_values(array) in printed


def test_the_self_test_runs_alone(trusted, small_bundle, capsys):
    assert main([str(small_bundle), "--self-test"]) == 0
    printed = capsys.readouterr().out
    assert "self-test passed on 8 rows" in printed
    assert "latency" not in printed


@pytest.mark.parametrize("state", ["emulated", "built"])
def test_a_target_that_was_not_verified_shows_no_latency(trusted, sample, tmp_path, capsys, state):
    path = trusted.make(tmp_path / "b.ebundle", targets=[trusted.target(state=state)])
    assert main([str(path), "--input", str(sample)]) == 0
    printed = capsys.readouterr().out
    assert f"latency   not stated: {state}" in printed
    assert " ms" not in printed


def test_each_refusal_is_one_line(trusted, small_bundle, sample, tmp_path, capsys):
    other = tmp_path / "other.npz"
    other.write_bytes(write_npz({"picture": PHOTO}))
    broken = tmp_path / "broken.ebundle"
    broken.write_bytes(small_bundle.read_bytes()[:-700])
    file, given = str(small_bundle), str(sample)
    for arguments, message in (
        ([str(tmp_path / "none"), "--self-test"], "does not exist"),
        ([str(broken), "--self-test"], str(broken)),
        ([file, "--input", str(tmp_path / "none.npz")], "none.npz"),
        ([file, "--input", str(other)], "input 'photo' is missing or unknown"),
        ([file, "--input", __file__], "npz is damaged"),
        ([file, "--input", given, "--device", "moon"], "device='moon' is not one of auto"),
        ([file, "--input", given, "--device", "jetson-orin-trt"], "is contract-only"),
        ([file, "--input", given, "--threads", "0"], "threads=0 is below 1"),
        ([file, "--self-test", "--trust", str(tmp_path)], "nobody is trusted yet"),
    ):
        assert main(arguments) == 1
        printed = capsys.readouterr().err
        assert message in printed
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [[], ["--input", "x.npz", "--self-test"], ["--self-test", "--output", "y.npz"]]
)
def test_either_a_sample_or_the_self_test(small_bundle, arguments, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([str(small_bundle), *arguments])
    assert stopped.value.code == 2
    assert "--self-test" in capsys.readouterr().err


def test_it_runs_where_torch_cannot_be_imported(bundles, small_bundle, sample):
    script = (
        "import runpy, sys; sys.modules['torch'] = None; sys.argv[0] = 'edge.run';"
        "runpy.run_module('edge.run', run_name='__main__', alter_sys=True)"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "DEEPKITS_HOME": str(bundles.home)}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script, str(small_bundle), "--input", str(sample)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert "score" in result.stdout
