from dataclasses import replace

import numpy as np

from kernels.fold import Fold, Labels, Rows
from kits.fraud import features
from kits.fraud.features import build_inputs


def test_chunks_give_what_one_pass_gives(small_world, small_inputs, monkeypatch):
    monkeypatch.setattr(features, "CHUNK", 997)
    chunked = build_inputs(small_world, 7.0)
    for name in ("features", "history", "history_status", "neighbours", "neighbour_status"):
        one, two = getattr(small_inputs, name), getattr(chunked, name)
        assert np.array_equal(one.view(np.uint8), two.view(np.uint8)), name


def test_arrays_too_large_for_memory_live_in_a_file(small_world, small_inputs, monkeypatch):
    monkeypatch.setattr(features, "MEMORY_SHARE", 0.0)
    mapped = build_inputs(small_world, 7.0)
    assert isinstance(mapped.features, np.memmap)
    assert np.array_equal(mapped.features.view(np.uint8), small_inputs.features.view(np.uint8))


def test_columns_of_the_source_stand_behind_those_of_the_fold(small_world):
    n = len(small_world)
    rng = np.random.default_rng(0)
    tokens = rng.choice(np.array([0, 11, 22, 33], np.uint64), (n, 1), p=[0.1, 0.5, 0.3, 0.1])
    numeric = rng.normal(size=(n, 2)).astype(np.float32)
    wide = replace(
        small_world,
        numeric=numeric,
        numeric_names=("one", "two"),
        categorical=tokens,
        categorical_names=("type",),
    )
    inputs = build_inputs(wide, 7.0)
    assert inputs.feature_names[-3:] == ("one", "two", "type")
    assert np.array_equal(inputs.features[:, -3:-1], numeric)
    code = inputs.features[:, -1]
    assert np.isnan(code[tokens[:, 0] == 0]).all()
    assert set(code[tokens[:, 0] == 11]) == {0.0}
    assert inputs.categorical == (len(inputs.feature_names) - 1,)


def test_the_event_clock_has_no_time_of_day(small_world):
    inputs = build_inputs(replace(small_world, clock="events"), 7.0)
    assert "second_of_day" not in inputs.feature_names
    fold = Fold(small_world.entity_roles, small_world.entity_kinds)
    rows = Rows.empty(50, len(fold.feature_names))
    events = small_world
    fold.run(
        events.time_s[:50], events.entities[:50], events.amount[:50],
        Labels.schedule(np.asarray(events.label), inputs.visible_s), rows,
    )  # fmt: skip
    column = fold.feature_names.index("account.gap_s")
    ours = inputs.feature_names.index("account.gap_s")
    assert np.array_equal(rows.features[:, column], inputs.features[:50, ours], equal_nan=True)


def test_a_longer_label_delay_only_moves_what_labels_say(small_world, small_inputs):
    late = build_inputs(small_world, 60.0)
    same = [
        i
        for i, name in enumerate(small_inputs.feature_names)
        if np.array_equal(small_inputs.features[:, i], late.features[:, i], equal_nan=True)
    ]
    names = {small_inputs.feature_names[i] for i in same}
    assert {"amount", "account.gap_s", "account.count_1d"} <= names
    assert "counterparty.risk" not in names
