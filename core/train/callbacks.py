"""What happens beside the loop: the progress bar, TensorBoard, early stop."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress, TextColumn
from typing_extensions import override

if TYPE_CHECKING:
    from core.train.trainer import Trainer


class Callback:
    """Called by the trainer on every rank; each method does nothing unless overridden."""

    def on_start(self, trainer: Trainer[Any]) -> None:
        """Before the first step, the last checkpoint loaded."""

    def on_step(self, trainer: Trainer[Any], step: int, loss: float) -> None:
        """After a step's loss was read; on accelerators steps come in groups, late."""

    def on_log(self, trainer: Trainer[Any], logs: Mapping[str, float]) -> None:
        """Means since the last call, every ``log_every_steps``."""

    def on_evaluate(self, trainer: Trainer[Any], metrics: Mapping[str, float]) -> None:
        """After an evaluation, before its checkpoint."""

    def on_message(self, trainer: Trainer[Any], text: str) -> None:
        """Something worth telling a person."""

    def on_end(self, trainer: Trainer[Any]) -> None:
        """After the last step, also when an error ended the run."""


class ProgressBar(Callback):
    """A bar with loss, samples per second and time left; lines where there is no terminal."""

    def __init__(self, console: Console | None = None, line_every_s: float = 30.0) -> None:
        """Write to a console (default: standard error)."""
        self.console = console or Console(file=sys.stderr)
        self.period_s = 0.2 if self.console.is_terminal else line_every_s
        self._next_s, self._text = 0.0, ""
        # Progress and time left, then our numbers. Refreshed from on_step: rich's own thread would
        # compete with the training's.
        columns = (*Progress.get_default_columns(), TextColumn("{task.fields[text]}"))
        self._bar = Progress(*columns, console=self.console, auto_refresh=False)
        self._task = self._bar.add_task("", text="")

    @override
    def on_start(self, trainer: Trainer[Any]) -> None:
        """Show the bar."""
        self._start_s, self._first = time.perf_counter(), trainer.step
        self._next_s = self._start_s + self.period_s
        self._bar.update(self._task, total=trainer.num_steps, completed=trainer.step)
        if self.console.is_terminal:
            self._bar.start()

    @override
    def on_step(self, trainer: Trainer[Any], step: int, loss: float) -> None:
        """Move the bar, a few times per second at most."""
        if (now := time.perf_counter()) < self._next_s:
            return
        self._next_s = now + self.period_s
        if self.console.is_terminal:
            self._bar.update(self._task, completed=step, text=self._text, refresh=True)
            return
        rate = (step - self._first) / (now - self._start_s)
        total = trainer.num_steps
        left = f", {(total - step) / rate:.0f} s left" if total else ""
        self._line(f"{self._text or f'step {step}, loss {loss:.4g}'}{left}")

    @override
    def on_log(self, trainer: Trainer[Any], logs: Mapping[str, float]) -> None:
        """Remember the numbers to show."""
        speed = f"{logs['samples_per_s']:,.0f} samples/s"
        self._text = f"step {trainer.step}, loss {logs['loss']:.4g}, {speed}"

    @override
    def on_evaluate(self, trainer: Trainer[Any], metrics: Mapping[str, float]) -> None:
        """One line of metrics."""
        numbers = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._line(f"step {trainer.step}: {numbers}")

    @override
    def on_message(self, trainer: Trainer[Any], text: str) -> None:
        """One line."""
        self._line(text)

    @override
    def on_end(self, trainer: Trainer[Any]) -> None:
        """Leave the bar as it stands."""
        if self.console.is_terminal:
            self._bar.update(self._task, completed=trainer.step, text=self._text, refresh=True)
            self._bar.stop()

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


class TensorBoard(Callback):
    """Scalars of training and evaluation, and messages, to ``<run>/tensorboard``."""

    @override
    def on_start(self, trainer: Trainer[Any]) -> None:
        """Open the event file; steps after the checkpoint that was resumed are hidden."""
        # Takes a second to import.
        from torch.utils.tensorboard import SummaryWriter

        folder = str(trainer.run_dir / "tensorboard")
        self._writer = SummaryWriter(folder, purge_step=trainer.step + 1)

    @override
    def on_log(self, trainer: Trainer[Any], logs: Mapping[str, float]) -> None:
        """Training scalars."""
        self._write("train", trainer.step, logs)

    @override
    def on_evaluate(self, trainer: Trainer[Any], metrics: Mapping[str, float]) -> None:
        """Evaluation scalars."""
        self._write("validation", trainer.step, metrics)

    @override
    def on_end(self, trainer: Trainer[Any]) -> None:
        """Close the event file."""
        self._writer.close()

    def _write(self, folder: str, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(f"{folder}/{name}", value, step)


class EarlyStop(Callback):
    """Ends the run after ``patience`` evaluations without a better metric."""

    def __init__(self, patience: int) -> None:
        """Wait for so many evaluations."""
        self.patience = patience

    @override
    def on_evaluate(self, trainer: Trainer[Any], metrics: Mapping[str, float]) -> None:
        """Ask the trainer to stop; it keeps the count in its checkpoints."""
        if trainer.evaluations_since_best >= self.patience:
            trainer.stop(f"no better {trainer.cfg.metric} in {self.patience} evaluations")
