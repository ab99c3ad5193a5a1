"""Convert a model: `python -m core.convert resnet50.pt --to onnx --to openvino`."""

from __future__ import annotations

import argparse
import functools
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from core.convert.converter import Conversion

PLAIN_WIDTH = 120  # characters of the table in a file or pipe


def main(arguments: Sequence[str] | None = None) -> int:
    """Convert one model to each target and print what became of it; 1 if one failed."""
    options = _parser().parse_args(arguments)
    from rich.console import Console

    errors = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    try:
        # A mistyped target is told before torch is loaded.
        _check_targets(options.to)
        example = _read_example(options.example)
        rows, failures = _convert_all(options, example)
    except (ValueError, FileNotFoundError, ModuleNotFoundError) as error:
        errors.print(f"error: {error}")
        return 1
    _print_table(rows)
    for failure in failures:
        errors.print(f"error: {failure}")
    return 1 if failures else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.convert", description=__doc__)
    parser.add_argument("input", type=Path, help="model file or folder")
    parser.add_argument("--to", action="append", required=True, metavar="TARGET", help="repeatable")
    parser.add_argument("--output", type=Path, metavar="DIR", help="by default beside the input")
    parser.add_argument("--example", metavar="1x3x224x224|FILE.npz", help="shape, or real inputs")
    parser.add_argument("--precision", help="float32 unless said otherwise")
    parser.add_argument("--device", default="", help="where a target knows several")
    parser.add_argument(
        "--trust-pickle", action="store_true", help="unpickle whole modules: runs code in the file"
    )
    return parser


def _check_targets(names: Sequence[str]) -> None:
    import pkgutil

    from core.convert import targets

    known = sorted(module.name for module in pkgutil.iter_modules(targets.__path__))
    for name in names:
        if name not in known:
            raise ValueError(f"--to={name} is not one of {', '.join(known)}")


def _read_example(text: str | None) -> Any:
    """A tensor of ones' normal values for a shape, or the arrays of an .npz file by name."""
    import numpy as np

    if text is None:
        return None
    if text.endswith(".npz"):
        with np.load(text, allow_pickle=False) as arrays:
            return dict(arrays)
    try:
        shape = [int(size) for size in text.lower().split("x")]
    except ValueError:
        raise ValueError(
            f"--example={text} is no shape as 1x3x224x224 and no .npz file; correct it"
        ) from None
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def _convert_all(options: argparse.Namespace, example: Any) -> tuple[list[Any], list[str]]:
    """Read and export once, convert for each target; gives conversions and failures."""
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from core.convert.converter import convert_source, export_to, refuse_input
    from core.convert.load import load_source
    from core.convert.target import Options, find_converter

    rows: list[Any] = []
    failures = []
    wanted = Options(options.precision or "float32", options.device)
    folder = options.output or options.input.absolute().parent
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with (
        Progress(*columns, console=Console(stderr=True)) as progress,
        tempfile.TemporaryDirectory() as work,
    ):
        task = progress.add_task(f"reading {options.input.name}", total=1)
        source = load_source(options.input, example=example, trust_pickle=options.trust_pickle)
        progress.update(task, description=f"exporting {source.origin}")
        exported = export_to(source, Path(work))
        progress.update(task, completed=1)
        for name in options.to:
            task = progress.add_task(name, total=1)
            converter = find_converter(name)
            output = folder / f"{source.name}{converter.suffix}"
            tell = functools.partial(_show, progress, task, name)
            try:
                refuse_input(output, options.input)
                rows.append(
                    convert_source(source, converter, output, wanted, exported=exported, tell=tell)
                )
            except (ValueError, ModuleNotFoundError) as error:
                failures.append(f"{name}: {error}")
            progress.update(task, completed=1, description=name)
    return rows, failures


def _show(progress: Progress, task: TaskID, name: str, step: str) -> None:
    progress.update(task, description=f"{name}: {step}")


def _print_table(conversions: Sequence[Conversion]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    if not conversions:
        return
    table = Table(box=box.SIMPLE)
    for title in ("target", "file", "MiB", "state", "max error", "parity", "exporter"):
        table.add_column(title, overflow="fold", no_wrap=title in ("target", "state"))
    for conversion in conversions:
        artifact, parity = conversion.artifact, conversion.parity
        size = sum((artifact.folder / name).stat().st_size for name in artifact.files)
        worst = "-"
        if parity is not None:
            worst = f"{max(out.max_absolute for case in parity.cases for out in case.outputs):.1e}"
        table.add_row(
            artifact.target.id,
            conversion.path.name,
            f"{size / 2**20:.1f}",
            artifact.target.state,
            worst,
            "not compared" if parity is None else "pass",
            conversion.trail.used,
        )
    console = Console()
    console.print(table, width=None if console.is_terminal else PLAIN_WIDTH)


if __name__ == "__main__":
    sys.exit(main())
