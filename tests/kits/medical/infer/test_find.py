import tracemalloc

import numpy as np
import pytest

from kits.medical.geometry import Volume
from kits.medical.infer.find import find_nodules, segment_at
from kits.medical.infer.lungs import NoLungs
from kits.medical.infer.settings import Settings

SETTINGS = Settings(multiple=2, threshold=0.3, halo=22, crop_mm=12.0, crop_halo=12)
# (d, h, w) and radius, in millimetres from the first voxel.
BALLS_MM = [(50.0, 70.0, 48.0, 6.0), (75.0, 56.0, 109.0, 8.0)]


def rotation(rng):
    """Right-handed or not: slices may run either way."""
    found, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    return found


def ball_ml(radius_mm):
    return 4 / 3 * np.pi * radius_mm**3 / 1000


def scan(toy, spacing_mm=(1.25, 1.4, 1.4), balls_mm=BALLS_MM, **grid):
    steps = np.array(spacing_mm)
    shape = tuple(int(n) for n in np.round(np.array([120.0, 134.0, 156.0]) / steps))
    volume = toy.thorax(shape, spacing_mm)
    for *at, radius in balls_mm:
        inside = toy.ellipsoid(shape, np.array(at) / steps, radius / steps)
        volume.voxels[inside] = toy.TISSUE_HU
    return Volume(toy.grid(shape, spacing_mm, **grid), volume.voxels)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("spacing_mm", [(1.25, 1.4, 1.4), (2.5, 1.4, 1.0)])
def test_nodules_are_where_the_balls_are_in_the_patient(toy, seed, spacing_mm):
    rng = np.random.default_rng(seed)
    volume = scan(toy, spacing_mm, origin_mm=tuple(rng.uniform(-300, 300, 3)), axes=rotation(rng))
    found = find_nodules(volume, toy.network(2.0), SETTINGS)
    assert len(found.findings) >= len(BALLS_MM)  # the middle of the toy is bright too
    for *at, radius in BALLS_MM:
        centre = volume.grid.to_patient(np.array(at) / spacing_mm)
        finding = min(found.findings, key=lambda f: np.linalg.norm(f.centre_mm - centre))
        assert np.linalg.norm(finding.centre_mm - centre) < 1.0
        volume_ml = finding.mask.sum() * volume.grid.voxel_mm3 / 1000
        assert volume_ml == pytest.approx(ball_ml(radius), rel=0.3)
        # The window's own grid says the same place.
        inside = np.argwhere(finding.mask).mean(0)
        own = volume.grid.crop(finding.window).to_patient(inside)
        assert np.linalg.norm(own - centre) < 1.0


def test_a_mirrored_scan_gives_the_mirrored_nodules(toy):
    volume = scan(toy)
    turned = Volume(volume.grid, np.ascontiguousarray(volume.voxels[::-1, :, ::-1]))
    one = find_nodules(volume, toy.network(), SETTINGS).findings
    other = find_nodules(turned, toy.network(), SETTINGS).findings
    last = np.array(volume.grid.shape) - 1
    for *at, _ in BALLS_MM:
        place = np.array(at) / (1.25, 1.4, 1.4)
        mirrored = np.where([True, False, True], last - place, place)
        for findings, index in ((one, place), (other, mirrored)):
            centres = [volume.grid.to_index(np.array(f.centre_mm)) for f in findings]
            assert min(np.linalg.norm(centre - index) for centre in centres) < 1.0


def test_findings_say_what_they_are(toy):
    volume = scan(toy)
    found = find_nodules(volume, toy.network(), SETTINGS)
    scores = [finding.score for finding in found.findings]
    assert scores == sorted(scores, reverse=True)
    for finding in found.findings:
        shape = tuple(part.stop - part.start for part in finding.window)
        assert finding.mask.shape == finding.probability.shape == shape
        assert finding.mask.dtype == bool
        assert finding.probability.dtype == np.uint8
        assert finding.mask.any()
        assert (finding.probability[finding.mask] >= 127).all()
        assert sum(finding.texture) == pytest.approx(1)
        assert 0 < finding.score < 1
    assert set(found.seconds) == {"lungs", "coarse", "candidates", "fine", "total"}
    assert found.grid == volume.grid
    assert found.notes == ()


def test_the_same_scan_gives_the_same_bits(toy):
    volume = scan(toy)
    one, other = (find_nodules(volume, toy.network(), SETTINGS).findings for _ in range(2))
    for a, b in zip(one, other, strict=True):
        assert (a.score, a.centre_mm, a.window, a.texture) == (
            b.score, b.centre_mm, b.window, b.texture
        )  # fmt: skip
        np.testing.assert_array_equal(a.probability, b.probability)


def test_the_scan_is_not_changed(toy):
    volume = scan(toy)
    before = volume.voxels.copy()
    find_nodules(volume, toy.network(), SETTINGS)
    np.testing.assert_array_equal(volume.voxels, before)


