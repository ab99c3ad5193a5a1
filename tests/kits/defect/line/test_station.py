import asyncio
import contextlib
import json
import os
from pathlib import Path

import numpy as np
import pytest

from core.schedule.pool import Gone
from kits.defect.line.ledger import Ledger, count_states, read, verify
from kits.defect.line.recipe import Rule, Zone
from kits.defect.line.station import StationConfig
from tests.kits.defect.line.lines import (
    BRIGHT,
    frames,
    good_frame,
    in_loop,
    running,
    save_onnx,
    with_line,
)


def ledger_of(station):
    return station.output / "ledger.sqlite"


@in_loop
async def test_good_parts_are_ok_and_scratched_ones_ng_with_the_defect_in_mm(tmp_path):
    async with running(tmp_path / "a", frames(4, bad=[1, 3])) as line:
        tasks = [line.trigger(camera) for _ in range(2) for camera in (0, 1)]
        verdicts = await asyncio.gather(*tasks)
    # Camera 0 sees frames 0 and 1, camera 1 frames 1 and 2.
    assert [verdict.state for verdict in verdicts] == ["OK", "NG", "NG", "OK"]
    assert [verdict.trigger for verdict in verdicts] == [1, 2, 3, 4]
    (defect,) = verdicts[1].defects
    assert defect.kind == "class 0"
    assert defect.breaks == "no rule tolerates it"
    assert defect.length_mm == pytest.approx(6.3, abs=0.4)
    assert defect.width_mm == pytest.approx(0.3, abs=0.12)
    assert (tmp_path / "a" / "out" / "defects" / defect.crop).stat().st_size > 100
    assert list(verdicts[1].times_ms) == ["captured", "triaged", "detected", "decided"]
    assert count_states(ledger_of(line)) == {"OK": 2, "NG": 2}
    verify(ledger_of(line))
    with contextlib.closing(read(ledger_of(line))) as connection:
        detail = json.loads(
            connection.execute("SELECT detail FROM parts WHERE trigger = 2").fetchone()[0]
        )
    assert detail["frame"] == "frame 1"
    assert detail["model"].startswith("detector@")
    assert detail["defects"][0]["kind"] == "class 0"
    assert not line.alarms_told


@in_loop
async def test_a_scratch_over_several_tiles_is_one_defect(tmp_path):
    shape = (640, 1280)
    scratched = with_line(good_frame(0, shape), (80, 300), (1200, 330))
    settings = {"width_px": 1280, "height_px": 640}
    async with running(tmp_path / "a", scratched[None], cameras=1, recipe=settings) as line:
        verdict = await line.trigger(0)
    assert verdict.num_tiles > 4
    (defect,) = verdict.defects
    assert defect.length_mm == pytest.approx(112, abs=1.5)


@in_loop
async def test_rules_tolerate_what_they_say_and_ignored_zones_are_not_looked_at(tmp_path):
    base = good_frame(5)
    short = with_line(base, (60, 60), (65, 60), BRIGHT)
    hidden = with_line(base, (300, 200), (360, 205))
    ignored = Zone("clamp", ((256.0, 128.0), (384.0, 128.0), (384.0, 256.0), (256.0, 256.0)), True)  # noqa: FBT003
    settings = {"rules": (Rule("class 1", max_length_mm=1.0),), "zones": (ignored,)}
    made = np.stack([short, hidden])
    async with running(tmp_path / "a", made, cameras=1, recipe=settings) as line:
        first, second = [await line.trigger(0) for _ in range(2)]
    assert first.state == "OK"
    assert [defect.breaks for defect in first.defects] == [""]
    assert second.state == "OK"
    assert second.num_cells == 0


@in_loop
async def test_an_audit_finds_what_the_triage_lets_pass(tmp_path):
    # Of 25 grey values: below the triage's 40, above the detector's 15.
    faint = with_line(good_frame(7), (100, 100), (160, 110), grey=103)
    detector = save_onnx(tmp_path / "sharp.onnx", level=15.0)
    settings = {"audit_share": 1.0}
    async with running(
        tmp_path / "a", faint[None], cameras=1, detector=detector, recipe=settings
    ) as line:
        verdict = await line.trigger(0)
        assert verdict.state == "NG"
        assert verdict.num_cells == 0
        assert verdict.num_audits == len(line.cameras[0].blocks)
        assert [defect.was_audited for defect in verdict.defects] == [True]
        assert line.audit.estimate() == (1.0, 1.0, 1.0)


@in_loop
async def test_triggers_go_on_where_the_last_run_ended(tmp_path):
    for start in (1, 3):
        async with running(tmp_path / "a", frames(2), cameras=1) as line:
            verdicts = [await line.trigger(0) for _ in range(2)]
        assert [verdict.trigger for verdict in verdicts] == [start, start + 1]
    verify(ledger_of(line))


@in_loop
async def test_another_detector_than_the_recipes_is_refused(tmp_path):
    settings = {"detector_sha256": "0" * 64}
    with pytest.raises(ValueError, match="recipe 'plate' is for 000000000000"):
        async with running(tmp_path / "a", frames(1), recipe=settings):
            pass


@in_loop
async def test_a_detector_that_is_none_is_refused_before_the_line_starts(tmp_path):
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ValueError, match="not an ONNX file"):
        async with running(tmp_path / "a", frames(1), detector=tmp_path / "x.onnx"):
            pass


@in_loop
async def test_a_line_that_cannot_start_leaves_nothing_behind(tmp_path):
    before = children()
    station = StationConfig(triage="tests.kits.defect.line.lines:nothing", reserve_mib=1)
    with pytest.raises(Gone, match="triage-0"):
        async with running(tmp_path / "a", frames(1), station=station):
            pass
    assert children() == before
    # Its ledger is free for the next one.
    Ledger(tmp_path / "a" / "out" / "ledger.sqlite").close()


def children():
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())
