import json
import re
from importlib.metadata import requires

import pytest
from cyclonedx.model.bom import Bom

from core.convert import sbom
from core.convert.sbom import bill, locked_wheels, requirements


def test_the_bill_names_model_and_wheels_and_is_the_same_each_time():
    text = bill("fraud", "1.2.3", "ab" * 32, locked_wheels(), 1_700_000_000)
    assert text == bill("fraud", "1.2.3", "ab" * 32, locked_wheels(), 1_700_000_000)
    assert text != bill("fraud", "1.2.3", "cd" * 32, locked_wheels(), 1_700_000_000)
    content = json.loads(text)
    assert content["metadata"]["timestamp"].startswith("2023-11-14T22:13:20")
    model = next(c for c in content["components"] if c["type"] == "machine-learning-model")
    assert model["hashes"] == [{"alg": "SHA-256", "content": "ab" * 32}]
    purls = {c["purl"] for c in content["components"] if c["type"] == "library"}
    assert {f"pkg:pypi/{wheel.name}@{wheel.version}" for wheel in locked_wheels()} == purls


def test_the_bill_is_read_back_by_the_library():
    content = json.loads(bill("fraud", "1.2.3", "ab" * 32, locked_wheels(), 1_700_000_000))
    assert (content["bomFormat"], content["specVersion"]) == ("CycloneDX", "1.6")
    read = Bom.from_json(data=content)
    assert {component.name for component in read.components} == {
        "fraud", *(wheel.name for wheel in locked_wheels())
    }  # fmt: skip
    assert read.validate()
    (bundle,) = (entry for entry in content["dependencies"] if entry["ref"] == "bundle")
    assert len(bundle["dependsOn"]) == len(content["components"])
    content["components"][0]["type"] = "libary"
    with pytest.raises(ValueError, match="libary"):
        Bom.from_json(data=content)


def test_the_wheels_are_all_that_the_runtime_needs_and_each_has_hashes():
    needed = {
        re.split(r"[ ;<>=!(]", line)[0].lower()
        for line in requires("onnxruntime")
        if "extra ==" not in line
    }
    assert {"onnxruntime", "numpy", *needed} == {wheel.name for wheel in locked_wheels()}
    texts = requirements(locked_wheels())
    assert set(texts) == {"x86_64", "aarch64"}
    for text in texts.values():
        assert text.count("==") == len(sbom.WHEELS)
        assert all("--hash=sha256:" in part for part in re.split(r"\n(?=\w)", text))


def test_a_lock_without_a_wheel_is_refused(monkeypatch):
    monkeypatch.setattr(sbom, "_lock_text", lambda: "numpy==2.0 \\\n    --hash=sha256:" + "a" * 64)
    with pytest.raises(ValueError, match="does not pin flatbuffers, onnxruntime"):
        locked_wheels()
