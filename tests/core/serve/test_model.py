import re

import numpy as np
import pytest

from core.serve.command import build_parser, read_config, to_arguments
from core.serve.config import ModelFile, ServeConfig
from core.serve.errors import BadRequest, TooLarge
from core.serve.model import (
    Content,
    Description,
    choose_version,
    open_inline,
    parse_model,
    read_content,
)
from edge.bundle import write_bundle
from edge.keys import new_key
from edge.manifest import Tensor
from tests.core.serve.onnx_files import write, write_nan, write_times
from tests.edge import conftest as small


def float32(*shape):
    return np.zeros(shape, np.float32)


def write_small_bundle(path, home, version):
    model, target = small.small_model(), small.small_target()
    header = {
        "name": "small",
        "version": version,
        "channel": "stable",
        "created": 1_700_000_000,
        "expires": None,
        "rollback_index": 3,
        "min_runtime": "0.1.0",
        "requires": {"memory_mib": 64, "disk_mib": 1},
        "model": "model/model.onnx",
        "targets": [target.id],
        "license": "Apache-2.0",
        "intended_use": "A picture's class, in tests.",
        "inputs": [{"name": "image", "dtype": "float32", "shape": ["batch", 3, 8, 8]}],
        "outputs": [{"name": "logits", "dtype": "float32", "shape": ["batch", 4]}],
    }
    files = {
        "model/model.onnx": model,
        "selftest/vectors.npz": small.write_npz(small.vectors(model)),
        f"targets/{target.id}.json": small.json.dumps(target.to_json()).encode(),
    }
    write_bundle(path, header, files, {}, [new_key(home)])


@pytest.mark.parametrize(
    ("text", "name", "version"),
    [
        ("{}/a.onnx", "a", ""),
        ("mine={}/a.onnx", "mine", ""),
        ("mine@7={}/a.onnx", "mine", "7"),
        ("{}/b c=d.onnx", "b-c-d", ""),
    ],
)
def test_a_model_is_named_by_its_file_or_by_its_user(tmp_path, text, name, version):
    for file in ("a.onnx", "b c=d.onnx"):
        (tmp_path / file).touch()
    found = parse_model(text.format(tmp_path))
    assert (found.name, found.version, found.path.parent) == (name, version, tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nowhere.onnx", "nowhere.onnx does not exist"),
        ("a/b={}/a.onnx", "name='a/b'"),
        ("a@1/2={}/a.onnx", "version='1/2'"),
    ],
)
def test_a_name_that_cannot_stand_in_a_url_is_refused(tmp_path, text, message):
    (tmp_path / "a.onnx").touch()
    with pytest.raises(ValueError, match=re.escape(message)):
        parse_model(text.format(tmp_path))


def test_a_configuration_survives_its_way_through_the_command_line(tmp_path):
    file, tokens = tmp_path / "a.onnx", tmp_path / "tokens"
    file.touch()
    tokens.touch()
    config = ServeConfig(
        models=[ModelFile("m", file, "3"), ModelFile("n", file)],
        host="0.0.0.0",
        port=0,
        grpc_port=9,
        tokens=tokens,
        isolation="process",
        auto_scale=True,
        access_log=False,
        slo_ms=12.5,
        max_workers=7,
    )
    assert read_config(build_parser().parse_args(to_arguments(config))) == config


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--tokens=none.txt"], "tokens='none.txt' does not exist"),
        (["--host=0.0.0.0"], "host='0.0.0.0' can be reached by others"),
        (["--min-workers=3", "--max-workers=2"], "max_workers=2 is below min_workers=3"),
    ],
)
def test_a_wrong_setting_is_told(tmp_path, flags, message):
    file = tmp_path / "a.onnx"
    file.touch()
    with pytest.raises(ValueError, match=re.escape(message)):
        read_config(build_parser().parse_args([str(file), *flags]))


