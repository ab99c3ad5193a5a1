"""How fast a bundle is verified, beside hashing the same bytes and nothing else.

    pytest benchmarks/bench_bundle.py -s

A bundle of 200 MB (four large files and the usual small ones) lies in the page cache. Opening it
checks structure, signatures and every hash on one thread. Medians and extremes of wall time and of
the process's CPU time, which other processes disturb less.
"""

import hashlib
import json
import os
import statistics
import time
from pathlib import Path

import numpy as np
import pytest

from core.train.run import environment, write_atomic
from edge import ed25519
from edge.bundle import Bundle, write_bundle
from edge.keys import new_key
from edge.target import Target, Tolerance
from edge.trust import Trust

RESULTS = Path(__file__).parent / "results" / "bundle.json"
NUM_LARGE, LARGE_BYTES = 4, 50_000_000
REPEATS = 9

pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def results():
    """Filled by the benchmarks, written at the end, printed with -s."""
    found = {
        "data": f"{NUM_LARGE} files of {LARGE_BYTES / 1e6:.0f} MB and the small ones of a bundle",
        "machine": {k: v for k, v in environment().items() if k not in ("command", "packages")},
    }
    yield found
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomic(RESULTS, json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """The path of the bundle, and who is trusted."""
    folder = tmp_path_factory.mktemp("bundle")
    signer = new_key(folder)
    rng = np.random.default_rng(0)
    target = Target(
        id="portable-onnx",
        arch="any",
        backend="onnxruntime",
        accelerator="cpu",
        precision="float32",
        model="model/model.onnx",
        state="verified",
        tolerance=Tolerance(1e-5, 1e-5, "float32 sums in another order"),
    )
    files = {f"artifacts/{i}.bin": rng.bytes(LARGE_BYTES) for i in range(1, NUM_LARGE)}
    files |= {
        "model/model.onnx": rng.bytes(LARGE_BYTES),
        "targets/portable-onnx.json": json.dumps(target.to_json()).encode(),
        **{f"pipeline/{i}.json": rng.bytes(2000) for i in range(20)},
    }
    tensor = {"name": "x", "dtype": "float32", "shape": ["batch", 4]}
    manifest = {
        "name": "large",
        "version": "1.0.0",
        "channel": "benchmark",
        "created": 0,
        "expires": None,
        "rollback_index": 0,
        "min_runtime": "0.1.0",
        "requires": {"memory_mib": 1, "disk_mib": 1},
        "model": "model/model.onnx",
        "inputs": [tensor],
        "outputs": [tensor],
        "targets": ["portable-onnx"],
        "license": "Apache-2.0",
        "intended_use": "measuring",
    }
    write_bundle(folder / "large.ebundle", manifest, files, {}, [signer])
    return folder / "large.ebundle", Trust.load(folder)


def measure(jobs, num_bytes):
    """GB/s of wall and of CPU time of some jobs, taken in turn so that all see the same machine."""
    rates = {name: {"wall": [], "cpu": []} for name in jobs}
    for job in jobs.values():
        job()  # the page cache
    for _ in range(REPEATS):
        for name, job in jobs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            job()
            rates[name]["wall"].append(num_bytes / (time.perf_counter() - wall) / 1e9)
            rates[name]["cpu"].append(num_bytes / (time.process_time() - cpu) / 1e9)
    return {
        name: {
            f"gb_per_{clock}_s": {
                "min": round(min(values), 3),
                "median": round(statistics.median(values), 3),
                "max": round(max(values), 3),
            }
            for clock, values in clocks.items()
        }
        for name, clocks in rates.items()
    }


def test_verify_beside_hashing(bundle, results):
    path, trust = bundle
    num_bytes = path.stat().st_size

    def bare():
        with path.open("rb") as stream:
            hashlib.file_digest(stream, "sha256")

    content = path.read_bytes()
    jobs = {
        "verify": lambda: Bundle.open(path, trust),
        "sha256_of_the_file": bare,
        "sha256_in_memory": lambda: hashlib.sha256(content).digest(),
    }
    found = measure(jobs, num_bytes)
    ratio = {
        f"verify_over_{name}": round(
            found["verify"]["gb_per_cpu_s"]["median"] / found[name]["gb_per_cpu_s"]["median"], 3
        )
        for name in ("sha256_of_the_file", "sha256_in_memory")
    }
    results["verify"] = {
        "bytes": num_bytes,
        "repeats": REPEATS,
        "rates": found,
        "ratio_of_cpu_rates": ratio,
        "load_average": round(os.getloadavg()[0], 1),
    }


def test_one_signature(bundle, results):
    """The part of opening that does not grow with the bundle."""
    path, trust = bundle
    signer = new_key(path.parent, "other")
    message = b"message"
    signature = signer.sign(message)
    assert ed25519.verify(signer.public, message, signature)
    times_ms = []
    for _ in range(50):
        started = time.process_time()
        ed25519.verify(signer.public, message, signature)
        times_ms.append((time.process_time() - started) * 1e3)
    results["ed25519_verify_cpu_ms"] = round(statistics.median(times_ms), 2)
    assert trust.root.threshold == 1
