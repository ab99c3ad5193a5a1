"""Makes the arm64 root and its wheels in build/aarch64: `python -m tests.aarch64.prepare`.

Once per state of its inputs; takes some 20 s. The Debian packages come from this machine's own
mirror, the wheels from where its pip looks.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.aarch64.emulator import LOCK, PACKAGES, SUITE, emulate, system

PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
SOURCES = Path("/etc/apt")


def mirrors():
    """The machine's own apt sources that have the suite; none: mmdebstrap's default is taken."""
    files = [SOURCES / "sources.list", *SOURCES.glob("sources.list.d/*")]
    suite = re.compile(rf"(?<![\w-]){SUITE}(?![\w-])")
    return [
        file
        for file in sorted(files)
        if file.suffix in (".list", ".sources") and file.exists() and suite.search(file.read_text())
    ]


def unpack_root(folder):
    include = "--include=" + ",".join(PACKAGES)
    options = ["--variant=extract", "--architectures=arm64", include, "--quiet"]
    subprocess.run(["mmdebstrap", *options, SUITE, folder, *mirrors()], check=True)


def unpack_wheels(folder, work):
    # pip compares markers with the machine it runs on, not with the one it installs for.
    lock = work / "requirements.txt"
    lock.write_text(re.sub(r" ;[^\\\n]*", " ", LOCK.read_text(encoding="utf-8")))
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    command += [*(f"--platform={platform}" for platform in PLATFORMS), "--only-binary=:all:"]
    command += ["--python-version=3.11", "--implementation=cp", "--abi=cp311"]
    subprocess.run([*command, f"--target={folder}", f"--requirement={lock}"], check=True)


def prepare():
    """Give the prepared folder, made first if it is not there."""
    if not system().exists():
        system().parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=system().parent) as name:
            work = Path(name)
            made = work / "made"
            made.mkdir(mode=0o755)
            unpack_root(made / "root")
            unpack_wheels(made / "site", work)
            # The final name is given last: whoever sees it sees all of it.
            made.rename(system())
    return system()


if __name__ == "__main__":
    print(prepare())
    process = emulate("-c", "import platform, numpy, onnxruntime; print(platform.machine())")
    sys.exit(process.stdout != "aarch64\n" and process.stdout + process.stderr)
