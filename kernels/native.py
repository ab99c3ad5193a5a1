"""Load the native library that fits this processor and these sources."""

from __future__ import annotations

import ctypes
import functools
import os
import platform
from pathlib import Path

from kernels.build import INSTRUCTION_SETS, library_name

LIBRARIES = Path(__file__).parent / "_lib"

# What a compiler may use at each level, as /proc/cpuinfo names it.
_V3_FLAGS = frozenset(["avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "abm", "movbe"])
_V4_FLAGS = frozenset(["avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"])
_NEEDED_FLAGS = {
    "x86_64_v3": _V3_FLAGS,
    "x86_64_v4": _V3_FLAGS | _V4_FLAGS,
    "aarch64": frozenset[str](),
}


@functools.cache
def load() -> ctypes.CDLL:
    """Load the library once; the environment's DEEPKITS_ISA overrides the choice.

    Raises:
        RuntimeError: no library for this processor, or none built from these sources.
        ValueError: DEEPKITS_ISA names none of the instruction sets.
    """
    library = LIBRARIES / library_name(instruction_set())
    if not library.exists():
        raise RuntimeError(f"{library.name} is not built for these sources; run `make kernels`")
    return ctypes.CDLL(str(library))


def instruction_set() -> str:
    """Choose the best instruction set that the processor has and a library is made for."""
    known = INSTRUCTION_SETS.get(platform.machine(), ())
    wanted = os.environ.get("DEEPKITS_ISA")
    if wanted is not None:
        if wanted not in known:
            raise ValueError(f"DEEPKITS_ISA={wanted!r} is not one of {', '.join(known)}; unset it")
        return wanted
    flags = _processor_flags()
    fitting = [name for name in known if _NEEDED_FLAGS[name] <= flags]
    if not fitting:
        raise RuntimeError(
            f"{platform.machine()} has no native kernels here; "
            "they need Linux on x86-64 with AVX2, or on aarch64"
        )
    return fitting[-1]


def _processor_flags() -> frozenset[str]:
    """What the first processor can do, in Linux's words."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()
