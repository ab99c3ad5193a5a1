"""Distillation: a student's own task, and beside it what a frozen teacher says of the same inputs.

    with distill(task, teacher, cfg) as distilled:
        Trainer(distilled, train_cfg, run_dir=run_dir).fit()

The student's step runs as ever. Hooks see what its model was asked and what it answered, and the
teacher is asked the same. So any task can be distilled whose `step` calls its `model`: batches stay
as they are, outputs may have any names and axes, and augmentation, device, precision and memory
format are the student's. What training needs besides (projections, the count of batches) is a part
of the model named `distilling` while the block lasts: the optimiser, checkpoints, moving average
and other ranks treat it like all weights, and a plain student loads such a checkpoint.

Detection: heat-maps are outputs like others. A model that gives losses while it trains is watched
at the module that makes its dense outputs (`student_outputs`, `teacher_outputs`: `head` in
torchvision's RetinaNet), and a teacher's lists of boxes become a map by `core.compress.detections`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from core.compress.agreement import (
    check_models,
    check_outputs,
    check_repeats,
    follow_memory_format,
    run_fingerprint,
)
from core.compress.config import DistillConfig
from core.compress.taps import Call, first_tensor, named_outputs, original, watched
from core.compress.teacher import Opinion, OpinionCache, Reader, Teacher, tensors_in
from core.compress.terms import (
    Pair,
    build_projections,
    compute_terms,
    needs_label,
    used_features,
    used_outputs,
    used_relations,
)
from core.kit import Split, Step, Task
from core.train.batches import Batches
from core.train.distributed import to_device
from core.train.randomness import random_state, set_random_state

Batch = TypeVar("Batch")
BatchIn = TypeVar("BatchIn", contravariant=True)

# The part of the student's model that holds what only its training needs.
STATE = "distilling"
# On an accelerator, reading a loss waits for it; there every so many batches are logged.
LOG_EVERY = 20
# Calls of a later epoch after which a cache that never had an answer is refused.
PATIENCE = 10


@runtime_checkable
class Labelled(Protocol[BatchIn]):
    """What a task offers beside `Task` where edges of labels weigh (`boundary.of=label`)."""

    def targets(self, batch: BatchIn) -> Mapping[str, Tensor]:
        """Output name -> probabilities in the output's shape, such as the share of readers."""
        ...


def distill(
    student: Task[Batch],
    teacher: nn.Module,
    cfg: DistillConfig,
    *,
    read_student: Reader = named_outputs,
    read_teacher: Reader = named_outputs,
) -> DistillTask[Batch]:
    """A student's task with a teacher beside it, for the trainer.

    The first training batch is tried on both models, so that names and shapes that do not fit are
    told now. Random generators stand afterwards as before.

    Args:
        student: its model is trained; unchanged after the `with` block but for its weights.
        teacher: takes the student's inputs; from now on in evaluation mode and without gradients.
        cfg: what is learned of the teacher, and how much it weighs.
        read_student: makes named tensors of what the student's model gives in training.
        read_teacher: the same for the teacher, whose names and shapes must then agree.
    Raises:
        ValueError: the settings do not fit the models.
    """
    task = DistillTask(student, teacher, cfg, read_student=read_student, read_teacher=read_teacher)
    task.prepare()
    return task


class DistilledState(nn.Module):
    """What a distillation trains and counts beside the student."""

    batches: Tensor
    fingerprint: Tensor

    def __init__(self, projections: nn.ModuleList, fingerprint: bytes) -> None:
        super().__init__()
        self.projections = projections
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("fingerprint", torch.tensor(list(fingerprint), dtype=torch.uint8))


