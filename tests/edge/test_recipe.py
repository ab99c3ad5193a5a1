"""A recipe carried out on a device: a fake vendor's tool stands at the process border."""

import json
import stat
import sys

import pytest

from edge import canonical
from edge.recipe import SCHEMA, cache_key, command_of, read_recipe, run_recipe

FACTS = {"chip": "sm_87", "tensorrt": "10.3.0"}
MODEL = b"not really a model"
FAKE = """#!{python}
import json, os, sys
from pathlib import Path
arguments = sys.argv[1:]
if "--fail" in arguments:
    print("cannot build"); sys.exit(3)
target = next(a.partition("=")[2] for a in arguments if a.startswith("--saveEngine="))
with open(os.environ["CALLS"], "a") as calls:
    print(json.dumps(arguments), file=calls)
if "--nothing" not in arguments:
    Path(target).write_bytes(b"engine")
"""


def recipe(**changes):
    import hashlib

    fields = {
        "schema": SCHEMA,
        "files": {"onnx": {"sha256": hashlib.sha256(MODEL).hexdigest(), "size": len(MODEL)}},
        "key": {"model_sha256": "0", "device": sorted(FACTS)},
        "builds": [build()],
    }
    return {**fields, **changes}


def build(*more, **changes):
    argv = ["trtexec", "--onnx={stem}.onnx", "--saveEngine={output}/m.engine", *more]
    fields = {"name": "ten", "argv": argv, "artifacts": ["m.engine"], "requires": {"TRT": "10"}}
    return {**fields, **changes}


@pytest.fixture
def device(tmp_path, monkeypatch):
    """A folder with a bundle and a fake trtexec on the PATH."""
    tools = tmp_path / "tools"
    tools.mkdir()
    tool = tools / "trtexec"
    tool.write_text(FAKE.format(python=sys.executable))
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tools))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    bundle = tmp_path / "bundle; touch hacked"  # a shell would stumble here
    bundle.mkdir()
    (bundle / "m.onnx").write_bytes(MODEL)

    def write(content):
        (bundle / "m.json").write_bytes(canonical.dumps(content))
        return bundle / "m.json"

    return write


def test_a_build_runs_once_for_each_device(device, tmp_path):
    path = device(recipe())
    engine = run_recipe(path, "ten", tmp_path / "engines", FACTS)
    assert engine.read_bytes() == b"engine"
    assert engine.parent.name == cache_key(recipe(), "ten", FACTS)[:16]
    (call,) = map(json.loads, (tmp_path / "calls").read_text().splitlines())
    assert call[0] == f"--onnx={path.parent}/m.onnx"
    assert call[1].startswith(f"--saveEngine={tmp_path}/engines/")
    assert run_recipe(path, "ten", tmp_path / "engines", FACTS) == engine
    assert len((tmp_path / "calls").read_text().splitlines()) == 1
    other = run_recipe(path, "ten", tmp_path / "engines", {**FACTS, "tensorrt": "10.7.0"})
    assert other != engine
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (recipe(builds=[build("--fail")]), "trtexec ended with 3: cannot build"),
        (recipe(builds=[build("--nothing")]), "trtexec wrote none of m.engine"),
        (recipe(builds=[build(name="eleven")]), "build='ten' is not one of eleven"),
        (recipe(builds=[build("--load={home}/x")]), "has other placeholders"),
        (recipe(builds=[build("--load={stem")]), "has other placeholders"),
        (recipe(builds=[build(argv=["sh", "-c", "true"])]), "starts none of atc, trtexec"),
        (recipe(builds=[build(argv=["/bin/trtexec"])]), "starts none of atc, trtexec"),
        (recipe(builds=[build(argv=["atc", "--x"])]), "'atc' is not on the PATH"),
        (recipe(builds=[build(artifacts=["../m.engine"])]), "is not plain"),
        (recipe(builds=[build(7)]), "is no text"),
        (recipe(schema="deepkits.build/2"), "is not of schema"),
        (recipe(files={"../onnx": {"sha256": "0", "size": 1}}), "is not plain"),
        (recipe(files={"other.onnx": {"sha256": "0", "size": 1}}), "m.other.onnx is missing"),
        (recipe(files={"onnx": {"sha256": "0", "size": 1}}), "the recipe says 0"),
    ],
)
def test_what_is_not_sound_builds_nothing(content, message, device, tmp_path):
    with pytest.raises(ValueError, match=message):
        run_recipe(device(content), "ten", tmp_path / "engines", FACTS)
    assert not list((tmp_path / "engines").rglob("m.engine"))


def test_a_failed_build_does_not_stand_in_the_way_of_the_next(device, tmp_path):
    failing = recipe(builds=[build("--nothing")])
    for _ in range(2):
        with pytest.raises(ValueError, match="wrote none"):
            run_recipe(device(failing), "ten", tmp_path / "engines", FACTS)
    assert len((tmp_path / "calls").read_text().splitlines()) == 2


def test_the_key_needs_every_fact():
    with pytest.raises(ValueError, match="are not the asked ones, chip, tensorrt"):
        cache_key(recipe(), "ten", {"chip": "sm_87"})


def test_a_linked_file_is_not_read(device, tmp_path):
    path = device(recipe())
    (tmp_path / "elsewhere").write_bytes(MODEL)
    (path.parent / "m.onnx").unlink()
    (path.parent / "m.onnx").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="missing beside"):
        read_recipe(path)


def test_a_recipe_in_another_spelling_is_refused(device):
    path = device(recipe())
    path.write_text(json.dumps(recipe(), indent=1))
    with pytest.raises(ValueError, match="canonical"):
        read_recipe(path)


def test_folders_with_braces_are_put_in_once(tmp_path):
    command = command_of(build(), tmp_path / "{output}" / "m.json", tmp_path)
    assert command[1] == f"--onnx={tmp_path}/{{output}}/m.onnx"
