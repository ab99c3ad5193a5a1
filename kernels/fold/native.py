"""The native fold behind numpy arrays.

Dimensions: n events, R roles, F features, K = 16 history, N = 32 neighbours.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernels.native import load

MAX_ROLES = 8
HISTORY = 16
NEIGHBOURS = 32
_NAMES_BYTES = 1 << 16


@dataclass(frozen=True)
class Labels:
    """When which event's label becomes visible, sorted by (time, event)."""

    event: np.ndarray  # (m,) int64, counted from the first event ever folded
    time_s: np.ndarray  # (m,) int64
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


class Fold:
    """State of all accounts and entities; `run` advances it.

    Args:
        roles: names of the entity columns, the account first.
        kinds: node space of each role: roles of one kind share their ring of neighbours. A role's
            neighbours are kept unless the account alone uses its kind.

    Raises:
        ValueError: no role, more than 8, or not one kind for each.
        MemoryError: the state cannot be allocated.
    """

    def __init__(self, roles: Sequence[str], kinds: Sequence[str]) -> None:
        check_roles(roles, kinds)
        self.roles, self.kinds = tuple(roles), tuple(kinds)
        distinct = list(dict.fromkeys(kinds))
        codes = np.array([distinct.index(kind) for kind in kinds], np.int32)
        self._library = _declare(load())
        self._handle = self._library.deepkits_fold_create(len(roles), _at(codes))
        if not self._handle:
            raise MemoryError("the fold's state could not be allocated; free memory")
        self.feature_names = self._names()

    def __del__(self) -> None:
        """Give the state back."""
        if getattr(self, "_handle", None):
            self._library.deepkits_fold_destroy(self._handle)

    @property
    def neighbour_role(self) -> np.ndarray:
        """(N,) int8: the role that each column of `Rows.neighbours` stands for."""
        return neighbour_roles(self.kinds)

    def run(
        self,
        time_s: np.ndarray,
        tokens: np.ndarray,
        amount: np.ndarray,
        labels: Labels,
        out: Rows | None = None,
    ) -> int:
        """Fold n more events, and before each of them the labels visible by then.

        Args:
            time_s: (n,) int64 seconds since 1970, not decreasing.
            tokens: (n, R) uint64; 0 where a role other than the account is empty.
            amount: (n,) float64, finite and not negative.
            labels: those not used yet; the visible ones among them are taken in order.
            out: where to write the rows; None only advances the state.

        Returns:
            how many labels were used.

        Raises:
            ValueError: a shape, an order or an amount breaks these rules.
            MemoryError: the state cannot grow; the fold is unusable then.
        """
        time_s = np.ascontiguousarray(time_s, np.int64)
        tokens = np.ascontiguousarray(tokens, np.uint64)
        amount = np.ascontiguousarray(amount, np.float64)
        check_events(time_s, tokens, amount, len(self.roles))
        event = np.ascontiguousarray(labels.event, np.int64)
        label_time = np.ascontiguousarray(labels.time_s, np.int64)
        value = np.ascontiguousarray(labels.value, np.int8)
        if out is not None:
            _check_out(out, len(time_s), len(self.feature_names))
        used = ctypes.c_int64()
        done = self._library.deepkits_fold_run(
            self._handle, len(time_s), _at(time_s), _at(tokens), _at(amount),
            len(event), _at(event), _at(label_time), _at(value), ctypes.byref(used),
            len(self.feature_names),
            *([None] * 5 if out is None else [_at(column) for column in vars(out).values()]),
        )  # fmt: skip
        if done < len(time_s):
            raise MemoryError(f"the fold ran out of memory after {done} events; free memory")
        return used.value

    def num_entities(self, role: int) -> int:
        """How many entities of a role were seen."""
        return int(self._library.deepkits_fold_count(self._handle, role))

    @property
    def memory_bytes(self) -> int:
        """What the whole state holds."""
        return int(self._library.deepkits_fold_bytes(self._handle))

    @property
    def account_bytes(self) -> int:
        """What one account holds: its counters, its two rings and its slot."""
        return int(self._library.deepkits_fold_account_bytes())

    def _names(self) -> tuple[str, ...]:
        text = ctypes.create_string_buffer(_NAMES_BYTES)
        self._library.deepkits_fold_names(self._handle, text, _NAMES_BYTES)
        names = []
        for line in text.value.decode("ascii").splitlines():
            role, dot, name = line.partition(".")
            names.append(f"{self.roles[int(role)]}.{name}" if dot else line)
        return tuple(names)


def check_roles(roles: Sequence[str], kinds: Sequence[str]) -> None:
    """Refuse role lists that the fold cannot hold."""
    if not 1 <= len(roles) <= MAX_ROLES:
        raise ValueError(f"roles={list(roles)} are {len(roles)}, not 1 to {MAX_ROLES}; drop some")
    if len(kinds) != len(roles):
        raise ValueError(f"kinds={list(kinds)} must name one kind for each of {list(roles)}")


def check_events(
    time_s: np.ndarray, tokens: np.ndarray, amount: np.ndarray, num_roles: int
) -> None:
    """Refuse events that the fold's arithmetic is not defined for."""
    n = len(time_s)
    if tokens.shape != (n, num_roles) or amount.shape != (n,):
        raise ValueError(
            f"tokens {tokens.shape} and amount {amount.shape} do not fit {n} events "
            f"of {num_roles} roles; give (n, R) and (n,)"
        )
    if not n:
        return
    if time_s[0] < 0 or (np.diff(time_s) < 0).any():
        raise ValueError("time_s is negative or goes back; sort the events by time since 1970")
    if not (np.isfinite(amount) & (amount >= 0)).all():
        raise ValueError("amount is negative or not finite somewhere; reject such events first")


def neighbour_roles(kinds: Sequence[str]) -> np.ndarray:
    """(N,) int8: columns of the neighbours in equal shares of the roles that others share."""
    shared = [r for r, kind in enumerate(kinds) if kind in kinds[1:]]
    roles = np.zeros(NEIGHBOURS, np.int8)
    share = NEIGHBOURS // len(shared) if shared else 0
    for number, role in enumerate(shared):
        roles[number * share : (number + 1) * share] = role
    return roles


def _check_out(out: Rows, num_events: int, num_features: int) -> None:
    wanted = Rows.empty(0, num_features)
    for name, column in vars(out).items():
        like = getattr(wanted, name)
        shape = (num_events, *like.shape[1:])
        if column.shape != shape or column.dtype != like.dtype or not column.flags.c_contiguous:
            raise ValueError(
                f"out.{name} is {column.dtype} {column.shape}; give contiguous {like.dtype} {shape}"
            )


def _at(array: np.ndarray) -> ctypes.c_void_p:
    return ctypes.c_void_p(array.ctypes.data)


def _declare(library: ctypes.CDLL) -> ctypes.CDLL:
    pointer, number = ctypes.c_void_p, ctypes.c_int64
    signatures: dict[str, tuple[object, list[object]]] = {
        "create": (pointer, [ctypes.c_int32, pointer]),
        "destroy": (None, [pointer]),
        "names": (None, [pointer, pointer, number]),
        "run": (number, [pointer, number, *[pointer] * 3, number, *[pointer] * 4, number,
                         *[pointer] * 5]),
        "count": (number, [pointer, ctypes.c_int32]),
        "bytes": (number, [pointer]),
        "account_bytes": (number, []),
    }  # fmt: skip
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"deepkits_fold_{name}")
        function.restype, function.argtypes = result, arguments
    return library
