import numpy as np
import pytest

from kits.medical.metrics.bootstrap import patient_counts, ratio_interval
from kits.medical.metrics.dice import consensus_of_others
from kits.medical.metrics.human_normalised import Outlines, agree, human_normalised
from kits.medical.metrics.oracle import best_mask_dice


def ball(radius, *, shift=0):
    z, y, x = np.ogrid[-6:7, -6:7, -6:7]
    return z**2 + y**2 + (x - shift) ** 2 <= radius**2


def drawn(name="a", *, patient="p", diameter_mm=5.0, model=None, shifts=(0, 1, -1), **more):
    readers = np.stack([ball(3, shift=shift) for shift in shifts])
    return Outlines(
        name, patient, diameter_mm, readers, ball(3) if model is None else model, **more
    )


def test_the_ratio_is_of_means_so_one_odd_nodule_cannot_blow_it_up():
    apart = agree(drawn("apart", shifts=(-4, 4), model=ball(2, shift=4)))
    close = agree(drawn("close"))
    found = human_normalised([apart, close])
    assert apart.human["vs_others"] < 0.02
    model = (apart.model["vs_others"] + close.model["vs_others"]) / 2
    human = (apart.human["vs_others"] + close.human["vs_others"]) / 2
    assert found["dice_vs_others"] == pytest.approx(model)
    assert found["human_normalised_dice"] == pytest.approx(model / human)


def test_a_reader_who_plays_the_model_scores_like_a_human():
    # Each reader in turn as the model, judged by the same references as he is himself.
    readers = np.stack([ball(3), ball(3, shift=1), ball(3, shift=-1)])
    references = consensus_of_others(readers)
    human = agree(drawn()).human["vs_others"]
    own = np.mean(
        [2 * (r & c).sum() / (r.sum() + c.sum()) for r, c in zip(readers, references, strict=True)]
    )
    assert human == pytest.approx(own)


def test_a_missed_nodule_counts_as_zero():
    found = human_normalised([agree(drawn(model=np.zeros((13, 13, 13), bool)))])
    assert found["human_normalised_dice"] == 0
    assert found["human_dice_vs_others"] > 0.5


def test_sizes_and_textures_have_their_own_numbers_and_empty_bins_say_so():
    found = human_normalised(
        [
            agree(drawn("a", diameter_mm=5.99, texture="solid")),
            agree(drawn("b", diameter_mm=6.0, texture="non_solid", model=ball(2))),
        ]
    )
    assert found["num_nodules.under_6_mm"] == found["num_nodules.6_to_10_mm"] == 1
    assert found["num_nodules.over_10_mm"] == 0
    assert "human_normalised_dice.over_10_mm" not in found
    assert found["human_normalised_dice.solid"] == found["human_normalised_dice.under_6_mm"]
    worst = min(
        found["human_normalised_dice.under_6_mm"], found["human_normalised_dice.6_to_10_mm"]
    )
    assert found["human_normalised_dice.worst_size_bin"] == worst


def test_a_baseline_is_judged_like_the_model():
    found = human_normalised([agree(drawn(baselines={"same": ball(3)}))])
    assert found["baseline_same_normalised_dice"] == found["human_normalised_dice"]


@pytest.mark.parametrize("shifts", [(0,), ()])
def test_fewer_than_two_readers_are_refused(shifts):
    readers = np.zeros((len(shifts), 13, 13, 13), bool)
    with pytest.raises(ValueError, match="fewer than two readers"):
        agree(Outlines("a", "p", 5.0, readers, ball(3)))


def test_the_same_patients_are_drawn_for_the_same_seed_and_stay_whole():
    patients = ["a", "a", "b", "c"]
    number, counts = patient_counts(patients, replicates=50)
    assert number.tolist() == [0, 0, 1, 2]
    assert (counts.sum(1) == 3).all()
    np.testing.assert_array_equal(counts, patient_counts(patients, replicates=50)[1])
    assert ratio_interval(patients, np.full(4, 2.0), np.ones(4)) == (2.0, 2.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    generator = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        patients = np.repeat(np.arange(40), 2)
        values = np.repeat(generator.normal(1, 0.3, 40), 2) + generator.normal(0, 0.1, 80)
        low, high = ratio_interval([str(p) for p in patients], values, np.ones(80))
        covered += low <= 1 <= high
    # Two binomial standard errors of 200 draws at 95 % are 3 points; the bootstrap itself is 1 to
    # 2 points short at 40 patients.
    assert covered / 200 >= 0.90


def test_no_mask_beats_the_oracle():
    generator = np.random.default_rng(3)
    references = generator.random((3, 1, 2, 4)) < 0.5
    every = ((np.arange(256)[:, None] >> np.arange(8)) & 1).astype(bool).reshape(-1, 1, 2, 4)
    sizes = references.sum((1, 2, 3))
    best = max(
        np.mean(
            [
                2 * (mask & r).sum() / (mask.sum() + s)
                for r, s in zip(references, sizes, strict=True)
            ]
        )
        for mask in every[1:]
    )
    assert best_mask_dice(references) == pytest.approx(best, abs=1e-12)


def test_the_oracle_of_nothing_is_zero():
    assert best_mask_dice(np.zeros((2, 1, 2, 2), bool)) == 0
