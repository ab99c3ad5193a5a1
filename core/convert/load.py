"""Any file that holds a trained model as a `Source`: recognised by its content, never trusted.

Nothing here unpickles what it cannot vouch for: tensors and plain values are read with
`weights_only`, anything else needs `trust_pickle`.
"""

from __future__ import annotations

import importlib
import json
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from core.convert.architectures import find_architecture
from core.convert.families import Inputs, detector_inputs, image_inputs, load_transformers
from core.convert.onnx_source import load_onnx
from core.convert.program_file import check_program, program_inputs
from core.convert.source import Axis, Source, flatten

Example = Tensor | np.ndarray | Sequence[Any] | Mapping[str, Any]
Axes = Mapping[str, Mapping[int, Axis | str]]

# Archives hold stored tensors; what unpacks to many times its size is no model.
UNPACKED_RATIO = 10
UNPACKED_SLACK_BYTES = 64 << 20
HOW_TO_SAVE = (
    "save it with torch.export.save(torch.export.export(model, example), 'model.pt2'), "
    "or its weights with torch.save(model.state_dict(), 'model.pt')"
)


def load_source(
    path: Path | str,
    *,
    example: Example | None = None,
    axes: Axes | None = None,
    trust_pickle: bool = False,
) -> Source:
    """Recognise a model file or folder and make it ready to convert.

    Known are: state_dicts of torchvision models (.pt, .pth, .safetensors), TorchScript files,
    `torch.export` programs (.pt2), whole pickled modules (only with `trust_pickle`), ONNX files,
    folders of transformers (config.json and model.safetensors) and runs of the kits.

    Args:
        path: the file or folder.
        example: inputs with a batch of 1, where they do not follow from the model: a tensor, a
            tuple of them, or name -> tensor in the order of the module's arguments.
        axes: input -> dimension -> axis (or its name) whose size may change; by default the first
            dimension of every input, as "batch".
        trust_pickle: unpickle whole modules, which can run any code in the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: empty, damaged or unknown; unsafe to read; or an example is needed.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"input_path={str(path)!r} does not exist; check the path")
    if path.is_dir():
        source = _load_folder(path)
        return source if example is None and axes is None else _with_inputs(source, example, axes)
    with path.open("rb") as file:
        head = file.read(16)
    if not head:
        raise ValueError(f"input_path={path.name!r} is empty; save or copy the model again")
    if path.suffix == ".onnx":
        source = load_onnx(path)
        return source if axes is None and example is None else _with_inputs(source, example, axes)
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            state = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"input_path={path.name!r} is no safetensors file: {error}") from None
        return _state_source(path, state, example, axes)
    if head.startswith(b"PK\x03\x04"):
        names = _archive_names(path)
        inner = {name.partition("/")[2] for name in names}
        if any(name.startswith("code/") for name in inner):
            return _script_source(path, example, axes)
        if any(n.startswith(("models/", "data/aotinductor")) for n in inner) or (
            "serialized_exported_program.json" in names
        ):
            return _program_source(path, example, axes, trust_pickle)
    elif not head.startswith(b"\x80"):
        raise ValueError(
            f"input_path={path.name!r} holds no model that is known here: neither a torch, "
            f"safetensors (.safetensors) nor ONNX (.onnx) file; {HOW_TO_SAVE}"
        )
    return _pickle_source(path, example, axes, trust_pickle)


def _load_folder(path: Path) -> Source:
    environment = path / "environment.json"
    if environment.is_file():
        name = json.loads(environment.read_text()).get("kit")
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"environment.json has kit={name!r}, no name of a kit; train it again")
        source: Source = importlib.import_module(f"kits.{name}.kit").KIT.open_run(path).source
        return source
    if (path / "config.json").is_file():
        return load_transformers(path)
    raise ValueError(
        f"input_path={path.name!r} is a folder without config.json (transformers) or "
        f"environment.json (a run of a kit); give the model's file"
    )


def _archive_names(path: Path) -> set[str]:
    """Names in a zip archive, after a look at what it would unpack to."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError) as error:
        raise ValueError(
            f"input_path={path.name!r} is damaged or cut short ({error}); copy it again"
        ) from None
    limit = UNPACKED_RATIO * path.stat().st_size + UNPACKED_SLACK_BYTES
    if (unpacked := sum(entry.file_size for entry in entries)) > limit:
        raise ValueError(
            f"input_path={path.name!r} would unpack to {unpacked >> 20} MiB, more than "
            f"{UNPACKED_RATIO} times its size; no torch file does, do not open it"
        )
    return {entry.filename for entry in entries}


