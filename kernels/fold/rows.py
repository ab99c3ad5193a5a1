"""What goes into a fold and what comes out of it, and the rules for both.

Dimensions: n events, R roles, F features, K = 16 history, N = 32 neighbours, m labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MAX_ROLES = 8
HISTORY = 16
NEIGHBOURS = 32


@dataclass(frozen=True)
class Labels:
    """When which event's label becomes visible, sorted by (time, event); one per event."""

    event: np.ndarray  # (m,) int64, counted from the first event ever folded
    time_s: np.ndarray  # (m,) int64, not before the event itself
    value: np.ndarray  # (m,) int8, 0 or 1

    @classmethod
    def schedule(cls, label: np.ndarray, visible_s: np.ndarray) -> Labels:
        """Order the known labels of events 0, 1, 2, ... by the time they become visible.

        Args:
            label: (n,) 0 legitimate, 1 fraud, anything else unknown.
            visible_s: (n,) seconds.
        """
        event = np.flatnonzero((label == 0) | (label == 1)).astype(np.int64)
        event = event[np.lexsort((event, visible_s[event]))]
        return cls(event, visible_s[event].astype(np.int64), label[event].astype(np.int8))

    def __len__(self) -> int:
        """Number of labels."""
        return len(self.event)

    def __getitem__(self, part: slice) -> Labels:
        """A run of them."""
        return Labels(self.event[part], self.time_s[part], self.value[part])


@dataclass(frozen=True)
class Rows:
    """What the fold says of n events, each as it stood before the event."""

    features: np.ndarray  # (n, F) float32, NaN where there is nothing to say
    history: np.ndarray  # (n, K) int32 events of the account, newest last, itself last; -1 padding
    history_status: np.ndarray  # (n, K) int8 1 known fraud, 0 known legitimate, -1 not known yet
    neighbours: np.ndarray  # (n, N) int32 other accounts' events at the same entities; -1 padding
    neighbour_status: np.ndarray  # (n, N) int8, as history_status

    @classmethod
    def empty(cls, num_events: int, num_features: int) -> Rows:
        """Room for the rows of so many events."""
        return cls(
            np.empty((num_events, num_features), np.float32),
            np.empty((num_events, HISTORY), np.int32),
            np.empty((num_events, HISTORY), np.int8),
            np.empty((num_events, NEIGHBOURS), np.int32),
            np.empty((num_events, NEIGHBOURS), np.int8),
        )

    def __getitem__(self, part: slice) -> Rows:
        """A view of some of the events."""
        return Rows(
            self.features[part],
            self.history[part],
            self.history_status[part],
            self.neighbours[part],
            self.neighbour_status[part],
        )

    def check(self, num_events: int, num_features: int) -> None:
        """Refuse arrays that a fold cannot write so many rows to."""
        for name, like in vars(Rows.empty(0, num_features)).items():
            column = getattr(self, name)
            shape = (num_events, *like.shape[1:])
            if column.shape != shape or column.dtype != like.dtype or not column.flags.carray:
                raise ValueError(
                    f"out.{name} is {column.dtype} {column.shape}; "
                    f"give contiguous writable {like.dtype} {shape}"
                )


@dataclass(frozen=True)
class Batch:
    """Checked events and the labels that may become visible before the last of them."""

    time_s: np.ndarray  # (n,) int64
    tokens: np.ndarray  # (n, R) uint64
    amount: np.ndarray  # (n,) float64
    labels: Labels


