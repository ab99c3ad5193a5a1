"""Slices become a grid, or are refused. Order and distances come from positions alone.

Instance numbers, file names and slice locations are never used to sort. D slices along the normal
(row axis x column axis), H rows, W columns; points are (x, y, z) in the patient, millimetres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kits.medical.geometry import Grid
from kits.medical.refusals import Refusal
from kits.medical.slices import Slice

FEWEST_SLICES = 10
THICKEST_MM = 5.0  # a nodule of 6 mm would be on one slice
AXIAL_COSINE = 0.8  # of the angle between the normal and the body's axis
TILT_DEGREES = 0.5
AXIS_TOLERANCE = 1e-3
SHIFT_MM = 0.1  # slices against each other, in their plane
SAME_PLACE = 0.02  # of the distance between slices
OFF_GRID = 0.04, 0.05  # of the distance between slices; mm: the larger counts
DISAGREE = 0.05  # of a distance, between two headers


def sort_slices(slices: Sequence[Slice]) -> list[Slice]:
    """By position along the normal of the first; their orientation must be one."""
    normal = slices[0].normal
    return sorted(slices, key=lambda one: (float(np.dot(one.position_mm, normal)), one.sop_uid))


def build_grid(slices: Sequence[Slice]) -> Grid:
    """The grid of slices that `sort_slices` has put in order.

    Raises:
        Refusal: they are not one regular, upright, gapless stack of one reconstruction.
    """
    _check_one_reconstruction(slices)
    first = slices[0]
    normal, positions = first.normal, np.array([one.position_mm for one in slices])
    if abs(normal[2]) < AXIAL_COSINE:
        raise Refusal(
            "not_axial",
            f"the slices' normal is {_mm(normal)}, too far from the body's axis (0, 0, 1); "
            "give the axial reconstruction",
        )
    if len(slices) < FEWEST_SLICES:
        raise Refusal(
            "too_few_slices",
            f"{len(slices)} slices are fewer than {FEWEST_SLICES}; give the whole series",
        )
    along = positions @ normal
    _check_upright(slices, positions, along)
    spacing = _regular_spacing(along)
    _check_thickness(slices, spacing, along)
    _check_in_plane(first)
    axes = np.stack([normal, first.column_axis, first.row_axis])
    rows_mm, columns_mm = first.spacing_mm
    x, y, z = first.position_mm
    return Grid((len(slices), *first.shape), (spacing, rows_mm, columns_mm), (x, y, z), axes)


def _check_one_reconstruction(slices: Sequence[Slice]) -> None:
    """All slices were made by one reconstruction of one acquisition."""
    _same(slices, "mixed_frames", "FrameOfReferenceUID", lambda one: one.frame_uid)
    _same(slices, "mixed_matrix", "Rows x Columns", lambda one: one.shape)
    first = slices[0]
    for one in slices:
        turned = max(
            np.abs(one.row_axis - first.row_axis).max(),
            np.abs(one.column_axis - first.column_axis).max(),
        )
        if turned > AXIS_TOLERANCE:
            raise Refusal(
                "mixed_orientation",
                f"{one.header.path.name} lies along {_mm(one.row_axis)}, {_mm(one.column_axis)}, "
                f"{first.header.path.name} along {_mm(first.row_axis)}, {_mm(first.column_axis)}, "
                "but a volume has one orientation; export the series again, scout views apart",
            )
    _same(slices, "mixed_spacing", "PixelSpacing", lambda one: _rounded(one.spacing_mm))
    _same(slices, "mixed_field", "ReconstructionDiameter", lambda one: _rounded([one.field_mm]))
    _same(slices, "mixed_kernel", "ConvolutionKernel", lambda one: one.kernel)
    _same(slices, "mixed_thickness", "SliceThickness", lambda one: _rounded([one.thickness_mm]))
    _same(slices, "mixed_acquisition", "KVP", lambda one: one.tube_kv)


def _same(slices: Sequence[Slice], code: str, what: str, value: Callable[[Slice], object]) -> None:
    counts: dict[object, int] = {}
    for one in slices:
        counts[value(one)] = counts.get(value(one), 0) + 1
    if len(counts) > 1:
        said = ", ".join(f"{found} in {count}" for found, count in counts.items())
        raise Refusal(
            code,
            f"{what} differs within the series ({said} slices), but a volume has one; "
            "export each reconstruction as its own series",
        )


def _check_upright(slices: Sequence[Slice], positions: np.ndarray, along: np.ndarray) -> None:
    """Slices lie straight above each other, as the gantry's angle must say too."""
    normal = slices[0].normal
    aside = positions - along[:, None] * normal
    shift = aside - aside[0]
    angles = {one.tilt_degrees for one in slices if one.tilt_degrees}
    tilted = [angle for angle in angles if abs(angle) > TILT_DEGREES]
    if np.abs(shift).max() <= SHIFT_MM and not tilted:
        return
    length = max(along[-1] - along[0], 1e-6)
    line = (along - along[0])[:, None] / length * shift[-1]
    if tilted or np.abs(shift - line).max() <= 2 * SHIFT_MM:
        angle = float(np.degrees(np.arctan2(np.linalg.norm(shift[-1]), length)))
        said = f"GantryDetectorTilt={tilted[0]:g}" if tilted else "no GantryDetectorTilt"
        raise Refusal(
            "gantry_tilt",
            f"the slices are sheared by {angle:.1f} degrees ({said}), distances in such a volume "
            "are wrong; reconstruct without tilt",
        )
    worst = int(np.abs(shift).max(axis=1).argmax())
    raise Refusal(
        "shifted_slices",
        f"{slices[worst].header.path.name} is shifted by {np.linalg.norm(shift[worst]):.2f} mm in "
        f"its plane against the first slice (at most {SHIFT_MM} mm); "
        "export each reconstruction as its own series",
    )


