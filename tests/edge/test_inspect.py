import json
import re
import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from edge.inspect import format_bytes, main

HOSTILE = "<script>alert(1)</script>\x1b[31m&\"'\x07 漢"


def output(largest, times):
    return {"name": "logits", "max_absolute": largest, "violation": times, "passed": times <= 1}


def parity(times):
    cases = [{"sizes": {"batch": n}, "outputs": [output(times * 1e-5, times)]} for n in (1, 3, 5)]
    return {"cases": cases, "passed": times <= 1}


REPORTS = {
    "reports/parity.json": {
        "schema": "deepkits.parity/1",
        "targets": [
            {"id": "portable-onnx", "verdict": "verified", "parity": parity(0.03)},
            {"id": "x86_64-openvino-cpu", "verdict": "verified", "parity": parity(0.21)},
            {"id": "x86_64-openvino-cpu-bf16", "verdict": "verified", "parity": parity(0.62)},
            {"id": "jetson-orin-trt", "verdict": "contract-only", "parity": None},
        ],
    },
    "reports/compression.json": {
        "method": "int8, per channel",
        "float_nodes": ["conv_1"],
        "table": [
            {"name": "before", "metric": 0.714, "bytes": 46800000, "latency_ms": {"1": 73.7}},
            {"name": "after", "metric": 0.712, "bytes": 11800000, "latency_ms": {"1": 24.1}},
        ],
    },
    "sbom.cdx.json": {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "components": [
            {
                "type": "library",
                "name": "numpy",
                "version": "2.4.6",
                "licenses": [{"license": {"id": "BSD-3-Clause"}}],
            },
            {"type": "machine-learning-model", "name": "small", "version": "1.2.0"},
            {"type": "library", "name": "onnxruntime", "licenses": [{"expression": "MIT"}]},
        ],
    },
    "provenance.json": {"data": {"sha256": "ab" * 32, "name": "handbook"}, "commit": "0123abcd"},
    "config/default.json": {"threshold": 0.5, "site": {"name": "lab"}},
}


def bundle_of(bundles, path, reports=REPORTS, **changes):
    files = {name: json.dumps(content).encode() for name, content in reports.items()}
    return bundles.make(path / "b.ebundle", files=files, **changes)


@pytest.fixture
def page(trusted, tmp_path):
    bundle = bundle_of(trusted, tmp_path)
    assert main([str(bundle), "--html", str(tmp_path / "page.html")]) == 0
    return tmp_path / "page.html"


def words(page):
    return " ".join(" ".join(ElementTree.parse(page).getroot().itertext()).split())


PARTS = (
    *("small 1.2.0", "A picture's class, in tests.", "rollback index", "needed 1 of 1, found 1"),
    *(
        "x86_64-openvino-cpu-bf16",
        "only the recipe exists",
        "trtexec --onnx=model.onnx --fp16",
        "batch x height x 10 x 3",
    ),
    *(
        "normalise",
        "softmax",
        "input/image",
        "int8, per channel",
        "11.3 MiB",
        "1: 24.1",
        "BSD-3-Clause",
    ),
    *("data.sha256", "site.name", "pipeline/pre.json", "6.2e-06", "0.62"),
)


