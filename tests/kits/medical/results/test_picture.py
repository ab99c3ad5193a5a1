from dataclasses import replace

import numpy as np
import pytest

from kits.medical.results.picture import (
    BAR_PX,
    CUT_PX,
    OUTLINE,
    PANEL_PX,
    describe,
    render,
)


def enclosed(picture):
    """Pixels of the cut that the outline encloses."""
    line = (picture[BAR_PX : BAR_PX + CUT_PX, PANEL_PX + 1 :] == OUTLINE).all(axis=2)
    rows, columns = np.nonzero(line)
    inside = np.zeros_like(line)
    for row in range(rows.min() + 1, rows.max()):
        at = columns[rows == row]
        inside[row, at.min() : at.max() + 1] = True
    return inside & ~line


def test_the_outline_encloses_the_area_of_the_mask(grid, make_study):
    study = make_study(grid)
    for nodule in study.nodules:
        index = nodule.measures.slice_index
        picture = render(study, nodule, np.full(grid.shape[1:], -850, np.int16), index)
        mask = nodule.finding.mask[index - nodule.finding.window[0].start]
        area_mm2 = mask.sum() * grid.spacing_mm[1] * grid.spacing_mm[2]
        per_px = 48.0 / CUT_PX
        # A row's first and last pixel of the mask are all that is looked at: holes count too.
        assert enclosed(picture).sum() * per_px**2 == pytest.approx(area_mm2, rel=0.08)


def test_a_bright_voxel_lies_in_the_middle_of_the_cut(plain_grid, make_study):
    study = make_study(plain_grid)
    nodule = study.nodules[0]
    index, mask = nodule.measures.slice_index, np.zeros_like(nodule.finding.mask)
    depth, rows, columns = nodule.finding.window
    mask[index - depth.start, 3, 4] = True
    nodule = replace(nodule, finding=replace(nodule.finding, mask=mask))
    voxels = np.full(plain_grid.shape[1:], -1350, np.int16)
    voxels[rows.start + 3, columns.start + 4] = 150
    picture = render(study, nodule, voxels, index).astype(float)
    # Where the grey is, and where the mask's pixels are: the line encloses them.
    bright = picture[BAR_PX : BAR_PX + CUT_PX, PANEL_PX:][100:156, 100:156]
    grey = np.where(np.ptp(bright, axis=2) == 0, bright[..., 0], 0)
    seat = [np.average(np.arange(56), weights=grey.sum(axis=axis)) for axis in (1, 0)]
    assert seat == pytest.approx([27.5, 27.5], abs=0.6)


def test_sides_follow_the_patient(make_grid, make_study):
    """The left half of the picture shows another letter when the patient lies the other way."""
    pictures = []
    for orientation in ([1, 0, 0, 0, 1, 0], [-1, 0, 0, 0, 1, 0]):
        grid = make_grid(orientation=orientation)
        pictures.append(render(make_study(grid, 0), None, np.full((40, 48), -850, np.int16), 6))
    changed = np.nonzero((pictures[0] != pictures[1]).any(axis=(0, 2)))[0]
    assert changed.min() < 20
    assert PANEL_PX - 20 < changed.max() < PANEL_PX
    assert not [column for column in changed if 20 < column < PANEL_PX - 20]


def test_a_phantom_says_so(plain_grid, make_study):
    voxels = np.full((40, 48), -850, np.int16)
    of_patient, of_phantom = (
        render(make_study(plain_grid, is_phantom=is_phantom), None, voxels, 6)
        for is_phantom in (False, True)
    )
    changed = np.nonzero((of_patient != of_phantom).any(axis=(1, 2)))[0]
    assert 0 < len(changed)
    assert changed.max() < BAR_PX


def test_growth_is_told_with_its_interval(study):
    lines = [describe(study, nodule, 3) for nodule in study.nodules]
    assert "against the prior: growing, doubling time 332 d (203 to 913)" in lines[0]
    assert "against the prior: undecided, doubling time 1826 d (457 to never)" in lines[1]
    assert not [line for line in lines[2] if "prior" in line]


def test_text_is_plain(study):
    assert all(line.isascii() for line in describe(study, study.nodules[0], 3))
    assert "Fleischner 2017: solid >= 8 mm" in describe(study, study.nodules[0], 3)
