"""A frozen model that is asked for its opinion, and remembers it where samples come again."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from core.compress.taps import Call, first_tensor, named_outputs, watched

Reader = Callable[[Any], Mapping[str, Tensor]]

# One model's answers for a batch and for its first sample alone: other kernels, other roundings.
ALONE_TOLERANCE = 1e-3


class Opinion(NamedTuple):
    """What the teacher says of a batch, in float32."""

    outputs: dict[str, Tensor]
    features: dict[str, Tensor]


class Teacher:
    """A model in evaluation mode whose weights never change.

    It runs on the very inputs that the student got, on their device and in their autocast.

    Args:
        model: set to evaluation mode, without gradients, and left so.
        feature_names: modules whose results are wanted too.
        output_module: whose result counts as the outputs; empty for the model's own.
        read: makes named tensors of that result.
        cache: where opinions are kept; None asks each time.
    """

    def __init__(
        self,
        model: nn.Module,
        feature_names: frozenset[str],
        output_module: str = "",
        read: Reader = named_outputs,
        cache: OpinionCache | None = None,
    ) -> None:
        self.model = model.eval().requires_grad_(requires_grad=False)
        self.feature_names, self.output_module = feature_names, output_module
        self.read, self.cache = read, cache
        self.fingerprint = fingerprint_of(model)

    @torch.no_grad()
    def __call__(self, call: Call) -> Opinion:
        """Its opinion of what a student was just asked."""
        if self.cache is None:
            return self.ask(call.args, call.kwargs)
        keys = [self._key(sample) for sample in samples_of(call)]
        known = [self.cache.load(key) for key in keys]
        if None in known:
            opinion = self.ask(call.args, call.kwargs)
            for number, (key, old) in enumerate(zip(keys, known, strict=True)):
                if old is None:
                    self.cache.save(key, _row(opinion, number))
            return opinion
        device = next(tensors_in((call.args, call.kwargs))).device
        return _stacked([row for row in known if row is not None], device)

    @torch.no_grad()
    def ask(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Opinion:
        """Run the model."""
        device = next(tensors_in((args, kwargs))).device
        weight = next(self.model.parameters(), None)
        if weight is not None and weight.device != device:
            self.model.to(device)
        names = self.feature_names | {self.output_module} - {""}
        with watched(self.model, names) as calls:
            output = self.model(*args, **kwargs)
        taps = calls[0].taps
        outputs = self.read(taps[self.output_module] if self.output_module else output)
        return Opinion(
            {name: value.float() for name, value in outputs.items()},
            {name: first_tensor(name, taps[name]).float() for name in self.feature_names},
        )

    def check_alone(self, call: Call) -> None:
        """See that a sample's opinion does not hang on the other samples of its batch.

        Raises:
            ValueError: it does, so that it cannot be kept for another batch.
        """
        whole, alone = self.ask(call.args, call.kwargs), self.ask(*samples_of(call)[0])
        for name, value in (*alone.outputs.items(), *alone.features.items()):
            other = whole.outputs.get(name, whole.features.get(name))
            if (
                other is None
                or value.shape[1:] != other.shape[1:]
                or not torch.allclose(
                    value[0], other[0], ALONE_TOLERANCE, ALONE_TOLERANCE * float(other.abs().max())
                )
            ):
                raise ValueError(
                    f"distill.cache_dir={str(self.cache and self.cache.folder)!r} keeps samples "
                    f"one by one, and the teacher's {name} for one hangs on its batch; set it to "
                    "null"
                )

    def _key(self, sample: tuple[tuple[Any, ...], Mapping[str, Any]]) -> str:
        device = next(tensors_in(sample)).device.type
        kind = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else ""
        wanted = repr((self.fingerprint, self.output_module, sorted(self.feature_names), kind))
        return hashlib.sha256(wanted.encode() + digest_of(sample)).hexdigest()


class OpinionCache:
    """Opinions of single samples as files, each under the hash of the teacher and of the sample.

    A key is made from the inputs' own bytes, so an entry can never belong to another sample.

    Args:
        folder: made where it is missing.
        limit_mib: of all its files together.
    """

    def __init__(self, folder: Path, limit_mib: int) -> None:
        self.folder, self.limit_mib = folder, limit_mib
        self.hits = self.misses = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._num_bytes = sum(path.stat().st_size for path in folder.glob("*/*.npz"))

    def load(self, key: str) -> dict[str, np.ndarray] | None:
        """What was kept, None if nothing was.

        Raises:
            ValueError: the file is damaged.
        """
        path = self._path(key)
        if not path.is_file():
            self.misses += 1
            return None
        try:
            # Opened here: numpy leaves a damaged archive open.
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
        except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
            raise ValueError(f"{path} cannot be read ({error}); delete it") from error
        self.hits += 1
        return arrays

    def save(self, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Keep an opinion, whole or not at all.

        Raises:
            ValueError: the folder is full.
        """
        path = self._path(key)
        path.parent.mkdir(exist_ok=True)
        part = path.with_name(f".part-{os.getpid()}-{path.name}")
        with part.open("wb") as stream:
            # Stubs take every keyword for an option.
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        self._num_bytes += part.stat().st_size
        part.replace(path)
        if self._num_bytes > self.limit_mib << 20:
            raise ValueError(
                f"distill.cache_dir={str(self.folder)!r} holds more than cache_limit_mib="
                f"{self.limit_mib} ({self.hits} samples came again, {self.misses} were new); empty "
                "it, set a larger limit, or cache_dir to null where samples do not come again"
            )

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.npz"


