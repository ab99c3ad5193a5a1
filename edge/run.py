"""Run a bundle on this machine: `python -m edge.run FILE --input X.npz [--output Y.npz]`.

The bundle is verified and its self-test passed before the sample is read.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from edge.arrays import read_npz, write_npz
from edge.bundle import Bundle
from edge.pipeline import Pipeline
from edge.table import format_table
from edge.target import STATES_WITH_LATENCY
from edge.trust import Trust

REPEATS = 5
NUM_SHOWN = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Print what ran and what came out; 1 and one line on stderr when something is refused."""
    parser = argparse.ArgumentParser("python -m edge.run", description="Run a bundle.")
    parser.add_argument("bundle", type=Path, help="an .ebundle, or a folder with the same files")
    parser.add_argument("--input", type=Path, help=".npz with an array for each input")
    parser.add_argument("--output", type=Path, help=".npz to write the outputs to")
    parser.add_argument("--self-test", action="store_true", help="only the bundle's own vectors")
    parser.add_argument(
        "--device", default="auto", help="a target id; default: the first that fits"
    )
    parser.add_argument(
        "--threads", type=int, help="of one inference; default: the runtime's choice"
    )
    parser.add_argument("--trust", type=Path, help="folder; $DEEPKITS_HOME or ~/.config/deepkits")
    options = parser.parse_args(arguments)
    if options.self_test == (options.input is not None):
        parser.error("give either --input FILE or --self-test")
    if options.self_test and options.output:
        parser.error("--self-test writes no outputs; leave --output out")
    try:
        bundle = Bundle.open(options.bundle, Trust.load(options.trust))
        pipeline = Pipeline.open(bundle, options.device, options.threads)
        print(_headline(bundle, pipeline))
        if options.input:
            _predict(pipeline, options.input, options.output)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def _predict(pipeline: Pipeline, source: Path, destination: Path | None) -> None:
    sample = read_npz(source.read_bytes())
    outputs = pipeline.predict(sample)
    if destination:
        destination.write_bytes(write_npz(outputs))
    rows = [
        (name, str(array.dtype), " x ".join(map(str, array.shape)) or "1", first_values(array))
        for name, array in outputs.items()
    ]
    print("\n" + format_table(("output", "type", "shape", "first values"), rows))
    if pipeline.target.state in STATES_WITH_LATENCY:
        print(f"\nlatency   {_latency_ms(pipeline, sample):.3g} ms, median of {REPEATS} runs here")
    else:
        print(f"\nlatency   not stated: {pipeline.target.state}, never ran on such a device")
    if destination:
        print(f"written   {destination}")


def _headline(bundle: Bundle, pipeline: Pipeline) -> str:
    facts, target, tested = pipeline.backend.facts, pipeline.target, pipeline.self_test
    errors = ", ".join(f"{name} {error:.2g}" for name, error in tested.max_error.items())
    tolerance = tested.tolerance
    lines = [
        f"bundle    {bundle.manifest.name} {bundle.manifest.version}, verified",
        f"target    {target.id} ({target.state})",
        f"runtime   {facts.backend} {facts.runtime}, provider {facts.provider}, {facts.precision}",
        f"self-test passed on {tested.num_rows} rows; largest error: {errors}; allowed: "
        f"{tolerance.absolute:g} + {tolerance.relative:g} of the value",
    ]
    return "\n".join(lines)


def first_values(array: np.ndarray) -> str:
    """The first few values, for people."""
    values = array.ravel()[:NUM_SHOWN]
    told = ", ".join(f"{value:.6g}" if array.dtype.kind == "f" else str(value) for value in values)
    return told + (", …" if array.size > NUM_SHOWN else "")


def _latency_ms(pipeline: Pipeline, sample: Mapping[str, np.ndarray]) -> float:
    times = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        pipeline.predict(sample)
        times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
