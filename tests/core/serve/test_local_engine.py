import asyncio
import os
import signal
import time
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest

from core.serve.config import ModelFile, ServeConfig
from core.serve.engine import Call
from core.serve.errors import (
    BadRequest,
    DeadlineExceeded,
    NotFound,
    NotReady,
    Overloaded,
    TooLarge,
)
from core.serve.local_engine import LocalEngine
from core.serve.metrics import Metrics
from tests.core.serve.onnx_files import write_nan, write_slow, write_times

X = np.arange(6, dtype=np.float32).reshape(2, 3)


@asynccontextmanager
async def running(*files, **settings):
    models = [file if isinstance(file, ModelFile) else ModelFile("m", file) for file in files]
    engine = LocalEngine(ServeConfig(models=models, watch_s=0, **settings), Metrics())
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop(5)


def call(x=X, **more):
    return Call("m", {"x": x}, **more)


def slow_call(milliseconds, **more):
    return Call("m", {"n": np.array([2 * milliseconds])}, **more)


def workers(engine):
    """Process ids of the pool's workers."""
    return list(engine._crew.pool.processes.values())


@pytest.mark.parametrize("isolation", ["auto", "inline", "process"])
def test_a_model_answers_wherever_it_runs(tmp_path, isolation):
    async def run():
        async with running(write_times(tmp_path / "m.onnx", 2.0), isolation=isolation) as engine:
            assert engine.state == "ready"
            assert len(workers(engine)) == (isolation == "process")
            answer = await engine.infer(call())
            np.testing.assert_array_equal(answer.outputs["y"], 2 * X)
            assert (answer.model, answer.version) == ("m", "1")
            (served,) = engine.catalogue()
            assert served == engine.find("m") == engine.find("m", "1")
            assert (served.platform, served.state) == ("onnx-onnxruntime", "ready")
            assert (served.max_batch, served.inputs[0].shape) == (32, ("batch", 3))
            many = await asyncio.gather(*(engine.infer(call(X + n)) for n in range(20)))
            for n, one in enumerate(many):
                np.testing.assert_array_equal(one.outputs["y"], 2 * (X + n))
        assert engine.state == "stopped"
        assert workers(engine) == []

    asyncio.run(run())


def test_requests_that_cannot_be_answered_say_why(tmp_path):
    async def run():
        async with running(write_times(tmp_path / "m.onnx", 2.0), max_batch=4) as engine:
            with pytest.raises(BadRequest, match="input 'x' has shape"):
                await engine.infer(call(X[:, :2]))
            with pytest.raises(TooLarge, match="5 rows"):
                await engine.infer(call(np.zeros((5, 3), np.float32)))
            with pytest.raises(NotFound, match="model='n' is not served; there are: m"):
                await engine.infer(Call("n", {"x": X}))
            with pytest.raises(NotFound, match=r"version='2' of model 'm'.*there are: 1"):
                await engine.infer(call(version="2"))
        with pytest.raises(NotReady, match="stopped"):
            await engine.infer(call())

    asyncio.run(run())


def test_a_model_that_fails_its_self_test_is_named_before_anything_is_served(tmp_path):
    async def run(isolation):
        async with running(write_nan(tmp_path / "m.onnx"), isolation=isolation):
            raise AssertionError("it is served")

    for isolation in ("auto", "process"):
        with pytest.raises(ValueError, match=r"m\.onnx cannot be served: .*self-test"):
            asyncio.run(run(isolation))


def test_several_models_and_versions_are_served_at_once(tmp_path):
    files = [
        ModelFile("m", write_times(tmp_path / "one.onnx", 1.0)),
        ModelFile("m", write_times(tmp_path / "two.onnx", 2.0)),
        ModelFile("other", write_times(tmp_path / "three.onnx", 3.0), "blue"),
    ]

    async def run():
        async with running(*files) as engine:
            names = [f"{one.name}@{one.version}" for one in engine.catalogue()]
            assert names == ["m@1", "m@2", "other@blue"]
            for version, factor in (("1", 1), ("2", 2), ("", 2)):
                answer = await engine.infer(call(version=version))
                np.testing.assert_array_equal(answer.outputs["y"], factor * X)
            answer = await engine.infer(Call("other", {"x": X}))
            np.testing.assert_array_equal(answer.outputs["y"], 3 * X)

    asyncio.run(run())


def test_rows_that_would_hold_up_the_others_go_to_a_thread(tmp_path, monkeypatch):
    monkeypatch.setattr("core.serve.loading.BLOCK_S", 0.0)

    async def run():
        async with running(write_times(tmp_path / "m.onnx", 2.0)) as engine:
            many = await asyncio.gather(*(engine.infer(call(X + n)) for n in range(20)))
            for n, one in enumerate(many):
                np.testing.assert_array_equal(one.outputs["y"], 2 * (X + n))

    asyncio.run(run())


def test_a_deadline_ends_the_wait(tmp_path):
    async def run():
        file = write_slow(tmp_path / "m.onnx")
        async with running(file, isolation="process", max_batch=1) as engine:
            busy = asyncio.create_task(engine.infer(slow_call(500)))
            await asyncio.sleep(0.05)
            with pytest.raises((DeadlineExceeded, Overloaded)):
                await engine.infer(slow_call(1, timeout_s=0.05))
            assert (await busy).outputs["y"] == 1

    asyncio.run(run())


