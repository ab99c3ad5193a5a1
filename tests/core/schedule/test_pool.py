"""Real processes. Nothing here waits for a time to pass, but for what happens."""

import asyncio
import os
import signal

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Model
from core.schedule.pool import Expired, Failed, Lost, Refused
from tests.core.schedule.pools import (
    FOREVER,
    SOON,
    Fifo,
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
async def test_jobs_get_what_the_model_computes(linear):
    async with running_pool(models=[("linear@1", linear, 8)]) as pool:
        result = await ask(pool, inputs=rows(1.0, 2.0), size=2)
        np.testing.assert_array_equal(result.outputs["y"], [[9.0, 12.0], [18.0, 24.0]])
        assert (result.batch_size, result.worker) == (2, "w0")
        assert result.compute_s > 0
        assert result.queue_s >= 0
        assert list(pool.workers) == ["w0"]


@in_loop
async def test_a_model_tells_what_it_is(linear):
    async with running_pool() as pool:
        heard = []
        pool.on_loaded = lambda spec, loaded: heard.append((spec.id, loaded))
        (loaded,) = await pool.load(Model("linear@1", 4), linear, "")
        assert heard == [("w0", loaded)]
        assert (loaded.backend, loaded.precision) == ("onnxruntime", "float32")
        assert (loaded.max_batch, loaded.obstacle) == (4, "")
        assert (loaded.inputs[0].shape, loaded.outputs[0].shape) == (("batch", 3), ("batch", 2))
        assert sorted(loaded.seconds) == [1, 2, 4]
        assert all(seconds > 0 for seconds in loaded.seconds.values())


@pytest.mark.parametrize("rule", ["fifo", "deepflow"])
@in_loop
async def test_many_jobs_of_several_models_at_once_each_get_their_own(linear, tmp_path, rule):
    weights = numpy_helper.from_array(np.array([10.0], np.float32), "w")
    nodes = [helper.make_node("Mul", ["x", "w"], ["y"])]
    ends = [value("x", ["n", "t"])], [value("y", ["n", "t"])]
    tenfold = save(tmp_path / "tenfold.onnx", nodes, *ends, [weights])
    batches = []
    scheduler = Fifo() if rule == "fifo" else DeepFlow(CostTable())
    models = [("linear@1", linear, 8), ("tenfold@1", tenfold, 4)]
    async with running_pool(2, models, scheduler) as pool:
        pool.on_batch = lambda *told: batches.append(told)
        jobs, wanted = [], []
        for number in range(200):
            size = 1 + number % 3
            if number % 2:
                inputs = rows(*range(number, number + size))
                jobs.append(ask(pool, "linear@1", inputs, size))
                weight = np.arange(1, 7, dtype=np.float32).reshape(3, 2)
                wanted.append(inputs["x"] @ weight)
            else:
                # Lengths differ: such jobs cannot lie in one array.
                inputs = {"x": np.full((size, 1 + number % 5), number, np.float32)}
                jobs.append(ask(pool, "tenfold@1", inputs, size))
                wanted.append(inputs["x"] * 10)
        results = await asyncio.gather(*jobs)
    for result, expected in zip(results, wanted, strict=True):
        np.testing.assert_array_equal(result.outputs["y"], expected)
    assert sum(told[1] for told in batches) == sum(len(expected) for expected in wanted)
    assert max(told[1] for told in batches) > 3
    assert all(len(delays) <= told_rows for _, told_rows, delays, _, _ in batches)


@in_loop
async def test_a_model_whose_rows_mix_is_never_batched(tmp_path):
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    ends = [value("x", ["n", 3])], [value("y", ["n", 3])]
    mixing = save(tmp_path / "mixing.onnx", nodes, *ends)
    async with running_pool() as pool:
        (loaded,) = await pool.load(Model("mixing@1", 8), mixing, "")
        assert loaded.max_batch == 1
        assert "depends on the other rows" in loaded.obstacle
        results = await asyncio.gather(*(ask(pool, "mixing@1", rows(k)) for k in range(4)))
        assert [result.batch_size for result in results] == [1] * 4
        assert all(not result.outputs["y"].any() for result in results)


@in_loop
async def test_one_bad_job_does_not_spoil_its_neighbours(tmp_path):
    table = numpy_helper.from_array(np.arange(4, dtype=np.float32), "table")
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    ends = [value("x", ["n"], TensorProto.INT64)], [value("y", ["n"])]
    lookup = save(tmp_path / "lookup.onnx", nodes, *ends, [table])
    async with running_pool(models=[("lookup@1", lookup, 8)]) as pool:
        jobs = [ask(pool, "lookup@1", {"x": np.array([k])}) for k in (0, 3, 99, 2)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
    assert isinstance(results[2], Failed)
    assert "onnxruntime could not run the model" in str(results[2])
    assert [float(results[k].outputs["y"][0]) for k in (0, 1, 3)] == [0, 3, 2]


@in_loop
async def test_a_kill_during_a_batch_loses_nothing(slow, linear):
    deaths = []
    models = [("slow@1", slow, 1), ("linear@1", linear, 8)]
    async with running_pool(1, models, on_death=lambda *told: deaths.append(told)) as pool:
        running = asyncio.create_task(ask(pool, "slow@1", turning(100_000, 5.0)))
        await until(lambda: pool.scheduler.busy)
        waiting = [asyncio.create_task(ask(pool, inputs=rows(k))) for k in range(5)]
        await until(lambda: pool.num_waiting == 5)
        first = pool.processes["w0"]
        os.kill(first, signal.SIGKILL)
        np.testing.assert_array_equal((await running).outputs["y"], [[5.0] * 3])
        for k, job in enumerate(waiting):
            np.testing.assert_array_equal((await job).outputs["y"], [[9.0 * k, 12.0 * k]])
        assert pool.processes["w0"] != first
    ((worker, why),) = deaths
    assert worker == "w0"
    assert why == "worker 'w0' was ended by SIGKILL"


def test_it_works_on_uvloop_as_well(linear):
    uvloop = pytest.importorskip("uvloop")

    async def run():
        async with running_pool(1, [("linear@1", linear, 8)]) as pool:
            os.kill(pool.processes["w0"], signal.SIGKILL)
            jobs = [ask(pool, inputs=rows(k)) for k in range(20)]
            return [result.outputs["y"][0, 0] for result in await asyncio.gather(*jobs)]

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(asyncio.wait_for(run(), SOON)) == [9 * k for k in range(20)]


@in_loop
async def test_a_job_that_loses_two_workers_fails_and_the_pool_goes_on(slow, linear):
    models = [("slow@1", slow, 1), ("linear@1", linear, 8)]
    async with running_pool(1, models) as pool:
        job = asyncio.create_task(ask(pool, "slow@1", turning(FOREVER)))
        for _ in range(2):
            await until(lambda: pool.processes and pool.scheduler.busy)
            os.kill(pool.processes["w0"], signal.SIGKILL)
            await until(lambda: not pool.processes)
        with pytest.raises(Lost, match="two workers died"):
            await job
        result = await ask(pool)
        np.testing.assert_array_equal(result.outputs["y"], [[9.0, 12.0]])


@pytest.mark.slow
@in_loop
async def test_a_worker_that_hangs_is_ended_and_its_job_tried_once_more(slow, linear):
    deaths = []
    models = [("slow@1", slow, 1), ("linear@1", linear, 8)]
    options = {"hang_s": 0.2, "on_death": lambda *told: deaths.append(told)}
    async with running_pool(1, models, **options) as pool:
        with pytest.raises(Lost):
            await ask(pool, "slow@1", turning(FOREVER))
        assert (await ask(pool)).worker == "w0"
    assert len(deaths) == 2
    assert all("it hung" in why and "slow@1" in why for _, why in deaths)


@in_loop
async def test_a_job_that_ends_its_workers_is_lost_alone(slow):
    async with running_pool(1, [("slow@1", slow, 8)], hang_s=0.2) as pool:
        first = asyncio.create_task(ask(pool, "slow@1", turning(3_000)))
        await until(lambda: pool.scheduler.busy)
        turns = [1, 2, FOREVER, 3]
        jobs = [ask(pool, "slow@1", turning(count, number)) for number, count in enumerate(turns)]
        results = await asyncio.gather(*jobs, return_exceptions=True)
        assert (await first).batch_size == 1
    assert isinstance(results.pop(2), Lost)
    assert [result.outputs["y"][0, 0] for result in results] == [0, 1, 3]


@pytest.mark.slow
@in_loop
async def test_a_stopped_process_counts_as_hanging(linear):
    async with running_pool(1, [("linear@1", linear, 8)], hang_s=0.2) as pool:
        os.kill(pool.processes["w0"], signal.SIGSTOP)
        result = await ask(pool)
        np.testing.assert_array_equal(result.outputs["y"], [[9.0, 12.0]])


@in_loop
async def test_cancelling_takes_a_waiting_job_out_at_once_and_drops_a_running_one(slow, linear):
    models = [("slow@1", slow, 1), ("linear@1", linear, 8)]
    async with running_pool(1, models) as pool:
        running = asyncio.create_task(ask(pool, "slow@1", turning(20_000)))
        await until(lambda: pool.scheduler.busy)
        waiting = asyncio.create_task(ask(pool))
        await until(lambda: pool.num_waiting == 1)
        waiting.cancel()
        running.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert pool.num_waiting == 0
        assert pool.scheduler.queue == []
        assert waiting.cancelled()
        assert running.cancelled()
        # The worker is not ended for it: it takes the next job when it is done.
        pid = pool.processes["w0"]
        await ask(pool)
        assert pool.processes["w0"] == pid


@in_loop
async def test_a_cancelled_job_is_not_computed_again_after_a_death(slow):
    batches = []
    async with running_pool(1, [("slow@1", slow, 1)]) as pool:
        job = asyncio.create_task(ask(pool, "slow@1", turning(FOREVER)))
        await until(lambda: pool.scheduler.busy)
        job.cancel()
        pool.on_batch = lambda *told: batches.append(told)
        os.kill(pool.processes["w0"], signal.SIGKILL)
        await until(lambda: not pool.processes)
        await ask(pool, "slow@1", turning(0))
        assert len(batches) == 1


@in_loop
async def test_a_job_whose_deadline_passes_while_it_waits_expires(slow, linear):
    models = [("slow@1", slow, 1), ("linear@1", linear, 8)]
    async with running_pool(1, models) as pool:
        running = asyncio.create_task(ask(pool, "slow@1", turning(FOREVER)))
        await until(lambda: pool.scheduler.busy)
        with pytest.raises(Expired):
            await ask(pool, timeout_s=0.05)
        assert pool.num_waiting == 0
        running.cancel()
        pool.process("w0").kill("nobody waits for it")


@in_loop
async def test_unknown_models_and_wrong_arrays_are_refused_before_the_queue(linear):
    async with running_pool(models=[("linear@1", linear, 4)]) as pool:
        with pytest.raises(Refused) as refused:
            await ask(pool, "linear@2")
        assert refused.value.refusal.reason == "unknown"
        with pytest.raises(ValueError, match=r"size=5 is not in 1 to 4"):
            await ask(pool, inputs=rows(*range(5)), size=5)
        with pytest.raises(ValueError, match=r"input 'x' has shape \(2, 3\), size=1"):
            await ask(pool, inputs=rows(1, 2))
        with pytest.raises(ValueError, match=r"'x' has dtype=object"):
            await ask(pool, inputs={"x": np.zeros((1, 3), object)})
        with pytest.raises(Failed, match="float64"):
            await ask(pool, inputs={"x": np.zeros((1, 3))})
        with pytest.raises(Failed, match="input 'x' is missing"):
            await ask(pool, inputs={"z": np.zeros((1, 3), np.float32)})
        assert (await ask(pool)).batch_size == 1
