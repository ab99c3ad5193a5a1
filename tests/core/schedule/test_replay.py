import asyncio
import json
import time

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Model
from core.schedule.pool import LoadedModel, Pool, WorkerSpec
from core.schedule.replay import Replay, record, sleep_until, write_recording
from edge.manifest import Tensor

LOADED = LoadedModel(
    key="m@1",
    backend="onnxruntime",
    runtime="1.2.3",
    precision="int8",
    seconds={},
    inputs=(Tensor("x", "float32", ("n", 3)),),
    outputs=(Tensor("y", "float32", ("n", "t", 2)),),
)


def kind(**seconds):
    times = {rows.removeprefix("rows"): values for rows, values in seconds.items()}
    facts = {"backend": "onnxruntime", "runtime": "1.2.3", "precision": "int8"}
    return {**facts, "seconds": times}


@pytest.fixture
def recording(tmp_path):
    file = tmp_path / "m.json"
    fast = kind(rows1=[0.001, 0.002, 0.003], rows4=[0.004, 0.005, 0.006])
    write_recording(file, LOADED, {"fast": fast, "slow": kind(rows1=[0.03])}, "made up")
    return file


def test_times_are_drawn_from_those_recorded_and_equal_for_equal_workers(recording):
    first, again, other = (Replay.open(recording, "", "fast", worker) for worker in "aab")
    drawn = [first.draw_s(1) for _ in range(200)]
    assert drawn == [again.draw_s(1) for _ in range(200)]
    assert drawn != [other.draw_s(1) for _ in range(200)]
    assert 0.001 <= min(drawn) < 0.0013
    assert 0.0027 < max(drawn) <= 0.003
    assert np.mean(drawn) == pytest.approx(0.002, rel=0.1)


@pytest.mark.parametrize(("rows", "seconds"), [(1, 0.002), (2, 0.003), (4, 0.005), (8, 0.010)])
def test_sizes_between_and_beyond_those_recorded_are_drawn_in_proportion(recording, rows, seconds):
    replay = Replay.open(recording, "", "fast", "w")
    assert np.mean([replay.draw_s(rows) for _ in range(2000)]) == pytest.approx(seconds, rel=0.05)


def test_a_pause_never_ends_early():
    for pause_s in (0.0, 20e-6, 0.002):
        end = time.perf_counter() + pause_s
        sleep_until(end)
        assert time.perf_counter() >= end


def test_what_is_recorded_is_told_as_measured(recording):
    told = Replay.open(recording, "", "fast", "w").describe(2)
    assert told["seconds"] == [(1, 0.002)]
    assert (told["precision"], told["max_batch"], told["obstacle"]) == ("int8", 2, "")


@pytest.mark.parametrize(
    ("content", "word"),
    [
        ({"schema": "other"}, "not of schema"),
        ({"kinds": {}}, "no times of kind 'fast'; it has "),
        ({"kinds": {"fast": kind()}}, "no or impossible times"),
        ({"kinds": {"fast": kind(rows1=[])}}, "no or impossible times"),
        ({"kinds": {"fast": kind(rows1=[0.1, -1.0])}}, "no or impossible times"),
    ],
)
def test_a_wrong_recording_is_refused(recording, content, word):
    recording.write_text(json.dumps({**json.loads(recording.read_text()), **content}))
    with pytest.raises(ValueError, match=word):
        Replay.open(recording, "", "fast", "w")


def test_another_file_than_meant_is_refused(recording):
    with pytest.raises(ValueError, match="not the file that is meant"):
        Replay.open(recording, "0" * 64, "fast", "w")


def test_replayed_workers_of_two_kinds_take_their_own_time_behind_real_sockets(recording):
    async def run():
        costs = CostTable()

        def learn(spec, loaded):
            costs.measure(loaded.key, spec.kind, loaded.seconds)

        pool = Pool(DeepFlow(costs), on_loaded=learn)
        try:
            for name in ("fast", "slow"):
                await pool.start_worker(WorkerSpec(name, name))
            told = await pool.load(Model("m@1", 4), recording, "")
            deadline_s = time.monotonic() + 60
            x = {"x": np.zeros((1, 3), np.float32)}
            jobs = [pool.run("m@1", x, deadline_s=deadline_s) for _ in range(30)]
            return told, await asyncio.gather(*jobs)
        finally:
            await pool.close()

    told, results = asyncio.run(asyncio.wait_for(run(), 60))
    assert sorted(one.seconds[1] for one in told) == [0.002, 0.03]
    by_worker = {name: [r for r in results if r.worker == name] for name in ("fast", "slow")}
    assert len(by_worker["fast"]) > len(by_worker["slow"])
    least = {"fast": 0.001, "slow": 0.03}
    for name, theirs in by_worker.items():
        assert all(result.compute_s >= least[name] for result in theirs)
        assert all(result.outputs["y"].shape == (1, 1, 2) for result in theirs)


def test_a_real_worker_is_recorded_and_replayed(tmp_path):
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 3]) for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(tmp_path / "identity.onnx"))

    async def run():
        pool = Pool(DeepFlow(CostTable()))
        try:
            await pool.start_worker(WorkerSpec("w", "cpu"))
            (loaded,) = await pool.load(Model("m@1", 4), tmp_path / "identity.onnx", "")
            times = await record(pool.process("w"), loaded, [1, 4], repeats=5)
            sha256 = write_recording(tmp_path / "m.json", loaded, {"cpu": times}, "this test")
            (replayed,) = await pool.load(Model("m@2", 4), tmp_path / "m.json", sha256)
            return times, loaded, replayed
        finally:
            await pool.close()

    times, loaded, replayed = asyncio.run(asyncio.wait_for(run(), 60))
    assert {rows: len(values) for rows, values in times["seconds"].items()} == {"1": 5, "4": 5}
    assert (replayed.inputs, replayed.outputs) == (loaded.inputs, loaded.outputs)
    assert replayed.seconds[1] == pytest.approx(np.median(times["seconds"]["1"]))