def test_a_nodule_wider_than_its_crop_is_looked_at_in_a_larger_one(toy):
    volume = scan(toy, balls_mm=[(60.0, 67.0, 47.0, 13.0)])
    settings = Settings(multiple=2, threshold=0.3, crop_mm=4.0, crop_halo=8, max_growth=3)
    (point,) = volume.grid.to_patient(np.array([[60.0, 67.0, 47.0]]) / (1.25, 1.4, 1.4))
    calls = []

    def counted(inputs):
        calls.append(inputs["image"].size)
        return toy.network()(inputs)

    (finding,) = segment_at(volume, point[None], counted, settings)
    assert calls == sorted(calls)
    assert len(calls) > 1
    assert finding.mask.sum() * volume.grid.voxel_mm3 / 1000 == pytest.approx(
        ball_ml(13.0), rel=0.15
    )


def test_two_candidates_of_one_nodule_are_one_finding(toy):
    volume = scan(toy)
    # So fine a filter sees a peak in many places of one ball.
    found = find_nodules(
        volume, toy.network(0.6), Settings(multiple=2, threshold=0.0, candidate_threshold=0.0)
    )
    centres = [np.array(finding.centre_mm) for finding in found.findings]
    for *at, radius in BALLS_MM:
        centre = volume.grid.to_patient(np.array(at) / (1.25, 1.4, 1.4))
        assert sum(np.linalg.norm(c - centre) < radius / 2 for c in centres) <= 1


def test_what_scores_below_the_threshold_is_left_out(toy):
    volume = scan(toy)
    low = find_nodules(volume, toy.network(), SETTINGS).findings
    limit = low[0].score
    settings = Settings(**{**vars(SETTINGS), "threshold": limit})
    assert len(find_nodules(volume, toy.network(), settings).findings) == 1


def test_a_candidate_without_a_mask_still_has_a_voxel(toy):
    volume = scan(toy)

    def maskless(inputs):
        found = toy.network()(inputs)
        return {**found, "mask": np.full_like(found["mask"], -200)}

    for finding in find_nodules(volume, maskless, SETTINGS).findings:
        assert finding.mask.any()


def test_memory_beyond_the_scan_is_bounded(toy):
    volume = scan(toy, (0.8, 0.7, 0.7))
    sizes = []

    def silent(inputs):
        image = inputs["image"]
        sizes.append(image.size)
        low = np.full((1, 1, *(size // 2 for size in image.shape[2:])), -9, np.float32)
        return {"mask": image * 0 - 9, "heat": low, "texture": np.repeat(low, 3, 1)}

    settings = Settings(multiple=8, candidate_threshold=0.0, max_tile_voxels=400_000)
    find_nodules(volume, silent, settings)
    tracemalloc.start()
    try:
        find_nodules(volume, silent, settings)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(sizes) > 10
    assert max(sizes) <= 400_000
    assert peak < 2 * volume.voxels.nbytes


def test_a_scan_without_lungs_is_refused(toy):
    volume = scan(toy)
    volume.voxels[:] = 40
    with pytest.raises(NoLungs):
        find_nodules(volume, toy.network(), SETTINGS)


def test_a_note_says_that_the_whole_scan_was_searched(toy):
    volume = scan(toy)
    depth, height, width = volume.grid.shape
    inner = volume.crop((slice(0, depth), slice(22, height - 22), slice(20, width - 20)))
    found = find_nodules(inner, toy.network(), SETTINGS)
    assert "whole scan" in found.notes[0]
    assert len(found.findings) >= len(BALLS_MM)


def test_a_named_place_gets_its_nodule_whatever_the_score(toy):
    volume = scan(toy)
    points = [volume.grid.to_patient(np.array(at) / (1.25, 1.4, 1.4)) for *at, _ in BALLS_MM]
    found = segment_at(volume, np.array([p + 1 for p in points]), toy.network(), SETTINGS)
    for finding, point, (*_, radius) in zip(found, points, BALLS_MM, strict=True):
        assert np.linalg.norm(finding.centre_mm - point) < 1
        assert finding.mask.sum() * volume.grid.voxel_mm3 / 1000 == pytest.approx(
            ball_ml(radius), rel=0.3
        )


def test_a_place_outside_the_scan_is_refused(toy):
    with pytest.raises(ValueError, match="outside the volume"):
        segment_at(scan(toy), np.array([(0.0, 0.0, 900.0)]), toy.network(), SETTINGS)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"multiple": 0}, "multiple=0"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"halo": -1}, "halo=-1"),
        ({"max_candidates": 0}, "max_candidates=0"),
    ],
)
def test_settings_out_of_range_are_refused(change, told):
    with pytest.raises(ValueError, match=told):
        Settings(**change)
