"""Checks that no knowledge from the future reaches a feature, run in every training."""

from __future__ import annotations

import numpy as np

from kernels.fold import Fold, Labels, Rows
from kits.fraud.data.events import Events
from kits.fraud.report import LeakCheck

# The first events are enough: the fold treats all of them alike.
NUM_EVENTS = 40_000


def leak_checks(events: Events, visible_s: np.ndarray) -> list[LeakCheck]:
    """Fold the first events twice, the second time with labels changed that are not visible yet.

    Args:
        events: sorted by time.
        visible_s: (n,) from when on each label may be used.

    Returns:
        whether every feature, sequence and neighbourhood kept its bits, and looks back only.
    """
    n = min(len(events), NUM_EVENTS)
    now = int(events.time_s[n - 1])
    label = np.array(events.label)
    hidden = np.flatnonzero(visible_s > now)
    changed = label.copy()
    changed[hidden] = np.random.default_rng(0).permutation(np.where(label[hidden] == 1, 0, 1))
    before, after = (_rows(events, labels, visible_s, n) for labels in (label, changed))
    same = all(
        np.array_equal(one.view(np.uint8), two.view(np.uint8))
        for one, two in zip(vars(before).values(), vars(after).values(), strict=True)
    )
    own = np.arange(n, dtype=np.int32)[:, None]
    past = bool((before.neighbours < own).all() and (before.history <= own).all())
    return [
        LeakCheck(
            "labels of the future flipped and permuted",
            same,
            f"{len(hidden):,} labels not visible at event {n:,} were changed; "
            f"the {n:,} rows up to it " + ("keep every bit" if same else "changed"),
        ),
        LeakCheck(
            "sequences and neighbours lie in the past",
            past,
            f"of {n:,} events " + ("none refers" if past else "some refer") + " to a later one",
        ),
    ]


def _rows(events: Events, label: np.ndarray, visible_s: np.ndarray, n: int) -> Rows:
    fold = Fold(events.entity_roles, events.entity_kinds)
    rows = Rows.empty(n, len(fold.feature_names))
    labels = Labels.schedule(label, visible_s)
    fold.run(events.time_s[:n], events.entities[:n], events.amount[:n], labels, rows)
    return rows
