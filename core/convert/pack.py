"""Everything that was made of a model, as one signed bundle; equal inputs give equal bytes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.convert.source import Arrays, Source
from core.convert.target import Artifact
from edge.arrays import write_npz
from edge.bundle import write_bundle
from edge.device import BACKENDS
from edge.keys import Signer
from edge.manifest import RUNTIME
from edge.ops import run_steps
from edge.selftest import VECTORS
from edge.target import Target

MODEL = "model/model.onnx"
MIN_VECTORS = 8
MIB = 1 << 20
# A runtime keeps the weights twice while it rearranges them, beside itself and its arrays.
MEMORY_FACTOR, MEMORY_BASE_MIB = 3, 192
RECIPE_ONLY = "no two builds of its engine have the same bytes, so the bundle holds none"

Steps = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Contents:
    """What a bundle is made of."""

    name: str
    version: str
    channel: str
    created: int  # seconds since 1970; a run's own time, so that packing again gives the same
    expires: int | None
    rollback_index: int
    license: str
    intended_use: str
    source: Source
    onnx: Path  # the portable model; weights inside
    artifacts: Sequence[Artifact]  # in order of preference
    golden: Arrays  # `input/<name>` and `output/<name>` of the self-test
    pre: Steps = ()
    post: Steps = ()
    inputs: Sequence[Mapping[str, Any]] = ()  # of `predict` where pre steps change them
    config_schema: Mapping[str, Any] = field(default_factory=dict)
    config_default: Mapping[str, Any] = field(default_factory=dict)
    sbom: bytes = b""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    reports: Mapping[str, Path] = field(default_factory=dict)  # name in reports/ -> file
    requirements: Mapping[str, str] = field(default_factory=dict)  # architecture -> locked wheels


def pack(path: Path, contents: Contents, signers: Sequence[Signer], *, engines: bool) -> None:
    """Write a bundle.

    Args:
        path: the file; an older one is replaced.
        contents: what goes in.
        signers: who signs.
        engines: take artifacts too that differ at each build; else the bundle has their recipe.

    Raises:
        ValueError: nobody signs, fewer than 8 self-test rows, no target, or the inputs of a bundle
            with pre steps are not given.
    """
    if contents.pre and not contents.inputs:
        raise ValueError("inputs=() says nothing of what the pre steps read; list them")
    num_rows = min((len(value) for value in contents.golden.values()), default=0)
    if num_rows < MIN_VECTORS:
        raise ValueError(f"golden has {num_rows} rows, a self-test needs {MIN_VECTORS}; draw more")
    files: dict[str, bytes | Path] = {
        MODEL: contents.onnx,
        VECTORS: write_npz(contents.golden),
        "pipeline/pre.json": to_json(list(contents.pre)),
        "pipeline/post.json": to_json(list(contents.post)),
        "config/schema.json": to_json(contents.config_schema),
        "config/default.json": to_json(contents.config_default),
        "sbom.cdx.json": contents.sbom,
        "provenance.json": to_json(contents.provenance),
    }
    files |= {f"reports/{name}": file for name, file in contents.reports.items()}
    for arch, text in contents.requirements.items():
        files[f"runtime/requirements-{arch}.txt"] = text.encode()
    for artifact in contents.artifacts:
        target, inside = place(artifact, contents.onnx, engines=engines)
        files |= inside
        files[f"targets/{target.id}.json"] = to_json(target.to_json())
    size_mib = -(-sum(_size(content) for content in files.values()) // MIB)
    weights_mib = -(-contents.onnx.stat().st_size // MIB)
    manifest = {
        "name": contents.name,
        "version": contents.version,
        "channel": contents.channel,
        "created": contents.created,
        "expires": contents.expires,
        "rollback_index": contents.rollback_index,
        "min_runtime": RUNTIME,
        "requires": {
            "memory_mib": MEMORY_BASE_MIB + MEMORY_FACTOR * weights_mib,
            "disk_mib": size_mib,
        },
        "model": MODEL,
        "inputs": list(contents.inputs) or describe_inputs(contents.source),
        "outputs": describe_outputs(contents.source, contents.post),
        "targets": [artifact.target.id for artifact in contents.artifacts],
        "license": contents.license,
        "intended_use": contents.intended_use,
    }
    roles = {"sbom.cdx.json": "sbom", "provenance.json": "provenance"}
    write_bundle(path, manifest, files, roles, signers)


def place(
    artifact: Artifact, onnx: Path, *, engines: bool
) -> tuple[Target, dict[str, bytes | Path]]:
    """A target as the bundle has it, and the files it brings.

    A file equal to the portable model is not kept twice. An engine that differs at each build
    stays outside unless asked for; then the target says how to build it.
    """
    target = artifact.target
    if not artifact.is_reproducible and not engines:
        # What is not in the bundle cannot be said to have been built.
        recipe = target.recipe or _recipe(artifact)
        return replace(target, state="contract-only", model=MODEL, recipe=recipe), {}
    if artifact.files == (target.model,) and _sha256(artifact.path) == _sha256(onnx):
        return replace(target, model=MODEL), {}
    folder = f"artifacts/{target.id}"
    inside: dict[str, bytes | Path] = {
        f"{folder}/{name}": artifact.folder / name for name in artifact.files
    }
    return replace(target, model=f"{folder}/{target.model}"), inside


def golden_vectors(source: Source, num_rows: int, seed: int) -> Arrays:
    """Self-test rows: drawn inputs and what the source makes of them in float32.

    The first axis of every input is the batch; where it is fixed, runs are stacked.

    Raises:
        ValueError: the batch axis has another name in some input.
    """
    names = {axes[0].name if 0 in axes else "" for axes in _axes(source)}
    if len(names) != 1:
        raise ValueError(f"the first axes of {source.name!r} are {sorted(names)}; name one batch")
    (batch,) = names
    fixed = {
        axis.name: axis.sizes()[len(axis.sizes()) // 2]
        for axes in source.axes.values()
        for axis in axes.values()
    }
    per_run = min(num_rows, source.axes[next(iter(source.axes))][0].high) if batch else 0
    parts: list[Arrays] = []
    rows = 0
    while rows < num_rows:
        sizes = fixed | ({batch: min(per_run, num_rows - rows)} if batch else {})
        inputs = source.inputs(sizes, seed + len(parts))
        outputs = source.run(inputs)
        parts.append(
            {f"input/{name}": value for name, value in inputs.items()}
            | {f"output/{name}": value for name, value in outputs.items()}
        )
        rows += len(next(iter(inputs.values())))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def describe_inputs(source: Source) -> list[dict[str, Any]]:
    """The model's inputs as a manifest lists them; free axes by name."""
    return [
        {
            "name": name,
            "dtype": str(example.dtype).removeprefix("torch."),
            "shape": [
                source.axes[name][at].name if at in source.axes.get(name, {}) else size
                for at, size in enumerate(example.shape)
            ],
        }
        for name, example in source.example.items()
    ]


