from pathlib import Path

import numpy as np
import pytest

from kits.medical.data.config import NodulesData
from kits.medical.data.load import open_cases
from kits.medical.metrics import dice
from kits.medical.metrics.human_normalised import Outlines, agree, human_normalised

PUBLISHED = Path(__file__).resolve().parents[4] / "../shared/data/lidc-nodules-dev"


def rows(*drawn):
    """Masks of one slice and one row: "011" is the second and third voxel."""
    return np.array([[[[int(mark) for mark in one]]] for one in drawn], bool)


def test_dice_is_twice_the_common_voxels_over_both():
    first, second = rows("1100", "0110")
    assert dice.dice(first, second) == 0.5
    assert dice.dice(first, first) == 1


def test_an_empty_mask_scores_nothing_also_against_an_empty_one():
    empty, full = rows("0000", "1111")
    assert dice.dice(empty, full) == 0
    assert dice.dice(empty, empty) == 0


def test_exactly_half_of_the_readers_is_a_consensus():
    assert dice.consensus_of(rows("1100", "0110"))[0, 0].tolist() == [True, True, True, False]
    four = rows("1000", "1000", "0100", "0010")
    assert dice.consensus_of(four)[0, 0].tolist() == [True, False, False, False]


def test_each_reader_is_judged_by_the_consensus_of_the_others_alone():
    readers = rows("1100", "0110", "0011")
    others = dice.consensus_of_others(readers)
    # Of two others one is half.
    assert others[:, 0, 0].astype(int).tolist() == [[0, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 0]]
    human = dice.dice_of(dice.vs_others_3d(readers))
    np.testing.assert_allclose(human, [2 / 5, 4 / 6, 2 / 5])
    model = dice.dice_of(dice.vs_others_3d(readers, rows("0110")[0]))
    np.testing.assert_allclose(model, [4 / 5, 4 / 6, 4 / 5])


def test_one_reader_has_no_others():
    with pytest.raises(ValueError, match="readers=1 has no others"):
        dice.consensus_of_others(rows("1100"))


def test_readers_are_compared_in_every_pair_and_a_model_with_each():
    readers = rows("1100", "0110", "0011")
    np.testing.assert_allclose(sorted(dice.dice_of(dice.pairwise_3d(readers))), [0, 0.5, 0.5])
    model = dice.dice_of(dice.pairwise_3d(readers, rows("1100")[0]))
    np.testing.assert_allclose(model, [1, 0.5, 0])


def test_a_consensus_with_oneself_in_it_flatters():
    readers = rows("1100", "0110")
    with_self = dice.dice_of(dice.vs_consensus_with_self_3d(readers))
    np.testing.assert_allclose(with_self, [4 / 5, 4 / 5])
    np.testing.assert_allclose(dice.dice_of(dice.vs_others_3d(readers)), [0.5, 0.5])


def test_pooling_lets_the_large_nodule_decide():
    small = np.array([[0.0, 2.0]])
    large = np.array([[16.0, 20.0]])
    assert dice.pooled_vs_others([small, large]) == pytest.approx(16 / 22)


def test_the_central_slice_is_the_one_with_most_consensus():
    readers = np.zeros((3, 3, 1, 4), bool)
    readers[:, 0, 0, :1] = True
    readers[:, 1, 0, :3] = True
    readers[1, 1, 0, 3] = True
    readers[0, 2, 0, :] = True
    model = np.zeros((3, 1, 4), bool)
    model[1, 0, :3] = True
    np.testing.assert_allclose(dice.dice_of(dice.central_slice_2d(readers, model)), [1])
    np.testing.assert_allclose(dice.dice_of(dice.central_slice_2d(readers)), [1, 6 / 7, 1])


def test_the_contour_that_is_kept_is_the_outline_in_the_slice():
    mask = np.zeros((1, 2, 3, 3), bool)
    mask[0, 0, 1, 1] = True
    kept = dice.keep_contour(mask)
    assert kept.shape == (1, 2, 5, 5)
    assert kept[0, 0].sum() == 5
    assert not kept[0, 1].any()


def test_the_outline_of_a_mask_at_the_border_is_kept_too():
    mask = np.ones((1, 1, 1, 1), bool)
    assert dice.keep_contour(mask).sum() == 5


@pytest.mark.published_data
def test_readers_of_the_development_patches_agree_as_published():
    if not PUBLISHED.exists():
        pytest.skip("development data is not beside the project")
    cases = open_cases(NodulesData(path=str(PUBLISHED)))
    agreements = []
    for split in ("train", "validation", "test"):
        for name in cases.names(split):
            case = cases.load(name)
            (nodule,) = case.nodules
            readers = np.stack([nodule.reader(number) for number in range(nodule.num_readers)])
            drawn = Outlines(
                name, case.patient, nodule.diameter_mm, readers, dice.consensus_of(readers)
            )
            agreements.append(agree(drawn))
    pairwise = [agreement.human["vs_readers"] for agreement in agreements]
    # Stated to three digits where the data lies.
    assert np.mean(pairwise) == pytest.approx(0.759, abs=0.0005)
    assert np.median(pairwise) == pytest.approx(0.769, abs=0.0005)
    found = human_normalised(agreements)
    assert found["human_dice_vs_consensus_with_self"] == pytest.approx(0.867, abs=0.0005)
    assert found["oracle_normalised_dice"] == pytest.approx(1.20, abs=0.005)