def _pickle_source(
    path: Path, example: Example | None, axes: Axes | None, trust_pickle: bool
) -> Source:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        classes = re.findall(r"GLOBAL ([\w.]+)|type[: ]+([\w.]+)", str(error))
        named = next((a or b for a, b in classes), "")
        if not named:
            raise ValueError(f"input_path={path.name!r} is damaged: {_first(error)}") from None
        if not trust_pickle:
            raise ValueError(
                f"input_path={path.name!r} holds a pickled {named}, and unpickling it can run any "
                f"code; {HOW_TO_SAVE}, or pass trust_pickle=True if you know who made the file"
            ) from None
        content = torch.load(path, map_location="cpu", weights_only=False)
    except (RuntimeError, EOFError, ValueError, KeyError) as error:
        raise ValueError(
            f"input_path={path.name!r} is damaged or cut short ({_first(error)}); copy it again"
        ) from None
    if isinstance(content, nn.Module):
        origin = f"pickled {type(content).__name__}, trusted"
        return _module_source(path.stem, origin, content, None, example, axes)
    return _state_source(path, content, example, axes)


def _state_source(
    path: Path, content: object, example: Example | None, axes: Axes | None
) -> Source:
    state = _find_state(content)
    if state is None:
        raise ValueError(
            f"input_path={path.name!r} holds a {type(content).__name__}, no weights by name; "
            f"{HOW_TO_SAVE}"
        )
    architecture = find_architecture(state)
    if architecture is None:
        first = ", ".join(list(state)[:3])
        raise ValueError(
            f"input_path={path.name!r} holds {len(state)} weights ({first}, ...) of no torchvision "
            f"model, so what they compute is not known; {HOW_TO_SAVE.partition(',')[0]} and "
            f"convert that file"
        )
    module = architecture.load(state)
    inputs: Inputs | None = None
    if architecture.task == "detection":
        module, inputs = detector_inputs(module)
    elif architecture.task != "optical_flow":
        inputs = image_inputs(architecture)
    origin = f"torchvision {architecture.name}, state_dict"
    return _module_source(path.stem, origin, module, inputs, example, axes)


def _find_state(content: object) -> dict[str, Tensor] | None:
    """The weights in a checkpoint: bare, one level down, or with the prefix of DDP or compile."""
    if not isinstance(content, Mapping):
        return None
    if content and all(isinstance(value, Tensor) for value in content.values()):
        state = {str(key): value for key, value in content.items()}
        for prefix in ("module.", "_orig_mod."):
            if all(key.startswith(prefix) for key in state):
                state = {key.removeprefix(prefix): value for key, value in state.items()}
        return {key: t.float() if t.is_floating_point() else t for key, t in state.items()}
    for key in ("state_dict", "model_state_dict", "model", "model_ema", "net"):
        if key in content and (found := _find_state(content[key])):
            return found
    return None


def _script_source(path: Path, example: Example | None, axes: Axes | None) -> Source:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, its files are still around
        try:
            module = torch.jit.load(path, map_location="cpu").eval()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise ValueError(
                f"input_path={path.name!r} is no TorchScript that this torch reads: {_first(error)}"
            ) from None
    return _module_source(path.stem, "TorchScript", module, None, example, axes)


def _program_source(
    path: Path, example: Example | None, axes: Axes | None, trust_pickle: bool
) -> Source:
    if not trust_pickle:
        check_program(path)
    try:
        program = torch.export.load(path)
    except (RuntimeError, KeyError, AssertionError, AttributeError) as error:
        raise ValueError(
            f"input_path={path.name!r} is no torch.export program that torch "
            f"{torch.__version__} reads: {_first(error)}; export it again"
        ) from error
    inputs = program_inputs(program)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = program.module()
    return _module_source(path.stem, "torch.export program", module, inputs, example, axes)


