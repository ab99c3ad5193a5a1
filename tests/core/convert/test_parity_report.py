import html
import json
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from core.convert.export import ExportStep, ExportTrail
from core.convert.output_parity import compare_output
from core.convert.parity import Case, CaseParity, Parity
from core.convert.parity_plot import Bar, plot_bars, power
from core.convert.parity_report import Entry, write_reports
from edge.target import Target, Tolerance

HOSTILE = "<script>alert(1)</script>\x07&\"'漢"
TOLERANCE = Tolerance(1e-4, 1e-4, "the same operations in another order of summation")
TRAIL = ExportTrail(18, (ExportStep("dynamo", "froze axis batch at 2"), ExportStep("legacy")))
FACTS = {
    "backend": "onnxruntime",
    "runtime": "1.32.0",
    "provider": "CPUExecutionProvider",
    "precision": "float32",
}


def target(id_="x86_64-ort-cpu", state="verified", **changes):
    values = {
        "arch": "x86_64",
        "backend": "onnxruntime",
        "accelerator": "cpu",
        "precision": "float32",
        "model": "m.onnx",
        "tolerance": TOLERANCE,
    }
    return Target(id=id_, state=state, **(values | changes))


def parity(error=1e-6, outputs=("logits", "score"), axis="batch", problem=""):
    rng = np.random.default_rng(0)
    cases = []
    for seed, size in enumerate([1, 5, 8, 2, 3]):
        expected = rng.standard_normal((size, 4), dtype=np.float32)
        found = [
            compare_output(
                name, expected, (expected + error * (seed + 1) / (n + 1)).astype("f4"), TOLERANCE
            )
            for n, name in enumerate(outputs)
        ]
        cases.append(CaseParity(Case({axis: size}, seed), tuple(found)))
    if problem:
        cases[-1] = CaseParity(cases[-1].case, (), problem)
    return Parity("resnet", "torchvision", TOLERANCE, FACTS, tuple(cases), {axis: "1 to 8"})


RECIPE = {"argv": ["trtexec", "--onnx=model.onnx", "--fp16"]}
CONTRACT = Entry(
    target("jetson-orin-trt", "contract-only", arch="aarch64", recipe=RECIPE),
    notes=("NonMaxSuppression is not in the vendor's list of operators.",),
)
BUILT = Entry(target("x86_64-trt-rtx", "built"))
EMULATED = Entry(target("aarch64-ort-cpu", "emulated", arch="aarch64"), parity(3e-6))
ENTRIES = [Entry(target(), parity()), EMULATED, BUILT, CONTRACT]
FAILING = Entry(target("bad-target"), parity(1e-2, problem="ValueError: dimension 0 is 2, not 3"))


def write(folder, entries=tuple(ENTRIES), **values):
    paths = folder / "parity.json", folder / "parity.html"
    values = {"model": "resnet", "origin": "torchvision resnet", "trail": TRAIL} | values
    write_reports(*paths, list(entries), **values)
    return json.loads(paths[0].read_text()), paths[1].read_text(encoding="utf-8")


