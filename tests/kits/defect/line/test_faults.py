"""What goes wrong on a line: every trigger has a verdict, and the ledger says what happened."""

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from collections import Counter

import numpy as np
import pytest

from kits.defect.line.detect import DetectorConfig
from kits.defect.line.inspection import CALM_S
from kits.defect.line.ledger import Ledger, count_states, read, verify
from kits.defect.line.station import StationConfig
from tests.kits.defect.line.lines import (
    FAKE_TRIAGE,
    ROOT,
    frames,
    in_loop,
    running,
    save_onnx,
    until,
)

# On a machine that has nothing else to do; there a whole line starts in half of it.
RECOVERY_S = 2.0


class Load:
    """Triggers at a steady pace, as a line gives them whatever becomes of them."""

    def __init__(self, line, fps):
        self.line, self.fps = line, fps
        self.tasks = []
        self.is_over = False

    def stop(self):
        self.is_over = True

    async def run(self, seconds):
        start, count = time.monotonic(), 0
        while not self.is_over and (due := start + count / self.fps) < start + seconds:
            await asyncio.sleep(due - time.monotonic())
            for camera in range(len(self.line.cameras)):
                self.tasks.append((due, self.line.trigger(camera, due)))
            count += 1

    async def verdicts(self):
        return [(due, await task) for due, task in self.tasks]


def accounted(line, verdicts):
    """Each trigger has one verdict, in the ledger as it was told."""
    path = line.output / "ledger.sqlite"
    told = Counter(verdict.state for _, verdict in verdicts)
    assert count_states(path) == dict(told)
    assert set(told) <= {"OK", "NG", "UNINSPECTED"}
    assert [verdict.trigger for _, verdict in verdicts] == list(range(1, len(verdicts) + 1))
    assert len(line.verdicts) == len(verdicts)
    verify(path)
    return told


def reasons(line, state="UNINSPECTED"):
    with contextlib.closing(read(line.output / "ledger.sqlite")) as connection:
        rows = connection.execute("SELECT reason FROM entries WHERE state = ?", (state,))
        return [reason for (reason,) in rows]


@in_loop
async def test_killed_processes_are_replaced_and_no_part_is_without_a_verdict(tmp_path):
    begin = time.monotonic()
    async with running(tmp_path / "a", frames(8, bad=[3]), recipe={"deadline_ms": 400.0}) as line:
        allowed_s = max(RECOVERY_S, 1.5 * (time.monotonic() - begin))
        load = Load(line, 20)
        names = ["detector-0", "triage-0", "camera camera-0"]
        assert set(names) <= set(line.processes)
        killed = {}
        working = asyncio.create_task(load.run(1000.0))
        for name in names:
            await asyncio.sleep(0.4)
            pid = line.processes[name]
            killed[name] = time.monotonic()
            os.kill(pid, signal.SIGKILL)
            await until(lambda pid=pid, name=name: line.processes.get(name, pid) != pid)
            await asyncio.sleep(0.3)
        await asyncio.sleep(CALM_S)
        load.stop()
        await working
        verdicts = await load.verdicts()
    accounted(line, verdicts)
    for name, at in killed.items():
        # The first camera needs each of them.
        first = [(due, v.state) for due, v in verdicts if due > at and v.camera == "camera-0"]
        missed = [due for due, state in first if state == "UNINSPECTED"]
        well = [due for due, state in first if state != "UNINSPECTED" and due > missed[0]]
        assert well[0] - at < allowed_s, name
    alarms = reasons(line, "ALARM")
    for name in names:
        assert any(name in alarm and "SIGKILL" in alarm for alarm in alarms), alarms


