from dataclasses import replace

import numpy as np
import pytest
import torch

from kits.fraud.arrays import FraudArrays, share_an_entity, shuffle_neighbours
from kits.fraud.brief_task import BriefTask
from kits.fraud.model_config import BriefConfig, LstmGatConfig
from kits.fraud.task import FraudTask

K, N, F = 16, 32, 5
SMALL = {
    "event_width": 16,
    "hidden_width": 32,
    "graph_width": 16,
    "heads": 2,
    "head_width": 16,
    "batch_size": 64,
    "dropout": 0.0,
}


def world(n: int = 1500, seed: int = 0) -> FraudArrays:
    """Events of 40 accounts at 30 shops in random order, with random features and labels."""
    rng = np.random.default_rng(seed)
    account, shop = rng.integers(0, 40, n), rng.integers(0, 30, n)
    time_s = np.sort(rng.integers(0, 40 * 86400, n))
    label = (rng.random(n) < 0.2).astype(np.int8)
    history = np.full((n, K), -1, np.int32)
    neighbours = np.full((n, N), -1, np.int32)
    for i in range(n):
        own = np.flatnonzero(account[: i + 1] == account[i])[-K:]
        history[i, K - len(own) :] = own
        others = np.flatnonzero((shop[:i] == shop[i]) & (account[:i] != account[i]))[::-1][:N]
        neighbours[i, : len(others)] = others
    status = np.where((neighbours >= 0) & (neighbours % 3 > 0), label[neighbours], -1)
    return FraudArrays(
        features=rng.normal(size=(n, F)).astype(np.float32),
        feature_names=tuple("abcde"),
        codes=rng.integers(0, 6, (n, 1)),
        history=history,
        history_status=np.full((n, K), -1, np.int8),
        neighbours=neighbours,
        neighbour_status=status.astype(np.int8),
        neighbour_role=np.ones(N, np.int8),
        time_s=time_s,
        label=label,
        entities=np.stack([account + 1, shop + 100], 1).astype(np.uint64),
        entity_kinds=("account", "shop"),
    )


def fit(task, epochs: int, lr: float = 5e-3) -> None:
    optimizer = torch.optim.Adam(task.model.parameters(), lr=lr)
    batches = task.batches("train")
    for epoch in range(epochs):
        batches.set_epoch(epoch)
        for batch in batches:
            loss = task.step(batch).loss
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def halves(arrays: FraudArrays) -> dict:
    half = len(arrays) // 2
    return {"train": np.arange(100, half), "validation": np.arange(half, len(arrays))}


def ap(arrays: FraudArrays, epochs: int = 12, **settings) -> float:
    task = FraudTask(arrays, halves(arrays), LstmGatConfig(**(SMALL | settings)))
    fit(task, epochs)
    return task.evaluate("validation")["ap"]


def test_sequence_learns_what_earlier_events_of_the_account_tell():
    arrays = world()
    rows = np.flatnonzero(arrays.history[:, -2] >= 0)
    label = np.zeros(len(arrays), np.int8)
    label[rows] = arrays.features[arrays.history[rows, -2], 0] > 0.8
    arrays = replace(arrays, label=label)
    assert ap(arrays, graph="off") > 0.9
    assert ap(arrays, graph="off", sequence="off") < 0.5


