import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kernels import native
from kernels.build import INSTRUCTION_SETS, build, compile_native
from kernels.fold import Fold, Labels, Rows

ROLES = ("account", "merchant", "device", "ip")
KINDS = ("account", "merchant", "device", "device")
ARM_LIBRARIES = Path("/usr/aarch64-linux-gnu")


def events(num_events):
    random = np.random.default_rng(5)
    time_s = np.sort(random.integers(0, 60 * 86_400, num_events))
    tokens = np.stack(
        [random.integers(1, high, num_events) for high in (40, 25, 60, 60)], axis=1
    ).astype(np.uint64)
    tokens[random.random(num_events) < 0.1, 2] = 0
    amount = np.round(random.lognormal(3, 2, num_events), 2)
    label = random.choice([-1, 0, 1], num_events, p=[0.1, 0.8, 0.1])
    return time_s, tokens, amount, Labels.schedule(label, time_s + 7 * 86_400)


def folded(num_events):
    fold = Fold(ROLES, KINDS)
    rows = Rows.empty(num_events, len(fold.feature_names))
    fold.run(*events(num_events), out=rows)
    return rows


def runnable():
    best = native.instruction_set()
    known = next(sets for sets in INSTRUCTION_SETS.values() if best in sets)
    return known[: known.index(best) + 1]


def test_every_instruction_set_of_this_processor_gives_the_same_bits(monkeypatch):
    expected = folded(3001)
    for instruction_set in runnable():
        monkeypatch.setenv("DEEPKITS_ISA", instruction_set)
        native.load.cache_clear()
        rows = folded(3001)
        for name, column in vars(rows).items():
            assert column.tobytes() == getattr(expected, name).tobytes(), (instruction_set, name)
    monkeypatch.undo()
    native.load.cache_clear()


def test_aarch64_gives_the_same_bits_under_emulation(tmp_path):
    if shutil.which("qemu-aarch64") is None or not ARM_LIBRARIES.exists():
        pytest.skip("no emulator or no aarch64 libc; make system")
    (library,) = build("aarch64", tmp_path)
    driver = tmp_path / "driver"
    compile_native([str(Path(__file__).with_name("driver.cpp"))], "aarch64", driver, "-ldl")

    num_events = 801
    time_s, tokens, amount, labels = events(num_events)
    expected = folded(num_events)
    kinds = np.array([KINDS.index(kind) for kind in KINDS])
    columns = (
        np.array([num_events, len(ROLES), len(labels), expected.features.shape[1]], np.int64),
        np.unique(kinds, return_inverse=True)[1].astype(np.int32),
        *(time_s, tokens, amount, labels.event, labels.time_s, labels.value),
    )
    result = subprocess.run(
        ["qemu-aarch64", "-L", str(ARM_LIBRARIES), str(driver), str(library)],
        input=b"".join(np.ascontiguousarray(column).tobytes() for column in columns),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == b"".join(column.tobytes() for column in vars(expected).values())
