import hashlib
import itertools

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter

from kits.medical.data.config import PhantomData
from kits.medical.data.phantom import PhantomCases
from kits.medical.data.phantom_case import make_phantom
from kits.medical.data.phantom_nodules import SPLITS, sample_nodules
from kits.medical.geometry import Volume

SMALL = {"pixel_mm": 1.8, "slice_mm": 2.5, "max_slices": 32, "num_train": 3, "num_test": 2}


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    return PhantomCases(PhantomData(cache_dir=str(tmp_path_factory.mktemp("cache")), **SMALL))


@pytest.fixture(scope="module")
def phantom():
    """Without noise or blur to speak of, tissues keep their Hounsfield units."""
    return make_phantom(PhantomData(**SMALL), "train", 1)


def digest(case):
    parts = [case.volume.voxels, case.lungs, *(nodule.votes for nodule in case.nodules)]
    return hashlib.sha256(b"".join(np.ascontiguousarray(part).tobytes() for part in parts))


def test_the_same_seed_gives_the_same_bytes_and_another_does_not():
    first, again = (make_phantom(PhantomData(**SMALL), "train", 0).case for _ in range(2))
    other = make_phantom(PhantomData(seed=1, **SMALL), "train", 0).case
    assert digest(first).digest() == digest(again).digest()
    assert digest(first).digest() != digest(other).digest()


def test_a_stored_case_is_the_case_that_was_made(cases, monkeypatch):
    name = cases.names("train")[0]
    made = cases.load(name)
    # A second load may not simulate again.
    monkeypatch.setattr("kits.medical.data.phantom.make_phantom", None)
    stored = cases.load(name)
    assert digest(made).digest() == digest(stored).digest()
    assert stored.volume.grid.shape == made.volume.grid.shape
    assert stored.volume.grid.spacing_mm == made.volume.grid.spacing_mm
    assert stored.volume.grid.origin_mm == made.volume.grid.origin_mm
    assert [n.window for n in stored.nodules] == [n.window for n in made.nodules]
    assert [n.texture for n in stored.nodules] == [n.texture for n in made.nodules]


def test_a_case_that_was_cut_short_is_made_again(cases):
    name = cases.names("train")[0]
    whole = cases.load(name)
    path = cases.folder / f"{name}.npz"
    path.write_bytes(path.read_bytes()[:5000])
    assert digest(cases.load(name)).digest() == digest(whole).digest()


def test_a_case_says_that_it_is_a_phantom_and_a_whole_scan(cases):
    case = cases.load(cases.names("test")[0])
    assert case.is_phantom
    assert case.extent == "scan"
    assert case.intensity == "hu"
    assert case.name.startswith("PHANTOM")
    assert isinstance(case.volume, Volume)
    assert case.volume.voxels.dtype == np.int16


def test_an_unknown_name_is_refused(cases):
    with pytest.raises(ValueError, match="is no case of data=phantom"):
        cases.load("LIDC-IDRI-0001")


def test_settings_that_change_no_case_share_the_cache(tmp_path):
    few, many = (PhantomCases(PhantomData(cache_dir=str(tmp_path), num_test=n)) for n in (2, 3))
    other = PhantomCases(PhantomData(cache_dir=str(tmp_path), seed=4))
    assert few.folder == many.folder
    assert few.fingerprint != many.fingerprint
    assert other.folder != few.folder


def test_names_are_the_same_patients_whatever_their_number():
    few, many = (PhantomCases(PhantomData(num_test=n)) for n in (2, 9))
    assert list(many.names("test"))[:2] == list(few.names("test"))
    names = [set(many.names(split)) for split in SPLITS]
    assert not any(a & b for a, b in itertools.combinations(names, 2))


def test_default_settings_hold_enough_nodules_for_detection():
    """40 test cases have 300 nodules or more; counted here by the smallest number drawn."""
    assert PhantomData().num_test * 7 + 40 >= 300


def test_tissues_have_their_hounsfield_units(phantom):
    thorax, case = phantom.thorax, phantom.case
    grid, hu = case.volume.grid, case.volume.voxels.astype(float)
    z, y, x = (
        grid.origin_mm[2 - k] + np.arange(grid.shape[k]) * grid.spacing_mm[k] for k in range(3)
    )
    axes = (z, y, x)
    lungs = thorax.lungs.on(axes)
    assert -930 < np.median(hu[lungs > 4]) < -790
    # Blood, not air, fills most of what is no lung in the middle; fat lies under the skin.
    heart = thorax.heart.on(axes) > 12
    if heart.any():
        assert abs(np.median(hu[heart]) - max(45, 0.9 * thorax.build.blood_hu)) < 25
    liver = (thorax.abdomen.on(axes) > 12) & (thorax.heart.on(axes) < -6)
    if liver.sum() > 500:
        assert 30 < np.median(hu[liver]) < 90
    body = thorax.body.on(axes)
    assert np.median(hu[(body < -8)]) < -960
    skin_fat = (body > 4) & (thorax.muscle.on(axes) < -4)
    assert -140 < np.median(hu[skin_fat]) < -60
    assert (hu > 250).mean() > 0.002  # bone


