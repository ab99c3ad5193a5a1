import functools
import json

import av
import numpy as np
import pytest
from PIL import Image

from edge.keys import new_key
from kits.defect.line import run
from kits.defect.line.config import InspectConfig
from kits.defect.line.ledger import count_states
from kits.defect.line.recipe import Recipe, Rule, write_recipe
from kits.defect.line.station import StationConfig
from tests.kits.defect.line.lines import (
    FAKE_TRIAGE,
    HEIGHT,
    WIDTH,
    frames,
    good_frame,
    recipe,
    save_bundle,
    save_onnx,
)


@pytest.fixture
def fake_triage(monkeypatch):
    fake = functools.partial(StationConfig, triage=FAKE_TRIAGE, seed=0, reserve_mib=1)
    monkeypatch.setattr(run, "StationConfig", fake)


@pytest.fixture
def settings(tmp_path, fake_triage):
    return {
        "recipe": str(recipe(tmp_path / "plate.recipe")),
        "run": str(save_onnx(tmp_path / "lines.onnx")),
        "output": str(tmp_path / "out"),
        "workers": 1,
    }


def save_images(folder, made):
    folder.mkdir(parents=True)
    for number, frame in enumerate(made):
        Image.fromarray(frame).save(folder / f"{number:03d}.png")
    return folder


def verdicts(output):
    lines = (output / "verdicts.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_folders_are_inspected_image_by_image(tmp_path, settings, capsys):
    save_images(tmp_path / "parts" / "left", frames(5, bad=[1]))
    save_images(tmp_path / "parts" / "right", frames(3, bad=[0, 2]))
    status = run.inspect_source(InspectConfig(source=str(tmp_path / "parts"), **settings))
    assert status == 0
    output = tmp_path / "out"
    found = {(one["camera"], one["frame"]): one["state"] for one in verdicts(output)}
    bad = {("left", "001.png"), ("right", "000.png"), ("right", "002.png")}
    assert {place for place, state in found.items() if state == "NG"} == bad
    assert len(found) == 8
    assert capsys.readouterr().out.startswith("8 parts: 5 OK, 3 NG, 0 UNINSPECTED\n")
    summary = json.loads((output / "summary.json").read_text())
    assert summary["states"] == {"OK": 5, "NG": 3}
    assert summary["ledger_entries"] == 2 * 8 + 2
    assert list(summary["stages_ms"]) == ["captured", "triaged", "detected", "decided"]
    page = (output / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3 + 2
    assert "<script" not in page
    assert "http" not in page
    assert len(list((output / "defects").glob("*.png"))) == 3


def test_a_part_that_was_not_inspected_is_told_by_the_exit_status(tmp_path, settings, capsys):
    made = [*frames(2), good_frame(3)[:-5]]
    save_images(tmp_path / "parts", made)
    (tmp_path / "parts" / "003.png").write_bytes(b"no image")
    status = run.inspect_source(InspectConfig(source=str(tmp_path / "parts"), **settings))
    assert status == 3
    states = [one["state"] for one in verdicts(tmp_path / "out")]
    assert states == ["OK", "OK", "UNINSPECTED", "UNINSPECTED"]
    page = (tmp_path / "out" / "report.html").read_text()
    assert "003.png cannot be read" in page
    assert "exit status 3" in page
    assert "exit status 3" in capsys.readouterr().err
    count_states(tmp_path / "out" / "ledger.sqlite")


def test_a_video_is_inspected_frame_by_frame_by_a_signed_bundle(tmp_path, settings, monkeypatch):
    path = tmp_path / "line.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "gray"
        for frame in frames(4, bad=[2]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "gray")))
        container.mux(stream.encode())
    monkeypatch.setenv("DEEPKITS_HOME", str(tmp_path / "home"))
    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    save_bundle(export / "defect.ebundle", new_key(tmp_path / "home"))
    settings["run"] = str(tmp_path / "run")
    assert run.inspect_source(InspectConfig(source=str(path), **settings)) == 0
    found = verdicts(tmp_path / "out")
    assert [one["state"] for one in found] == ["OK", "OK", "NG", "OK"]
    assert found[2]["frame"] == "line.mkv, frame 2"
    assert [defect["kind"] for defect in found[2]["defects"]] == ["scratch"]


def test_the_simulator_shows_the_recipes_own_part(tmp_path, settings):
    template = np.full((HEIGHT, WIDTH), 128, np.uint8)
    arrays = {"template": template, "low": template - 3, "high": template + 3}
    learned = Recipe(
        "plate", WIDTH, HEIGHT, 0.1, 0.3, arrays=arrays, tile_px=192, halo_px=32,
        rules=(Rule("class 1"),), deadline_ms=2000.0,
    )  # fmt: skip
    write_recipe(learned, tmp_path / "learned.zip")
    settings |= {"recipe": str(tmp_path / "learned.zip"), "cameras": 2, "parts": 16, "fps": 20.0}
    assert run.inspect_source(InspectConfig(source="simulator", **settings)) in (0, 3)
    found = verdicts(tmp_path / "out")
    assert len(found) == 32
    states = {(one["camera"], one["frame"]): one["state"] for one in found}
    seen = {one["state"] for one in found}
    assert {"OK", "NG"} <= seen
    # Both cameras see the same frames.
    for number in range(16):
        both = {states[f"camera-{camera}", f"frame {number}"] for camera in (1, 2)}
        assert len(both - {"UNINSPECTED"}) <= 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "nowhere"}, "is no folder, no video"),
        ({"source": "simulator"}, "has no 'high'; learn it from images"),
        ({"source": "empty"}, "holds no image"),
        ({"run": "run"}, "has 0 bundles; export it"),
        ({"recipe": "lines.onnx"}, "is no usable recipe"),
    ],
)
def test_mistakes_are_told_before_anything_starts(tmp_path, settings, changes, words):
    save_images(tmp_path / "parts", frames(1))
    (tmp_path / "empty").mkdir()
    (tmp_path / "run").mkdir()
    told = {"source": str(tmp_path / "parts"), **settings}
    for name, value in changes.items():
        told[name] = value if value in ("nowhere", "simulator") else str(tmp_path / value)
    with pytest.raises((ValueError, OSError), match=words):
        run.inspect_source(InspectConfig(**told))


@pytest.mark.parametrize(
    ("name", "value"),
    [("workers", 0), ("fps", 0.0), ("ledger_sync", "never"), ("audit_share", 1.5), ("parts", 0)],
)
def test_settings_are_checked(name, value):
    with pytest.raises(ValueError, match=f"{name}="):
        InspectConfig(source="a", recipe="b", run="c", **{name: value})
