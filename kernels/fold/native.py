"""The native fold behind numpy arrays; dimensions as in `rows`."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence

import numpy as np

from kernels.fold.rows import Labels, Progress, Rows, check_roles, neighbour_roles
from kernels.native import load

_NAMES_BYTES = 1 << 16


class Fold:
    """State of all accounts and entities; `run` advances it.

    Args:
        roles: names of the entity columns, the account first.
        kinds: node space of each role: roles of one kind share their ring of neighbours. A role's
            neighbours are kept unless the account alone uses its kind.

    Raises:
        ValueError: no role, more than 8, one twice, or not one kind for each.
        MemoryError: the state cannot be allocated.
    """

    def __init__(self, roles: Sequence[str], kinds: Sequence[str]) -> None:
        check_roles(roles, kinds)
        self.roles, self.kinds = tuple(roles), tuple(kinds)
        distinct = list(dict.fromkeys(kinds))
        codes = np.array([distinct.index(kind) for kind in kinds], np.int32)
        self._progress = Progress(len(roles))
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
            time_s: (n,) integer seconds since 1970, not decreasing, from one run to the next too.
            tokens: (n, R) uint64; 0 where a role other than the account is empty.
            amount: (n,) float64, finite and not negative.
            labels: those not used yet; the visible ones among them are taken in order. An event's
                own row never sees its label, whenever that is visible.
            out: where to write the rows; None only advances the state.

        Returns:
            how many labels were used.

        Raises:
            ValueError: a shape, an order or an amount breaks these rules; nothing was folded.
            MemoryError: the state cannot grow; the fold is unusable then.
        """
        batch = self._progress.check(time_s, tokens, amount, labels)
        n = len(batch.time_s)
        if out is not None:
            out.check(n, len(self.feature_names))
        used = ctypes.c_int64()
        visible = batch.labels
        done = self._library.deepkits_fold_run(
            self._handle, n, _at(batch.time_s), _at(batch.tokens), _at(batch.amount),
            len(visible), _at(visible.event), _at(visible.time_s), _at(visible.value),
            ctypes.byref(used), len(self.feature_names),
            *([None] * 5 if out is None else [_at(column) for column in vars(out).values()]),
        )  # fmt: skip
        if done < n:
            raise MemoryError(f"the fold ran out of memory after {done} events; free memory")
        self._progress.move(batch, used.value)
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
        """What one account holds: its counters, its rings and its slot."""
        return int(self._library.deepkits_fold_account_bytes(self._handle))

    def _names(self) -> tuple[str, ...]:
        text = ctypes.create_string_buffer(_NAMES_BYTES)
        self._library.deepkits_fold_names(self._handle, text, _NAMES_BYTES)
        names = []
        for line in text.value.decode("ascii").splitlines():
            role, dot, name = line.partition(".")
            names.append(f"{self.roles[int(role)]}.{name}" if dot else line)
        return tuple(names)


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
        "account_bytes": (number, [pointer]),
    }  # fmt: skip
    for name, (result, arguments) in signatures.items():
        function = getattr(library, f"deepkits_fold_{name}")
        function.restype, function.argtypes = result, arguments
    return library
