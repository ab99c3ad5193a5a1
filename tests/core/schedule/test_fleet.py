"""Workers and models that come and go; those that die."""

import asyncio
import os
import signal

import numpy as np
import pytest
from onnx import helper, numpy_helper

from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Model
from core.schedule.pool import Gone, Lost, Refused, WorkerSpec
from tests.core.schedule.pools import (
    FOREVER,
    ask,
    in_loop,
    rows,
    running_pool,
    save,
    turning,
    until,
    value,
)


@in_loop
async def test_a_file_that_fails_leaves_nothing_behind(linear, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(linear.read_bytes()[:-20])
    nodes = [
        helper.make_node("Log", ["zero"], ["y"]),
        helper.make_node("Mul", ["x", "none"], ["zero"]),
    ]
    none = numpy_helper.from_array(np.zeros(1, np.float32), "none")
    ends = [value("x", ["n", 3])], [value("y", ["n", 3])]
    infinite = save(tmp_path / "infinite.onnx", nodes[::-1], *ends, [none])
    async with running_pool(2, [("linear@1", linear, 4)]) as pool:
        with pytest.raises(ValueError, match="cut off"):
            await pool.load(Model("linear@2", 4), broken, "")
        with pytest.raises(ValueError, match="NaN or infinite"):
            await pool.load(Model("linear@2", 4), infinite, "")
        with pytest.raises(ValueError, match="changed"):
            await pool.load(Model("linear@2", 4), linear, "0" * 64)
        with pytest.raises(ValueError, match="loaded already"):
            await pool.load(Model("linear@1", 4), linear, "")
        with pytest.raises(Refused):
            await ask(pool, "linear@2")
        # The key is free for a good file, and the old version served all the while.
        await pool.load(Model("linear@2", 4), linear, "")
        assert (await ask(pool, "linear@2")).batch_size == 1
        assert (await ask(pool, "linear@1")).batch_size == 1


@in_loop
async def test_a_model_that_kills_the_worker_is_refused_and_the_worker_replaced(linear):
    async with running_pool(1, [("linear@1", linear, 4)]) as pool:
        process = pool.process("w0")
        loading = asyncio.create_task(pool.load(Model("linear@2", 4), linear, ""))
        # As a runtime that crashes at that file would: the worker goes while it loads.
        ask_worker = process.ask

        async def die(op, **content):
            if op == "load":
                os.kill(process.pid, signal.SIGKILL)
            return await ask_worker(op, **content)

        process.ask = die
        with pytest.raises(ValueError, match=r"linear.onnx could not be .* by SIGKILL"):
            await loading
        assert (await ask(pool)).worker == "w0"
        assert pool.processes["w0"] != process.pid


@in_loop
async def test_what_a_load_waited_for_in_vain_leaves_no_copy(linear):
    async with running_pool(1, []) as pool:

        async def fail():
            raise ValueError("no worker came up")

        with pytest.raises(ValueError, match="no worker came up"):
            await pool.load(Model("linear@1", 4), linear, "", after=fail)
        folder = pool._fleet._kept.folder
        assert list(folder.rglob(linear.name)) == []
        assert await pool.load(Model("linear@1", 4), linear, "")


@in_loop
async def test_a_replaced_worker_has_the_version_in_service_not_the_file_on_disk(linear):
    async with running_pool(1, [("linear@1", linear, 4)]) as pool:
        linear.write_bytes(b"something else by now")
        os.kill(pool.processes["w0"], signal.SIGKILL)
        result = await ask(pool)
        np.testing.assert_array_equal(result.outputs["y"], [[9.0, 12.0]])
        await pool.start_worker(WorkerSpec("w1", "cpu"))
        assert sorted(pool.workers) == ["w0", "w1"]


@in_loop
async def test_unload_waits_for_the_models_jobs_and_refuses_new_ones(slow, linear):
    models = [("slow@1", slow, 1), ("linear@1", linear, 8)]
    async with running_pool(1, models) as pool:
        running = asyncio.create_task(ask(pool, "slow@1", turning(20_000)))
        await until(lambda: pool.scheduler.busy)
        waiting = asyncio.create_task(ask(pool, "slow@1", turning(1)))
        await until(lambda: pool.num_waiting == 1)
        unloading = asyncio.create_task(pool.unload("slow@1"))
        await asyncio.sleep(0)
        with pytest.raises(Refused):
            await ask(pool, "slow@1", turning(1))
        await unloading
        assert running.done()
        assert waiting.done()
        assert (await running).worker == (await waiting).worker == "w0"
        with pytest.raises(ValueError, match="not one of linear@1"):
            await pool.unload("slow@1")
        assert (await ask(pool)).batch_size == 1


@in_loop
async def test_a_stopped_worker_finishes_and_the_others_take_over(slow, linear):
    models = [("slow@1", slow, 1), ("linear@1", linear, 8)]
    async with running_pool(1, models) as pool:
        running = asyncio.create_task(ask(pool, "slow@1", turning(20_000)))
        await until(lambda: pool.scheduler.busy)
        waiting = asyncio.create_task(ask(pool))
        stopping = asyncio.create_task(pool.stop_worker("w0"))
        await asyncio.sleep(0)
        assert list(pool.workers) == []
        await pool.start_worker(WorkerSpec("w1", "cpu"))
        assert (await running).worker == "w0"
        assert (await waiting).worker == "w1"
        await stopping
        assert list(pool.processes) == ["w1"]
        with pytest.raises(ValueError, match="not one of w1"):
            await pool.stop_worker("w0")


@in_loop
async def test_who_is_cancelled_while_a_worker_stops_leaves_no_worker_behind(slow):
    async with running_pool(1, [("slow@1", slow, 1)]) as pool:
        running = asyncio.create_task(ask(pool, "slow@1", turning(20_000)))
        await until(lambda: pool.scheduler.busy)
        stopping = asyncio.create_task(pool.stop_worker("w0"))
        await asyncio.sleep(0)
        stopping.cancel()
        assert (await running).worker == "w0"
        await until(lambda: not pool.processes)
        starting = asyncio.create_task(pool.start_worker(WorkerSpec("w0", "cpu")))
        await asyncio.sleep(0.01)
        starting.cancel()
        await asyncio.wait([starting])
        assert pool.processes == {}


@in_loop
async def test_a_worker_that_is_stopped_before_it_is_up_does_not_come_up(linear):
    async with running_pool(0, [("linear@1", linear, 4)]) as pool:
        starting = asyncio.create_task(pool.start_worker(WorkerSpec("a", "cpu")))
        await asyncio.sleep(0)
        await pool.stop_worker("a")
        with pytest.raises(Gone, match="stopped before it was up"):
            await starting
        starting = asyncio.create_task(pool.start_worker(WorkerSpec("b", "cpu")))
        await asyncio.sleep(0)
        await pool.close()
        with pytest.raises(Gone, match="stopped before it was up"):
            await starting
        assert pool.processes == {}


@in_loop
async def test_a_model_for_one_kind_is_loaded_in_workers_of_that_kind(linear):
    async with running_pool(0) as pool:
        await pool.start_worker(WorkerSpec("plain", "cpu"))
        await pool.start_worker(WorkerSpec("other", "npu"))
        heard = []
        pool.on_loaded = lambda spec, loaded: heard.append(spec.id)
        await pool.load(Model("linear@1", 4, kinds=frozenset({"npu"})), linear, "")
        await pool.start_worker(WorkerSpec("third", "npu"))
        assert heard == ["other", "third"]


@in_loop
async def test_jobs_wait_for_the_first_worker(linear):
    async with running_pool(0, [("linear@1", linear, 4)]) as pool:
        waiting = asyncio.create_task(ask(pool))
        await until(lambda: pool.num_waiting == 1)
        await pool.start_worker(WorkerSpec("w0", "cpu"))
        assert (await waiting).worker == "w0"


@in_loop
async def test_close_fails_what_waits_and_is_asked_twice_without_harm(slow):
    async with running_pool(1, [("slow@1", slow, 1)]) as pool:
        jobs = [asyncio.create_task(ask(pool, "slow@1", turning(FOREVER))) for _ in range(3)]
        await until(lambda: pool.num_waiting == 2)
        await pool.close(grace_s=0.05)
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert all(isinstance(result, Lost) for result in results)
        with pytest.raises(Refused):
            await ask(pool, "slow@1", turning(1))
        with pytest.raises(ValueError, match="closed"):
            await pool.start_worker(WorkerSpec("w9", "cpu"))


@in_loop
async def test_a_worker_that_cannot_start_is_told(linear, monkeypatch):
    async with running_pool(0, [("linear@1", linear, 4)]) as pool:
        with pytest.raises(ValueError, match="not one of auto, onnxruntime"):
            await pool.start_worker(WorkerSpec("w0", "cpu", target="abacus"))
        with pytest.raises(Gone, match=r"worker 'w0' ended with code 1"):
            await pool.start_worker(WorkerSpec("w0", "cpu", cores=(9999,)))
        assert pool.workers == {}
        await pool.start_worker(WorkerSpec("w0", "cpu"))
        with pytest.raises(ValueError, match="one of that name"):
            await pool.start_worker(WorkerSpec("w0", "cpu"))


@in_loop
async def test_a_worker_is_pinned_and_gives_its_words_to_stderr(linear, capfd):
    core = max(os.sched_getaffinity(0))
    async with running_pool(0) as pool:
        await pool.start_worker(WorkerSpec("pinned", "cpu", cores=(core,)))
        pid = pool.processes["pinned"]
        assert os.sched_getaffinity(pid) == {core}
        with pytest.raises(Gone, match="code 1"):
            await pool.start_worker(WorkerSpec("mad", "cpu", cores=(9999,)))
    out, err = capfd.readouterr()
    assert (out, "[mad] OSError" in err) == ("", True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@in_loop
async def test_what_goes_to_the_whole_group_does_not_end_a_worker(linear, number):
    async with running_pool(1, [("linear@1", linear, 4)]) as pool:
        pid = pool.processes["w0"]
        os.kill(pid, number)
        assert (await ask(pool)).worker == "w0"
        assert pool.processes["w0"] == pid


@pytest.mark.slow
@in_loop
async def test_openvino_workers_answer_alike(linear):
    pytest.importorskip("openvino")
    async with running_pool(0) as pool:
        await pool.start_worker(WorkerSpec("ov", "openvino", target="openvino"))
        (loaded,) = await pool.load(Model("linear@1", 4), linear, "")
        assert (loaded.backend, loaded.max_batch) == ("openvino", 4)
        result = await ask(pool, inputs=rows(1.0, 2.0), size=2)
        np.testing.assert_allclose(result.outputs["y"], [[9.0, 12.0], [18.0, 24.0]], rtol=1e-6)


@pytest.mark.slow
@in_loop
async def test_nothing_is_lost_while_workers_are_killed_and_models_and_workers_come_and_go(linear):
    async with running_pool(2, [("linear@0", linear, 8)], DeepFlow(CostTable())) as pool:
        answers, newest, is_over = [], ["linear@0"], False

        async def client(number):
            while not is_over:
                try:
                    result = await ask(pool, newest[0], rows(number))
                except Refused as refused:
                    # The version was unloaded just then; whoever asks takes the newest.
                    if refused.refusal.reason != "unknown":
                        raise
                    continue
                answers.append((number, result.outputs["y"][0, 0]))

        clients = [asyncio.create_task(client(number)) for number in range(8)]
        for turn in range(10):
            seen = len(answers)
            os.kill(pool.processes[f"w{turn % 2}"], signal.SIGKILL)
            await until(lambda: len(answers) > seen + 50)  # noqa: B023
            for _ in range(5):
                # A worker that is killed while it loads is taken for the model's fault.
                try:
                    await pool.load(Model(f"linear@{turn + 1}", 8), linear, "")
                    break
                except ValueError as error:
                    if not isinstance(error.__cause__, Gone):
                        raise
            old, newest[0] = newest[0], f"linear@{turn + 1}"
            await pool.unload(old)
            await pool.start_worker(WorkerSpec(f"more{turn}", "cpu"))
            await pool.stop_worker(f"more{turn}")
            await until(lambda: len(pool.processes) == 2)
        is_over = True
        await asyncio.gather(*clients)
        assert len(answers) > 500
        assert all(found == 9 * number for number, found in answers)
