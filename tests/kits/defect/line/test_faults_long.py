"""Faults for longer and on real disks; the short forms are in test_faults.py."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from kits.defect.line.detect import DetectorConfig
from kits.defect.line.ledger import count_states, verify
from kits.defect.line.station import StationConfig
from tests.kits.defect.line.lines import FAKE_TRIAGE, ROOT, frames, in_loop, running, save_onnx
from tests.kits.defect.line.test_faults import RECOVERY_S, Load, accounted

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


@in_loop
async def test_a_minute_of_everything_that_can_go_wrong(tmp_path):
    """Any process is killed, the detector replaced, frames fall over, each again and again."""
    chance = random.Random(0)
    files = [save_onnx(tmp_path / f"{at}.onnx", level=31.0 + at) for at in range(2)]
    config = StationConfig(
        triage=FAKE_TRIAGE,
        triage_workers=2,
        detector=DetectorConfig(workers=2, pin=False),
        reserve_mib=1,
    )
    made = frames(8, bad=[3])
    events, begin = [], time.monotonic()
    async with running(
        tmp_path / "a", made, cameras=4, recipe={"deadline_ms": 400.0}, station=config,
        source={"stall_at": 200, "stall_s": 1.0},
    ) as line:  # fmt: skip
        allowed_s = max(RECOVERY_S, 1.5 * (time.monotonic() - begin))
        load = Load(line, 8)
        working = asyncio.create_task(load.run(60.0))
        swapped = 0
        while not working.done():
            await asyncio.sleep(chance.uniform(0.5, 3.0))
            events.append(time.monotonic())
            if chance.random() < 0.2:
                swapped += 1
                await line.swap(files[swapped % 2])
                events.append(time.monotonic())
            elif chance.random() < 0.3:
                ring = chance.choice(line.cameras).ring
                for slot in range(ring.num_slots):
                    ring._pixels(slot)[chance.randrange(1000)] ^= 1
            else:
                _, pid = chance.choice(list(line.processes.items()))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        verdicts = await load.verdicts()
    told = accounted(line, verdicts)
    assert told["UNINSPECTED"] < 0.5 * len(verdicts)
    stalled_s = verdicts[200 * 4][0]
    alone = [
        due
        for due, verdict in verdicts
        if verdict.state == "UNINSPECTED"
        and not any(at - 0.5 <= due <= at + allowed_s for at in (*events, stalled_s))
    ]
    # A kill may fall upon what another one has just brought up, or the machine be busy.
    assert len(alone) <= 0.03 * len(verdicts)
    assert swapped
    # The one that it began with, and as many of the two others as chance put in.
    assert len({verdict.model for _, verdict in verdicts if verdict.model}) == 1 + min(swapped, 2)


ON_A_SMALL_DISK = """
import asyncio, contextlib, json, pathlib, sys
from kits.defect.line.detect import DetectorConfig
from kits.defect.line.ledger import count_states, verify
from kits.defect.line.station import StationConfig
from tests.kits.defect.line import lines

async def run(folder):
    config = lines.StationConfig(triage=lines.FAKE_TRIAGE, reserve_mib=1,
                                 detector=DetectorConfig(workers=1, pin=False))
    out = folder / "a" / "out"
    filler = folder / "filler"
    states = []
    async with lines.running(folder / "a", lines.frames(8, bad=[2]), cameras=1,
                             station=config) as line:
        async def parts(number):
            states.append([(await line.trigger(0)).state for _ in range(number)])
        await parts(3)
        with filler.open("wb", buffering=0) as stream, contextlib.suppress(OSError):
            while True:
                stream.write(bytes(4096))
        # The ledger still has room in pages that it holds already.
        while not line.ledger.trouble:
            await line.trigger(0)
        await parts(20)
        on_disk = sum(count_states(out / "ledger.sqlite").values())
        filler.unlink()
        await lines.until(lambda: not line.ledger.trouble)
        await parts(3)
    print(json.dumps([states, on_disk, len(line.verdicts),
                      count_states(out / "ledger.sqlite"), verify(out / "ledger.sqlite")]))

asyncio.run(run(pathlib.Path(sys.argv[1])))
"""


def test_a_disk_that_is_really_full(tmp_path):
    mounted = "mount -t tmpfs -o size=6m tmpfs {0} && exec {1} -c {2} {0}"
    if shutil.which("unshare") is None:
        pytest.skip("unshare is not installed: no small disk can be mounted")
    script = tmp_path / "script.py"
    script.write_text(ON_A_SMALL_DISK)
    disk = tmp_path / "disk"
    disk.mkdir()
    code = f"exec(open({str(script)!r}).read())"
    command = mounted.format(disk, sys.executable, f'"{code}"')
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", command],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    states, on_disk, told, counts, entries = json.loads(done.stdout.splitlines()[-1])
    assert states[0] == ["OK", "OK", "NG"]
    assert set(states[1]) == {"UNINSPECTED"}
    assert set(states[2]) <= {"OK", "NG"}
    # While the disk was full, the reserve kept the ledger written.
    assert on_disk >= 23
    assert sum(counts.values()) == told
    assert entries > 2 * told


def test_a_line_that_is_killed_again_and_again_loses_no_trigger(tmp_path):
    code = (
        "import asyncio, pathlib, sys\n"
        "from tests.kits.defect.line.lines import frames, running\n"
        "async def run(folder):\n"
        "    async with running(folder, frames(8, bad=[1])) as line:\n"
        "        while True:\n"
        "            line.trigger(0)\n"
        "            print('up', flush=True)\n"
        "            await asyncio.sleep(0.005)\n"
        "asyncio.run(run(pathlib.Path(sys.argv[1])))\n"
    )
    path = tmp_path / "a" / "out" / "ledger.sqlite"
    chance = random.Random(1)
    for _ in range(6):
        with subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "a")], cwd=ROOT, stdout=subprocess.PIPE
        ) as process:
            process.stdout.readline()
            time.sleep(chance.uniform(0.0, 1.0))
            process.kill()
        verify(path)
        pending = count_states(path).get("PENDING", 0)
        # Only what was on its way when it was killed.
        assert pending <= 8
    states = count_states(path)
    assert sum(states.values()) > 30
