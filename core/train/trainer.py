"""The training loop: any task, one process or many, and always able to go on where it stopped."""

from __future__ import annotations

import json
import logging
import math
import signal
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from core.kit import Task
from core.train.batches import Batches
from core.train.callbacks import Callback, EarlyStop, ProgressBar, TensorBoard
from core.train.checkpoint import (
    Checkpoints,
    load_facts,
    load_optimizer,
    load_tensors,
    load_weights,
    optimizer_tensors,
)
from core.train.config import TrainConfig
from core.train.distributed import Spread, World, to_device
from core.train.optim import Ema, build_optimizer, build_schedule
from core.train.precision import DTYPES, Candidate, autocast, choose
from core.train.randomness import deterministic_kernels, random_state, seed_all, set_random_state
from core.train.run import Run, write_atomic

Batch = TypeVar("Batch")
log = logging.getLogger(__name__)

# Measured choices: steps that are not timed.
NUM_WARMUP_STEPS = 2
# A scaler that went down to here finds no finite gradient at all.
SMALLEST_SCALE = 2.0**-14
# The trainer's attributes that a checkpoint brings back.
SAVED = (
    "step",
    "epoch",
    "position",
    "best",
    "evaluations_since_best",
    "stop_reason",
    "_evaluated_step",
)


@dataclass(frozen=True)
class _Part(Generic[Batch]):
    # One batch of a step: what it is, and how much it counts in the step's mean loss.
    batch: Batch
    indices: np.ndarray | None  # of this rank's samples, where the batches say them
    count: int  # samples of this rank that count
    total: int  # samples of all ranks


@dataclass(frozen=True)
class _Taken(Generic[Batch]):
    # A step whose numbers were not read yet: reading makes an accelerator wait.
    step: int
    epoch: int
    position: int
    loss: Tensor  # of this rank, weighted so that the mean over ranks is the loss of the step
    grad_norm: Tensor | None
    parts: list[_Part[Batch]]


class _Window:
    # What happened since the last time means were logged.
    def __init__(self) -> None:
        self.losses: list[float] = []
        self.sums: defaultdict[str, float] = defaultdict(float)
        self.num_parts = self.num_samples = 0
        self.start_s = time.perf_counter()

    def add(self, logs: Mapping[str, float], num_samples: int) -> None:
        self.num_parts += 1
        self.num_samples += num_samples
        for name, value in logs.items():
            self.sums[name] += value

    def means(self) -> dict[str, float]:
        means = {name: total / self.num_parts for name, total in self.sums.items()}
        speed = self.num_samples / (time.perf_counter() - self.start_s)
        return {"loss": statistics.fmean(self.losses), **means, "samples_per_s": speed}


