import asyncio
import os
import signal

import numpy as np
import pytest

from core.schedule.devices import Gone, WorkerSpec
from kits.defect.line.child import Child
from kits.defect.line.ring import Ring
from tests.kits.defect.line.lines import frames, in_loop, save_frames, until


def camera(tmp_path, ring, changes, hang_s=5.0, **settings):
    path = save_frames(tmp_path / "f.npy", frames(2, shape=(64, 96)))
    spec = WorkerSpec(
        "camera x",
        "camera",
        module="kits.defect.line.camera",
        settings={"source": {"kind": "memory", "path": str(path), **settings}, "ring": ring},
        descriptors=(ring,),
    )
    return Child(spec, lambda *told: changes.append(told), hang_s)


def ask(trigger, at=0, slot=0, latest_ns=2**62):
    return np.array([trigger, at, slot, latest_ns])


@in_loop
async def test_it_answers_refuses_and_is_replaced_when_it_dies(tmp_path):
    ring, changes, told = Ring.create(2, 64, 96), [], []
    child = camera(tmp_path, ring.descriptor, changes)
    await child.start()
    try:
        answer = await child.ask(ask(7, slot=1))
        assert answer["name"].tobytes() == b"frame 0"
        assert ring.head(1).trigger == 7
        with pytest.raises(ValueError, match="the camera was away when the part passed"):
            await child.ask(ask(8, latest_ns=0))
        pid = child.pid
        os.kill(pid, signal.SIGSTOP)
        waiting = child.ask(ask(9), told.append)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(Gone):
            await waiting
        assert told == [None]
        with pytest.raises(Gone, match="is being replaced"):
            await child.ask(ask(10), told.append)
        assert told == [None, None]
        await until(lambda: child.pid not in (None, pid))
        assert [is_there for _, is_there, _ in changes] == [False, True]
        assert "SIGKILL" in changes[0][2]
        await child.ask(ask(11))
    finally:
        await child.stop()
        ring.close()


@in_loop
async def test_an_answer_that_nobody_waits_for_is_told_all_the_same(tmp_path):
    ring, told = Ring.create(1, 64, 96), []
    child = camera(tmp_path, ring.descriptor, [], stall_at=0, stall_s=0.3)
    await child.start()
    try:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await child.ask(ask(1), told.append)
        assert not told
        await until(lambda: told)
        assert told[0].op == "result"
    finally:
        await child.stop()
        ring.close()


@in_loop
async def test_one_that_hangs_is_ended_and_replaced(tmp_path):
    ring, changes = Ring.create(1, 64, 96), []
    child = camera(tmp_path, ring.descriptor, changes, 0.3, stall_at=0, stall_s=1e6)
    await child.start()
    try:
        with pytest.raises(Gone):
            await child.ask(ask(1))
        await until(lambda: len(changes) == 2)
        assert "it has not answered for" in changes[0][2]
        await child.ask(ask(2, at=1))
    finally:
        await child.stop()
        ring.close()


@in_loop
async def test_one_that_cannot_start_says_so(tmp_path):
    child = camera(tmp_path, 0, [])
    with pytest.raises(Gone, match="ended with code 1"):
        await child.start()
    await child.stop()