def _module_source(
    name: str,
    origin: str,
    module: nn.Module,
    inputs: Inputs | None,
    example: Example | None,
    axes: Axes | None,
) -> Source:
    if not isinstance(module, torch.fx.GraphModule):
        module.eval()
    for parameter in module.parameters():
        parameter.requires_grad = False
    if inputs is None and example is None:
        raise ValueError(
            f"the shapes of the inputs of {name!r} ({origin}) are not known; pass example=, "
            f"as torch.randn(1, 3, 224, 224) or {{'image': tensor, ...}}"
        )
    inputs = inputs or Inputs({}, {})
    source = Source(name, origin, module, inputs.example, (), inputs.axes, draw=inputs.draw)
    return _with_inputs(source, example, axes)


def _with_inputs(source: Source, example: Example | None, axes: Axes | None) -> Source:
    """The source with the caller's example and axes, its outputs named; runs it to see them."""
    if example is not None:
        tensors = _named(example, tuple(source.example))
        batch = Axis("batch", 1, 8)
        shared = {tensor.shape[:1] for tensor in tensors.values()}
        default = {n: {0: batch} for n in tensors} if len(shared) == 1 and shared != {()} else {}
        source = replace(source, example=tensors, axes=default, draw=None)
    if axes is not None:
        source = replace(source, axes=_checked_axes(source, axes))
    if source.module is None:
        return source
    source = replace(source, output_names=_output_names(source))
    if example is not None and axes is None:
        _check_batch(source)
    return source


def _named(example: Example, names: Sequence[str]) -> dict[str, Tensor]:
    if isinstance(example, Mapping):
        return {str(name): torch.as_tensor(value) for name, value in example.items()}
    values = list(example) if isinstance(example, list | tuple) else [example]
    if len(values) != len(names):
        names = ["input"] if len(values) == 1 else [f"input_{i}" for i in range(len(values))]
    return {name: torch.as_tensor(value) for name, value in zip(names, values, strict=True)}


def _checked_axes(source: Source, axes: Axes) -> dict[str, dict[int, Axis]]:
    for name, dimensions in axes.items():
        rank = source.example[name].dim() if name in source.example else -1
        if rank < 0 or any(not 0 <= dimension < rank for dimension in dimensions):
            raise ValueError(
                f"axes={{{name!r}: {sorted(dimensions)}}} fits no input; there are "
                + ", ".join(f"{n} {list(t.shape)}" for n, t in source.example.items())
            )
    return {
        name: {d: axis if isinstance(axis, Axis) else Axis(axis) for d, axis in each.items()}
        for name, each in axes.items()
    }


@torch.no_grad()
def _output_names(source: Source) -> tuple[str, ...]:
    """Keys of a dict of tensors, else "output", or "output_0" and on."""
    assert source.module is not None
    try:
        outputs = source.module(*source.example.values())
    except Exception as error:
        shapes = ", ".join(f"{n} {list(t.shape)}" for n, t in source.example.items())
        raise ValueError(
            f"the model {source.name!r} does not run with its example ({shapes}): {_first(error)}; "
            f"pass another example="
        ) from error
    if isinstance(outputs, Mapping) and all(isinstance(v, Tensor) for v in outputs.values()):
        return tuple(re.sub(r"\W", "_", str(key)) for key in outputs)
    count = len(flatten(outputs))
    return ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))


def _check_batch(source: Source) -> None:
    """The first dimension was taken for the batch without being told: see whether it is."""
    try:
        if source.axes:
            source.run(source.inputs({"batch": 3}, 0))
    except Exception as error:
        raise ValueError(
            f"the model {source.name!r} does not run with three rows in the first dimension of "
            f"its inputs: {_first(error)}; pass axes={{}} if no size may change, or the axes"
        ) from error


def _first(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), "")[:200]