def _regular_spacing(along: np.ndarray) -> float:
    """The one distance between neighbours, mm."""
    steps = np.diff(along)
    usual = float(np.median(steps))
    same = int((steps < SAME_PLACE * usual).sum()) if usual > 0 else len(steps)
    if same:
        at = along[int(steps.argmin())]
        raise Refusal(
            "duplicate_slices",
            f"{same} slice(s) lie where another one lies (first at {at:.2f} mm), so which "
            "one counts is unknown; export each reconstruction as its own series",
        )
    wide = np.flatnonzero(steps > 1.5 * usual)
    ratio = steps / usual
    if len(wide) and np.abs(ratio - ratio.round()).max() < 0.2:
        missing = int((ratio.round() - 1).sum())
        where = ", ".join(f"{along[at]:.2f} and {along[at + 1]:.2f}" for at in wide[:3])
        raise Refusal(
            "missing_slices",
            f"{missing} slice(s) are missing between {where} mm (slices are {usual:.3f} mm "
            "apart); export the series again",
        )
    spacing = float((along[-1] - along[0]) / (len(along) - 1))
    regular = along[0] + spacing * np.arange(len(along))
    off = np.abs(along - regular)
    allowed = max(OFF_GRID[0] * spacing, OFF_GRID[1])
    if off.max() > allowed:
        raise Refusal(
            "uneven_spacing",
            f"distances between slices are {steps.min():.3f} to {steps.max():.3f} mm, a slice "
            f"lies {off.max():.3f} mm off the regular grid (at most {allowed:.3f} mm); give a "
            "series with one distance",
        )
    return spacing


def _check_thickness(slices: Sequence[Slice], spacing: float, along: np.ndarray) -> None:
    """Thin enough, without gaps, and other headers say the same distance."""
    thickness = slices[0].thickness_mm
    declared = {one.spacing_between_mm for one in slices if (one.spacing_between_mm or 0) > 0}
    for value in declared:
        ratio = spacing / value
        if abs(ratio - 1) <= DISAGREE:
            continue
        if ratio > 1.5 and abs(ratio - round(ratio)) <= DISAGREE * ratio:
            raise Refusal(
                "missing_slices",
                f"slices are {spacing:.3f} mm apart, SpacingBetweenSlices={value:g}: only every "
                f"{round(ratio)}. slice is there; export the series again",
            )
        raise _conflict(f"SpacingBetweenSlices={value:g}", spacing)
    _check_locations(slices, spacing, along)
    if spacing > thickness * 1.05 + 0.05:
        raise Refusal(
            "gaps",
            f"slices of {thickness:g} mm are {spacing:.3f} mm apart, what lies between was not "
            "seen; give a series without gaps",
        )
    if max(thickness, spacing) > THICKEST_MM + 0.05:
        raise Refusal(
            "too_thick",
            f"SliceThickness={thickness:g} mm, {spacing:.3f} mm apart: more than {THICKEST_MM:g} "
            "mm; reconstruct thinner slices",
        )


def _check_locations(slices: Sequence[Slice], spacing: float, along: np.ndarray) -> None:
    """SliceLocation is not used, but when it speaks of another distance, one of both is wrong."""
    locations = [one.location_mm for one in slices if one.location_mm is not None]
    if len(locations) != len(slices) or abs(slices[0].normal[2]) < 0.999:
        return
    steps = np.diff(np.array(locations))
    usual = float(np.median(steps))
    is_regular = usual != 0 and np.abs(steps - usual).max() <= DISAGREE * abs(usual) + 0.05
    if (
        is_regular
        and abs(abs(locations[-1] - locations[0]) / (along[-1] - along[0]) - 1) > DISAGREE
    ):
        raise _conflict(f"SliceLocation steps by {abs(usual):.3f} mm", spacing)


def _check_in_plane(one: Slice) -> None:
    """A reconstruction cannot be wider than its own diameter."""
    width = max(size * step for size, step in zip(one.shape, one.spacing_mm, strict=True))
    if one.field_mm and one.field_mm > 0 and width > one.field_mm * (1 + DISAGREE):
        raise Refusal(
            "spacing_conflict",
            f"pixels span {width:.1f} mm, ReconstructionDiameter={one.field_mm:g} mm is less, so "
            "PixelSpacing or the diameter is wrong; export the scan again",
        )


def _conflict(what: str, spacing: float) -> Refusal:
    return Refusal(
        "spacing_conflict",
        f"{what}, but positions say slices are {spacing:.3f} mm apart, so one of both is wrong; "
        "export the scan again",
    )


def _rounded(values: Sequence[float | None]) -> tuple[float | None, ...]:
    return tuple(None if value is None else round(value, 4) for value in values)


def _mm(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.3f}" for value in values) + ")"