def test_graph_learns_what_is_known_of_the_neighbours():
    arrays = world()
    known_fraud = (arrays.neighbour_status[:, :4] == 1).any(1)
    # Independent of the account's own past: statuses are drawn from random labels.
    arrays = replace(arrays, label=known_fraud.astype(np.int8))
    base = arrays.label[len(arrays) // 2 :].mean()
    assert ap(arrays) > base + 0.25
    assert ap(arrays, graph="off") < base + 0.15
    assert ap(arrays, graph="shuffled") < base + 0.15


def test_training_repeats_bit_for_bit():
    arrays = world(600)
    cfg = LstmGatConfig(**SMALL | {"dropout": 0.2})
    scores = []
    for seed in (3, 3, 4):
        task = FraudTask(arrays, halves(arrays), cfg, seed=seed)
        torch.manual_seed(1)
        fit(task, 1)
        scores.append(task.predict(np.arange(600)))
    assert np.array_equal(scores[0], scores[1])
    assert not np.array_equal(scores[0], scores[2])
    assert scores[0].dtype == np.float64
    assert np.isfinite(scores[0]).all()


def test_prediction_depends_on_no_later_event_and_on_no_other_row():
    arrays = world(600)
    task = FraudTask(arrays, halves(arrays), LstmGatConfig(**SMALL))
    before = task.predict(np.arange(600))
    # One row alone takes other matrix kernels than a batch.
    np.testing.assert_allclose(task.predict(np.array([250])), before[250:251], atol=1e-5)
    features = arrays.features.copy()
    features[300:] += 7
    other = FraudTask(replace(arrays, features=features), {"train": np.arange(300)}, task.cfg)
    other.model.load_state_dict(task.model.state_dict())
    other.events = type(task.events)(other.arrays, other.model.encoder)
    after = other.predict(np.arange(600))
    assert np.array_equal(after[:300], before[:300])
    assert not np.array_equal(after[300:], before[300:])


def test_sampled_training_gives_the_probabilities_of_all_data():
    arrays = world(3000)
    score = arrays.features[:, 0] * 1.5 - 3.5
    rng = np.random.default_rng(0)
    label = (rng.random(3000) < 1 / (1 + np.exp(-score))).astype(np.int8)
    arrays = replace(arrays, label=label)
    cfg = LstmGatConfig(**SMALL | {"graph": "off", "sequence": "off", "legitimate_per_fraud": 3.0})
    task = FraudTask(arrays, {"train": np.arange(3000)}, cfg)
    frauds = int(label.sum())
    assert len(task.train_rows) == frauds + 3 * frauds
    assert set(np.flatnonzero(label)) <= set(task.train_rows)
    fit(task, 10, lr=2e-3)
    predicted = 1 / (1 + np.exp(-task.predict(np.arange(3000))))
    assert predicted.mean() == pytest.approx(label.mean(), rel=0.3)
    assert task.evaluate("train")["loss"] < 0.2


def test_unknown_labels_neither_train_nor_count():
    arrays = world(600)
    label = arrays.label.copy()
    label[100:200] = label[400:] = -1
    arrays = replace(arrays, label=label)
    task = FraudTask(arrays, halves(arrays), LstmGatConfig(**SMALL))
    assert task.train_rows.min() >= 200
    assert task.rows["validation"].max() < 400
    with pytest.raises(ValueError, match="not both kinds"):
        FraudTask(arrays, {"train": np.arange(100, 200)}, LstmGatConfig(**SMALL))


def test_a_task_started_from_another_trains_the_same_model_on_new_rows():
    arrays = world(600)
    cfg = LstmGatConfig(**SMALL)
    first = FraudTask(arrays, {"train": np.arange(300)}, cfg)
    fit(first, 1)
    second = FraudTask(arrays, {"train": np.arange(500)}, cfg, seed=1, start=first)
    assert second.model is first.model
    assert second.events is first.events
    assert np.array_equal(second.predict(np.arange(600)), first.predict(np.arange(600)))
    assert len(second.train_rows) > len(first.train_rows)


def test_tasks_of_the_same_arrays_can_share_their_table():
    arrays = world(600)
    first = FraudTask(arrays, {"train": np.arange(300)}, LstmGatConfig(**SMALL))
    second = FraudTask(
        arrays, {"train": np.arange(500)}, LstmGatConfig(**SMALL, graph="off"), events=first.events
    )
    assert second.events is first.events
    assert torch.equal(second.model.encoder.scale, first.model.encoder.scale)
    brief = BriefTask(
        arrays, {"train": np.arange(500)}, BriefConfig(window=16), events=first.events
    )
    assert torch.equal(brief.model.encoder.mean, first.model.encoder.mean)


def test_batches_and_example_hold_what_the_model_reads():
    arrays = world(600)
    task = FraudTask(arrays, halves(arrays), LstmGatConfig(**SMALL))
    sizes = [len(batch["label"]) for batch in task.batches("validation")]
    assert sum(sizes) == 300
    example = task.example()
    assert {len(value) for value in example.values()} == {1}
    assert "label" not in example
    task.model.eval()
    row = task.train_rows[-1:]
    # The table keeps half precision, the example the raw features.
    np.testing.assert_allclose(task.model(example).detach().double(), task.predict(row), atol=5e-3)
    batch = task.collate(np.array([500]))
    own = arrays.history[500, -2]
    assert batch["history_gap"][0, -2] == arrays.time_s[500] - arrays.time_s[own]
    assert bool(batch["history_mask"][0, -1])
    focal = FraudTask(arrays, halves(arrays), LstmGatConfig(**SMALL, focal_gamma=2.0))
    assert bool(focal.step(batch).loss < task.step(batch).loss)


def test_features_standardised_per_batch_equal_the_table(monkeypatch):
    arrays = world(300)
    rows = {"train": np.arange(300)}
    table = FraudTask(arrays, rows, LstmGatConfig(**SMALL))
    monkeypatch.setattr("kits.fraud.task.MAX_TABLE_BYTES", 0)
    direct = FraudTask(arrays, rows, LstmGatConfig(**SMALL))
    events = np.array([[0, 7], [299, 3]])
    # Half precision keeps 11 bits.
    torch.testing.assert_close(
        table.events.features(events), direct.events.features(events), atol=1e-3, rtol=1e-3
    )


def test_shuffled_neighbours_are_earlier_and_of_about_the_same_time():
    arrays = world(1600)
    role = np.repeat([1, 2], 16).astype(np.int8)
    arrays = replace(arrays, neighbour_role=role)
    shuffled = shuffle_neighbours(arrays, seed=0)
    kept = (shuffled.neighbours == arrays.neighbours) & (arrays.neighbours >= 0)
    assert kept.mean() < 0.05
    assert (shuffled.neighbours < np.arange(1600)[:, None]).all()
    assert abs((shuffled.neighbours >= 0).mean() - (arrays.neighbours >= 0).mean()) < 0.05
    assert np.array_equal(shuffled.neighbours == -1, shuffled.neighbours < 0)
    halves_together = [
        np.flatnonzero((arrays.neighbours[:, :16] == row[:16]).all(1))
        for row in shuffled.neighbours[1000:1100]
    ]
    assert all((found <= i).any() and i - found.max(initial=0) <= 100 for i, found in
               enumerate(halves_together, start=1000))  # fmt: skip
    again = shuffle_neighbours(arrays, seed=0)
    assert np.array_equal(again.neighbours, shuffled.neighbours)


def test_edges_of_a_window_join_events_that_share_an_entity():
    entities = np.array([[1, 9], [2, 8], [1, 7], [3, 8], [9, 0], [4, 0]], np.uint64)
    arrays = replace(world(6), entities=entities, entity_kinds=("account", "shop"))
    edges = share_an_entity(arrays, np.arange(6))
    assert set(zip(*np.nonzero(edges), strict=True)) == {(2, 0), (3, 1)}
    transfers = replace(arrays, entity_kinds=("account", "account"))
    edges = share_an_entity(transfers, np.arange(6))
    assert set(zip(*np.nonzero(edges), strict=True)) == {(2, 0), (3, 1), (4, 0)}


def test_model_of_the_brief_trains_and_scores_any_rows():
    arrays = world(400)
    label = (arrays.features[:, 0] > 0.8).astype(np.int8)
    arrays = replace(arrays, label=label)
    cfg = BriefConfig(window=32, num_windows=None)
    task = BriefTask(arrays, halves(arrays), cfg)
    fit(task, 8)
    metrics = task.evaluate("validation")
    assert metrics["ap"] > 0.8
    rows = np.array([399, 0, 17, 250])
    everything = task.predict(np.arange(400))
    np.testing.assert_allclose(task.predict(rows), everything[rows], atol=1e-5)
    counted = sum(float(batch["weight"].sum()) for batch in task.batches("validation"))
    assert counted >= 200
    assert task.model(task.example()).shape == (1, 32)


def test_model_of_the_brief_scores_by_the_past_alone():
    arrays = world(200)
    task = BriefTask(arrays, {"train": np.arange(100)}, BriefConfig(window=16, num_windows=5))
    assert len(task.train_windows) == 5
    before = task.predict(np.arange(200))
    features = arrays.features.copy()
    features[120:] += 3
    later = BriefTask(replace(arrays, features=features), {"train": np.arange(100)}, task.cfg)
    after = later.predict(np.arange(200))
    np.testing.assert_allclose(after[:120], before[:120], atol=1e-6)
    assert (after[120:] != before[120:]).all()
