"""Pools with real processes, the plainest rule, tiny models, for tests."""

import asyncio
import os
import time
from contextlib import asynccontextmanager
from math import inf
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper

from core.schedule.job import Batch, Device, Model, Refusal
from core.schedule.model_file import hash_model
from core.schedule.pool import Pool, WorkerSpec

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


FOREVER = 2**40


def rows(*values):
    return {"x": np.array([[number] * 3 for number in values], np.float32)}


def turning(turns, number=1.0):
    return {"x": np.full((1, 3), number, np.float32), "turns": np.array([turns])}


async def ask(pool, model="linear@1", inputs=None, size=1, timeout_s=SOON):
    inputs = rows(1.0) if inputs is None else inputs
    return await pool.run(model, inputs, size=size, deadline_s=time.monotonic() + timeout_s)