def samples_of(call: Call) -> list[tuple[tuple[Any, ...], Mapping[str, Any]]]:
    """The inputs of a call, sample by sample; what is no tensor goes with each.

    Raises:
        ValueError: the tensors do not agree on how many samples there are.
    """
    inputs = (*call.args, *call.kwargs.values())
    sizes = {tensor.shape[0] if tensor.ndim else None for tensor in tensors_in(inputs)}
    number = sizes.pop() if len(sizes) == 1 else None
    if number is None or any(isinstance(value, list | tuple) for value in inputs):
        raise ValueError(
            "distill.cache_dir keeps samples one by one, and the model's inputs do not all have "
            "one row per sample; set it to null"
        )
    return [
        (
            tuple(_sample(value, index) for value in call.args),
            {name: _sample(value, index) for name, value in call.kwargs.items()},
        )
        for index in range(number)
    ]


def _sample(value: Any, index: int) -> Any:
    if isinstance(value, Tensor):
        return value[index : index + 1]
    if isinstance(value, Mapping):
        return {key: _sample(part, index) for key, part in value.items()}
    return value


def tensors_in(value: Any) -> Iterator[Tensor]:
    """All tensors in nested mappings, lists and tuples, in order."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from tensors_in(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from tensors_in(part)


def digest_of(value: Any) -> bytes:
    """32 bytes that stand for nested inputs: their tensors' types, shapes and numbers."""
    state = hashlib.sha256()

    def add(part: Any) -> None:
        if isinstance(part, Tensor):
            state.update(f"{part.dtype} {tuple(part.shape)}".encode())
            state.update(_bytes(part))
        elif isinstance(part, Mapping):
            state.update(b"{")
            for key, item in part.items():
                state.update(repr(key).encode())
                add(item)
        elif isinstance(part, list | tuple):
            state.update(b"[")
            for item in part:
                add(item)
        else:
            state.update(repr(part).encode())

    add(value)
    return state.digest()


def fingerprint_of(model: nn.Module) -> str:
    """Sha256 of a model's parts and of all its weights and buffers."""
    return hashlib.sha256(repr(model).encode() + digest_of(model.state_dict())).hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    plain = tensor.detach().cpu().contiguous()
    return plain.flatten().view(torch.uint8).numpy().data if plain.numel() else memoryview(b"")


def _row(opinion: Opinion, index: int) -> dict[str, np.ndarray]:
    return {
        f"{kind}/{name}": value[index].cpu().numpy()
        for kind, part in opinion._asdict().items()
        for name, value in part.items()
    }


def _stacked(rows: list[dict[str, np.ndarray]], device: torch.device) -> Opinion:
    opinion = Opinion({}, {})
    for key in rows[0]:
        kind, _, name = key.partition("/")
        value = torch.from_numpy(np.stack([row[key] for row in rows])).to(device)
        getattr(opinion, kind)[name] = value
    return opinion