@dataclass
class Progress:
    """How far a fold has come: what follows must not go back."""

    num_roles: int
    num_events: int = 0
    time_s: int = 0  # of the last event
    label_time_s: int = 0  # of the last label used

    def check(
        self, time_s: np.ndarray, tokens: np.ndarray, amount: np.ndarray, labels: Labels
    ) -> Batch:
        """Refuse events and labels that the fold is not defined for.

        Raises:
            ValueError: a shape, a type, an order or an amount breaks the rules of `Fold.run`.
        """
        for name, column in (("time_s", time_s), ("tokens", tokens)):
            if column.dtype.kind not in "iu":
                raise ValueError(f"{name} has dtype {column.dtype}; give integers")
        time_s = np.ascontiguousarray(time_s, np.int64)
        tokens = np.ascontiguousarray(tokens, np.uint64)
        amount = np.ascontiguousarray(amount, np.float64)
        n = len(time_s)
        shapes = (time_s.shape, tokens.shape, amount.shape)
        if shapes != ((n,), (n, self.num_roles), (n,)):
            raise ValueError(
                f"time_s {shapes[0]}, tokens {shapes[1]} and amount {shapes[2]} are not n events "
                f"of {self.num_roles} roles; give (n,), (n, {self.num_roles}) and (n,)"
            )
        if n and (time_s[0] < self.time_s or (np.diff(time_s) < 0).any()):
            raise ValueError("time_s is negative or goes back; sort the events by time since 1970")
        if not (np.isfinite(amount) & (amount >= 0)).all():
            raise ValueError("amount is negative or not finite somewhere; reject such events first")
        return Batch(time_s, tokens, amount, self._visible(labels, time_s))

    def move(self, batch: Batch, labels_used: int) -> None:
        """Note that these events, and so many of their labels, have been folded."""
        self.num_events += len(batch.time_s)
        if len(batch.time_s):
            self.time_s = int(batch.time_s[-1])
        if labels_used:
            self.label_time_s = int(batch.labels.time_s[labels_used - 1])

    def _visible(self, labels: Labels, time_s: np.ndarray) -> Labels:
        """The labels visible by the last event, in order, each not before its event."""
        m = len(labels.event)
        if not (labels.event.shape == labels.time_s.shape == labels.value.shape == (m,)):
            raise ValueError("labels' event, time_s and value differ in length; give one of each")
        # A fold is run in many parts, each with all labels still to come: look at few of them.
        last_s = int(time_s[-1]) if len(time_s) else -1
        labels = labels[: int(np.searchsorted(labels.time_s, last_s, side="right"))]
        event = np.ascontiguousarray(labels.event, np.int64)
        visible_s = np.ascontiguousarray(labels.time_s, np.int64)
        value = np.ascontiguousarray(labels.value, np.int8)
        if not len(event):
            return Labels(event, visible_s, value)
        later = np.diff(visible_s)
        ordered = (later > 0) | ((later == 0) & (np.diff(event) > 0))
        if visible_s[0] < self.label_time_s or not ordered.all():
            raise ValueError("labels are not sorted by (time_s, event); use Labels.schedule")
        if event.min() < 0 or not np.isin(value, (0, 1)).all():
            raise ValueError("labels name a negative event or a value but 0 and 1; drop those")
        place = event - self.num_events
        # Events still to come are not earlier than the last of these.
        event_s = time_s[np.clip(place, 0, len(time_s) - 1)]
        if ((place >= 0) & (visible_s < event_s)).any():
            raise ValueError(
                "a label is visible before its event happens; delay it at least so far"
            )
        return Labels(event, visible_s, value)


def check_roles(roles: Sequence[str], kinds: Sequence[str]) -> None:
    """Refuse role lists that the fold cannot hold."""
    if not 1 <= len(roles) <= MAX_ROLES:
        raise ValueError(f"roles={list(roles)} are {len(roles)}, not 1 to {MAX_ROLES}; drop some")
    if len(set(roles)) != len(roles):
        raise ValueError(f"roles={list(roles)} names one twice; rename it")
    if len(kinds) != len(roles):
        raise ValueError(f"kinds={list(kinds)} must name one kind for each of {list(roles)}")


def shared_roles(kinds: Sequence[str]) -> list[int]:
    """Roles whose entities may hold events of several accounts."""
    return [role for role, kind in enumerate(kinds) if kind in kinds[1:]]


def neighbour_roles(kinds: Sequence[str]) -> np.ndarray:
    """(N,) int8: columns of the neighbours in equal shares of the roles that others share."""
    shared = shared_roles(kinds)
    share = NEIGHBOURS // len(shared) if shared else 0
    roles = np.zeros(NEIGHBOURS, np.int8)
    roles[: share * len(shared)] = np.repeat(np.array(shared, np.int8), share)
    return roles
