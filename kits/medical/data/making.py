"""Simulated scans made beforehand, on all cores; other sources have theirs."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed

from core.kit import Split
from kits.medical.data.case import Cases
from kits.medical.data.config import PhantomData
from kits.medical.data.phantom import PhantomCases

FEWEST = 8  # cases for which processes are started: each takes a second or two to begin


def make_cases(
    cases: Cases, splits: Sequence[Split], told: Callable[[int, int, str], None]
) -> None:
    """Make those cases of a simulator that are not in its cache yet.

    Args:
        cases: of any source; only simulated ones are made.
        splits: whose.
        told: hears how many are done.
    """
    if not isinstance(cases, PhantomCases):
        return
    names = [
        name
        for split in splits
        for name in cases.names(split)
        if not (cases.folder / f"{name}.npz").exists()
    ]
    processes = min(len(os.sched_getaffinity(0)), len(names) // (FEWEST // 2))
    if processes < 2:
        for done, name in enumerate(names):
            told(done, len(names), name)
            cases.load(name)
        return
    # Spawned: a fork of a process with torch's threads may hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, context) as pool:
        waiting = [pool.submit(_make, cases.cfg, name) for name in names]
        try:
            for done, ready in enumerate(as_completed(waiting), start=1):
                ready.result()
                told(done, len(names), "simulated scans")
        except BaseException:
            # Else leaving the block waits for all of them.
            pool.shutdown(cancel_futures=True)
            raise


def _make(cfg: PhantomData, name: str) -> None:
    PhantomCases(cfg).load(name)
