"""Sizes against shapes whose sizes are known, on grids of many spacings."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kits.medical.findings import Finding
from kits.medical.geometry import Grid, Volume
from kits.medical.results.measure import measure, texture_of
from kits.medical.results.uncertainty import sphere_diameter, volume_cv, volume_interval

AXES = np.array([[0.0, 0, 1], [0, 1, 0], [1, 0, 0]])
MARGIN = 3  # voxels around the shape
PARTS = 4  # sub-voxels along each axis
SOLID, PART_SOLID = (0.9, 0.05, 0.05), (0.1, 0.8, 0.1)


def ellipsoid(semi_mm, spacing, shift=(0.0, 0.0, 0.0), turn=0.0):
    """Share of each voxel that lies inside; turned in the plane of a slice."""
    reach = max(semi_mm)
    shape = tuple(int(np.ceil(2 * reach / step)) + 2 * MARGIN for step in spacing)
    axes = [
        (((np.arange(n * PARTS) + 0.5) / PARTS - 0.5) - (n - 1) / 2 - offset) * step
        for n, step, offset in zip(shape, spacing, shift, strict=True)
    ]
    d, h, w = np.meshgrid(*axes, indexing="ij")
    along, across = h * np.cos(turn) + w * np.sin(turn), w * np.cos(turn) - h * np.sin(turn)
    inside = (d / semi_mm[0]) ** 2 + (along / semi_mm[1]) ** 2 + (across / semi_mm[2]) ** 2 <= 1
    depth, height, width = shape
    return inside.reshape(depth, PARTS, height, PARTS, width, PARTS).mean(axis=(1, 3, 5))


def finding_of(share, texture=SOLID, threshold=0.5):
    probability = np.round(255 * share).astype(np.uint8)
    window = tuple(slice(0, n) for n in share.shape)
    return Finding(0.9, (0.0, 0.0, 0.0), window, share >= threshold, probability, texture)


def volume_of(shape, spacing, hu=40, origin=(0.0, 0.0, 0.0)):
    return Volume(Grid(shape, spacing, origin, AXES), np.full(shape, hu, np.int16))


def measured(share, spacing, **kwargs):
    return measure(finding_of(share, **kwargs), volume_of(share.shape, spacing))


spacings = st.tuples(st.floats(0.5, 1.5), st.floats(0.5, 1.0), st.floats(0.5, 1.0))
shifts = st.tuples(*[st.floats(-0.5, 0.5)] * 3)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.floats(3.0, 6.0), spacings, shifts)
def test_a_sphere_has_its_diameter_and_volume_on_every_grid(radius, spacing, shift):
    result = measured(ellipsoid((radius,) * 3, spacing, shift), spacing)
    volume = 4 / 3 * np.pi * radius**3
    assert result.volume_mm3 == pytest.approx(volume, rel=0.01)
    assert result.counted_volume_mm3 == pytest.approx(volume, rel=0.15)
    # The slice may miss the equator by half a slice; beyond that, half a voxel.
    chord = 2 * np.sqrt(radius**2 - (spacing[0] / 2) ** 2)
    voxel = max(spacing[1:])
    assert chord - 0.5 * voxel - 0.1 <= result.mean_diameter_mm <= 2 * radius + 0.5 * voxel + 0.1
    assert result.max_diameter_3d_mm == pytest.approx(2 * radius, abs=max(spacing))


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    st.tuples(st.floats(3.0, 5.0), st.floats(5.0, 7.0), st.floats(2.5, 4.0)),
    spacings,
    st.floats(0, np.pi),
)
def test_an_ellipsoid_has_its_two_axes_whatever_its_direction(semi, spacing, turn):
    result = measured(ellipsoid(semi, spacing, turn=turn), spacing)
    tolerance = 0.5 * max(spacing) + 0.1
    assert result.long_axis_mm == pytest.approx(2 * semi[1], abs=tolerance)
    assert result.short_axis_mm == pytest.approx(2 * semi[2], abs=tolerance)
    long_line, short_line = (np.subtract(*line) for line in (result.long_axis, result.short_axis))
    assert abs(long_line @ short_line) < 1e-6 * np.linalg.norm(long_line) ** 2
    assert long_line[2] == short_line[2] == 0  # both in the slice
    assert result.volume_mm3 == pytest.approx(4 / 3 * np.pi * np.prod(semi), rel=0.01)


def test_the_mean_diameter_is_the_mean_of_the_printed_axes_with_halves_up():
    spacing = (1.0, 1.0, 1.0)
    share = np.zeros((7, 12, 12))
    share[2:5, 3:9, 3:6] = 1
    result = measured(share, spacing)
    mean = (round(result.long_axis_mm * 10) + round(result.short_axis_mm * 10)) / 2
    assert result.mean_diameter_mm == np.floor(mean + 0.5) / 10


def test_the_slice_of_largest_area_and_the_centre_are_those_of_the_scan():
    share = np.zeros((16, 16, 16))
    share[5:8, 5:7, 5:7] = 1
    share[6, 4:9, 4:9] = 1
    finding = finding_of(share[4:12, 2:14, 2:14])
    window = (slice(4, 12), slice(2, 14), slice(2, 14))
    finding = Finding(0.9, finding.centre_mm, window, finding.mask, finding.probability, SOLID)
    result = measure(finding, volume_of((16, 16, 16), (2.0, 1.0, 1.0), origin=(10.0, 20.0, 30.0)))
    assert result.slice_index == 6
    assert result.long_axis[0][2] == 30.0 + 2.0 * 6
    centre = np.argwhere(share > 0).mean(axis=0) * (2.0, 1.0, 1.0)
    assert result.centre_mm == pytest.approx(np.array([10.0, 20.0, 30.0]) + centre[::-1])


def test_one_voxel_is_a_voxel_wide():
    share = np.zeros((5, 5, 5))
    share[2, 2, 2] = 1
    result = measured(share, (1.0, 0.8, 0.8))
    assert (result.long_axis_mm, result.short_axis_mm) == (0.8, 0.8)
    assert result.counted_volume_mm3 == pytest.approx(0.64)


def test_a_mask_drawn_at_another_level_has_the_same_volume():
    share = ellipsoid((4.0, 4.0, 4.0), (1.0, 0.8, 0.8))
    timid = share / (share + 3 * (1 - share))  # a half became a quarter
    result = measured(timid, (1.0, 0.8, 0.8), threshold=0.25)
    assert result.volume_method == "edge-weighted"
    assert result.volume_mm3 == pytest.approx(4 / 3 * np.pi * 64, rel=0.02)


def test_the_volume_is_counted_where_the_surface_is_not_known():
    share = ellipsoid((4.0, 4.0, 4.0), (1.0, 1.0, 1.0))
    vague = np.where(share >= 0.5, 0.9, 0.49)  # a network that is unsure of all around
    assert measured(vague, (1.0, 1.0, 1.0)).volume_method == "counted"
    cut = share[5:]
    finding = finding_of(cut)
    window = (slice(5, share.shape[0]), *finding.window[1:])
    finding = Finding(0.9, (0.0, 0.0, 0.0), window, finding.mask, finding.probability, SOLID)
    result = measure(finding, volume_of(share.shape, (1.0, 1.0, 1.0)))
    assert result.volume_method == "counted"
    assert result.volume_mm3 == result.counted_volume_mm3


def test_the_solid_core_of_a_part_solid_nodule_is_measured():
    spacing = (1.0, 0.7, 0.7)
    share = ellipsoid((8.0, 8.0, 8.0), spacing)
    core = ellipsoid((8.0, 8.0, 8.0), spacing, turn=0.0) * 0
    inner = ellipsoid((3.0, 3.0, 3.0), spacing)
    start = [(a - b) // 2 for a, b in zip(share.shape, inner.shape, strict=True)]
    place = tuple(slice(s, s + n) for s, n in zip(start, inner.shape, strict=True))
    core[place] = inner
    hu = (-850 + 250 * share + 650 * core).astype(np.int16)
    volume = Volume(Grid(share.shape, spacing, (0.0, 0.0, 0.0), AXES), hu)
    result = measure(finding_of(share, PART_SOLID), volume)
    assert result.core is not None
    assert result.core.mean_diameter_mm == pytest.approx(6.0, abs=0.7)
    assert result.core.volume_mm3 == pytest.approx(4 / 3 * np.pi * 27, rel=0.15)
    assert measure(finding_of(share, SOLID), volume).core is None
    glass = Volume(volume.grid, (-850 + 250 * share).astype(np.int16))
    assert measure(finding_of(share, PART_SOLID), glass).core is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mask": np.zeros((4, 4, 4), bool)}, "mask has no voxel"),
        ({"mask": np.ones((3, 4, 4), bool)}, "do not fit the window"),
        ({"window": (slice(2, 6), slice(0, 4), slice(0, 4))}, "leaves the scan"),
    ],
)
def test_what_cannot_be_measured_is_refused(change, message):
    whole = (slice(0, 4),) * 3
    parts = {"window": whole, "mask": np.ones((4, 4, 4), bool)} | change
    finding = Finding(
        0.5, (0.0, 0.0, 0.0), probability=np.zeros((4, 4, 4), np.uint8), texture=SOLID, **parts
    )
    with pytest.raises(ValueError, match=message):
        measure(finding, volume_of((4, 4, 4), (1.0, 1.0, 1.0)))


def test_the_texture_is_the_likeliest():
    assert texture_of(finding_of(np.ones((3, 3, 3)), (0.2, 0.3, 0.5))) == "non_solid"


def test_intervals_follow_what_readers_differ_by():
    small, large = volume_of_sphere(4.0), volume_of_sphere(30.0)
    assert volume_cv(small, "solid") == 0.227
    assert volume_cv(large, "solid") == 0.117
    assert volume_cv(large, "non_solid") == 0.20
    low, high = volume_interval(small, "solid")
    assert low < small < high
    assert low * high == pytest.approx(small**2)
    with pytest.raises(ValueError, match="not positive"):
        volume_cv(0.0, "solid")


def volume_of_sphere(diameter):
    volume = np.pi / 6 * diameter**3
    assert sphere_diameter(volume) == pytest.approx(diameter)
    return volume