class DistillTask(Generic[Batch]):
    """Made by `distill`; a `Task`, and a context that takes its additions off the model again."""

    def __init__(
        self,
        student: Task[Batch],
        teacher: nn.Module,
        cfg: DistillConfig,
        *,
        read_student: Reader,
        read_teacher: Reader,
    ) -> None:
        self.student, self.cfg, self._read = student, cfg, read_student
        self._features, self._relations = used_features(cfg), used_relations(cfg)
        pairs: list[Pair] = [*self._features, *self._relations]
        self._names = frozenset(pair.student for pair in pairs)
        cache = None
        if cfg.cache_dir is not None:
            cache = OpinionCache(Path(cfg.cache_dir), cfg.cache_limit_mib)
        names = frozenset(pair.teacher for pair in pairs)
        self.teacher = Teacher(teacher, names, cfg.teacher_outputs, read_teacher, cache)
        self._outputs = used_outputs(cfg)
        self._is_checked = False
        self._num_batches = 0
        self._pass: Batches[Any] | None = None
        self._first_epoch: int | None = None
        self._late_calls = 0

    # The task

    @property
    def model(self) -> nn.Module:
        """The student's."""
        return self.student.model

    @model.setter
    def model(self, model: nn.Module) -> None:
        self.student.model = model

    def batches(self, split: Split) -> Iterable[Batch]:
        """The student's."""
        made = self.student.batches(split)
        if split == "train" and isinstance(made, Batches):
            self._pass = made
        return made

    def evaluate(self, split: Split) -> dict[str, float]:
        """The student's."""
        return self.student.evaluate(split)

    def example(self) -> dict[str, Tensor]:
        """The student's."""
        return self.student.example()

    def step(self, batch: Batch) -> Step:
        """The student's own loss and its distance from the teacher; in evaluation the former alone.

        Raises:
            ValueError: the run began with another teacher or other settings, or the cache cannot
                serve these samples.
        """
        if not self._is_active() or not self.model.training:
            return self.student.step(batch)
        state = self._state()
        if not self._is_checked:
            self._check_resumed(state)
        with watched(self.model, self._tapped()) as calls:
            own = self.student.step(batch)
        terms = self._compare(batch, calls, state.projections)
        total = torch.stack(list(terms.values())).sum()
        loss = self.cfg.weight * self._share(state.batches) * total
        if self.cfg.label_weight:
            loss = loss + self.cfg.label_weight * own.loss
        state.batches += 1
        self._num_batches += 1
        return Step(loss, {**own.logs, **self._logs(own.loss, total, terms)})

    # Before and after

    def prepare(self) -> None:
        """Try both models on a batch, then put what is trained beside the student into it."""
        inner = original(self.model)
        if hasattr(inner, STATE):
            raise ValueError(
                f"{type(inner).__name__} has a part named {STATE!r} already: it is being "
                "distilled, or uses the name itself; leave the other distillation first"
            )
        check_models(self.cfg, inner, self.teacher)
        if not self._is_active():
            return
        follow_memory_format(inner, self.teacher.model)
        random, device = random_state(torch.device("cpu")), next(inner.parameters()).device
        batches = self.student.batches("train")
        batch = to_device(next(iter(batches)), device)
        # As in training, where a detector gives losses, but for what it leaves behind.
        with torch.no_grad(), _tried(inner), watched(self.model, self._tapped()) as calls:
            self.student.step(batch)
        mine, theirs = self._both(calls, ask=True)[0]
        check_outputs(self.cfg, mine, theirs)
        projections = build_projections(self._features, mine.features, theirs.features)
        if self.teacher.cache is not None:
            with torch.no_grad():
                self.teacher.check_alone(calls[0])
            check_repeats(self.cfg, batches)
        targets = self._targets(batch, calls)
        with torch.no_grad():
            compute_terms(self.cfg, projections.to(device), mine, theirs, targets)
        set_random_state(random, torch.device("cpu"))
        inner.add_module(
            STATE, DistilledState(projections, run_fingerprint(self.cfg, self.teacher)).to(device)
        )

    def close(self) -> None:
        """Take what was added off the student's model; its own weights stay as they are."""
        inner = original(self.model)
        if STATE in inner._modules:
            delattr(inner, STATE)

    def __enter__(self) -> DistillTask[Batch]:
        """Itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close."""
        self.close()

    # One step

    def _is_active(self) -> bool:
        return bool(self._outputs or self._features or self._relations)

    def _tapped(self) -> frozenset[str]:
        return self._names | ({self.cfg.student_outputs} - {""})

    def _state(self) -> DistilledState:
        state = getattr(original(self.model), STATE, None)
        if state is None:
            raise ValueError("the distillation is closed; train inside of its `with` block")
        assert isinstance(state, DistilledState)
        return state

    def _both(self, calls: list[Call], *, ask: bool) -> list[tuple[Opinion, Opinion]]:
        """What student and teacher say in each call."""
        if not calls:
            raise ValueError(
                "the task's step did not call its model, only parts of it, so nothing can be "
                "compared; let it call `self.model(...)`"
            )
        pairs = []
        for call in calls:
            if missing := self._tapped() - call.taps.keys():
                raise ValueError(
                    f"modules {sorted(missing)} did not run in the pass, or were compiled; name "
                    "others, or set trainer.compile=off"
                )
            name = self.cfg.student_outputs
            outputs = self._read(call.taps[name] if name else call.output) if self._outputs else {}
            mine = Opinion(
                {name: value.float() for name, value in outputs.items()},
                {name: first_tensor(name, call.taps[name]).float() for name in self._names},
            )
            with torch.no_grad():
                theirs = self.teacher.ask(call.args, call.kwargs) if ask else self.teacher(call)
            pairs.append((mine, theirs))
        return pairs

    def _compare(
        self, batch: Batch, calls: list[Call], projections: nn.ModuleList
    ) -> dict[str, Tensor]:
        """Every term, a mean over the step's calls by their samples."""
        self._watch_cache()
        pairs, targets = self._both(calls, ask=False), self._targets(batch, calls)
        sizes = [_num_samples(call) for call in calls]
        device = next(tensors_in((calls[0].args, calls[0].kwargs))).device
        # Sums of many small numbers; a half-precision student gives them in half precision.
        with torch.autocast(device.type, enabled=False):
            found = [compute_terms(self.cfg, projections, *pair, targets) for pair in pairs]
        if len(found) == 1:
            return found[0]
        shares = [size / sum(sizes) for size in sizes]
        return {
            name: torch.stack([s * one[name] for s, one in zip(shares, found, strict=True)]).sum()
            for name in found[0]
        }

    def _targets(self, batch: Batch, calls: list[Call]) -> Mapping[str, Tensor]:
        if not needs_label(self.cfg):
            return {}
        if not isinstance(self.student, Labelled) or len(calls) != 1:
            raise ValueError(
                "distill.outputs.boundary.of='label' needs a task that has `targets(batch)` and "
                f"calls its model once in a step, not {len(calls)} times; set it to teacher"
            )
        return self.student.targets(batch)

    def _share(self, batches: Tensor) -> Tensor | float:
        """Of the weight, by the batches trained on; a tensor, so that no device is waited for."""
        cfg = self.cfg
        if not cfg.warmup_batches and cfg.decay_batches is None:
            return 1.0
        number = batches.float()
        share = torch.ones_like(number)
        if cfg.warmup_batches:
            share = ((number + 1) / cfg.warmup_batches).clamp(max=1)
        if cfg.decay_batches is not None:
            done = ((number - cfg.warmup_batches) / cfg.decay_batches).clamp(0, 1)
            left = 1 - done if cfg.decay == "linear" else (1 + torch.cos(math.pi * done)) / 2
            share = share * (cfg.final_share + (1 - cfg.final_share) * left)
        return share

    def _logs(self, own: Tensor, total: Tensor, terms: Mapping[str, Tensor]) -> dict[str, float]:
        if total.device.type != "cpu" and self._num_batches % LOG_EVERY:
            return {}
        named = {"distill/own": own, "distill/total": total}
        named |= {f"distill/{name}": value for name, value in terms.items()}
        return {name: float(value.detach()) for name, value in named.items()}

    # What must fit

    def _check_resumed(self, state: DistilledState) -> None:
        if bytes(state.fingerprint.tolist()) != run_fingerprint(self.cfg, self.teacher):
            raise ValueError(
                "the run's checkpoint was distilled from another teacher or with other settings of "
                "distill; set them back, or start a new run"
            )
        self._is_checked = True

    def _watch_cache(self) -> None:
        cache = self.teacher.cache
        if cache is None or self._pass is None or cache.hits:
            return
        if self._first_epoch is None:
            self._first_epoch = self._pass.epoch
        self._late_calls += self._pass.epoch > self._first_epoch
        if self._late_calls > PATIENCE:
            raise ValueError(
                f"distill.cache_dir={self.cfg.cache_dir!r} was asked {cache.misses} times and "
                "never knew the sample: they are not the same in each epoch; set it to null"
            )


@contextmanager
def _tried(model: nn.Module) -> Iterator[None]:
    """Training mode inside; then mode and buffers (running statistics) are what they were."""
    was_training = model.training
    buffers = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    model.train()
    try:
        yield
    finally:
        model.train(was_training)
        for buffer, before in buffers:
            buffer.copy_(before)


def _num_samples(call: Call) -> int:
    first = next(tensors_in((call.args, call.kwargs)))
    return first.shape[0] if first.ndim else 1
