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
from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict
from pathlib import Path
from typing import Any, Generic, NamedTuple, NoReturn, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from core.kit import Task
from core.train.batches import Part, steps_of
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
from core.train.precision import Candidate, autocast, choose
from core.train.randomness import deterministic_kernels, random_state, seed_all, set_random_state
from core.train.run import Run, write_atomic

Batch = TypeVar("Batch")
log = logging.getLogger(__name__)

# A loss scale that fell below finds no finite gradient at all any more.
SMALLEST_SCALE = 2.0**-14
# The trainer's attributes that a checkpoint brings back.
SAVED = ["step", "epoch", "position", "best", "evaluations_since_best", "evaluated_step"]
SAVED += ["stop_reason"]


class Taken(NamedTuple, Generic[Batch]):
    """A step whose numbers may not be there yet: reading them makes an accelerator wait."""

    step: int
    epoch: int
    position: int  # its first batch in the epoch
    loss: Tensor  # of this rank, weighted so that the mean over ranks is the loss of the step
    grad_norm: Tensor | None
    parts: list[Part[Batch]]


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
        folder = self.run_dir / "checkpoints"
        self.checkpoints = Checkpoints(folder, self.world, self.cfg.keep_checkpoints)
        self.callbacks = self._callbacks(callbacks)

        self.model: nn.Module = task.model.to(self.world.device)
        self._spread = Spread(task, self.world, self.cfg.parallel)
        self.optimizer = build_optimizer(self.model, self.optim_cfg)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        decay = self.optim_cfg.ema_decay
        self.ema = None if decay is None else Ema(self.model, decay)
        self.num_steps = self._count_steps()
        self.schedule = build_schedule(self.optimizer, self.optim_cfg, self.num_steps)
        self.use(Candidate("fp32", is_compiled=False))

        self.step = self.epoch = self.position = 0  # position: batches done in the epoch
        self.best: float | None = None
        self.evaluations_since_best = self.evaluated_step = self._saved_step = 0
        self.stop_reason = ""
        self._has_sigterm = self._is_leaving = False
        self._unread: list[Taken[Batch]] = []
        self._grad_norm: float | None = None
        self._forget_window()

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
        batches, limit = self.task.batches("train"), self.cfg.max_steps
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
            last = self.checkpoints.last()
            if last is not None:
                self._resume(last)
            for callback in self.callbacks:
                callback.on_start(self)
            try:
                self._begin(last)
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

    def _begin(self, last: Path | None) -> None:
        self.model.train()
        if last is not None:
            self.say(f"going on from {last.name}, {self.candidate.precision}")
            return
        candidate, measured = choose(self)
        self.use(candidate)
        self.step = 0
        self._forget_window()
        if measured:
            self.say(f"measured {'; '.join(map(str, measured))}. Taken: {candidate}")
            if self.world.rank == 0:
                rows = [asdict(candidate) for candidate in measured]
                write_atomic(self.run_dir / "measured.json", json.dumps(rows, indent=1))

    def _train(self) -> None:
        while not self._is_done():
            for parts in self.steps():
                self._unread.append(self.take_step(parts))
                self.position += len(parts)
                self._after_step()
                if self._is_done():
                    break
            else:
                self.epoch, self.position = self.epoch + 1, 0
                if self.cfg.evaluate_every_steps is None and self.cfg.metric is not None:
                    self._evaluate()
        if self.evaluated_step != self.step:
            self._evaluate()
        if self.stop_reason:
            self.say(f"stopped at step {self.step}: {self.stop_reason}")

    def _is_done(self) -> bool:
        is_last = self.num_steps is not None and self.step >= self.num_steps
        return bool(self.stop_reason) or is_last or self.epoch >= self.cfg.epochs

    def _after_step(self) -> None:
        cfg, is_logged = self.cfg, self.step % self.cfg.log_every_steps == 0
        # On the CPU reading a loss costs nothing, so that a bad one stops the run at once.
        if is_logged or self.world.device.type == "cpu":
            self._read()
        if is_logged:
            self._log()
        if cfg.evaluate_every_steps is not None and self.step % cfg.evaluate_every_steps == 0:
            self._evaluate()
        elif cfg.checkpoint_every_steps is not None and self.step % cfg.checkpoint_every_steps == 0:
            self._save(is_best=False)
        # One process alone need not wait until the ranks have agreed.
        if self._is_leaving or (self._has_sigterm and self.world.size == 1):
            if self._saved_step != self.step:
                self._save(is_best=False)
            self.say(f"SIGTERM: saved step {self.step}")
            raise SystemExit(0)

    # One step

    def steps(self) -> Iterator[list[Part[Batch]]]:
        """The rest of the epoch, as the batches of each optimiser step."""
        return steps_of(
            self.task.batches("train"),
            self.cfg.accumulate,
            epoch=self.epoch,
            skip=self.position,
            num_ranks=self.world.size,
        )

    def take_step(self, parts: list[Part[Batch]]) -> Taken[Batch]:
        """One optimiser step over the mean loss of all samples in its batches."""
        num_samples = sum(part.num_all for part in parts)
        losses: list[Tensor] = []
        for part in parts:
            batch = part.batch
            if self.world.device.type != "cpu":
                batch = to_device(batch, self.world.device)
            with self._spread.syncing(last=part is parts[-1]):
                with self._autocast():
                    result = self._spread.step(batch)
                share = part.num_own * self.world.size / num_samples
                loss = result.loss if share == 1 else result.loss * share
                self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
            for name, value in result.logs.items():
                self._window[name].append(value)
        self._num_samples += num_samples
        norm = None
        if self.optim_cfg.clip_norm is not None:
            self._scaler.unscale_(self.optimizer)
            norm = nn.utils.clip_grad_norm_(self._parameters, self.optim_cfg.clip_norm)
            norm = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
        self._update()
        self.step += 1
        loss = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        return Taken(self.step, self.epoch, self.position, loss, norm, parts)

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

    # What the steps gave

    def _read(self) -> None:
        """Read the losses of the steps since the last call; stop at one that is not finite."""
        if not self._unread:
            return
        taken, self._unread = self._unread, []
        numbers = [t.loss for t in taken]
        numbers += [t.grad_norm for t in taken if t.grad_norm is not None]
        if self.world.size > 1:
            # All ranks leave at the same step.
            numbers.append(torch.tensor(float(self._has_sigterm), device=self.world.device))
        values = self.world.means(numbers)
        if self.world.size > 1:
            self._is_leaving = values.pop() > 0
        losses, norms = values[: len(taken)], values[len(taken) :]
        for number, (step, loss) in enumerate(zip(taken, losses, strict=True)):
            if not math.isfinite(loss):
                self._refuse(step, "loss", loss)
            # An infinite gradient in fp16 is the scaler's business.
            elif norms and not math.isfinite(norms[number]) and not self._scaler.is_enabled():
                self._refuse(step, "gradient norm", norms[number])
            self._window["loss"].append(loss)
            for callback in self.callbacks:
                callback.on_step(self, step.step, loss)
        self._grad_norm = norms[-1] if norms else None

    def _refuse(self, taken: Taken[Batch], what: str, value: float) -> NoReturn:
        known = [part.indices for part in taken.parts if part.indices is not None]
        samples = np.concatenate(known).tolist() if known else []
        ranks = self.world.gather((self.world.rank, float(taken.loss), samples))
        # A gradient may overflow where the loss does not: then every rank is named.
        bad = [rank for rank in ranks if not math.isfinite(rank[1])] or ranks
        rows = [{"rank": r, "loss": loss, "samples": samples} for r, loss, samples in bad]
        facts = {name: getattr(taken, name) for name in ("step", "epoch", "position")}
        path = self.run_dir / "not_finite.json"
        if self.world.rank == 0:
            write_atomic(path, json.dumps({what: value, **facts, "ranks": rows}))
        raise FloatingPointError(
            f"{what}={value} at step {taken.step} (epoch {taken.epoch}, batch {taken.position}) is "
            f"not finite; look at samples {bad[0][2][:20]} of rank {bad[0][0]} (all: {path}), or "
            "lower optim.lr"
        )

    def _log(self) -> None:
        logs = {name: statistics.fmean(values) for name, values in self._window.items()}
        logs["samples_per_s"] = self._num_samples / (time.perf_counter() - self._window_start_s)
        logs["lr"] = float(self.schedule.get_last_lr()[0])
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
        self._forget_window()

    def _forget_window(self) -> None:
        self._window: defaultdict[str, list[float]] = defaultdict(list)
        self._num_samples, self._window_start_s = 0, time.perf_counter()

    # Evaluation and checkpoints

    def _evaluate(self) -> None:
        """Evaluate the validation split, and save; the best checkpoint is marked."""
        self._read()
        start_s, name, is_best = time.perf_counter(), self.cfg.metric, False
        if name is not None:
            metrics = self._validate()
            if name not in metrics:
                names = ", ".join(metrics)
                raise ValueError(f"trainer.metric={name!r} is not one of {names}; set it")
            sign = 1 if self.cfg.metric_mode == "max" else -1
            best = -math.inf if self.best is None else sign * self.best
            is_best = sign * metrics[name] > best
            self.best = metrics[name] if is_best else self.best
            self.evaluations_since_best = 0 if is_best else self.evaluations_since_best + 1
            for callback in self.callbacks:
                callback.on_evaluate(self, metrics)
        self.evaluated_step = self.step
        self._save(is_best=is_best)
        # Samples per second are those of training.
        self._window_start_s += time.perf_counter() - start_s

    @torch.no_grad()
    def _validate(self) -> dict[str, float]:
        # Not the compiled model: the split's last batch would compile it once more.
        used, self.task.model = self.task.model, self.model
        self.model.eval()
        with self.ema.applied() if self.ema is not None else nullcontext():
            metrics = self.task.evaluate("validation")
        self.model.train()
        self.task.model = used
        return self.world.broadcast(metrics)

    def _save(self, *, is_best: bool) -> None:
        self._read()
        optimizer = optimizer_tensors(self.model, self.optimizer)
        tensors: dict[str, Any] = {"model": self.model.state_dict(), "optimizer": optimizer}
        if self.ema is not None:
            tensors["ema"] = self.ema.weights
        facts = {
            **{name: getattr(self, name) for name in SAVED},
            **self.rates(),
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
        self.use(Candidate(**facts["candidate"]))
        self._scaler.load_state_dict(facts["scaler"])
        self.set_rates(facts)
        for name in SAVED:
            setattr(self, name, facts[name])
        self._saved_step = self.step
        # A rank that the saved run did not have keeps its own seed.
        if random is not None:
            set_random_state(random, self.world.device)

    def _settings(self) -> dict[str, Any]:
        """What must not change between the parts of one run."""
        optim = {f"optim.{name}": value for name, value in asdict(self.optim_cfg).items()}
        loop = {f"trainer.{name}": getattr(self.cfg, name) for name in ("seed", "accumulate")}
        return {**optim, **loop, "number of steps": self.num_steps}

    def rates(self) -> dict[str, Any]:
        """The schedule's state and the learning rates it has set."""
        rates = [group["lr"] for group in self.optimizer.param_groups]
        return {"schedule": deepcopy(self.schedule.state_dict()), "rates": rates}

    def set_rates(self, state: dict[str, Any]) -> None:
        """Bring back what ``rates`` gave."""
        self.schedule.load_state_dict(deepcopy(state["schedule"]))
        for group, rate in zip(self.optimizer.param_groups, state["rates"], strict=True):
            group["lr"] = rate

    def use(self, candidate: Candidate) -> None:
        """Run steps in this precision from now on, compiled or not, with a fresh loss scale."""
        self.candidate = candidate
        self._autocast = autocast(self.world.device, candidate.precision)
        is_fp16 = candidate.precision == "fp16"
        self._scaler = torch.amp.GradScaler(self.world.device.type, enabled=is_fp16)
        compiled = torch.compile(self.model) if candidate.is_compiled else self.model
        self.task.model = cast(nn.Module, compiled)

    @contextmanager
    def _sigterm_noticed(self) -> Iterator[None]:
        def notice(*_: Any) -> None:
            self._has_sigterm = True

        # Python hands signals to the main thread only.
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = signal.signal(signal.SIGTERM, notice)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)
