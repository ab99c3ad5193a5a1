"""One model file into one target's file, with the proof that both compute the same."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from core.convert.export import ExportTrail, export_onnx
from core.convert.load import Axes, Example, load_source
from core.convert.onnx_source import opset_of
from core.convert.parity import Parity, compare
from core.convert.parity_report import Entry, write_reports
from core.convert.source import Source
from core.convert.target import Artifact, Converter, Options, find_converter

OPSET = 18
Told = Callable[[str], None]


class ConversionError(ValueError):
    """The converted model does not compute what the source computes."""


@dataclass(frozen=True)
class Conversion:
    """A finished conversion."""

    path: Path  # the main file
    artifact: Artifact
    parity: Parity | None  # None: nothing here can run the target, its state says so
    trail: ExportTrail
    reports: tuple[Path, Path]  # JSON, HTML


class ModelConverter:
    """Converts a model file or folder for a target and proves that nothing changed.

    Args:
        input_path: a torchvision state_dict, TorchScript, torch.export, safetensors or ONNX file,
            a transformers folder, a run of a kit; see `core.convert.load`.
        output_format: a target: onnx, onnxruntime, openvino, aoti, ...
        output_path: of the main file; by default beside the input, with the target's suffix.
        example: inputs, where they do not follow from the model.
        axes: input -> dimension -> axis whose size may change.
        trust_pickle: unpickle whole modules, which can run any code in the file.
        device: of the target, where there are several.
        precision: float32 unless said otherwise.
        calibration: input -> (n, ...) real samples, for targets that ask for them.
        tell: called with what is done next.
    """

    def __init__(
        self,
        input_path: str | Path,
        output_format: str,
        output_path: str | Path | None = None,
        *,
        example: Example | None = None,
        axes: Axes | None = None,
        trust_pickle: bool = False,
        device: str = "",
        precision: str | None = None,
        calibration: Mapping[str, Any] | None = None,
        tell: Told | None = None,
    ) -> None:
        self.input_path = Path(input_path)
        self.converter = find_converter(output_format)
        self.output_path = None if output_path is None else Path(output_path)
        self.options = Options(precision or "float32", device, calibration)
        self.tell = tell or (lambda _: None)
        self._load = {"example": example, "axes": axes, "trust_pickle": trust_pickle}

    def convert(self) -> Conversion:
        """Load, export, convert, compare; the files appear when all went well.

        Raises:
            ConversionError: the outputs differ; the reports are written, the artifact is not.
            ValueError: the model cannot be loaded or exported, or not become this target.
        """
        self.tell("reading")
        source = load_source(self.input_path, **self._load)  # type: ignore[arg-type]
        return convert_source(
            source, self.converter, self._output(source), self.options, tell=self.tell
        )

    def _output(self, source: Source) -> Path:
        beside = self.input_path.with_name(source.name + self.converter.suffix)
        output = self.output_path or beside
        refuse_input(output, self.input_path)
        return output


def refuse_input(output: Path, model: Path) -> None:
    """Refuse to write a conversion over the very file that is converted.

    Raises:
        ValueError: they are the same file.
    """
    if output.exists() and output.samefile(model):
        raise ValueError(f"output_path={str(output)!r} is the input itself; pass another one")


def convert_source(
    source: Source,
    converter: Converter,
    output: Path,
    options: Options,
    *,
    target_id: str | None = None,
    exported: tuple[Path, ExportTrail] | None = None,
    tell: Told | None = None,
) -> Conversion:
    """Convert a loaded source into `output`; as `ModelConverter.convert`, for any source.

    Args:
        source: the model; its name is taken from the output.
        converter: of the target.
        output: the main file to write.
        options: what was asked for.
        target_id: one of the converter's; by default what fits the options.
        exported: the source's ONNX file and how it was made, where it was exported already.
        tell: called with what is done next.
    """
    tell = tell or (lambda _: None)
    source = replace(source, name=_stem(output, converter))
    with _folder_beside(output) as work:
        if exported is None:
            tell("exporting to ONNX")
            exported = export_to(source, work / "onnx")
        onnx, trail = exported
        tell(f"converting to {converter.name}")
        folder = work / "artifact"
        folder.mkdir()
        artifact = converter.convert(
            source, onnx, folder, target_id or _target_id(converter, options), options
        )
        tell("comparing")
        runner = converter.open(artifact)
        parity = compare(source, runner, artifact.target.tolerance) if runner else None
        reports = _reports(output)
        entry = Entry(artifact.target, parity, artifact.notes)
        write_reports(*reports, [entry], model=source.name, origin=source.origin, trail=trail)
        if parity is not None and not parity.passed:
            raise ConversionError(
                f"{converter.name} of {source.name!r} does not compute what the source computes: "
                f"{parity.problems[0]}; no file was written, see {reports[1].name}"
            )
        return Conversion(output, _publish(artifact, output), parity, trail, reports)


def export_to(source: Source, folder: Path) -> tuple[Path, ExportTrail]:
    """Export a source as `model.onnx` in a folder; an ONNX file keeps its opset."""
    onnx = folder / "model.onnx"
    return onnx, export_onnx(source, onnx, opset=opset_of(source) or OPSET)


def _stem(output: Path, converter: Converter) -> str:
    has_suffix = output.name.endswith(converter.suffix)
    return output.name.removesuffix(converter.suffix) if has_suffix else output.stem


def _target_id(converter: Converter, options: Options) -> str:
    """The id that names the device or precision asked for; the converter's first if none does."""
    wanted = {"bfloat16": "-bf16"}.get(options.precision, "") or options.device.lower()
    # "910b", "orin" or "-bf16" as well as the vendor's full name: Ascend910B3 is a 910b.
    named = [
        id_
        for id_ in converter.ids
        if wanted and (wanted in id_ or any(part in wanted for part in id_.split("-")[1:-1]))
    ]
    return (*named, *converter.ids)[0]


def _reports(output: Path) -> tuple[Path, Path]:
    return (
        output.with_name(f"{output.name}.parity.json"),
        output.with_name(f"{output.name}.parity.html"),
    )


@contextlib.contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """A folder on the output's file system, so that what is in it can be moved there at once."""
    output.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _publish(artifact: Artifact, output: Path) -> Artifact:
    """Move the files to their final names: the main file last, for it is what others look for."""
    main = artifact.target.model
    if main != output.name and len(artifact.files) > 1:
        raise ValueError(
            f"output_path={output.name!r} must end with {''.join(Path(main).suffixes)!r}: "
            f"{artifact.target.id} has {len(artifact.files)} files, found by that name"
        )
    others = [name for name in artifact.files if name != main]
    for name in others:
        (artifact.folder / name).replace(output.with_name(name))
    artifact.path.replace(output)
    target = replace(artifact.target, model=output.name)
    return replace(artifact, folder=output.parent, files=(output.name, *others), target=target)
