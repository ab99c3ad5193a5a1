"""OpenVINO's own AUTO with CUMULATIVE_THROUGHPUT as a line to compare with.

Where the processor is its only device, AUTO has nothing to choose from: it runs every model in
float32 on all cores, as many requests at once as it thinks best. All models live in one process,
which the generator shares, as an application of OpenVINO's would.
"""

from __future__ import annotations

import queue
import threading
import time
from typing import Any

import numpy as np

from benchmarks.deepflow import models
from benchmarks.deepflow.compare import Effort, next_rate, sustained
from benchmarks.deepflow.costs import Costs
from benchmarks.deepflow.mixes import Mix, arrivals
from benchmarks.deepflow.offer import LEAD_S, Outcome, Tally
from benchmarks.deepflow.stage import WARM_UP_S
from edge.runtimes import import_runtime

# Of the bound of the workers, which have a faster runtime beside this one.
LOADS = (0.2, 0.4, 0.6)
DEVICE = "AUTO"
PROPERTIES = {"PERFORMANCE_HINT": "CUMULATIVE_THROUGHPUT"}
# Requests that are this late after the last one count as not answered.
DRAIN_S = 1.0


def run_openvino_auto(mix: Mix, costs: Costs, bound: float, effort: Effort) -> dict[str, Any]:
    """The largest rate of a mix that it sustains, and its runs."""
    peer = OpenvinoAuto(mix, costs)
    outcomes = [peer.run(load * bound, effort.seconds) for load in LOADS]
    for _ in range(effort.halvings):
        outcomes.append(peer.run(next_rate(outcomes, bound), effort.seconds))
        outcomes.sort(key=lambda outcome: outcome.rate)
    runs = [outcome.summary() for outcome in outcomes]
    return {"rate": round(sustained(outcomes), 1), "runs": runs}


class OpenvinoAuto:
    """All models of a mix, compiled for AUTO; requests that find no slot wait in line."""

    def __init__(self, mix: Mix, costs: Costs) -> None:
        openvino: Any = import_runtime("openvino")
        self.mix = mix
        self.slo_s = mix.slo_s(costs)
        self._core = openvino.Core()
        self._queues = {s.model: self._compile(openvino, s.model) for s in mix.streams}
        self._samples = {s.model: models.inputs_of(s.model, s.size) for s in mix.streams}

    def _compile(self, openvino: Any, model: str) -> Any:
        models.bundle(model)
        path = models.WORK / f"{model}.float32.onnx"
        compiled = self._core.compile_model(str(path), DEVICE, PROPERTIES)
        return openvino.AsyncInferQueue(compiled)

    def run(self, rate: float, seconds: float, seed: int = 0) -> Outcome:
        """Offer a rate for a while; the same arrivals as every other rule's."""
        asked = arrivals(self.mix, rate, WARM_UP_S + seconds, seed)
        tallies = {model: Tally(slo_s) for model, slo_s in self.slo_s.items()}
        start = time.monotonic() + LEAD_S + WARM_UP_S
        over = threading.Event()
        lines: dict[str, queue.SimpleQueue[float | None]] = {
            model: queue.SimpleQueue() for model in self._queues
        }
        for model, infer_queue in self._queues.items():
            infer_queue.set_callback(_counter(tallies[model], start, over))
        starters = [
            threading.Thread(target=self._start, args=(model, line, over), daemon=True)
            for model, line in lines.items()
        ]
        for starter in starters:
            starter.start()
        for at, index in zip(asked.times_s.tolist(), asked.stream.tolist(), strict=True):
            due = start - WARM_UP_S + at
            time.sleep(max(0.0, due - time.monotonic()))
            model = self.mix.streams[index].model
            tallies[model].offered += due >= start
            lines[model].put(due)
        time.sleep(DRAIN_S)
        over.set()
        for line in lines.values():
            line.put(None)
        for starter in starters:
            starter.join()
        for infer_queue in self._queues.values():
            infer_queue.wait_all()
        for tally in tallies.values():
            tally.in_time = sum(latency <= tally.slo_s for latency in tally.latencies_s)
        return Outcome(rate, seconds, tallies)

    def _start(
        self, model: str, line: queue.SimpleQueue[float | None], over: threading.Event
    ) -> None:
        """Hand requests to the model's queue, which blocks while all its slots are taken."""
        sample: dict[str, np.ndarray] = self._samples[model]
        while (due := line.get()) is not None:
            if not over.is_set():
                self._queues[model].start_async(sample, due, share_inputs=True)


def _counter(tally: Tally, start: float, over: threading.Event) -> Any:
    def done(_request: Any, due: float) -> None:
        if due >= start and not over.is_set():
            # One append: the callbacks come from several threads.
            tally.latencies_s.append(time.monotonic() - due)

    return done
