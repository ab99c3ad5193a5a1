import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from kernels.build import build, compile_native
from kernels.triage import block_means, cell_grid, to_planes
from kernels.triage.reference import match_reference, scan_reference

ARM_LIBRARIES = Path("/usr/aarch64-linux-gnu")
SHAPE = (131, 331)
LEVELS, CONTRASTS, RADIUS, GAIN = (7, 30), (12, 9, 30, 5), 3, 17_002


@pytest.mark.parametrize("kind", ["noise", "smooth"])
def test_aarch64_gives_the_same_bits_under_emulation(tmp_path, kind):
    if shutil.which("qemu-aarch64") is None or not ARM_LIBRARIES.exists():
        pytest.skip("no emulator or no aarch64 libc; make system")
    (library,) = build("aarch64", tmp_path)
    driver = tmp_path / "driver"
    compile_native([str(Path(__file__).with_name("driver.cpp"))], "aarch64", driver, "-ldl")

    random = np.random.default_rng(8)
    frame = random.integers(0, 255, SHAPE, np.uint8)
    if kind == "smooth":
        frame = (frame // 16 + 100 + 8 * np.arange(SHAPE[1]) // 40).astype(np.uint8)
    means = block_means(np.roll(frame, 2, 1)).astype(int)
    low = to_planes((means - 5).clip(0, 255).astype(np.uint8), 0)
    high = to_planes((means + 9).clip(0, 255).astype(np.uint8), 255)
    grid = cell_grid(*SHAPE)
    shifts = random.integers(-30, 31, (*grid, 2), np.int32)
    patches = np.argwhere(np.ones(grid)).astype(np.int32, order="C")
    base = random.integers(-5, 6, patches.shape, np.int32)

    counts = scan_reference(frame, low, high, shifts, LEVELS, CONTRASTS, GAIN)
    expected = [*vars(counts).values(), *match_reference(frame, low, patches, base, RADIUS, GAIN)]
    sizes = np.array([*SHAPE, grid[0] * grid[1], low.size, len(patches), RADIUS, GAIN], np.int64)
    given = (sizes, frame, low, high, shifts, np.array([*LEVELS, *CONTRASTS], np.uint8), patches,
             base)  # fmt: skip
    result = subprocess.run(
        ["qemu-aarch64", "-L", str(ARM_LIBRARIES), str(driver), str(library)],
        input=b"".join(np.ascontiguousarray(array).tobytes() for array in given),
        capture_output=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == b"".join(array.tobytes() for array in expected)
