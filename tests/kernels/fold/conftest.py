"""Streams of events that try to trip the fold, and ways to run them."""

from dataclasses import dataclass

import numpy as np
import pytest

from kernels.fold import Fold, Labels, Rows

DAY_S = 86_400
# Roles and kinds: the account alone; a card world; transfers; two kinds shared; all of one kind.
WORLDS = {
    "alone": (("account",), ("account",)),
    "cards": (("account", "merchant"), ("account", "merchant")),
    "transfers": (("account", "counterparty"), ("account", "account")),
    "devices": (("account", "merchant", "device", "ip"), ("account", "merchant", "net", "net")),
    "crowd": (("account", "counterparty", "device"), ("one", "one", "one")),
}


@dataclass(frozen=True)
class Stream:
    time_s: np.ndarray
    tokens: np.ndarray
    amount: np.ndarray
    label: np.ndarray
    visible_s: np.ndarray

    @property
    def labels(self):
        return Labels.schedule(self.label, self.visible_s)

    def columns(self):
        return self.time_s, self.tokens, self.amount

    def __getitem__(self, part):
        return Stream(*(column[part] for column in vars(self).values()))


def make_stream(seed, num_events, num_roles, *, num_tokens=7):
    random = np.random.default_rng(seed)
    pick, n = random.choice, num_events
    # Bursts in one second, minutes, days, and a pause of years.
    gaps = pick([0, 1, 7, 60, 3600, DAY_S, 40 * DAY_S, 5000 * DAY_S], n,
                p=[0.25, 0.1, 0.1, 0.2, 0.2, 0.12, 0.02, 0.01])  # fmt: skip
    time_s = random.integers(0, 2_000_000_000) + np.cumsum(gaps)
    tokens = random.integers(1, 1 + num_tokens, (n, num_roles)).astype(np.uint64)
    tokens[:, 1:][random.random((n, num_roles - 1)) < 0.1] = 0
    # One account goes by the token that stands for "empty" elsewhere, one by the largest.
    tokens[tokens[:, 0] == 1, 0] = pick(np.array([0, 2**64 - 1], np.uint64))
    amount = np.round(random.lognormal(2, 1.5, n), 2)
    odd = random.random(n) < 0.15
    amount[odd] = pick([0.0, 5e-324, 1e-300, 1e9, 1e155, 1.7e308], odd.sum(),
                       p=[0.6, 0.05, 0.05, 0.2, 0.05, 0.05])  # fmt: skip
    label = pick([-1, 0, 1], n, p=[0.2, 0.5, 0.3])
    delay = pick([0, 1, 3600, 7 * DAY_S, 90 * DAY_S], n, p=[0.3, 0.1, 0.2, 0.3, 0.1])
    return Stream(time_s.astype(np.int64), tokens, amount, label, time_s + delay)


def rows_of(fold, stream, labels=None):
    """The rows, written over garbage."""
    rows = Rows.empty(len(stream.time_s), len(fold.feature_names))
    for column in vars(rows).values():
        column.view(np.uint8).fill(0xA5)
    fold.run(*stream.columns(), stream.labels if labels is None else labels, rows)
    return rows


@pytest.fixture(params=WORLDS)
def world(request):
    return WORLDS[request.param]


@pytest.fixture
def same():
    """Bit for bit; names the first difference."""

    def compare(one, other, names=()):
        for name, column in vars(one).items():
            a, b = (np.ascontiguousarray(x).view(np.uint8) for x in (column, getattr(other, name)))
            if not np.array_equal(a, b):
                at = np.argwhere((a != b).reshape(*column.shape, -1).any(-1))[0]
                return f"{name}{at.tolist()} {names[at[1]] if names else ''}"
        return True

    return compare


@pytest.fixture
def stream_of():
    return make_stream


@pytest.fixture
def run():
    """The rows of a new native fold."""

    def new_fold(world, stream, labels=None):
        return rows_of(Fold(*world), stream, labels)

    return new_fold


@pytest.fixture
def run_on():
    return rows_of
