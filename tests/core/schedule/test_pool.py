"""Real processes, tiny models. Nothing here waits for a time to pass, but for what happens."""

import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Batch, Device, Model, Refusal
from core.schedule.model_file import hash_model
from core.schedule.pool import Expired, Failed, Gone, Lost, Pool, Refused, WorkerSpec

SOON = 60.0


class Fifo:
    """The plainest rule: who came first, to whoever is idle, with those of the same model."""

    def __init__(self):
        self.queue, self.idle, self.busy, self.models = [], {}, {}, {}
        self.retired = set()

    def add_device(self, device, now):
        self.idle[device.id] = device

    def retire_device(self, device_id, now):
        self.retired.add(device_id)
        self.idle.pop(device_id, None)

    def drop_device(self, device_id, now):
        self.idle.pop(device_id, None)
        self.retired.discard(device_id)
        batch = self.busy.pop(device_id, None)
        jobs = batch.jobs if batch else []
        for job in jobs:
            job.num_deaths += 1
        self.queue[:0] = [job for job in jobs if job.num_deaths < 2]
        return [job for job in jobs if job.num_deaths > 1]

    def set_model(self, model, now):
        self.models[model.key] = model

    def drop_model(self, key, now):
        del self.models[key]
        return []

    def submit(self, job, now):
        if job.model not in self.models:
            return Refusal("unknown", 1.0)
        self.queue.append(job)
        return None

    def cancel(self, job, now):
        if job not in self.queue:
            return False
        self.queue.remove(job)
        return True

    def dispatch(self, now):
        started = []
        while self.queue and self.idle:
            model = self.models[self.queue[0].model]
            jobs, size = [], 0
            for job in self.queue:
                if job.model == model.key and size + job.size <= model.max_batch:
                    jobs.append(job)
                    size += job.size
            self.queue = [job for job in self.queue if job not in jobs]
            device_id, _ = self.idle.popitem()
            started.append(Batch(device_id, model.key, jobs, size, now, 0.01))
            self.busy[device_id] = started[-1]
        return started

    def finish(self, batch, now):
        del self.busy[batch.device]
        if batch.device not in self.retired:
            self.idle[batch.device] = Device(batch.device, "cpu")

    def expire(self, now):
        late = [job for job in self.queue if job.deadline_s <= now]
        self.queue = [job for job in self.queue if job.deadline_s > now]
        return late

    def next_event(self, now):
        return min((job.deadline_s for job in self.queue), default=inf)

    def queue_delay_s(self, now):
        return max((now - job.arrived_s for job in self.queue), default=0.0)


@asynccontextmanager
async def running_pool(num_workers=1, models=(), rule=None, **options):
    pool = Pool(rule or Fifo(), **options)
    try:
        for number in range(num_workers):
            await pool.start_worker(WorkerSpec(f"w{number}", "cpu"))
        for key, file, max_batch in models:
            await pool.load(Model(key, max_batch), file, hash_model(file))
        yield pool
    finally:
        await pool.close()


def in_loop(test):
    """Run an async test, and see that all it started is gone."""

    def run(*args, **kwargs):
        before = open_files(), children()
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), SOON), debug=False)
        assert (open_files(), children()) == before

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    run.__wrapped__ = test
    return run


def open_files():
    return {file.name for file in Path("/proc/self/fd").iterdir()}


def children():
    return set(Path(f"/proc/self/task/{os.getpid()}/children").read_text().split())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.005)


def save(path, nodes, inputs, outputs, weights=()):
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(weights))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def value(name, shape, dtype=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, dtype, shape)


@pytest.fixture
def linear(tmp_path):
    """y = x @ w, w (3, 2) of 1 to 6."""
    weights = numpy_helper.from_array(np.arange(1, 7, dtype=np.float32).reshape(3, 2), "w")
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    ends = [value("x", ["batch", 3])], [value("y", ["batch", 2])]
    return save(tmp_path / "linear.onnx", nodes, *ends, [weights])


@pytest.fixture
def slow(tmp_path):
    """y = x, after as many matrix products as `turns` says; a million take minutes."""
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["held", "wide"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [
            value("i", [], TensorProto.INT64),
            value("go", [], TensorProto.BOOL),
            value("held", [64, 64]),
        ],
        [value("go_on", [], TensorProto.BOOL), value("next", [64, 64])],
    )
    weights = [
        numpy_helper.from_array(np.eye(64, dtype=np.float32), "wide"),
        numpy_helper.from_array(np.ones((), bool), "true"),
        numpy_helper.from_array(np.array(0.0, np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("ReduceMax", ["turns"], ["count"], keepdims=0),
        helper.make_node("Loop", ["count", "true", "wide"], ["held_last"], body=body),
        helper.make_node("ReduceMax", ["held_last"], ["one"], keepdims=0),
        helper.make_node("Mul", ["one", "zero"], ["nothing"]),
        helper.make_node("Add", ["x", "nothing"], ["y"]),
    ]
    ends = [value("x", ["n", 3]), value("turns", ["n"], TensorProto.INT64)], [value("y", ["n", 3])]
    return save(tmp_path / "slow.onnx", nodes, *ends, weights)


FOREVER = 2**40


def rows(*values):
    return {"x": np.array([[number] * 3 for number in values], np.float32)}


def turning(turns, number=1.0):
    return {"x": np.full((1, 3), number, np.float32), "turns": np.array([turns])}


async def ask(pool, model="linear@1", inputs=None, size=1, timeout_s=SOON):
    inputs = rows(1.0) if inputs is None else inputs
    return await pool.run(model, inputs, size=size, deadline_s=time.monotonic() + timeout_s)


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
        (loaded,) = await pool.load(Model("linear@1", 4), linear, hash_model(linear))
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
