"""Runs Python for aarch64 on this machine: an unpacked arm64 Debian and qemu's user mode.

No root, no chroot, no binfmt: `qemu-aarch64 -L` looks for every file in the unpacked root first.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np

from edge.arrays import read_npz, write_npz
from edge.bundle import Bundle
from edge.pipeline import Pipeline
from edge.trust import Trust

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
PACKAGES = ("python3.11", "libpython3-stdlib", "libstdc++6")
LOCK = ROOT / "requirements" / "aarch64.txt"
# A processor with the dot product instructions of the boards that are meant.
PROCESSOR = "cortex-a76"
# The same sums in another order; small networks were seen to differ by 1e-7 to 6e-7.
TOLERANCE = 1e-5


def system() -> Path:
    """Where the prepared root and the wheels lie: a folder per state of what they are made of."""
    inputs = f"{SUITE} {PACKAGES}".encode() + LOCK.read_bytes()
    return ROOT / "build" / "aarch64" / hashlib.sha256(inputs).hexdigest()[:16]


def reason_to_skip() -> str:
    """What is missing here; empty when `emulate` works."""
    if shutil.which("qemu-aarch64") is None:
        return "no qemu-aarch64; make system"
    if not system().exists():
        return "no arm64 root; make system, then python -m tests.aarch64.prepare"
    return ""


def emulate(*arguments, environment=None, timeout_s=100, folder=None):
    """Run `python3.11 ARGUMENTS` for aarch64; nothing of this machine's Python is in its path.

    Args:
        environment: variables to add.
        timeout_s: the emulator is 400 to 800 times slower than the machine.
        folder: where it runs: a folder outside the repository shows that no file of it is needed.

    Returns:
        The finished process with its text; the caller looks at the exit status.
    """
    root, site = system() / "root", system() / "site"
    clean = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    clean |= {
        "PYTHONPATH": f"{site}{os.pathsep}{ROOT}",
        "PYTHONNOUSERSITE": "1",
        "LC_ALL": "C.UTF-8",
    }
    python = root / "usr" / "bin" / "python3.11"
    return subprocess.run(
        ["qemu-aarch64", "-cpu", PROCESSOR, "-L", root, python, *arguments],
        env=clean | (environment or {}),
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
        cwd=folder,
    )


def check_on_both(bundle, sample, trust, folder):
    """Verify a bundle and run it, emulated and on this machine; the outputs have to be equal.

    Args:
        bundle: its file, with a target for each of the two machines.
        sample: inputs by name.
        trust: the trust folder whose root its keys belong to.
        folder: for the samples; the emulated process starts there.

    Returns:
        the emulated outputs by name; what the emulated processes printed.
    """
    (folder / "input.npz").write_bytes(write_npz(sample))
    arguments = ("--input", "input.npz", "--output", "output.npz")
    printed = ""
    for module, further in (("edge.verify", ()), ("edge.run", arguments)):
        process = emulate(
            *("-m", module, bundle, *further),
            environment={"DEEPKITS_HOME": str(trust)},
            folder=folder,
        )
        assert process.returncode == 0, process.stderr[-4000:]
        printed += process.stdout
    emulated = read_npz((folder / "output.npz").read_bytes())
    native = Pipeline.open(Bundle.open(bundle, Trust.load(trust))).predict(sample)
    assert emulated.keys() == native.keys()
    for name, expected in native.items():
        np.testing.assert_allclose(
            emulated[name], expected, rtol=0, atol=TOLERANCE, err_msg=name, strict=True
        )
    return emulated, printed
