"""Runs Python for aarch64 on this machine: an unpacked arm64 Debian and qemu's user mode.

No root, no chroot, no binfmt: `qemu-aarch64 -L` looks for every file in the unpacked root first.
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
SUITE = "bookworm"
PACKAGES = ("python3.11", "libpython3-stdlib", "libstdc++6")
LOCK = ROOT / "requirements" / "aarch64.txt"
PROGRAMS = ("qemu-aarch64", "mmdebstrap")
# A processor with the dot product instructions of the boards that are meant.
PROCESSOR = "cortex-a76"


def system() -> Path:
    """Where the prepared root and the wheels lie: a folder per state of what they are made of."""
    inputs = f"{SUITE} {PACKAGES}".encode() + LOCK.read_bytes()
    return ROOT / "build" / "aarch64" / hashlib.sha256(inputs).hexdigest()[:16]


def reason_to_skip() -> str:
    """What is missing here; empty when `emulate` works."""
    if shutil.which("qemu-aarch64") is None:
        return "no qemu-aarch64; make system"
    if not system().exists():
        return "no arm64 root; make system, then python tests/aarch64/prepare.py"
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
