import copy
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.manifest import RUNTIME, SCHEMA, Manifest, canonical_manifest, key_id, runtime_number

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"
PUBLIC = bytes.fromhex("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")


@pytest.fixture
def content(manifest, files):
    entry = {"sha256": "0" * 64, "size": 1, "role": "model"}
    return {
        **manifest,
        "schema": SCHEMA,
        "signers": {key_id(PUBLIC): PUBLIC.hex()},
        "files": dict.fromkeys(files, entry),
    }


def test_a_manifest_is_read(content):
    manifest = Manifest.from_json(content)
    assert manifest.inputs[0].shape == ("batch", 4)
    assert manifest.targets == ("x86_64-ort-cpu", "aarch64-ort-cpu", "portable-onnx")
    assert manifest.files["model/model.onnx"].size == 1
    assert Manifest.from_json({**content, "expires": None}).expires is None
    assert canonical_manifest(content).startswith(b'{"channel":"stable"')


def test_the_runtime_is_the_project():
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    assert project["version"] == RUNTIME


def test_versions_are_compared_as_numbers():
    assert runtime_number("1.10.0") > runtime_number("1.9.9") > runtime_number("0.99.99")


@pytest.mark.parametrize("schema", ["deepkits.bundle/2", "", None, 1])
def test_another_schema_is_told_before_anything_else(content, schema):
    with pytest.raises(ValueError, match=r"manifest.schema=.* is not deepkits.bundle/1; install a"):
        Manifest.from_json({"schema": schema, "new": "keys"})


@pytest.mark.parametrize("content", [None, [], "x", 3])
def test_what_is_no_object_is_refused(content):
    with pytest.raises(ValueError, match=r"manifest.schema=None"):
        Manifest.from_json(content)


ENTRY = {"sha256": "0" * 64, "size": 1, "role": "model"}
TENSOR = {"name": "x", "dtype": "float32", "shape": [1]}


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("name", "../x", r"manifest.name='../x' does not look like"),
        ("name", "", r"manifest.name='' is not a filled text"),
        ("name", "a\n", r"manifest.name="),
        ("name", "x" * 101, r"manifest.name="),
        ("version", 1, r"manifest.version=1 is not a filled text"),
        ("channel", None, r"manifest.channel=None"),
        ("created", -1, r"manifest.created=-1 is not a whole number"),
        ("created", True, r"manifest.created=True is not a whole number"),
        ("expires", "never", r"manifest.expires='never' is not a whole number"),
        ("expires", 10**13, r"manifest.expires=10+ is after the year 9999"),
        ("rollback_index", None, r"manifest.rollback_index=None is not a whole number"),
        ("min_runtime", "1.2", r"manifest.min_runtime='1.2' does not look like"),
        ("min_runtime", "1.2.x", r"manifest.min_runtime="),
        ("min_runtime", "01.2.3", r"manifest.min_runtime="),
        ("requires", {"memory_mib": 1}, r"manifest.requires has missing or unknown keys: disk_mib"),
        ("requires", {"memory_mib": 1, "disk_mib": -1}, r"manifest.requires.disk_mib=-1"),
        ("requires", None, r"manifest.requires=None is not a filled object"),
        ("signers", {}, r"manifest.signers=\{\} is not a filled object"),
        ("signers", {"00": PUBLIC.hex()}, r"manifest.signers.00 is the id of another key"),
        ("signers", {"00": "00" * 32}, r"manifest.signers.00=0+ is no ed25519 public key"),
        ("signers", {"00": PUBLIC.hex().upper()}, r"manifest.signers.00='D75A.* look like"),
        ("model", "other", r"manifest.model='other' is not in manifest.files"),
        ("inputs", [], r"manifest.inputs=\[\] is not a filled list"),
        ("inputs", [{**TENSOR, "dtype": "object"}], r"manifest.inputs\[0\].dtype='object'"),
        ("inputs", [{**TENSOR, "shape": [-1]}], r"manifest.inputs\[0\].shape\[0\]=-1"),
        ("inputs", [{**TENSOR, "extra": 1}], r"manifest.inputs\[0\] has missing .* extra"),
        ("inputs", [TENSOR, TENSOR], r"manifest.inputs has a name twice"),
        ("outputs", {}, r"manifest.outputs=\{\} is not a filled list"),
        ("targets", [], r"manifest.targets=\[\]"),
        ("targets", ["../x"], r"manifest.targets\[0\]="),
        ("targets", ["portable-onnx"], r"differ in .*targets/x86_64-ort-cpu.json"),
        ("license", "", r"manifest.license=''"),
        ("intended_use", [], r"manifest.intended_use=\[\]"),
        ("files", {}, r"manifest.files=\{\} is not a filled object"),
        ("files", {"../x": ENTRY}, r"climbs with"),
        ("files", {"/x": ENTRY}, r"is absolute"),
        ("files", {"manifest.json": ENTRY}, r"manifest.files.manifest.json may not be listed"),
        ("files", {"signatures.json": ENTRY}, r"may not be listed"),
        ("files", {"x": {**ENTRY, "size": 1.5}}, r"manifest.files.x.size=1.5"),
        ("files", {"x": {**ENTRY, "sha256": "0" * 63}}, r"manifest.files.x.sha256="),
        ("files", {"x": {**ENTRY, "role": "A B"}}, r"manifest.files.x.role='A B'"),
        ("files", {"x": {"size": 1}}, r"manifest.files.x has missing or unknown keys"),
        ("files", {"x": None}, r"manifest.files.x=None is not a filled object"),
    ],
)
def test_a_wrong_value_is_refused_by_name(content, key, value, words):
    with pytest.raises(ValueError, match=words):
        Manifest.from_json({**content, key: value})


def test_missing_and_unknown_keys_are_named(content):
    with pytest.raises(ValueError, match=r"missing or unknown keys: fallback; it has schema, name"):
        Manifest.from_json({**content, "fallback": []})
    for key in set(content) - {"schema"}:
        with pytest.raises(ValueError, match=rf"missing or unknown keys: {key};"):
            Manifest.from_json({name: value for name, value in content.items() if name != key})


def test_a_target_twice_is_refused(content):
    with pytest.raises(ValueError, match=r"manifest\.targets has a name twice"):
        Manifest.from_json({**content, "targets": [*content["targets"], "portable-onnx"]})


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.just("model/model.onnx"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_any_value_in_any_place_is_taken_or_refused_with_a_message(content, data):
    """No other error than ValueError comes out, whatever a signer may have signed."""
    content = copy.deepcopy(content)
    place = content
    while True:
        keys = sorted(place) if isinstance(place, dict) else range(len(place))
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(place[key], (dict, list)) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(ANY_JSON)
    try:
        manifest = Manifest.from_json(content)
    except ValueError:
        return
    assert manifest.schema == SCHEMA
