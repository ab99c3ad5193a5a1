"""Compile every `kernels/*/native.cpp` into one shared library per instruction set.

The compiler is the `ziglang` wheel, so that no machine needs one of its own, and x86-64 builds for
aarch64 as it builds for itself. The library needs glibc 2.17 and no C++ runtime: the sources
include C headers only. Run by `pip install`, by `make kernels`, and as `python -m kernels.build`.
Linux only; the standard library only.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import platform
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCES = Path(__file__).parent

# One library each, best last; native.py picks by what the processor can do.
INSTRUCTION_SETS = {"x86_64": ("x86_64_v3", "x86_64_v4"), "aarch64": ("aarch64",)}
ZIG_CPU = {"x86_64_v3": "x86_64_v3", "x86_64_v4": "x86_64_v4", "aarch64": "generic"}

FLAGS = (
    "-std=c++17",
    "-O3",
    # Bit for bit what the Python reference computes, on every instruction set.
    "-ffp-contract=off",
    "-fno-fast-math",
    "-fno-math-errno",  # sqrt as one instruction; no result changes
    "-fno-exceptions",
    "-fno-rtti",
    "-nostdlib++",
    "-s",  # no debug information
    "-Wall",
    "-Wextra",
    "-Werror",
)


def source_hash(sources: Path = SOURCES) -> str:
    """Hash of everything that decides what is in the library: C++ sources, headers, this file."""
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for file in sorted((*sources.glob("*/*.cpp"), *sources.glob("*/*.h"))):
        digest.update(file.relative_to(sources).as_posix().encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:16]


def library_name(instruction_set: str, sources: Path = SOURCES) -> str:
    """File name of a library; the hash in it keeps one of older sources from being loaded."""
    return f"deepkits_kernels.{instruction_set}.{source_hash(sources)}.so"


def build(arch: str, output: Path, sources: Path = SOURCES) -> list[Path]:
    """Build the libraries of one architecture that are not there yet.

    Args:
        arch: "x86_64" or "aarch64".
        output: folder for the libraries; those of older sources are removed from it.
        sources: the folder with the kernels.

    Returns:
        The libraries' paths, one per instruction set.

    Raises:
        ValueError: the architecture is not known.
        ModuleNotFoundError: the compiler is not installed.
        subprocess.CalledProcessError: a source does not compile; the compiler has said why.
    """
    if arch not in INSTRUCTION_SETS:
        known = ", ".join(INSTRUCTION_SETS)
        raise ValueError(f"arch={arch!r} is not one of {known}; the kernels need one of them")
    output.mkdir(parents=True, exist_ok=True)
    libraries = []
    for instruction_set in INSTRUCTION_SETS[arch]:
        library = output / library_name(instruction_set, sources)
        if not library.exists():
            files = [str(file) for file in sorted(sources.glob("*/native.cpp"))]
            compile_native(files, instruction_set, library, "-shared", "-fPIC")
            for old in output.glob(f"deepkits_kernels.{instruction_set}.*.so"):
                if old != library:
                    old.unlink()
        libraries.append(library)
    return libraries


def compile_native(files: list[str], instruction_set: str, output: Path, *flags: str) -> None:
    """Compile and link C++ files; the output appears whole or not at all."""
    if importlib.util.find_spec("ziglang") is None:
        raise ModuleNotFoundError("ziglang is not installed; pip install ziglang", name="ziglang")
    arch = next(arch for arch, sets in INSTRUCTION_SETS.items() if instruction_set in sets)
    target = ("-target", f"{arch}-linux-gnu.2.17", f"-mcpu={ZIG_CPU[instruction_set]}")
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        made = Path(folder) / output.name
        command = [sys.executable, "-m", "ziglang", "c++", *target, *FLAGS, *flags]
        subprocess.run([*command, "-o", str(made), *files], check=True)
        made.replace(output)


def main() -> None:
    """Build for the given architectures, by default for this machine's."""
    parser = argparse.ArgumentParser("python -m kernels.build")
    parser.add_argument("arch", nargs="*", default=[platform.machine()])
    parser.add_argument("--output", type=Path, default=SOURCES / "_lib")
    arguments = parser.parse_args()
    for arch in arguments.arch:
        for library in build(arch, arguments.output):
            print(library)


if __name__ == "__main__":
    main()