def describe_outputs(source: Source, post: Steps) -> list[dict[str, Any]]:
    """What `predict` gives, after the post steps; sizes that follow an axis have its name."""
    axes = {axis.name: axis for dims in source.axes.values() for axis in dims.values()}
    runs = []
    for turn in (0, -1):
        sizes = {name: axis.sizes()[turn] for name, axis in axes.items()}
        runs.append((sizes, run_steps(post, source.run(source.inputs(sizes, 0)))))
    (low, first), (high, last) = runs
    described = []
    for name, value in first.items():
        shape: list[int | str] = []
        for at, (one, two) in enumerate(zip(value.shape, last[name].shape, strict=True)):
            following = [axis for axis in axes if (low[axis], high[axis]) == (one, two)]
            changed = following[0] if following else f"{name}_{at}"
            shape.append(one if one == two else changed)
        described.append({"name": name, "dtype": str(value.dtype), "shape": shape})
    return described


def to_json(content: Any) -> bytes:
    """JSON with sorted keys; equal values give equal bytes."""
    text = json.dumps(content, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    return f"{text}\n".encode()


def _recipe(artifact: Artifact) -> dict[str, Any]:
    """How to make the engine with this project's own converter, where it can be made from ONNX."""
    from core.convert.target import converter_of

    target, commands = artifact.target, []
    if target.backend in BACKENDS:
        name = converter_of(target.id).name
        commands.append(["python", "-m", "core.convert", MODEL, "--to", name])
    return {"why": RECIPE_ONLY, "engine": target.model, "commands": commands}


def _axes(source: Source) -> list[Mapping[int, Any]]:
    return [source.axes.get(name, {}) for name in source.example]


def _size(content: bytes | Path) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
