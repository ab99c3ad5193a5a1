"""Nothing of the future reaches a row: no later event, no label before it is visible."""

import numpy as np
import pytest

from kernels.fold import HISTORY, NEIGHBOURS, Fold, Labels, Rows
from kernels.fold.rows import neighbour_roles


def first_difference(one, other):
    """First row that differs in any output; the number of rows if none does."""
    n = len(one.features)
    differs = np.zeros(n, bool)
    for name, column in vars(one).items():
        a, b = (np.ascontiguousarray(x).view(np.uint8) for x in (column, getattr(other, name)))
        differs |= (a != b).any(axis=1)
    return int(np.argmax(differs)) if differs.any() else n


def test_later_events_never_change_earlier_rows(world, stream_of, run, same):
    whole, other = stream_of(1, 250, len(world[0])), stream_of(2, 250, len(world[0]))
    rows = run(world, whole)
    for cut in (1, 2, 33, 120, 249):
        kept, part = slice(0, cut), whole[slice(0, cut)]
        assert same(run(world, part), rows[kept]) is True
        shift = max(0, whole.time_s[cut - 1] - other.time_s[0])
        joined = [
            np.concatenate([a[:cut], b + shift if name in ("time_s", "visible_s") else b])
            for (name, a), b in zip(vars(whole).items(), vars(other).values(), strict=True)
        ]
        assert same(run(world, type(whole)(*joined))[kept], rows[kept]) is True


@pytest.mark.parametrize("change", ["flip", "permute", "withhold"])
def test_labels_not_visible_yet_change_nothing(change, world, stream_of, run, same):
    random = np.random.default_rng(7)
    stream = stream_of(5, 400, len(world[0]))
    rows = run(world, stream)
    later_rows_differ = False
    for cut in range(0, 400, 25):
        labels = stream.labels
        hidden = labels.time_s > stream.time_s[cut]
        value = labels.value.copy()
        if change == "flip":
            value[hidden] ^= 1
        elif change == "permute":
            value[hidden] = random.permutation(value[hidden])
        keep = ~hidden if change == "withhold" else np.ones(len(labels), bool)
        changed = run(world, stream, Labels(labels.event[keep], labels.time_s[keep], value[keep]))
        until = slice(0, int(np.searchsorted(stream.time_s, stream.time_s[cut], "right")))
        assert same(changed[until], rows[until]) is True
        later_rows_differ |= not np.array_equal(changed.history_status, rows.history_status)
    assert later_rows_differ


def test_a_label_changes_only_rows_from_its_time_on_and_never_its_own(world, stream_of, run):
    stream = stream_of(6, 300, len(world[0]))
    rows, labels = run(world, stream), stream.labels
    told = 0
    for i in range(0, len(labels), 3):
        value = labels.value.copy()
        value[i] ^= 1
        changed = run(world, stream, Labels(labels.event, labels.time_s, value))
        row = first_difference(rows, changed)
        assert row > labels.event[i]
        assert row == 300 or stream.time_s[row] >= labels.time_s[i]
        told += row < 300
    assert told > len(labels) / 3 / 2


def test_an_own_label_without_delay_is_told_to_the_next_row_of_the_same_second():
    fold = Fold(["account"], ["account"])
    rows = Rows.empty(3, len(fold.feature_names))
    now = np.full(3, 1000)
    labels = Labels.schedule(np.array([1, 1, 1]), now)
    assert fold.run(now, np.ones((3, 1), np.uint64), np.ones(3), labels, rows) == 2
    known = rows.features[:, fold.feature_names.index("account.known_fraud")]
    assert known.tolist() == [0, 1, 2]
    assert rows.history_status[:, -3:].tolist() == [[-1, -1, -1], [-1, 1, -1], [1, 1, -1]]


def test_history_is_the_accounts_own_past(world, stream_of, run):
    stream = stream_of(9, 200, len(world[0]), num_tokens=3)
    rows = run(world, stream)
    account = stream.tokens[:, 0]
    for i in range(200):
        past = np.flatnonzero(account[: i + 1] == account[i])[-HISTORY:]
        assert rows.history[i].tolist() == [-1] * (HISTORY - len(past)) + past.tolist()
        assert rows.history_status[i].tolist() == statuses(stream, rows.history[i], i)


def test_neighbours_are_past_events_of_others_at_the_same_entities(world, stream_of, run):
    n = 250
    roles, kinds = world
    stream = stream_of(10, n, len(roles), num_tokens=4)
    rows, column_role = run(world, stream), neighbour_roles(kinds)
    shared = [r for r, kind in enumerate(kinds) if kind in kinds[1:]]
    share = NEIGHBOURS // max(1, len(shared))
    for i in range(n):
        expected = np.full(NEIGHBOURS, -1)
        for start, role in zip(range(0, NEIGHBOURS, share), shared, strict=False):
            token = stream.tokens[i, role]
            if role and not token:
                continue
            here = np.zeros(i, bool)
            for r, kind in enumerate(kinds):
                named = stream.tokens[:i, r] == token
                here |= named & (kind == kinds[role]) & ((r == 0) | (token != 0))
            ring = np.flatnonzero(here)[-NEIGHBOURS:][::-1]
            others = ring[stream.tokens[ring, 0] != stream.tokens[i, 0]][:share]
            expected[start : start + len(others)] = others
            assert (column_role[start : start + share] == role).all()
        assert rows.neighbours[i].tolist() == expected.tolist()
        assert rows.neighbour_status[i].tolist() == statuses(stream, expected, i)


def statuses(stream, events, now):
    """Labels of past events, as far as they are visible at event `now`."""
    visible = (events >= 0) & (events < now) & (stream.visible_s[events] <= stream.time_s[now])
    return np.where(visible, stream.label[events], -1).tolist()
