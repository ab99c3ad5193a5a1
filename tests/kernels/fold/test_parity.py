"""The native fold against its definition, bit for bit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.fold import Fold, Labels, Rows
from kernels.fold.reference import ReferenceFold

DAY_S = 86_400


@pytest.mark.parametrize("num_events", [0, 1, 2, 17, 33, 401])
def test_native_equals_the_reference(world, num_events, stream_of, run_on, same):
    roles = len(world[0])
    native, reference = Fold(*world), ReferenceFold(*world)
    assert native.feature_names == reference.feature_names
    assert np.array_equal(native.neighbour_role, reference.neighbour_role)
    stream = stream_of(num_events, num_events, roles)
    rows = run_on(native, stream)
    assert same(rows, run_on(reference, stream), native.feature_names) is True


@pytest.mark.parametrize("seed", range(6))
def test_native_equals_the_reference_on_busy_entities(seed, world, stream_of, run_on, same):
    """Rings of 16 and 32 run over many times."""
    stream = stream_of(100 + seed, 150, len(world[0]), num_tokens=2)
    native = Fold(*world)
    rows = run_on(native, stream)
    assert same(rows, run_on(ReferenceFold(*world), stream), native.feature_names) is True


EVENT = st.tuples(
    st.sampled_from([0, 1, 59, 3600, DAY_S // 8, DAY_S, 14 * DAY_S, 15 * DAY_S, 2**40])
    | st.integers(0, 2**41),
    st.lists(st.integers(0, 3), min_size=3, max_size=3),
    st.sampled_from([0.0, 1.0, 10.0, 100.0]) | st.floats(0, allow_infinity=False),
    st.sampled_from([-1, 0, 1]),
    st.integers(0, 40 * DAY_S),
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(EVENT, min_size=1, max_size=30))
def test_native_equals_the_reference_on_whatever_hypothesis_finds(events):
    gap, tokens, amount, label, delay = (list(column) for column in zip(*events, strict=True))
    time_s = np.cumsum(np.array(gap, np.int64))
    labels = Labels.schedule(np.array(label), time_s + np.array(delay))
    world = ("account", "counterparty", "device"), ("account", "account", "device")
    made = []
    for fold in (Fold(*world), ReferenceFold(*world)):
        rows = Rows.empty(len(events), len(fold.feature_names))
        rows.features.fill(np.nan)
        used = fold.run(time_s, np.array(tokens, np.uint64), np.array(amount), labels, rows)
        made.append((used, *(column.tobytes() for column in vars(rows).values())))
    assert made[0] == made[1]


@pytest.mark.parametrize("chunk", [1, 5, 64, 299])
def test_runs_of_any_length_equal_one_run(chunk, world, stream_of, run, same):
    n = 300
    stream = stream_of(chunk, n, len(world[0]))
    fold = Fold(*world)
    rows, labels = Rows.empty(n, len(fold.feature_names)), stream.labels
    for start in range(0, n, chunk):
        part = slice(start, min(start + chunk, n))
        labels = labels[fold.run(*stream[part].columns(), labels, rows[part]) :]
    assert same(rows, run(world, stream)) is True


def test_a_label_may_be_handed_over_late(world, stream_of, run_on):
    """The rows before it do not have it; both folds agree on the rows after it."""
    stream = stream_of(8, 200, len(world[0]))
    early, late = stream[slice(0, 120)], stream[slice(120, 200)]
    held_back = np.full(200, -1)
    held_back[:50] = stream.label[:50]
    labels = Labels.schedule(held_back, np.maximum(stream.visible_s, stream.time_s[40]))
    none = Labels.schedule(held_back[:0], stream.visible_s[:0])
    made = [
        [
            run_on(fold, early, none).features.tobytes(),
            run_on(fold, late, labels).features.tobytes(),
        ]
        for fold in (Fold(*world), ReferenceFold(*world))
    ]
    assert made[0] == made[1]


def test_state_advances_alike_without_rows(stream_of, run, run_on):
    world = ("account", "merchant"), ("account", "merchant")
    stream = stream_of(3, 200, 2)
    fold = Fold(*world)
    used = fold.run(*stream[slice(0, 150)].columns(), stream.labels)
    late = run_on(fold, stream[slice(150, 200)], stream.labels[used:])
    assert late.features.tobytes() == run(world, stream).features[150:].tobytes()


def test_one_nan_stands_for_all(world, stream_of, run):
    features = run(world, stream_of(4, 400, len(world[0]), num_tokens=2)).features
    bits = features.view(np.uint32)[np.isnan(features)]
    assert set(bits.tolist()) == {0x7FC00000}
