"""One process or many: the device, the process group, and the model spread over it."""

from __future__ import annotations

import atexit
import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from core.kit import Step, Task

T = TypeVar("T")

BACKENDS = {"cpu": "gloo", "cuda": "nccl", "npu": "hccl"}


@dataclass(frozen=True)
class World:
    """This process among those that ``torchrun`` started; alone, every call returns at once."""

    device: torch.device
    rank: int = 0
    size: int = 1

    @classmethod
    def start(cls, device: str) -> World:
        """Choose the device, and join the process group when there is more than one process.

        Args:
            device: a device type, or auto for the accelerator that torch finds, else the CPU.
        Raises:
            ValueError: torch has no such device here.
        """
        rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        found = torch.accelerator.current_accelerator(check_available=True)
        kind = device if device != "auto" else found.type if found else "cpu"
        if kind != "cpu" and (found is None or found.type != kind):
            raise ValueError(
                f"trainer.device={device!r} is not on this machine; set auto, cpu or its driver up"
            )
        place = torch.device(kind)
        if kind != "cpu":
            place = torch.device(kind, int(os.environ.get("LOCAL_RANK", 0)))
            torch.accelerator.set_device_index(place.index)
        if size > 1 and not dist.is_initialized():
            dist.init_process_group(BACKENDS[kind])
            atexit.register(dist.destroy_process_group)
        return cls(place, rank, size)

    @staticmethod
    def leave() -> None:
        """Leave the process group after training: what follows, one process does alone."""
        if dist.is_initialized():
            atexit.unregister(dist.destroy_process_group)
            dist.destroy_process_group()

    def means(self, numbers: list[Tensor]) -> list[float]:
        """Mean of each scalar over the ranks; an accelerator is waited for once."""
        if self.size == 1 and self.device.type == "cpu":
            return [number.item() for number in numbers]
        stacked = torch.stack([number.float() for number in numbers])
        if self.size > 1:
            dist.all_reduce(stacked)
        return cast(list[float], (stacked / self.size).tolist())

    def broadcast(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def gather(self, value: T) -> list[T]:
        """Every rank's value, on every rank."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait for the other ranks."""
        if self.size > 1:
            dist.barrier()


class _StepModule(nn.Module):
    # task.step as a forward, so that DDP can wrap it and task.model stays what the task made.
    def __init__(self, task: Task[Any]) -> None:
        super().__init__()
        self.model, self.task = task.model, task

    def forward(self, batch: Any) -> Step:
        return self.task.step(batch)


class Spread:
    """A task's model on every rank: ``step`` runs a batch, ``syncing`` says what is exchanged.

    FSDP2 shards each element of a ``ModuleList`` (the repeated blocks) and the rest as one unit,
    in place; a task then has to call the model itself, not one of its parts or methods.
    """

    def __init__(self, task: Task[Any], world: World, parallel: str) -> None:
        """Copy rank 0's weights to every rank, then wrap (ddp) or shard (fsdp) the model."""
        self.step = task.step
        self._ddp: nn.parallel.DistributedDataParallel | None = None
        self._fsdp: Any = None
        if world.size == 1:
            return
        for tensor in (*task.model.parameters(), *task.model.buffers()):
            dist.broadcast(tensor.detach(), src=0)
        if parallel == "ddp":
            self._ddp = nn.parallel.DistributedDataParallel(_StepModule(task))
            self.step = self._ddp
            return
        # Imported here: one process alone should not wait for it.
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(world.device.type, (world.size,))
        for module in task.model.modules():
            if isinstance(module, nn.ModuleList):
                for block in module:
                    fully_shard(block, mesh=mesh)
        self._fsdp = fully_shard(task.model, mesh=mesh)

    def syncing(self, *, last: bool) -> AbstractContextManager[None]:
        """Around forward and backward: gradients are exchanged in the last batch of a step."""
        if self._fsdp is not None:
            self._fsdp.set_requires_gradient_sync(last)
        elif self._ddp is not None and not last:
            return self._ddp.no_sync()
        return nullcontext()


def to_device(batch: T, device: torch.device) -> T:
    """A batch with its tensors on the device: whatever has ``.to``, also in dicts and sequences."""
    if hasattr(batch, "to"):
        return cast(T, batch.to(device, non_blocking=True))
    if isinstance(batch, dict):
        return {k: to_device(v, device) for k, v in batch.items()}  # type: ignore[return-value]
    if isinstance(batch, (list, tuple)) and not hasattr(batch, "_fields"):
        return type(batch)(to_device(v, device) for v in batch)
    return batch