class Words(HTMLParser):
    """Text per section, and every tag and address."""

    def __init__(self, page):
        super().__init__()
        self.sections, self.tags, self.addresses, self.at = {}, set(), [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        named = dict(attrs)
        self.addresses += [named[key] for key in ("src", "href") if key in named]
        if tag == "section":
            self.at = named["id"]

    def handle_data(self, data):
        self.sections[self.at] = self.sections.get(self.at, "") + data


def test_both_reports_tell_state_runtime_tolerance_and_trail(tmp_path):
    content, page = write(tmp_path)
    assert content["schema"] == "deepkits.parity/1"
    assert content["passed"] is True
    assert content["export"]["steps"][0]["reason"] == "froze axis batch at 2"
    assert [entry["verdict"] for entry in content["targets"]] == [
        "verified",
        "emulated",
        "built",
        "contract-only",
    ]
    first = content["targets"][0]["parity"]
    assert first["facts"] == FACTS
    assert [case["sizes"]["batch"] for case in first["cases"]] == [1, 5, 8, 2, 3]
    assert set(first["cases"][0]["outputs"][0]) >= {
        "max_absolute",
        "mean_absolute",
        "p99_absolute",
        "cosine",
        "violation",
        "passed",
    }
    words = Words(page).sections
    assert "froze axis batch at 2" in words["source"]
    for word in ("CPUExecutionProvider", "1.32.0", "another order of summation", "batch=5"):
        assert word in words["target-1"]
    assert "emulator" in words["target-2"]


def test_a_target_that_never_ran_has_no_number(tmp_path):
    content, page = write(tmp_path)
    words = Words(page).sections
    for number, entry in ((3, content["targets"][2]), (4, content["targets"][3])):
        assert entry["parity"] is None
        assert not {"max_absolute", "latency_ms", "violation"} & set(json.dumps(entry).split('"'))
        text = words[f"target-{number}"]
        assert "error per shape" not in text
        assert "Runtime reported" not in text
        assert "known" in text
        assert " ms" not in text
    assert "trtexec" in words["target-4"]
    assert "NonMaxSuppression" in words["target-4"]


@pytest.mark.parametrize(("state", "has_parity"), [("verified", False), ("built", True)])
def test_a_state_without_its_proof_is_refused(state, has_parity):
    with pytest.raises(ValueError, match="correct its state"):
        Entry(target(state=state), parity() if has_parity else None)


def test_a_failure_is_told_with_its_shape(tmp_path):
    content, page = write(tmp_path, [ENTRIES[0], FAILING])
    assert content["passed"] is False
    assert content["targets"][1]["verdict"] == "failed"
    words = Words(page).sections
    assert "at batch=3: ValueError: dimension 0 is 2, not 3" in words["target-2"]
    assert "must not be used" in words["target-2"]
    assert "1 passed" in words[""]


def test_nothing_compared_is_neither_passed_nor_failed(tmp_path):
    assert write(tmp_path, [CONTRACT])[0]["passed"] is None


def test_equal_content_gives_equal_bytes_and_no_page_fetches(tmp_path):
    first, second = write(tmp_path), write(tmp_path)
    assert first == second
    page = Words(first[1])
    assert not page.tags & {"script", "link", "img", "iframe"}
    assert all(address.startswith("#") for address in page.addresses)
    assert "url(" not in first[1]


def test_hostile_names_stay_words(tmp_path):
    entries = [
        Entry(target(HOSTILE, options={"x": HOSTILE}), parity(outputs=(HOSTILE,), axis=HOSTILE)),
        Entry(target(recipe={HOSTILE: HOSTILE}, state="built"), notes=(HOSTILE,)),
    ]
    _, page = write(tmp_path, entries, model=HOSTILE, origin=HOSTILE, trail=None)
    assert "script" not in Words(page).tags
    assert "\x07" not in page
    assert html.escape("<script>alert(1)") in page


def test_the_plot_keeps_values_off_the_scale_inside():
    marks = [0.0, 1e-30, 0.5, 3e8, float("inf"), float("nan")]
    plot = plot_bars([Bar(f"batch={n}", (mark,), passed=mark <= 1) for n, mark in enumerate(marks)])
    assert "equal to the last bit" in plot
    assert plot.count("failed") == 3
    assert "nan" not in plot
    assert "inf" not in plot


def test_numbers_are_short():
    values = (0, 0.00999, 0.5, 99.96, 123.4, 1.25e-7, 4e5)
    words = ["0", "0.01", "0.5", "100", "123", "1.2 · 10⁻⁷", "4.0 · 10⁵"]
    assert [str(power(value)) for value in values] == words


@pytest.mark.skipif(
    shutil.which("chromium") is None, reason="chromium is not installed; run make system"
)
@pytest.mark.parametrize("width", [1280, pytest.param(420, marks=pytest.mark.slow)])
def test_a_browser_draws_the_report(tmp_path, width):
    write(tmp_path, [FAILING, *ENTRIES])
    picture = screenshot(tmp_path / "parity.html", tmp_path, width, 3600)
    assert picture.shape == (3600, width, 3)
    _, counts = np.unique(picture.reshape(-1, 3), axis=0, return_counts=True)
    assert len(counts) > 100
    assert counts.max() < 0.97 * counts.sum()
    for colour in ((0x12, 0x57, 0xC9), (0xC2, 0x35, 0x2B)):  # bars, and what failed
        assert (np.abs(picture.astype(int) - colour).sum(axis=2) < 12).sum() > 200


def screenshot(page, folder, width, height):
    command = "chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
    command += " --disable-background-networking --disable-component-update --disable-sync"
    command += f" --hide-scrollbars --user-data-dir={folder / 'profile'}"
    command += f" --window-size={width},{height} --screenshot={folder / 'page.png'}"
    subprocess.run([*command.split(), page.as_uri()], check=True, capture_output=True, timeout=90)
    return np.asarray(Image.open(folder / "page.png").convert("RGB"))
