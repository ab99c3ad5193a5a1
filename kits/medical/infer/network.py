"""A bundle as a network: which of its targets is fastest here, and what it says of itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import Bundle
from edge.device import choose_target
from edge.manifest import MANIFEST
from edge.pipeline import Pipeline
from edge.target import Target, machine
from kits.medical.infer.settings import Settings

BUNDLE = "export/medical.ebundle"
PROVENANCE = "provenance.json"
INPUT, OUTPUTS = "image", ("mask", "heat", "texture")
RANK = 5
# Of OpenVINO on a processor.
FASTEST_PRECISIONS = ("int8", "bfloat16", "float32")
# What computes in bfloat16 by itself; others would convert back and forth.
BFLOAT16_FLAGS = frozenset(["avx512_bf16", "amx_bf16"])


@dataclass(frozen=True)
class NetworkFacts:
    """What runs, and where it came from."""

    name: str
    version: str
    sha256: str  # of the bundle's manifest
    target: str
    precision: str
    runtime: str  # backend and version
    multiple: int  # of the sizes of an image
    threshold: float  # of scores, as the run chose it
    mask_threshold: float  # of a voxel's probability, as the run chose it
    provenance: Mapping[str, Any]  # what the kit wrote of its model


class OpenNetwork:
    """An opened bundle: called with {"image"}, it gives {"mask", "heat", "texture"}."""

    def __init__(self, pipeline: Pipeline, facts: NetworkFacts) -> None:
        self.pipeline, self.facts = pipeline, facts
        # Without the finest level on the way up: a quarter of the work, half of the memory.
        self._heat = pipeline.part("heat")

    def __call__(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Logits of a batch of images in Hounsfield units."""
        return self.pipeline.predict(inputs)

    def heat(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """{"heat"} alone, which takes less work."""
        return self._heat.predict(inputs)

    def settings(self, **changes: Any) -> Settings:
        """How to search with this network, with changes to what it says of itself."""
        facts = {
            "multiple": self.facts.multiple,
            "threshold": self.facts.threshold,
            "mask_threshold": self.facts.mask_threshold,
        }
        return Settings(**{**facts, **changes})


def open_network(
    run_or_bundle: Path | str, threads: int | None = None, device: str = "auto"
) -> OpenNetwork:
    """Open a bundle, or that of a run's folder.

    Args:
        run_or_bundle: a bundle, or a run's folder with `export/medical.ebundle` in it.
        threads: of one prediction; None takes what the runtime takes.
        device: a target's id; "auto" takes the one that is fastest on this processor.

    Raises:
        ValueError: there is no bundle, it is not trusted, or it is not of this kit.
        ModuleNotFoundError: the target's runtime is not installed.
    """
    bundle = Bundle.open(find_bundle(Path(run_or_bundle)))
    _check(bundle)
    target = fastest_target(bundle.targets) if device == "auto" else device
    pipeline = Pipeline.open(bundle, target, threads)
    manifest, found = bundle.manifest, _provenance(bundle)
    facts = pipeline.backend.facts
    return OpenNetwork(
        pipeline,
        NetworkFacts(
            name=manifest.name,
            version=manifest.version,
            sha256=bundle.slices[MANIFEST].sha256(),
            target=pipeline.target.id,
            precision=facts.precision,
            runtime=f"{facts.backend} {facts.runtime}",
            multiple=int(found["multiple"]),
            threshold=float(found.get("threshold", Settings.threshold)),
            mask_threshold=float(found.get("mask_threshold", Settings.mask_threshold)),
            provenance=found,
        ),
    )


def find_bundle(path: Path) -> Path:
    """The bundle at a path.

    Raises:
        ValueError: there is none; the message says how to make it.
    """
    if path.is_dir() and not (path / MANIFEST).exists():
        if (path / BUNDLE).exists():
            return path / BUNDLE
        raise ValueError(
            f"run={path} has no {BUNDLE}; make it: python -m kits.medical.export run={path} "
            "target=openvino_bf16"
        )
    if not path.exists():
        raise ValueError(f"run={path} does not exist; name a run's folder, or a bundle")
    return path


def fastest_target(targets: Mapping[str, Target]) -> str:
    """The id of the target that is fastest here, by what was measured; see `benchmarks/medical`.

    Raises:
        ValueError: none can run on this machine.
    """
    for precision in FASTEST_PRECISIONS:
        if precision == "bfloat16" and not processor_flags() & BFLOAT16_FLAGS:
            continue
        for target in targets.values():
            if (target.backend, target.accelerator) == ("openvino", "cpu") and (
                target.precision == precision and target.arch in ("any", machine())
            ):
                return target.id
    return choose_target(targets, "auto").id


def processor_flags() -> frozenset[str]:
    """What the first processor can do, in Linux's words; empty elsewhere."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "flags":
                return frozenset(value.split())
    return frozenset()


def _check(bundle: Bundle) -> None:
    manifest = bundle.manifest
    inputs = [(t.name, len(t.shape)) for t in manifest.inputs]
    outputs = {t.name for t in manifest.outputs}
    if inputs != [(INPUT, RANK)] or not outputs >= set(OUTPUTS):
        raise ValueError(
            f"bundle={bundle.path} is of {manifest.name!r} with inputs {inputs} and outputs "
            f"{sorted(outputs)}; give a bundle of the medical kit"
        )


def _provenance(bundle: Bundle) -> dict[str, Any]:
    content = json.loads(bundle.read(PROVENANCE)) if PROVENANCE in bundle.files else {}
    definition = content.get("predicate", {}).get("buildDefinition", {})
    found: dict[str, Any] = definition.get("internalParameters", {})
    if not isinstance(found.get("multiple"), int) or found["multiple"] < 1:
        raise ValueError(
            f"bundle={bundle.path} does not say of which multiple its sizes are; export it again"
        )
    return found