def test_an_unknown_flag_is_told_in_one_line(capsys):
    with pytest.raises(SystemExit) as stopped:
        build_parser().parse_args(["a.onnx", "--moon"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "--moon" in error


def test_help_names_every_setting_with_its_comment():
    text = build_parser(with_help=True).format_help()
    assert "--slo-ms" in text
    assert "What 99 % of answers should take" in text
    assert "--control" not in text


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.onnx", None, "m.onnx does not exist"),
        ("m.pt", b"", "neither an .onnx nor an .ebundle"),
        ("m.onnx", b"\x00nothing", "m.onnx"),
        ("m.ebundle", b"nothing", "m.ebundle"),
    ],
)
def test_what_is_no_model_is_refused_by_name(tmp_path, monkeypatch, name, content, message):
    monkeypatch.setenv("DEEPKITS_HOME", str(tmp_path / "home"))
    new_key(tmp_path / "home")
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_content(file)


def test_a_bundle_brings_its_version(tmp_path, monkeypatch):
    monkeypatch.setenv("DEEPKITS_HOME", str(tmp_path / "home"))
    write_small_bundle(tmp_path / "m.ebundle", tmp_path / "home", "1.2.0")
    content = read_content(tmp_path / "m.ebundle")
    assert choose_version(content, "", set()) == "1.2.0"
    # Another content that says it is the same version.
    assert choose_version(content, "", {"1.2.0"}) == f"1.2.0-{content.sha256[:8]}"
    assert choose_version(content, "mine", {"1.2.0"}) == "mine"


@pytest.mark.parametrize(("taken", "version"), [(set(), "1"), ({"1", "7"}, "8"), ({"a"}, "1")])
def test_onnx_files_are_numbered(tmp_path, taken, version):
    content = Content(tmp_path, "0" * 64, None)
    assert choose_version(content, "", taken) == version


def description(max_batch=4):
    inputs = (Tensor("x", "float32", ("batch", 3)), Tensor("z", "int64", ("batch",)))
    return Description("onnx-onnxruntime", inputs, (), max_batch)


def test_a_request_has_the_rows_of_its_inputs():
    x, z = float32(2, 3), np.zeros(2, np.int64)
    assert description().check({"x": x, "z": z}) == 2
    assert description(max_batch=1).check({"x": x, "z": z}) == 1


@pytest.mark.parametrize(
    ("arrays", "kind", "message"),
    [
        ({"x": float32(2, 3)}, BadRequest, "input 'z' is missing or unknown"),
        (
            {"x": float32(2, 4), "z": np.zeros(2, np.int64)},
            BadRequest,
            "input 'x' has shape=(2, 4)",
        ),
        ({"x": float32(2, 3), "z": np.zeros(2)}, BadRequest, "input 'z' has dtype=float64"),
        ({"x": float32(0, 3), "z": np.zeros(0, np.int64)}, BadRequest, "input 'x' has 0 rows"),
        ({"x": float32(5, 3), "z": np.zeros(5, np.int64)}, TooLarge, "input 'x' has 5 rows"),
    ],
)
def test_what_the_model_does_not_take_is_refused_by_name(arrays, kind, message):
    with pytest.raises(kind, match=re.escape(message)):
        description().check(arrays)


def test_a_fast_model_runs_in_the_server_unless_told_otherwise(tmp_path):
    content = read_content(write_times(tmp_path / "m.onnx", 2.0))
    opened = open_inline(content, ServeConfig())
    assert opened is not None
    assert opened[1]["max_batch"] == 32
    assert open_inline(content, ServeConfig(isolation="process")) is None


def test_a_slow_model_belongs_into_workers_unless_told_otherwise(tmp_path):
    width = 256
    file = write(
        tmp_path / "m.onnx",
        [small.helper.make_node("MatMul", ["x", "w"], ["y"])],
        [("x", 1, ["batch", 2 * width, width])],
        [("y", 1, ["batch", 2 * width, width])],
        [("w", np.zeros((width, width), np.float32))],
    )
    assert open_inline(read_content(file), ServeConfig(max_batch=1)) is None
    assert open_inline(read_content(file), ServeConfig(max_batch=1, isolation="inline"))


def test_a_model_without_a_number_fails_its_self_test(tmp_path):
    content = read_content(write_nan(tmp_path / "m.onnx"))
    with pytest.raises(ValueError, match="self-test"):
        open_inline(content, ServeConfig())