def test_gravity_makes_the_back_of_the_lungs_denser(phantom):
    hu, lungs = phantom.case.volume.voxels, phantom.case.lungs
    deep = binary_erosion(lungs, iterations=3)
    rows = np.nonzero(deep.any((0, 2)))[0]
    third = len(rows) // 3
    front, back = rows[:third], rows[-third:]
    assert np.median(hu[:, back][deep[:, back]]) > np.median(hu[:, front][deep[:, front]]) + 8


def test_every_readers_volume_is_kept(phantom):
    voxel_mm3 = phantom.case.volume.grid.voxel_mm3
    for placed, truth in zip(phantom.placed, phantom.case.nodules, strict=True):
        assert truth.num_readers == len(placed.source.masks)
        for reader, mask in enumerate(placed.source.masks):
            wanted = mask.sum() * np.prod(placed.source.spacing_mm)
            found = truth.reader(reader).sum() * voxel_mm3
            # Half a voxel, or one whole where the mark is smaller than a voxel.
            assert abs(found - wanted) <= max(0.51, 1 - wanted / voxel_mm3) * voxel_mm3


def test_readers_disagree_as_much_as_they_did(phantom):
    def dice(a, b):
        return 2 * (a & b).sum() / (a.sum() + b.sum())

    pairs = []
    for placed, truth in zip(phantom.placed, phantom.case.nodules, strict=True):
        masks = placed.source.masks
        # Voxels of this scan are larger than LIDC's; small nodules would measure that.
        if truth.diameter_mm < 8 or len(masks) < 2:
            continue
        for a, b in itertools.combinations(range(len(masks)), 2):
            moved = dice(truth.reader(a), truth.reader(b))
            pairs.append((dice(masks[a], masks[b]), moved))
    assert pairs
    before, after = np.array(pairs).T
    assert np.abs(before - after).mean() < 0.08


def test_nodules_lie_inside_the_lungs_and_apart(phantom):
    case = phantom.case
    taken = np.zeros(case.volume.grid.shape, bool)
    for placed, truth in zip(phantom.placed, case.nodules, strict=True):
        marked = truth.votes > 0
        assert all(0 <= part.start < part.stop for part in truth.window)
        assert case.lungs[truth.window][marked].all()
        assert phantom.thorax.lungs.at(placed.centre_mm[None])[0] > 0
        assert not taken[truth.window][marked].any()
        taken[truth.window] |= marked


def test_solid_nodules_stand_out_where_the_readers_marked_them(phantom):
    hu = gaussian_filter(phantom.case.volume.voxels.astype(float), 0.5)
    seen = [
        (truth, placed)
        for truth, placed in zip(phantom.case.nodules, phantom.placed, strict=True)
        if placed.hu > -100 and truth.diameter_mm > 6 and truth.num_readers >= 3
    ]
    assert seen
    for truth, _ in seen:
        agreed = np.minimum.reduce([truth.reader(k) for k in range(truth.num_readers)])
        if agreed.sum() > 4:
            assert np.median(hu[truth.window][agreed]) > -350


def test_only_masks_of_the_own_split_are_used(phantom):
    own = {nodule.number for nodule in sample_nodules("train")}
    assert {placed.source.number for placed in phantom.placed} <= own


def test_nodules_between_thick_slices_are_marked_on_one():
    for number in range(3):
        cfg = PhantomData(pixel_mm=2.5, slice_mm=10.0, max_height_mm=200)
        case = make_phantom(cfg, "test", number).case
        assert all(nodule.votes.any() for nodule in case.nodules)


def test_in_a_second_scan_every_other_nodule_has_grown(phantom):
    second = make_phantom(PhantomData(**SMALL), "train", 1, growth=2.0)
    voxel_mm3 = phantom.case.volume.grid.voxel_mm3
    assert second.case.patient == phantom.case.patient
    pairs = zip(phantom.case.nodules, second.case.nodules, strict=True)
    for number, (before, after) in enumerate(pairs):
        assert after.name == before.name
        wanted = before.reader(0).sum() * (1 if number % 2 else 2)
        assert abs(after.reader(0).sum() - wanted) * voxel_mm3 <= 1.5 * voxel_mm3
    assert digest(second.case).digest() != digest(phantom.case).digest()
