"""Checkpoints: sharded by torch.distributed.checkpoint, complete or absent, and never unpickled.

A checkpoint is a folder ``step-000000120``: tensors (model, optimiser, moving average) in DCP's
format, which any other number of ranks can load; everything else as JSON.
"""

from __future__ import annotations

import json
import pickle
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    Metadata,
    StorageMeta,
    TensorStorageMetadata,
)
from torch.optim import Optimizer

from core.train.distributed import World
from core.train.run import fsync_folder, write_atomic


class Checkpoints:
    """The checkpoints of one run. On several machines the folder must be a shared one."""

    def __init__(self, folder: Path, world: World, keep: int) -> None:
        """Open the folder, and clear what a crash in the middle of a save left there."""
        self.folder, self.world, self.keep = folder, world, keep
        if world.rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            for part in folder.glob(".part-*"):
                shutil.rmtree(part) if part.is_dir() else part.unlink()
        world.barrier()

    def last(self) -> Path | None:
        """The newest checkpoint, None when there is none."""
        return max(self.folder.glob("step-*"), default=None)

    def best(self) -> Path | None:
        """The checkpoint marked best, else the newest."""
        link = self.folder / "best"
        return link.resolve() if link.exists() else self.last()

    def save(
        self,
        step: int,
        tensors: dict[str, Any],
        facts: dict[str, Any],
        random: dict[str, Any],
        *,
        is_best: bool,
    ) -> Path:
        """Write a checkpoint under another name, bring it to the disk, then rename it.

        Args:
            step: optimiser steps done.
            tensors: nested dict of tensors, the same keys on every rank.
            facts: what else the run needs to go on, as JSON; rank 0's is kept.
            random: this rank's random state, as JSON.
            is_best: whether ``best`` points here from now on.
        Returns:
            the checkpoint's folder.
        """
        final = self.folder / f"step-{step:09d}"
        # Saved twice at one step when an epoch, and with it an evaluation, ends there.
        if final.exists():
            final = final.with_name(f"{final.name}-evaluated")
        part = self.folder / f".part-{final.name}"
        if self.world.rank == 0:
            part.mkdir()
        self.world.barrier()
        with _one_process_is_meant():
            state_dict_saver.save(tensors, storage_writer=FileSystemWriter(part))
        write_atomic(part / f"random-{self.world.rank}.json", json.dumps(random))
        if self.world.rank == 0:
            write_atomic(part / "state.json", json.dumps(facts, indent=1))
        self.world.barrier()
        if self.world.rank == 0:
            fsync_folder(part)
            part.rename(final)
            if is_best:
                link = self.folder / ".part-best"
                link.symlink_to(final.name)
                link.replace(self.folder / "best")
            fsync_folder(self.folder)
            self._forget()
        self.world.barrier()
        return final

    def _forget(self) -> None:
        kept = {*sorted(self.folder.glob("step-*"))[-self.keep :], self.best()}
        for old in set(self.folder.glob("step-*")) - {p and self.folder / p.name for p in kept}:
            # Renamed first, so that a crash while deleting leaves no checkpoint with holes.
            gone = old.rename(self.folder / f".part-{old.name}")
            shutil.rmtree(gone)


def load_tensors(path: Path, tensors: dict[str, Any]) -> None:
    """Fill tensors in place from a checkpoint that any number of ranks wrote.

    Raises:
        ValueError: the checkpoint is not one, or its contents differ from what is asked.
    """
    try:
        with _one_process_is_meant():
            state_dict_loader.load(tensors, storage_reader=_Reader(path))
    except CheckpointException as error:
        reason = "; ".join(str(failure[0]) for failure in error.failures.values())
        raise ValueError(f"{path} cannot be loaded here: {reason}") from error


def load_facts(path: Path, rank: int) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The JSON state of a checkpoint, and the rank's random state (None: no such rank saved)."""
    random = path / f"random-{rank}.json"
    state: dict[str, Any] = json.loads((path / "state.json").read_text())
    return state, json.loads(random.read_text()) if random.exists() else None


