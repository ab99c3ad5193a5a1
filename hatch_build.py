"""Hatchling's hook: put the native kernels into the wheel and their platform into its tag."""

from __future__ import annotations

import os
import platform
import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class KernelsHook(BuildHookInterface):  # type: ignore[type-arg]
    """Builds for this machine, or for the environment's DEEPKITS_ARCH."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile before the wheel is packed; an editable install uses the source tree's copy."""
        kernels = Path(self.root) / "kernels"
        arch = os.environ.get("DEEPKITS_ARCH", platform.machine())
        # The project is not importable while it is being built.
        build = runpy.run_path(str(kernels / "build.py"))["build"]
        libraries = build(arch, kernels / "_lib")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_2_17_{arch}"
        if version != "editable":
            build_data["force_include"] |= {
                str(library): f"kernels/_lib/{library.name}" for library in libraries
            }