@pytest.mark.slow  # shares of a load in real time: a busy machine changes them
@in_loop
async def test_a_camera_that_stalls_and_comes_back_costs_its_own_parts_alone(tmp_path):
    async with running(
        tmp_path / "a",
        frames(8),
        recipe={"deadline_ms": 300.0},
        source={"stall_at": 5, "stall_s": 1.2},
    ) as line:
        # The second camera does not stall.
        load = Load(line, 20)
        await load.run(3.0)
        verdicts = await load.verdicts()
        assert not line.alarms.active
    told = accounted(line, verdicts)
    by_camera = Counter((verdict.camera, verdict.state) for _, verdict in verdicts)
    assert by_camera["camera-0", "UNINSPECTED"] > 10
    assert by_camera["camera-0", "OK"] > 10
    assert by_camera["camera-1", "UNINSPECTED"] < 0.2 * by_camera["camera-1", "OK"]
    assert told["UNINSPECTED"] < 0.5 * len(verdicts)
    texts = " ".join(reasons(line))
    assert "were over while its image was waited for" in texts
    assert "no image: 4 are waited for already" in texts
    alarms = [(a.kind, a.is_on) for a in line.alarms_told if a.subject == "camera-0"]
    assert {("camera", True), ("camera", False)} <= set(alarms)
    assert alarms[-1] == ("uninspected", False)
    states = [verdict.state for _, verdict in verdicts[-10:]]
    assert states == ["OK"] * 10


@in_loop
async def test_a_camera_that_hangs_for_long_is_replaced(tmp_path):
    config = StationConfig(
        triage=FAKE_TRIAGE,
        detector=DetectorConfig(workers=1, pin=False),
        camera_hang_s=0.5,
        reserve_mib=1,
    )
    async with running(
        tmp_path / "a",
        frames(8),
        cameras=1,
        recipe={"deadline_ms": 300.0},
        source={"stall_at": 2, "stall_s": 1e6},
        station=config,
    ) as line:
        load = Load(line, 10)
        await load.run(3.0)
        verdicts = await load.verdicts()
    accounted(line, verdicts)
    assert [verdict.state for _, verdict in verdicts[-8:]] == ["OK"] * 8
    assert any("it has not answered for" in alarm for alarm in reasons(line, "ALARM"))


@in_loop
async def test_changed_and_wrong_sized_frames_are_uninspected(tmp_path):
    async with running(
        tmp_path / "a", frames(8), cameras=1, source={"wrong_size_every": 3}
    ) as line:
        ring = line.cameras[0].ring
        look = line.cameras[0].triage.ask
        count = 0

        def look_at_a_changed_frame(ask, on_answer):
            nonlocal count
            count += 1
            if count == 2:
                # A bit falls over between the camera and the triage.
                ring._pixels(int(ask[1]))[1000] ^= 4
            return look(ask, on_answer)

        line.cameras[0].triage.ask = look_at_a_changed_frame
        verdicts = [(0, await line.trigger(0)) for _ in range(6)]
    told = accounted(line, verdicts)
    assert told == {"OK": 3, "UNINSPECTED": 3}
    assert [verdict.state[:2] for _, verdict in verdicts] == ["OK", "UN", "UN", "OK", "OK", "UN"]
    assert "it changed in memory" in verdicts[1][1].reason
    assert "a frame of 255 x 384 uint8 came, the recipe is for 256 x 384" in verdicts[2][1].reason


@pytest.mark.slow  # shares of a load in real time: a busy machine changes them
@in_loop
async def test_overload_is_told_and_what_is_told_in_time_is_right(tmp_path):
    # Some 20 ms a tile, one worker: 50 parts a second at most.
    slow = save_onnx(tmp_path / "slow.onnx", wait=150)
    made = frames(8, bad=range(8))
    async with running(tmp_path / "a", made, detector=slow, recipe={"deadline_ms": 250.0}) as line:
        calm = [await line.trigger(0) for _ in range(10)]
        seconds = float(np.median([v.times_ms["decided"] for v in calm])) / 1e3
        load = Load(line, 5 / seconds / 2)
        await load.run(2.0)
        verdicts = [(0, verdict) for verdict in calm] + await load.verdicts()
        await asyncio.sleep(CALM_S)
        rest = [(0, await line.trigger(camera)) for camera in (0, 1, 0)]
        assert not line.alarms.active
    told = accounted(line, verdicts + rest)
    # A part alone takes longer than its share of a busy line: five times that is not all of five.
    assert told["UNINSPECTED"] > 0.2 * len(load.tasks)
    assert told["NG"] > 20
    assert "OK" not in told
    assert {verdict.state for _, verdict in rest} == {"NG"}
    late = [v for _, v in verdicts if v.state == "NG" and v.times_ms["decided"] > 255]
    assert not late
    by_camera = Counter(v.camera for _, v in verdicts[10:] if v.state == "NG")
    assert min(by_camera.values()) > 0.6 * max(by_camera.values())


