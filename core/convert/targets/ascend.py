"""Ascend: a recipe for ATC, the vendor's model compiler, which comes with CANN only.

Options and their limits as documented in docs/zh/user_guides/atc_tools of github.com/hicann/ge,
commit ffdcbc9f of 2026-08-21.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import Any

import onnx as onnx_package

from core.convert.ascend_aipp import aipp_config
from core.convert.ascend_coverage import find_unsupported, operator_table
from core.convert.build_bundle import (
    Build,
    BuildBundle,
    is_quantised,
    opset_of,
    read_model,
    write_build_bundle,
)
from core.convert.export import axes_of, export_onnx, short_reason
from core.convert.graph import at_opset
from core.convert.parity import TOLERANCES, compare
from core.convert.runner import open_artifact
from core.convert.source import Source
from core.convert.target import Artifact, Options
from edge.target import Target

CHIPS = {  # target id -> default chip, and what a chip of that family is called
    "ascend-310p-om": ("Ascend310P3", r"Ascend310P\d"),
    "ascend-910b-om": ("Ascend910B3", r"Ascend910B\d(-\d)?"),
}
PRECISION_MODES = {"float32": "origin", "float16": "fp16"}
MAX_GEARS = 100  # sizes that one compiled model can switch between
MAX_ND_RANK = 4
DEVICE_FACTS = ("soc_version", "cann", "driver")


class AscendConverter:
    """Writes a build bundle for ATC; the model is at opset 17 or below.

    Reads `precision` (float32, float16), `device` (soc_version), and of `values`: `sizes` (axis
    name -> sizes to compile for; default: lowest, middle, highest), `aipp` (input -> settings of
    `ascend_aipp.aipp_config`) and `strict` (True: unsupported operators are an error).
    """

    name = "ascend"
    suffix = ".ascend.json"
    ids = tuple(CHIPS)

    def convert(
        self, source: Source, onnx: Path, folder: Path, target_id: str, options: Options
    ) -> Artifact:
        """Write `<source.name>.ascend.json`, the model, and `aipp.cfg` where one was asked for.

        Raises:
            ValueError: an unknown chip or precision, sizes that ATC cannot be told, or with
                `strict`, operators that are not in the vendor's list.
        """
        if target_id not in self.ids:
            raise ValueError(f"target={target_id!r} is not one of {', '.join(self.ids)}")
        chip = _chip(target_id, options.device)
        if options.precision not in PRECISION_MODES:
            raise ValueError(
                f"precision={options.precision!r} is not one of {', '.join(PRECISION_MODES)}: "
                f"the vendor's list has no QuantizeLinear"
            )
        content = _at_known_opset(source, onnx, folder, f"{source.name}.ascend.onnx")
        model = onnx_package.load_from_string(content)
        unsupported = find_unsupported(model)
        if unsupported and options.values.get("strict"):
            raise ValueError(
                f"operators={'; '.join(map(str, unsupported))}; change the model, or drop strict"
            )
        files = {"onnx": content}
        aipp = options.values.get("aipp") or {}
        if aipp:
            files["aipp.cfg"] = aipp_config(source, aipp).encode()
        argv = (
            "atc",
            "--framework=5",
            "--model={stem}.onnx",
            "--output={output}/model",
            f"--soc_version={chip}",
            *shape_arguments(source, options),
            f"--precision_mode_v2={PRECISION_MODES[options.precision]}",
            *(["--output_type=FP32"] if _gives_float32(model) else []),
            *(["--insert_op_conf={stem}.aipp.cfg"] if aipp else []),
            "--log=error",
        )
        # ATC adds system and processor to the name where the file holds code for the host.
        results = tuple(f"model{host}.om" for host in ("", "_linux_aarch64", "_linux_x86_64"))
        table = operator_table()
        bundle = BuildBundle(
            self.suffix,
            [Build("cann", argv, results, {"atc": "CANN >=8.0", "soc_version": chip})],
            files,
            DEVICE_FACTS,
            [entry.to_json() for entry in unsupported],
            _notes(unsupported, aipp, bool(source.axes)),
            {
                "operators": {"published": table["published"], "registered": table["registered"]},
                "aipp": {name: {"dtype": "uint8", "layout": "NHWC"} for name in aipp},
            },
        )
        target = {
            "id": target_id,
            "arch": "aarch64",
            "backend": "ascend",
            "accelerator": chip,
            "runtime": "CANN >=8.0",
        }
        return write_build_bundle(source, folder, target, options, bundle)

    def open(self, artifact: Artifact) -> None:
        """Nothing: ATC and the chip are missing here."""


def shape_arguments(source: Source, options: Options) -> list[str]:
    """`--input_format`, `--input_shape`, and the sizes of free axes.

    A free batch of images or volumes is told as `--dynamic_batch_size`, anything else free as
    `--dynamic_dims` with every combination of sizes.

    Raises:
        ValueError: more sizes than ATC takes, or free axes that go with neither AIPP nor rank 5.
    """
    shapes = {name: list(example.shape) for name, example in source.example.items()}
    ranks = {len(shape) for shape in shapes.values()}
    layout = {frozenset({4}): "NCHW", frozenset({5}): "NCDHW"}.get(frozenset(ranks), "ND")
    asked = options.values.get("sizes") or {}
    free = {name: asked.get(name) or axis.sizes() for name, axis in axes_of(source).items()}
    fixed = {name: sizes[0] for name, sizes in free.items() if len(sizes) == 1}
    order = []  # the axis of each -1, in the order of the inputs
    for name, shape in shapes.items():
        for at, axis in sorted(source.axes.get(name, {}).items()):
            shape[at] = fixed.get(axis.name, -1)
            order += [axis.name] if axis.name not in fixed else []
    for name in shapes:
        if set(name) & set(":;,"):
            raise ValueError(f"input {name!r} has one of : ; , which ATC splits at")
    text = ";".join(f"{name}:{','.join(map(str, shape))}" for name, shape in shapes.items())
    if not order:
        return [f"--input_format={layout}", f"--input_shape={text}"]
    is_batch = len(set(order)) == 1 and all(
        shape[0] == -1 and -1 not in shape[1:] for shape in shapes.values() if -1 in shape
    )
    names = list(dict.fromkeys(order))
    gears = list(itertools.product(*(free[name] for name in names)))
    if len(gears) > MAX_GEARS:
        raise ValueError(
            f"sizes={len(gears)} combinations are more than {MAX_GEARS}; give fewer in "
            f"Options.values['sizes']"
        )
    if is_batch and layout != "ND":
        sizes = ",".join(str(gear[0]) for gear in gears)
        return [
            f"--input_format={layout}",
            f"--input_shape={text}",
            f"--dynamic_batch_size={sizes}",
        ]
    if options.values.get("aipp") or max(ranks) > MAX_ND_RANK:
        raise ValueError(
            f"axes={', '.join(names)} are free; with AIPP or inputs of rank 5 only a batch may be: "
            f"fix the others in Options.values['sizes'], one size each"
        )
    dims = ";".join(",".join(str(gear[names.index(name)]) for name in order) for gear in gears)
    return ["--input_format=ND", f"--input_shape={text}", f"--dynamic_dims={dims}"]


def _chip(target_id: str, asked: str) -> str:
    default, pattern = CHIPS[target_id]
    if asked.lower() in target_id:  # the family alone: "910b"
        return default
    if not re.fullmatch(pattern, asked):
        raise ValueError(f"device={asked!r} is no chip of {target_id}, as {default} is one")
    return asked


def _at_known_opset(source: Source, onnx: Path, folder: Path, name: str) -> bytes:
    """The portable model; where its opset is too high or low, at another one and compared again."""
    table = operator_table()
    low, high = table["lowest_opset"], table["highest_opset"]
    model = onnx_package.load(str(onnx), load_external_data=False)
    if is_quantised(model):
        raise ValueError(
            f"model={source.name!r} is quantised, the vendor's list has no QuantizeLinear; "
            f"export with compress=none"
        )
    if low <= opset_of(model) <= high:
        return read_model(onnx)
    reasons = []
    for step in ("converted", "exported anew"):
        try:
            if step == "converted":
                older = at_opset(onnx_package.load(str(onnx)), high)
                onnx_package.save(older, str(folder / name))
            else:
                export_onnx(source, folder / name, opset=high)
            if (problem := _difference(source, folder, name)) is None:
                return (folder / name).read_bytes()
            reasons.append(f"{step}: {problem}")
        except Exception as error:  # noqa: BLE001 (onnx and runtimes have no common type; told)
            reasons.append(f"{step}: {short_reason(error)}")
    (folder / name).unlink(missing_ok=True)
    raise ValueError(f"model={source.name!r} cannot be had at opset {high}: {'; '.join(reasons)}")


def _difference(source: Source, folder: Path, name: str) -> str | None:
    """Where a file computes something else than the source, or None."""
    target = Target(
        id="check",
        arch="any",
        backend="onnxruntime",
        accelerator="cpu",
        precision="float32",
        model=name,
        state="verified",
        tolerance=TOLERANCES["float32"],
    )
    parity = compare(source, open_artifact(Artifact(target, folder, (name,))), target.tolerance)
    return None if parity.passed else str(parity.problems[0])


def _gives_float32(model: onnx_package.ModelProto) -> bool:
    kinds = {output.type.tensor_type.elem_type for output in model.graph.output}
    return kinds == {onnx_package.TensorProto.FLOAT}


def _notes(unsupported: list[Any], aipp: Any, has_axes: bool) -> list[str]:
    table = operator_table()
    source = f"{table['published']['what']}, retrieved {table['published']['retrieved']}"
    notes = [f"not in the {source}: {entry}" for entry in unsupported]
    if not unsupported:
        notes.append(f"every operator is in the {source}")
    if has_axes:
        notes.append("takes the sizes of the command alone; pad inputs to the next one")
    if aipp:
        notes.append(f"inputs {', '.join(aipp)} become uint8 images in NHWC: AIPP normalises them")
    return notes


CONVERTER = AscendConverter()
