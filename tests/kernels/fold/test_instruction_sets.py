import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kernels import native
from kernels.build import INSTRUCTION_SETS, build, compile_native

ROLES = ("account", "counterparty", "device", "ip")
# The account is a counterparty too, and device and ip share a kind.
KINDS = ("account", "account", "device", "device")
WORLD = ROLES, KINDS
ARM_LIBRARIES = Path("/usr/aarch64-linux-gnu")


def runnable():
    best = native.instruction_set()
    known = next(sets for sets in INSTRUCTION_SETS.values() if best in sets)
    return known[: known.index(best) + 1]


def test_every_instruction_set_of_this_processor_gives_the_same_bits(monkeypatch, stream_of, run):
    stream = stream_of(1, 3001, len(ROLES), num_tokens=20)
    expected = run(WORLD, stream)
    for instruction_set in runnable():
        monkeypatch.setenv("DEEPKITS_ISA", instruction_set)
        native.load.cache_clear()
        rows = run(WORLD, stream)
        for name, column in vars(rows).items():
            assert column.tobytes() == getattr(expected, name).tobytes(), (instruction_set, name)
    monkeypatch.undo()
    native.load.cache_clear()


def test_aarch64_gives_the_same_bits_under_emulation(tmp_path, stream_of, run):
    if shutil.which("qemu-aarch64") is None or not ARM_LIBRARIES.exists():
        pytest.skip("no emulator or no aarch64 libc; make system")
    (library,) = build("aarch64", tmp_path)
    driver = tmp_path / "driver"
    compile_native([str(Path(__file__).with_name("driver.cpp"))], "aarch64", driver, "-ldl")

    num_events = 1201
    stream = stream_of(2, num_events, len(ROLES))
    expected, labels = run(WORLD, stream), stream.labels
    kinds = np.array([KINDS.index(kind) for kind in KINDS])
    columns = (
        np.array([num_events, len(ROLES), len(labels), expected.features.shape[1]], np.int64),
        np.unique(kinds, return_inverse=True)[1].astype(np.int32),
        *stream.columns(),
        *(labels.event, labels.time_s, labels.value),
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
