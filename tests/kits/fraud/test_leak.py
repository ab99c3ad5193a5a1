from dataclasses import replace

import numpy as np

from kits.fraud import leak
from kits.fraud.leak import leak_checks


def test_the_fold_passes_both_checks(small_world, small_inputs, monkeypatch):
    monkeypatch.setattr(leak, "NUM_EVENTS", len(small_world) // 2)
    checks = leak_checks(small_world, small_inputs.visible_s)
    assert [check.passed for check in checks] == [True, True]
    assert "keep every bit" in checks[0].detail


def test_a_state_that_reads_labels_early_is_caught(small_world, small_inputs, monkeypatch):
    monkeypatch.setattr(leak, "NUM_EVENTS", len(small_world) // 2)
    honest = leak._rows

    def peeking(events, label, visible_s, n):
        return honest(events, label, np.asarray(events.time_s), n)

    monkeypatch.setattr(leak, "_rows", peeking)
    checks = leak_checks(small_world, small_inputs.visible_s)
    assert [check.passed for check in checks] == [False, True]


def test_a_neighbour_from_the_future_is_caught(small_world, small_inputs, monkeypatch):
    monkeypatch.setattr(leak, "NUM_EVENTS", 500)
    honest = leak._rows

    def forward(events, label, visible_s, n):
        rows = honest(events, label, visible_s, n)
        return replace(rows, neighbours=np.full_like(rows.neighbours, n))

    monkeypatch.setattr(leak, "_rows", forward)
    assert not leak_checks(small_world, small_inputs.visible_s)[1].passed
