from itertools import chain

import numpy as np
import pytest

from core.train.batches import Batches, steps_of


def pass_of(batches):
    return [batch.tolist() for batch in batches]


def make(num=10, size=4, **options):
    return Batches(num, size, lambda i: i, **{"seed": 3, "shuffle": True, **options})


def ranks(monkeypatch, num_ranks, **options):
    made = []
    for rank in range(num_ranks):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", str(num_ranks))
        made.append(make(**options))
    return made


def test_each_sample_comes_once_in_an_order_of_seed_and_epoch():
    batches = make()
    first, again = pass_of(batches), pass_of(batches)
    assert first == again
    assert sorted(chain.from_iterable(first)) == list(range(10))
    assert [len(batch) for batch in first] == [4, 4, 2]
    batches.set_epoch(1)
    assert pass_of(batches) != first
    assert pass_of(make(seed=4)) != first
    assert pass_of(make(shuffle=False)) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_drop_last_leaves_out_the_small_batch():
    assert [len(batch) for batch in pass_of(make(drop_last=True))] == [4, 4]
    assert (len(make()), len(make(drop_last=True)), len(make(num=8))) == (3, 2, 2)


def test_skip_goes_on_in_the_middle_of_one_pass():
    batches = make()
    whole = pass_of(batches)
    batches.skip(2)
    assert pass_of(batches) == whole[2:]
    assert pass_of(batches) == whole


def test_skipped_batches_are_not_collated():
    seen = []
    batches = Batches(10, 2, lambda i: seen.append(len(i)), seed=0, shuffle=True)
    batches.skip(4)
    assert len(list(batches)) == len(seen) == 1


@pytest.mark.parametrize("num_ranks", [2, 3, 4])
def test_ranks_share_the_same_global_batches_in_slices(monkeypatch, num_ranks):
    whole = pass_of(make(num=10, size=4))
    slices = []
    for batches in ranks(monkeypatch, num_ranks, num=10, size=4):
        own = []
        for _ in batches:
            assert batches.last_total in (4, 2)
            own.append(batches.last_indices[: batches.last_count].tolist())
        slices.append(own)
    joined = [list(chain.from_iterable(parts)) for parts in zip(*slices, strict=True)]
    assert joined == whole


def test_a_rank_without_samples_gets_one_that_counts_for_nothing(monkeypatch):
    counts = []
    for batches in ranks(monkeypatch, 4, num=5, size=4):
        *_, last = batches
        counts.append((len(last), batches.last_count, batches.last_total))
    assert sorted(counts) == [(1, 0, 1), (1, 0, 1), (1, 0, 1), (1, 1, 1)]


def test_evaluation_is_seen_whole_by_every_rank(monkeypatch):
    for batches in ranks(monkeypatch, 2, shuffle=False):
        assert pass_of(batches) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num": 0}, "num_samples=0 gives no batch of 4"),
        ({"num": 3, "drop_last": True}, "num_samples=3 gives no batch of 4"),
        ({"size": 0}, "batch_size=0 is below the 1 ranks"),
    ],
)
def test_batches_reject_what_gives_no_batch(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_steps_group_batches_and_know_their_weights():
    steps = list(steps_of(make(), 2, epoch=0, skip=0, num_ranks=1))
    assert [[(p.num_own, p.num_all) for p in parts] for parts in steps] == [[(4, 4)] * 2, [(2, 2)]]
    np.testing.assert_array_equal(steps[1][0].indices, steps[1][0].batch)
    later = list(steps_of(make(), 2, epoch=0, skip=2, num_ranks=1))
    np.testing.assert_array_equal(later[0][0].batch, steps[1][0].batch)


@pytest.mark.parametrize(
    ("batch", "size"),
    [(np.zeros((5, 2)), 5), ({"x": np.zeros(3)}, 3), ((np.zeros(2),), 2), ("", 1)],
)
def test_steps_of_other_iterables_count_the_first_dimension(batch, size):
    ((first,), (second,)) = steps_of([batch, batch, batch], 1, epoch=0, skip=1, num_ranks=2)
    assert first == (batch, None, size, 2 * size)
    assert second.num_all == 2 * size