def test_the_terminal_shows_every_part(trusted, tmp_path, capsys):
    assert main([str(bundle_of(trusted, tmp_path))]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    for part in PARTS:
        assert part in printed


def test_the_page_shows_every_part(page):
    for part in PARTS:
        assert part in words(page)


def test_the_page_is_well_formed_and_fetches_nothing(page):
    text = page.read_text()
    assert not re.findall(r"https?:|//[a-z]|<script|@import|<link|<iframe|<img|url\(", text)
    ids = [element.get("id") for element in ElementTree.parse(page).getroot().iter()]
    ids = [id_ for id_ in ids if id_]
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', text)) == set(ids)
    defined = set(re.findall(r"(--[\w-]+):", text))
    assert set(re.findall(r"var\((--[\w-]+)\)", text)) <= defined


def test_a_target_that_never_ran_shows_no_number(trusted, tmp_path, capsys):
    target = trusted.target(
        id="ascend-310p-om",
        backend="ascend",
        state="contract-only",
        recipe={"argv": ["atc", "--framework=5"]},
    )
    bundle = bundle_of(trusted, tmp_path, reports={}, targets=[target])
    assert main([str(bundle)]) == 0
    printed = capsys.readouterr().out
    assert "not compared" in printed
    assert not re.search(r"\d ?ms\b|latency", printed)


def test_hostile_texts_are_shown_and_do_nothing(trusted, tmp_path, capsys):
    reports = {
        "reports/parity.json": {"targets": [{"id": HOSTILE, "verdict": HOSTILE}]},
        "reports/compression.json": [{"method": HOSTILE, "table": [{HOSTILE: HOSTILE}]}],
        "sbom.cdx.json": {"components": [{"name": HOSTILE, "licenses": [{"expression": HOSTILE}]}]},
        "provenance.json": {HOSTILE: [HOSTILE]},
        "config/default.json": {HOSTILE: {HOSTILE: HOSTILE}},
    }
    manifest = {"license": HOSTILE, "intended_use": HOSTILE}
    bundle = bundle_of(trusted, tmp_path, reports=reports, manifest=manifest)
    page = tmp_path / "page.html"
    assert main([str(bundle), "--html", str(page)]) == 0
    assert "<script" not in page.read_text()
    assert words(page).count("<script>alert(1)</script>") >= 10
    assert main([str(bundle)]) == 0
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "\x07" not in printed
    assert "\\x1b[31m" in printed


@pytest.mark.parametrize(
    "content", [None, [], "text", 3, {"targets": 3}, {"components": {"a": 1}}, {"table": [[1]]}]
)
def test_reports_of_another_shape_do_not_stop_it(trusted, tmp_path, capsys, content):
    bundle = bundle_of(trusted, tmp_path, reports=dict.fromkeys(REPORTS, content))
    assert main([str(bundle)]) == 0
    assert "Bill of materials" in capsys.readouterr().out


def test_refusals_are_one_line(trusted, small_bundle, tmp_path, capsys):
    broken = tmp_path / "broken.ebundle"
    content = bytearray(small_bundle.read_bytes())
    content[content.index(b"normalise")] ^= 1
    broken.write_bytes(content)
    no_json = trusted.make(tmp_path / "c.ebundle", files={"provenance.json": b"{"})
    for bundle, message in (
        (tmp_path / "none", "does not exist"),
        (broken, "copy the bundle again"),
        (no_json, "provenance.json is not JSON"),
    ):
        assert main([str(bundle), "--html", str(tmp_path / "never.html")]) == 1
        printed = capsys.readouterr().err
        assert printed.startswith("error: ")
        assert printed.count("\n") == 1
        assert message in printed
    assert not (tmp_path / "never.html").exists()


def test_the_commands_of_a_recipe_are_listed_once(trusted, tmp_path, capsys):
    command = ["atc", "--model=a b.onnx"]
    recipe = {"builds": [{"argv": command, "soc": "310P"}, {"argv": command}], "axes": {"n": [1]}}
    target = trusted.target(id="ascend-310p-om", state="contract-only", recipe=recipe)
    assert main([str(bundle_of(trusted, tmp_path, reports={}, targets=[target]))]) == 0
    assert capsys.readouterr().out.count("atc '--model=a b.onnx'") == 1


def test_sizes_are_readable():
    assert [format_bytes(size) for size in (0, 1023, 1536, 5 << 20)] == [
        *("0 B", "1023 B", "1.5 KiB", "5.0 MiB")
    ]


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="chromium is not installed; run make system"
)
@pytest.mark.parametrize("width", [1280, 420])
def test_a_browser_draws_the_page(page, tmp_path, width):
    command = "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    command += " --disable-background-networking --disable-component-update --disable-sync"
    command += f" --hide-scrollbars --user-data-dir={tmp_path / 'profile'}"
    command += f" --window-size={width},4200 --screenshot={tmp_path / 'page.png'}"
    arguments = [*command.split(), page.as_uri()]
    subprocess.run(arguments, check=True, capture_output=True, timeout=90)
    picture = np.asarray(Image.open(tmp_path / "page.png").convert("RGB")).astype(np.int32)
    assert picture.shape == (4200, width, 3)
    red, green, blue = np.moveaxis(picture, 2, 0)
    shades, counts = np.unique(red << 16 | green << 8 | blue, return_counts=True)
    assert len(shades) > 100
    assert counts.max() < 0.97 * counts.sum()
    # The bars and badges are drawn in the page's own colours.
    for colour in ((0x12, 0x57, 0xC9), (0xE3, 0xF4, 0xEB)):
        assert (np.abs(picture - np.array(colour)).sum(axis=2) < 12).sum() > 80