def test_more_than_may_wait_are_sent_away_with_a_time_to_come_back(tmp_path):
    async def run():
        file = write_slow(tmp_path / "m.onnx")
        async with running(file, isolation="process", max_batch=1, max_queue=2) as engine:
            waiting = [asyncio.create_task(engine.infer(slow_call(100))) for _ in range(3)]
            await asyncio.sleep(0.02)
            with pytest.raises(Overloaded) as refused:
                await engine.infer(slow_call(1))
            assert refused.value.retry_after_s > 0
            # Known without a task of its own, too.
            with pytest.raises(Overloaded):
                engine.infer_now(slow_call(1))
            assert [answer.outputs["y"][0] for answer in await asyncio.gather(*waiting)] == [1] * 3
            assert engine.infer_now(slow_call(1)) is None

    asyncio.run(run())


def test_a_cancelled_request_makes_room_at_once(tmp_path):
    async def run():
        file = write_slow(tmp_path / "m.onnx")
        async with running(file, isolation="process", max_batch=1, max_queue=1) as engine:
            busy = asyncio.create_task(engine.infer(slow_call(300)))
            await asyncio.sleep(0.02)
            waiting = asyncio.create_task(engine.infer(slow_call(1)))
            await asyncio.sleep(0.02)
            with pytest.raises(Overloaded):
                await engine.infer(slow_call(1))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            # The slot is free in the same turn of the loop.
            assert engine._crew.pool.num_waiting == 0
            last = await engine.infer(slow_call(1))
            assert last.outputs["y"] == 1
            await busy

    asyncio.run(run())


def test_a_killed_worker_is_replaced_and_its_request_answered(tmp_path):
    async def run():
        file = write_slow(tmp_path / "m.onnx")
        async with running(file, isolation="process", max_batch=1) as engine:
            busy = asyncio.create_task(engine.infer(slow_call(200)))
            await asyncio.sleep(0.05)
            (pid,) = workers(engine)
            os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0.02)
            # There is no worker at this moment.
            other = asyncio.create_task(engine.infer(slow_call(1)))
            assert (await busy).outputs["y"] == 1
            assert (await other).outputs["y"] == 1
            assert workers(engine) != [pid]

    asyncio.run(run())


def test_stopping_finishes_what_runs_and_takes_nothing_new(tmp_path):
    async def run():
        file = write_slow(tmp_path / "m.onnx")
        async with running(file, isolation="process", max_batch=1) as engine:
            busy = [asyncio.create_task(engine.infer(slow_call(100))) for _ in range(3)]
            await asyncio.sleep(0.02)
            stopping = asyncio.create_task(engine.stop(10))
            await asyncio.sleep(0)
            assert engine.state == "draining"
            with pytest.raises(NotReady, match="draining"):
                await engine.infer(slow_call(1))
            assert [answer.outputs["y"][0] for answer in await asyncio.gather(*busy)] == [1] * 3
            await stopping
            assert engine.state == "stopped"

    asyncio.run(run())


def test_what_does_not_finish_in_time_is_given_up(tmp_path):
    async def run():
        file = write_slow(tmp_path / "m.onnx")
        async with running(file, isolation="process", max_batch=1) as engine:
            busy = asyncio.create_task(engine.infer(slow_call(60_000)))
            await asyncio.sleep(0.05)
            start = time.monotonic()
            await engine.stop(0.1)
            assert time.monotonic() - start < 20
            with pytest.raises(Exception, match=r"stopped|ended"):
                await busy

    asyncio.run(run())


def test_workers_come_and_go_by_hand_within_the_bounds(tmp_path):
    async def run():
        file = write_times(tmp_path / "m.onnx", 2.0)
        settings = {"isolation": "process", "min_workers": 1, "max_workers": 2}
        async with running(file, **settings) as engine:
            assert [engine.scale(1), engine.scale(1)] == [2, 2]
            await until(lambda: len(workers(engine)) == 2)
            assert [engine.scale(-1), engine.scale(-1)] == [1, 1]
            await until(lambda: len(workers(engine)) == 1)
            np.testing.assert_array_equal((await engine.infer(call())).outputs["y"], 2 * X)

    asyncio.run(run())


def test_a_long_queue_brings_a_second_worker(tmp_path):
    async def run():
        file = write_slow(tmp_path / "m.onnx")
        settings = {"isolation": "process", "min_workers": 1, "max_workers": 2, "max_batch": 1}
        async with running(file, auto_scale=True, **settings) as engine:
            is_over = False

            async def load():
                while not is_over:
                    await engine.infer(slow_call(50))

            loads = [asyncio.create_task(load()) for _ in range(8)]
            await until(lambda: len(workers(engine)) == 2)
            is_over = True
            await asyncio.gather(*loads)

    asyncio.run(run())


def test_the_first_request_starts_a_worker_where_there_may_be_none(tmp_path):
    async def run():
        file = write_times(tmp_path / "m.onnx", 2.0)
        settings = {"isolation": "process", "min_workers": 0, "max_workers": 1}
        async with running(file, auto_scale=True, **settings) as engine:
            scaler = engine._crew.scaler
            scaler.rule = replace(scaler.rule, idle_s=0.2)
            await until(lambda: not workers(engine) and not scaler.wanted)
            np.testing.assert_array_equal((await engine.infer(call())).outputs["y"], 2 * X)

    asyncio.run(run())


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)