def load_weights(path: Path, model: nn.Module) -> None:
    """Load a checkpoint's weights into a model: the moving average where there is one.

    Args:
        path: a checkpoint, as returned by ``Trainer.fit``.
        model: the module that was trained; changed in place.
    Raises:
        ValueError: the checkpoint does not fit the model.
    """
    load_tensors(path, {"model": model.state_dict()})
    if any(key.startswith("ema.") for key in _Reader(path).read_metadata().state_dict_metadata):
        load_tensors(path, {"ema": {name: p.detach() for name, p in model.named_parameters()}})


def optimizer_tensors(model: nn.Module, optimizer: Optimizer) -> dict[str, dict[str, Tensor]]:
    """The optimiser's state by the parameters' names, as a checkpoint keeps it."""
    named = model.named_parameters()
    return {name: dict(optimizer.state[p]) for name, p in named if p in optimizer.state}


def load_optimizer(path: Path, model: nn.Module, optimizer: Optimizer) -> None:
    """Bring the optimiser's state back, also for another number of ranks than saved it."""
    saved = _Reader(path).read_metadata().state_dict_metadata
    state: dict[str, dict[str, Tensor]] = {}
    for name, parameter in model.named_parameters():
        prefix = f"optimizer.{name}."
        for key in (key for key in saved if key.startswith(prefix)):
            # Moments are shaped and sharded like their parameter; the step count is a scalar.
            size = cast(TensorStorageMetadata, saved[key]).size
            empty = torch.empty_like(parameter) if size == parameter.shape else torch.empty(size)
            state.setdefault(name, {})[key.removeprefix(prefix)] = empty.detach()
    load_tensors(path, {"optimizer": state})
    names = {p: name for name, p in model.named_parameters()}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    by_number = {i: state[names[p]] for i, p in enumerate(parameters) if names[p] in state}
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": by_number, "param_groups": groups})


@contextmanager
def _one_process_is_meant() -> Iterator[None]:
    # Without a process group DCP warns that it assumes a single process, which is the case.
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


class _Reader(FileSystemReader):
    # DCP's index is a pickle, and so are entries that are not tensors: a checkpoint from
    # elsewhere could run code. Only the classes an index is made of are let in.
    def read_metadata(self, *_: Any, **__: Any) -> Metadata:
        index = Path(self.path) / ".metadata"
        if not index.exists():
            raise ValueError(f"{self.path} is not a checkpoint: it has no .metadata; name another")
        with index.open("rb") as stream:
            metadata: Metadata = _Unpickler(stream).load()
        for key, entry in metadata.state_dict_metadata.items():
            if isinstance(entry, BytesStorageMetadata):
                raise ValueError(f"{self.path} holds {key!r}, which is no tensor; do not load it")
        metadata.storage_meta = metadata.storage_meta or StorageMeta()
        metadata.storage_meta.load_id = self.load_id
        return metadata


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name not in _INDEX_NAMES.get(module, ()):
            raise ValueError(
                f"index names {module}.{name}, which no checkpoint does; do not load it"
            )
        return super().find_class(module, name)


_INDEX_NAMES = {
    "collections": ["OrderedDict"],
    "pathlib": ["PosixPath", "WindowsPath"],
    "pathlib._local": ["PosixPath", "WindowsPath"],
    "torch": [
        "Size",
        *(name for name, value in vars(torch).items() if isinstance(value, torch.dtype)),
    ],
    "torch.distributed.checkpoint.filesystem": ["_StorageInfo"],
    "torch.distributed.checkpoint.metadata": [
        "ChunkStorageMetadata",
        "BytesStorageMetadata",
        "Metadata",
        "MetadataIndex",
        "StorageMeta",
        "TensorProperties",
        "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    ],
    "torch.serialization": ["_get_layout"],
}
