"""One progress bar for each stage of a run, told like the trainer's: lines without a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress

Told = Callable[[int, int, str], None]  # done, of all, the next one's name
LINE_EVERY_S = 30.0


def tell_nobody(done: int, total: int, name: str) -> None:
    """No progress is shown."""


@contextmanager
def stage(title: str, *, is_shown: bool = True) -> Iterator[Told]:
    """A bar on standard error that is there as long as the stage is.

    Args:
        title: what is done.
        is_shown: False shows nothing.
    """
    if not is_shown:
        yield tell_nobody
        return
    console, next_s = Console(file=sys.stderr), time.perf_counter() + LINE_EVERY_S
    # Refreshed when told: rich's own thread would compete with the work.
    with Progress(
        console=console, transient=True, auto_refresh=False, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task(title, total=None)

        def told(done: int, total: int, name: str) -> None:
            nonlocal next_s
            if console.is_terminal:
                bar.update(
                    task, completed=done, total=total, description=f"{title}: {name}", refresh=True
                )
            elif time.perf_counter() >= next_s:
                next_s = time.perf_counter() + LINE_EVERY_S
                console.print(f"{title}: {done} of {total}", highlight=False, markup=False)

        yield told
