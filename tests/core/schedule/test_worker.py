import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from core.schedule.devices import Gone, WorkerProcess, WorkerSpec

ROOT = Path(__file__).parents[3]


@pytest.fixture
def identity(tmp_path):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "identity.onnx"))
    return tmp_path / "identity.onnx"


def with_worker(use):
    """What an async function gives that gets a worker, and whatever was told of its end."""

    async def run():
        ends = []
        process = await WorkerProcess.start(WorkerSpec("w", "cpu"), ends.append)
        try:
            return await use(process)
        finally:
            await process.stop()
            assert ends == [process]
            assert not Path(f"/proc/{process.pid}").exists()

    return asyncio.run(asyncio.wait_for(run(), 60))


def load(process, file, key="m@1"):
    return process.ask("load", key=key, path=str(file), sha256="", max_batch=4)


async def answer_to(process, key, arrays):
    future = asyncio.get_running_loop().create_future()
    process.send_run(key, arrays, future.set_result)
    return await future


def test_stop_ends_it_without_a_signal():
    async def use(process):
        assert (await process.ask("ping")) == {}
        await process.stop()
        return process.exit_code

    assert with_worker(use) == 0


def test_it_serves_what_it_has_while_it_loads_more(identity):
    async def use(process):
        loading = asyncio.ensure_future(load(process, identity))
        await process.ask("ping")
        was_loading = not loading.done()
        await loading
        return was_loading

    assert with_worker(use)


def test_pieces_run_as_one_batch(identity):
    pieces = [np.full((1, 3), k, np.float32) for k in range(3)]

    async def use(process):
        await load(process, identity)
        return await answer_to(process, "m@1", {"x": pieces})

    frame = with_worker(use)
    assert frame.op == "result"
    assert frame.seconds > 0
    np.testing.assert_array_equal(frame.arrays["y"], np.concatenate(pieces))


def test_mistakes_are_answered_in_words(identity):
    async def use(process):
        with pytest.raises(ValueError, match="op='dance' is unknown"):
            await process.ask("dance")
        with pytest.raises(ValueError, match=r"no\.onnx does not exist"):
            await load(process, "no.onnx")
        with pytest.raises(ValueError, match=r"neither an \.onnx nor an \.ebundle"):
            await load(process, "model.pt")
        await load(process, identity)
        await process.ask("unload", key="m@1")
        frame = await answer_to(process, "m@1", {"x": [np.zeros((1, 3), np.float32)]})
        return frame.op, frame.content["message"]

    assert with_worker(use) == ("error", "model 'm@1' is not loaded in this worker")


def test_a_killed_worker_is_known_at_once_and_its_end_told():
    async def use(process):
        os.kill(process.pid, signal.SIGSTOP)
        waiting = asyncio.ensure_future(process.ask("ping"))
        await asyncio.sleep(0)
        os.kill(process.pid, signal.SIGKILL)
        with pytest.raises(Gone, match="worker 'w' was ended by SIGKILL"):
            await waiting
        with pytest.raises(Gone):
            await process.ask("ping")
        assert await answer_to(process, "m@1", {}) is None

    with_worker(use)


def test_it_dies_with_its_parent():
    code = (
        "import asyncio, os, signal\n"
        "from core.schedule.devices import WorkerProcess, WorkerSpec\n"
        "async def main():\n"
        "    process = await WorkerProcess.start(WorkerSpec('w', 'cpu'), print)\n"
        # Even one that cannot see that its connection is closed.
        "    os.kill(process.pid, signal.SIGSTOP)\n"
        "    print(process.pid, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "asyncio.run(main())\n"
    )
    parent = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert parent.returncode == -signal.SIGKILL
    worker = int(parent.stdout)

    async def gone():
        while is_running(worker):
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(gone(), 60))


def is_running(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    # Where nobody inherits it, it stays a zombie.
    return state != "Z"


def test_it_imports_no_runtime_before_it_loads_a_model():
    code = (
        "import core.schedule.worker, sys\n"
        "print([name for name in ('onnxruntime', 'asyncio') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout == "[]\n"