@pytest.mark.slow  # shares of a load in real time: a busy machine changes them
@in_loop
async def test_the_detector_is_replaced_under_load_without_a_part_missed(tmp_path):
    other = save_onnx(tmp_path / "other.onnx", level=31.0)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    async with running(tmp_path / "a", frames(8, bad=[2])) as line:
        load = Load(line, 10)
        running_load = asyncio.create_task(load.run(3.0))
        await asyncio.sleep(0.5)
        with pytest.raises(ValueError, match="not an ONNX file"):
            await line.swap(broken)
        await line.swap(other)
        await running_load
        verdicts = await load.verdicts()
        again = await line.trigger(0)
    told = accounted(line, [*verdicts, (0, again)])
    assert set(told) == {"OK", "NG"}
    models = [verdict.model for _, verdict in verdicts]
    assert len(set(models)) == 2
    assert again.model == models[-1] != models[0]
    notes = reasons(line, "NOTE")
    assert any(f"{models[-1]} takes the place of {models[0]}" in note for note in notes)


@in_loop
async def test_on_a_full_disk_parts_are_uninspected_and_nothing_is_lost(tmp_path):
    config = StationConfig(
        triage=FAKE_TRIAGE, detector=DetectorConfig(workers=1, pin=False), reserve_mib=0
    )
    async with running(tmp_path / "a", frames(8, bad=[2]), cameras=1, station=config) as line:
        first = [await line.trigger(0) for _ in range(2)]
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        size = (line.output / "ledger.sqlite-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            during = [await line.trigger(0) for _ in range(3)]
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        await until(lambda: not line.ledger.trouble, RECOVERY_S)
        after = [await line.trigger(0) for _ in range(2)]
        await asyncio.sleep(CALM_S)
        after.append(await line.trigger(0))
        assert not line.alarms.active
    accounted(line, [(0, verdict) for verdict in (*first, *during, *after)])
    assert [verdict.state for verdict in first] == ["OK", "OK"]
    assert {verdict.state for verdict in during} == {"UNINSPECTED"}
    assert "the ledger cannot be written" in during[-1].reason
    assert [verdict.state for verdict in after] == ["OK", "OK", "OK"]
    assert ("disk", True) in [(alarm.kind, alarm.is_on) for alarm in line.alarms_told]


ENDLESS = """
import asyncio, pathlib, sys
from tests.kits.defect.line.lines import frames, running, save_onnx

async def run(folder):
    slow = save_onnx(folder.parent / "slow.onnx", wait=100)
    async with running(folder, frames(8, bad=range(8)), detector=slow) as line:
        while True:
            line.trigger(0)
            line.trigger(1)
            await asyncio.sleep(0.01)
            print(len(line.verdicts), *line.processes.values(), flush=True)

asyncio.run(run(pathlib.Path(sys.argv[1])))
"""


def test_a_line_that_is_killed_leaves_no_process_and_no_part_without_a_verdict(tmp_path):
    folder = tmp_path / "a"
    with subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        for text in process.stdout:
            count, *pids = (int(word) for word in text.split())
            if count > 30:
                break
        process.kill()
        process.wait(10)
    end = time.monotonic() + 2
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):  # noqa: PTH110
        assert time.monotonic() < end
        time.sleep(0.01)
    path = folder / "out" / "ledger.sqlite"
    before = count_states(path)
    assert before.get("PENDING", 0) > 0
    with contextlib.closing(Ledger(path)) as ledger:
        assert len(ledger.recovered) == before["PENDING"]
    after = count_states(path)
    assert "PENDING" not in after
    assert after["UNINSPECTED"] == before["PENDING"] + before.get("UNINSPECTED", 0)
    verify(path)