class Trainer(Generic[Batch]):
    """Trains a task's model; ``fit`` goes on from the run's last checkpoint when there is one.

    The task's loss is taken as a mean over its batch. A fresh pass over ``task.batches`` must
    give the same batches again (``Batches`` does): a resumed run repeats them.
    """

    def __init__(
        self,
        task: Task[Batch],
        cfg: TrainConfig,
        callbacks: Sequence[Callback] = (),
        run_dir: Path | None = None,
    ) -> None:
        """Seed, spread the model over the ranks, build optimiser and schedule.

        Args:
            task: the model, its data and its loss.
            cfg: settings of the loop and of the optimiser.
            callbacks: called beside those that ``cfg`` asks for.
            run_dir: where checkpoints go; None makes a new ``Run``.
        """
        self.task, self.cfg, self.optim_cfg = task, cfg.trainer, cfg.optim
        self.world = World.start(self.cfg.device)
        if self.cfg.num_threads is not None:
            torch.set_num_threads(self.cfg.num_threads)
        seed_all(self.cfg.seed + self.world.rank)
        self.run_dir = run_dir or Run.create("unnamed", cfg, self.cfg.runs_dir).path
        self.checkpoints = Checkpoints(
            self.run_dir / "checkpoints", self.world, self.cfg.keep_checkpoints
        )

        self.model: nn.Module = task.model.to(self.world.device)
        self._spread = Spread(task, self.world, self.cfg.parallel)
        self.optimizer = build_optimizer(self.model, self.optim_cfg)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        decay = self.optim_cfg.ema_decay
        self.ema = None if decay is None else Ema(self.model, decay)
        self.num_steps = self._count_steps()
        self.schedule = build_schedule(self.optimizer, self.optim_cfg, self.num_steps)
        self._use(Candidate("fp32", is_compiled=False))

        self.step = self.epoch = self.position = 0  # position: batches done in the epoch
        self.best: float | None = None
        self.evaluations_since_best = 0
        self.stop_reason = ""
        self._evaluated_step = self._saved_step = 0
        self._has_sigterm = self._leaves = False
        self._grad_norm: float | None = None
        self._unread: list[_Taken[Batch]] = []
        self._window = _Window()
        self.callbacks = self._callbacks(callbacks)

    def _callbacks(self, given: Sequence[Callback]) -> list[Callback]:
        chosen: list[Callback] = []
        if self.cfg.progress and self.world.rank == 0:
            chosen.append(ProgressBar())
        if self.cfg.tensorboard and self.world.rank == 0:
            chosen.append(TensorBoard())
        if self.cfg.patience is not None:
            chosen.append(EarlyStop(self.cfg.patience))
        return [*chosen, *given]

    def _count_steps(self) -> int | None:
        batches = self.task.batches("train")
        limit = self.cfg.max_steps
        if not isinstance(batches, Sized):
            return limit
        steps = self.cfg.epochs * math.ceil(len(batches) / self.cfg.accumulate)
        return steps if limit is None else min(steps, limit)

    # The run

    def fit(self) -> Path:
        """Train to the end, and leave the best weights in the task's model.

        Returns:
            the best checkpoint (see ``load_weights``).
        Raises:
            FloatingPointError: a loss or gradient is not finite; names the step and the samples.
            SystemExit: with status 0, after SIGTERM and a checkpoint.
        """
        with deterministic_kernels(self.cfg.deterministic), self._sigterm_noticed():
            try:
                last = self.checkpoints.last()
                if last is not None:
                    self._resume(last)
                for callback in self.callbacks:
                    callback.on_start(self)
                if last is not None:
                    self.say(f"going on from {last.name}")
                else:
                    self._choose()
                self._train()
            finally:
                for callback in self.callbacks:
                    callback.on_end(self)
        best = self.checkpoints.best()
        assert best is not None
        load_weights(best, self.model)
        return best

    def stop(self, reason: str) -> None:
        """End the run after this step; it is done then, and does not go on when resumed."""
        self.stop_reason = reason

    def say(self, text: str) -> None:
        """Tell a person, once for all ranks."""
        if self.world.rank == 0:
            log.info(text)
        for callback in self.callbacks:
            callback.on_message(self, text)

    def _train(self) -> None:
        self.model.train()
        while not self._is_done():
            batches = self.task.batches("train")
            for parts in self._steps_of(batches):
                self._take_step(parts)
                self.position += len(parts)
                self._after_step()
                if self._is_done():
                    break
            else:
                self.epoch, self.position = self.epoch + 1, 0
                self._read()
                if self.cfg.evaluate_every_steps is None:
                    self._evaluate()
        self._read()
        if self._evaluated_step != self.step:
            self._evaluate()
        if self.stop_reason:
            self.say(f"stopped at step {self.step}: {self.stop_reason}")

    def _is_done(self) -> bool:
        is_last = self.num_steps is not None and self.step >= self.num_steps
        return bool(self.stop_reason) or is_last or self.epoch >= self.cfg.epochs

    def _steps_of(self, batches: Iterable[Batch]) -> Iterator[list[_Part[Batch]]]:
        """The rest of an epoch, grouped into optimiser steps."""
        if hasattr(batches, "set_epoch"):
            batches.set_epoch(self.epoch)
        if hasattr(batches, "skip"):
            batches.skip(self.position)
            left = iter(batches)
        else:
            left = islice(batches, self.position, None)
        parts: list[_Part[Batch]] = []
        for batch in left:
            if isinstance(batches, Batches):
                parts.append(
                    _Part(batch, batches.last_indices, batches.last_count, batches.last_total)
                )
            else:
                count = _num_samples(batch)
                parts.append(_Part(batch, None, count, count * self.world.size))
            if len(parts) == self.cfg.accumulate:
                yield parts
                parts = []
        if parts:
            yield parts

    def _after_step(self) -> None:
        # On the CPU reading a loss costs nothing, so that a bad one stops the run at once.
        is_cheap = self.world.device.type == "cpu"
        is_urgent = self._has_sigterm and self.world.size == 1
        if is_cheap or is_urgent or len(self._unread) >= self.cfg.log_every_steps:
            self._read()
        if self.step % self.cfg.log_every_steps == 0:
            self._read()
            self._log()
        every = self.cfg.evaluate_every_steps
        if every is not None and self.step % every == 0:
            self._read()
            self._evaluate()
        every = self.cfg.checkpoint_every_steps
        is_due = every is not None and self.step % every == 0
        if (is_due or self._leaves) and self._saved_step != self.step:
            self._read()
            self._save(is_best=False)
        if self._leaves:
            self.say(f"SIGTERM: saved step {self.step}")
            raise SystemExit(0)

    # One step

    def _take_step(self, parts: list[_Part[Batch]]) -> None:
        total = sum(part.total for part in parts)
        loss: Tensor | None = None
        for number, part in enumerate(parts, start=1):
            batch = part.batch
            if self.world.device.type != "cpu":
                batch = to_device(batch, self.world.device)
            with self._spread.syncing(last=number == len(parts)):
                with self._autocast():
                    result = self._spread.step(batch)
                share = part.count * self.world.size / total
                own = result.loss if share == 1 else result.loss * share
                self._scaler.scale(own).backward()  # type: ignore[no-untyped-call]
            loss = own.detach() if loss is None else loss + own.detach()
            self._window.add(result.logs, part.total)
        norm = None
        if self.optim_cfg.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self._parameters, self.optim_cfg.clip_norm)
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        self._update()
        self.step += 1
        assert loss is not None
        self._unread.append(_Taken(self.step, self.epoch, self.position, loss, norm, parts))

    def _update(self) -> None:
        scale = self._scaler.get_scale()
        self._scaler.step(self.optimizer)
        self._scaler.update()
        self.optimizer.zero_grad()
        # A lower scale means that the scaler met an infinite gradient and left the weights alone.
        if self._scaler.get_scale() >= scale:
            self.schedule.step()
            if self.ema is not None:
                self.ema.update()
        elif self.schedule.last_epoch == 0:
            # Torch 2.14's fused SGD allocates its momentum in a skipped first step, unset.
            self.optimizer.state.clear()

    def _read(self) -> None:
        """Read the losses of the steps since the last call; stop at one that is not finite."""
        if not self._unread:
            return
        taken, self._unread = self._unread, []
        numbers = [t.loss.float() for t in taken]
        numbers += [t.grad_norm.float() for t in taken if t.grad_norm is not None]
        if self.world.size > 1:
            # All ranks leave at the same step.
            numbers.append(torch.tensor(float(self._has_sigterm), device=self.world.device))
        values = self.world.mean(torch.stack(numbers)).tolist()
        self._leaves = self._has_sigterm if self.world.size == 1 else values.pop() > 0
        losses, norms = values[: len(taken)], values[len(taken) :]
        for number, (step, loss) in enumerate(zip(taken, losses, strict=True)):
            if not math.isfinite(loss):
                self._refuse(step, "loss", loss)
            # An infinite gradient in fp16 is the scaler's business.
            elif norms and not math.isfinite(norms[number]) and not self._scaler.is_enabled():
                self._refuse(step, "gradient norm", norms[number])
            self._window.losses.append(loss)
            for callback in self.callbacks:
                callback.on_step(self, step.step, loss)
        self._grad_norm = norms[-1] if norms else None

    def _refuse(self, taken: _Taken[Batch], what: str, value: float) -> NoReturn:
        known = [p.indices for p in taken.parts if p.indices is not None]
        own: dict[str, Any] = {
            "rank": self.world.rank,
            "loss": float(taken.loss),
            "samples": np.concatenate(known).tolist() if known else None,
        }
        ranks = self.world.gather(own)
        # A gradient may overflow where the loss does not: then every rank is named.
        ranks = [r for r in ranks if not math.isfinite(r["loss"])] or ranks
        facts = {"what": what, "value": value, "step": taken.step, "epoch": taken.epoch}
        facts |= {"first_batch": taken.position, "num_batches": len(taken.parts), "ranks": ranks}
        path = self.run_dir / "not_finite.json"
        if self.world.rank == 0:
            write_atomic(path, json.dumps(facts, indent=1))
        samples = "; ".join(f"rank {r['rank']}: {_shorten(r['samples'])}" for r in ranks)
        raise FloatingPointError(
            f"{what}={value} at step {taken.step} (epoch {taken.epoch}, batch {taken.position}) is "
            f"not finite; look at the samples ({samples}), all in {path}, or lower optim.lr"
        )

    def _log(self) -> None:
        logs = self._window.means() | {"lr": float(self.schedule.get_last_lr()[0])}
        if self._grad_norm is not None:
            logs["grad_norm"] = self._grad_norm
        if self._scaler.is_enabled():
            logs["loss_scale"] = scale = self._scaler.get_scale()
            if scale < SMALLEST_SCALE:
                raise FloatingPointError(
                    f"loss scale={scale} at step {self.step} is below {SMALLEST_SCALE}: no fp16 "
                    "gradient is finite any more; set trainer.precision=bf16"
                )
        for callback in self.callbacks:
            callback.on_log(self, logs)
        self._window = _Window()

    # Evaluation and checkpoints

    def _evaluate(self) -> None:
        """Evaluate the validation split, and save; the best checkpoint is marked."""
        self._evaluated_step = self.step
        name, is_best = self.cfg.metric, False
        if name is not None:
            metrics = self._validate()
            if name not in metrics:
                raise ValueError(
                    f"trainer.metric={name!r} is not one of {', '.join(metrics)}; set it"
                )
            sign = 1 if self.cfg.metric_mode == "max" else -1
            is_best = not math.isnan(metrics[name]) and (
                self.best is None or sign * metrics[name] > sign * self.best
            )
            if is_best:
                self.best = metrics[name]
            self.evaluations_since_best = 0 if is_best else self.evaluations_since_best + 1
            for callback in self.callbacks:
                callback.on_evaluate(self, metrics)
        self._save(is_best=is_best)
        # Speed is that of training.
        self._window.start_s = time.perf_counter()

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        compiled, self.task.model = self.task.model, self.model
        self.model.eval()
        with self.ema.applied() if self.ema is not None else nullcontext():
            metrics = self.task.evaluate("validation")
        self.model.train()
        self.task.model = compiled
        return self.world.broadcast(metrics)

    def _save(self, *, is_best: bool) -> None:
        tensors: dict[str, Any] = {
            "model": self.model.state_dict(),
            "optimizer": optimizer_tensors(self.model, self.optimizer),
        }
        if self.ema is not None:
            tensors["ema"] = self.ema.weights
        facts = {name: getattr(self, name) for name in SAVED}
        facts |= self._rates() | {
            "settings": self._settings(),
            "candidate": asdict(self.candidate),
            "scaler": self._scaler.state_dict(),
        }
        random = random_state(self.world.device)
        self.checkpoints.save(self.step, tensors, facts, random, is_best=is_best)
        self._saved_step = self.step

    def _resume(self, path: Path) -> None:
        facts, random = load_facts(path, self.world.rank)
        for name, now in self._settings().items():
            if (then := facts["settings"].get(name)) != now:
                raise ValueError(
                    f"{name}={now!r} is not what {path} was trained with ({then!r}); set it back, "
                    "or start a new run"
                )
        load_tensors(path, {"model": self.model.state_dict()})
        load_optimizer(path, self.model, self.optimizer)
        if self.ema is not None:
            load_tensors(path, {"ema": self.ema.weights})
        self._use(Candidate(**facts["candidate"]))
        self._scaler.load_state_dict(facts["scaler"])
        self._set_rates(facts)
        for name in SAVED:
            setattr(self, name, facts[name])
        # A rank that the saved run did not have keeps its own seed.
        if random is not None:
            set_random_state(random, self.world.device)

    def _settings(self) -> dict[str, Any]:
        """What must not change between the parts of one run."""
        optim = {f"optim.{name}": value for name, value in asdict(self.optim_cfg).items()}
        loop = {f"trainer.{name}": getattr(self.cfg, name) for name in ("seed", "accumulate")}
        return {**optim, **loop, "number of steps": self.num_steps}

    def _rates(self) -> dict[str, Any]:
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return {"schedule": deepcopy(self.schedule.state_dict()), "rates": rates}

    def _set_rates(self, state: dict[str, Any]) -> None:
        self.schedule.load_state_dict(deepcopy(state["schedule"]))
        for group, rate in zip(self.optimizer.param_groups, state["rates"], strict=True):
            group["lr"] = rate

    # Measured choices

    def _use(self, candidate: Candidate) -> None:
        self.candidate = candidate
        kind, is_fp16 = self.world.device.type, candidate.precision == "fp16"
        self._autocast = autocast(self.world.device, candidate.precision)
        self._scaler = torch.amp.GradScaler(kind, enabled=is_fp16)
        compiled = torch.compile(self.model) if candidate.is_compiled else self.model
        self.task.model = cast(nn.Module, compiled)

    def _choose(self) -> None:
        """Choose precision and compilation, by measurement where the config says auto."""
        precision, compile_ = self.cfg.precision, self.cfg.compile
        names = [precision] if precision != "auto" else ["fp32", *DTYPES]
        candidates = [Candidate(name, is_compiled=compile_ == "on") for name in names]
        measured: list[Candidate] = []
        if len(candidates) > 1:
            measured = self._measure(candidates)
            candidates = [choose(measured, self.cfg.loss_tolerance)]
        if compile_ == "auto":
            pair = self._measure([candidates[0], replace(candidates[0], is_compiled=True)])
            measured, candidates = measured + pair, [choose(pair, self.cfg.loss_tolerance)]
        self._use(candidates[0])
        if measured:
            self.say(f"measured {'; '.join(map(str, measured))}. Taken: {self.candidate}")
            if self.world.rank == 0:
                rows = [asdict(candidate) for candidate in measured]
                write_atomic(self.run_dir / "measured.json", json.dumps(rows, indent=1))

    def _measure(self, candidates: list[Candidate]) -> list[Candidate]:
        """Time some steps of each candidate; model, optimiser and random state come back as is."""
        tensors = [*self.model.parameters(), *self.model.buffers()]
        copies = [tensor.detach().clone() for tensor in tensors]
        rates, random = self._rates(), random_state(self.world.device)
        ema, self.ema = self.ema, None
        self.model.train()
        measured = []
        for candidate in candidates:
            self._use(candidate)
            measured.append(self._try(candidate))
            with torch.no_grad():
                for tensor, copy in zip(tensors, copies, strict=True):
                    tensor.copy_(copy)
            self.optimizer.zero_grad()
            self.optimizer.state.clear()
            self._set_rates(rates)
            set_random_state(random, self.world.device)
            self.step, self._unread, self._window = 0, [], _Window()
        self.ema = ema
        return self.world.broadcast(measured)

    def _try(self, candidate: Candidate) -> Candidate:
        times_ms, losses = [], []
        batches = self._steps_of(self.task.batches("train"))
        try:
            for parts in islice(batches, NUM_WARMUP_STEPS + self.cfg.measure_steps):
                start_s = time.perf_counter()
                self._take_step(parts)
                # Reading waits for the device.
                losses.append(float(self._unread.pop().loss))
                times_ms.append(1000 * (time.perf_counter() - start_s))
        except RuntimeError as error:  # no kernel for the type, no compiler, no memory
            return replace(candidate, failure=str(error).strip().partition("\n")[0])
        warmup = NUM_WARMUP_STEPS if len(losses) > NUM_WARMUP_STEPS else 0
        return replace(
            candidate,
            step_ms=statistics.median(times_ms[warmup:]),
            loss=statistics.fmean(losses[warmup:]),
            warmup_s=sum(times_ms[:warmup]) / 1000,
        )

    @contextmanager
    def _sigterm_noticed(self) -> Iterator[None]:
        def notice(*_: Any) -> None:
            self._has_sigterm = True

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, notice)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)


def _num_samples(batch: Any) -> int:
    """The length of a batch, or of its first member; 1 when it has none."""
    first = next(iter(batch.values())) if isinstance(batch, Mapping) and batch else batch
    first = first[0] if isinstance(first, (list, tuple)) and first else first
    return len(first) if isinstance(first, Tensor) and first.ndim else 1


def _shorten(samples: list[int] | None) -> str:
    if samples is None:
        return "unknown"
    return ", ".join(map(str, samples[:20])) + (", ..." if len(samples) > 20 else "")
