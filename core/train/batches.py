"""Batches of sample indices in an order that can be repeated, resumed and shared among ranks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np

Batch = TypeVar("Batch")


class Batches(Generic[Batch]):
    """One pass over ``num_samples`` samples: ``collate(indices)`` for each batch of indices.

    The order depends on ``seed`` and the epoch alone. Under ``torchrun`` each rank gets its
    contiguous slice of the same global batch, so that any number of ranks trains on the same
    batches; passes that do not shuffle (evaluation) are seen whole by every rank.
    """

    def __init__(
        self,
        num_samples: int,
        batch_size: int,
        collate: Callable[[np.ndarray], Batch],
        *,
        seed: int,
        shuffle: bool,
        drop_last: bool = False,
    ) -> None:
        """Describe the pass.

        Args:
            num_samples: samples in the split.
            batch_size: samples of the global batch, all ranks together.
            collate: (n,) int64 indices -> batch of those samples.
            seed: of the order.
            shuffle: whether each epoch has its own random order.
            drop_last: whether a last batch smaller than ``batch_size`` is left out.
        Raises:
            ValueError: there is no whole batch, or there are fewer samples in one than ranks.
        """
        self.rank = int(os.environ.get("RANK", 0)) if shuffle else 0
        self.num_ranks = int(os.environ.get("WORLD_SIZE", 1)) if shuffle else 1
        if batch_size < self.num_ranks:
            raise ValueError(
                f"batch_size={batch_size} is below the {self.num_ranks} ranks; give each a sample"
            )
        if num_samples < (batch_size if drop_last else 1):
            raise ValueError(
                f"num_samples={num_samples} gives no batch of {batch_size}; add data or shrink it"
            )
        self.num_samples, self.batch_size, self.collate = num_samples, batch_size, collate
        self.seed, self.shuffle, self.drop_last = seed, shuffle, drop_last
        self.epoch, self._num_skip = 0, 0
        # Of the batch yielded last: this rank's indices, how many of them count in the loss,
        # and the size of the global batch.
        self.last_indices = np.empty(0, np.int64)
        self.last_count = self.last_total = 0

    def __len__(self) -> int:
        """Batches in a whole pass."""
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch

    def skip(self, num_batches: int) -> None:
        """Leave out the first batches of the next pass, without collating them."""
        self._num_skip = num_batches

    def __iter__(self) -> Iterator[Batch]:
        """Collated batches, in the order of the epoch."""
        order = np.arange(self.num_samples, dtype=np.int64)
        if self.shuffle:
            np.random.default_rng((self.seed, self.epoch)).shuffle(order)
        first, self._num_skip = self._num_skip, 0
        for start in range(first * self.batch_size, len(self) * self.batch_size, self.batch_size):
            whole = order[start : start + self.batch_size]
            end = (self.rank + 1) * len(whole) // self.num_ranks
            own = whole[self.rank * len(whole) // self.num_ranks : end]
            self.last_count, self.last_total = len(own), len(whole)
            # A small last batch may leave a rank without samples: it computes one that counts
            # for nothing, because the other ranks wait for its gradients.
            self.last_indices = own if len(own) else whole[:1]
            yield self.collate(self.last_indices)


class Part(NamedTuple, Generic[Batch]):
    """One batch of an optimiser step, and how much it counts in the step's mean loss."""

    batch: Batch
    indices: np.ndarray | None  # of this rank's samples, where the batches say them
    num_own: int  # samples of this rank that count
    num_all: int  # samples of all ranks


def steps_of(
    batches: Iterable[Batch], num_parts: int, *, epoch: int, skip: int, num_ranks: int
) -> Iterator[list[Part[Batch]]]:
    """A pass over any batches in groups of ``num_parts`` (the last may be smaller).

    Args:
        batches: where they are not ``Batches``, skipped ones are made and thrown away.
        num_parts: batches that make one optimiser step.
        epoch: chooses the order, where the batches have one.
        skip: batches of the pass that were trained on before.
        num_ranks: processes that train together.
    """
    known = batches if isinstance(batches, Batches) else None
    if known is not None:
        known.set_epoch(epoch)
        known.skip(skip)
        skip = 0
    parts: list[Part[Batch]] = []
    for batch in islice(batches, skip, None):
        if known is not None:
            part = Part(batch, known.last_indices, known.last_count, known.last_total)
        else:
            count = _num_samples(batch)
            part = Part(batch, None, count, count * num_ranks)
        parts.append(part)
        if len(parts) == num_parts:
            yield parts
            parts = []
    if parts:
        yield parts


def _num_samples(batch: Any) -> int:
    # The length of the batch, or of its first member; 1 when neither has one.
    first = next(iter(batch.values())) if isinstance(batch, Mapping) and batch else batch
    first = first[0] if isinstance(first, (list, tuple)) and first else first
    shape = getattr(first, "shape", None)
    return int(shape[0]) if shape else 1
