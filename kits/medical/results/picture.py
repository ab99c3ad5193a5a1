"""The picture of a nodule: its slice, a cut around it with its outline, and its numbers.

Dimensions: H rows, W columns of a slice; h, w pixels of a panel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kits.medical.results.headers import ASCII, UNVERIFIED
from kits.medical.results.study import Category, Growth, Nodule, Study

WINDOW_HU = (-1350, 150)  # the lung window: centre -600, width 1500
PANEL_PX = 512
CUT_PX = 256
CUT_MM = 48.0  # field of the cut; larger where the nodule fills it
BAR_PX = 36  # of the strip above
BACKGROUND = (12, 14, 18)
INK = (232, 234, 237)
FAINT = (150, 156, 164)
WARNING = (255, 176, 32)
OUTLINE = (255, 230, 60)
TEXT_PX = 14
SMALL_PX = 12
SIDES = (("L", "R"), ("P", "A"), ("H", "F"))  # where x, y and z grow, and where they fall

Point = tuple[float, float]  # row and column of a slice, fractions of pixels allowed


def render(study: Study, nodule: Nodule | None, voxels: np.ndarray, index: int) -> np.ndarray:
    """The picture of one nodule, or of a scan without one.

    Args:
        study: what is reported.
        nodule: which of them; None: none was found.
        voxels: (H, W) int16, Hounsfield units: the slice.
        index: of the slice in the scan.
    Returns:
        (h, w, 3) uint8, RGB.
    """
    canvas = Image.new("RGB", (PANEL_PX + CUT_PX, BAR_PX + PANEL_PX), BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    _write(draw, (10, 8), UNVERIFIED, WARNING, 18)
    if study.is_phantom:
        width = _font(18).getlength("PHANTOM DATA")
        _write(draw, (canvas.width - 10 - int(width), 8), "PHANTOM DATA", WARNING, 18)
    height, width = voxels.shape
    row_mm, column_mm = study.grid.spacing_mm[1:]
    field_mm = max(height * row_mm, width * column_mm)
    centre = ((height - 1) / 2, (width - 1) / 2)
    mask = _mask(nodule, index, voxels.shape)
    panel = _panel(study, voxels, None, centre, field_mm, PANEL_PX)
    if nodule is not None:
        seat, cut_mm = _seat(mask, (row_mm, column_mm))
        _frame(panel, seat, centre, cut_mm, field_mm, (row_mm, column_mm))
        cut = _panel(study, voxels, mask, seat, cut_mm, CUT_PX)
        canvas.paste(cut, (PANEL_PX, BAR_PX))
        draw.line([(PANEL_PX, BAR_PX), (PANEL_PX, canvas.height)], fill=FAINT)
    canvas.paste(panel, (0, BAR_PX))
    top = BAR_PX + (CUT_PX if nodule is not None else 0) + 8
    _write_lines(draw, (PANEL_PX + 10, top), describe(study, nodule, index))
    return np.asarray(canvas)


def _mask(nodule: Nodule | None, index: int, shape: tuple[int, ...]) -> np.ndarray:
    """(H, W) bool: the nodule on a slice."""
    mask = np.zeros(shape, bool)
    if nodule is not None:
        depth, rows, columns = nodule.finding.window
        mask[rows, columns] = nodule.finding.mask[index - depth.start]
    return mask


def _seat(mask: np.ndarray, spacing_mm: tuple[float, float]) -> tuple[Point, float]:
    """Middle of the mask's box, and the field in mm that shows it with room around it."""
    rows, columns = np.nonzero(mask)
    seat = ((rows.min() + rows.max()) / 2, (columns.min() + columns.max()) / 2)
    extent = max(np.ptp(rows) * spacing_mm[0], np.ptp(columns) * spacing_mm[1])
    return seat, max(CUT_MM, 1.5 * float(extent))


def _panel(
    study: Study,
    voxels: np.ndarray,
    mask: np.ndarray | None,
    centre: Point,
    field_mm: float,
    size_px: int,
) -> Image.Image:
    """A square cut of a slice, true to its proportions, with scale bar and sides."""
    spacing_mm = study.grid.spacing_mm[1:]
    low, high = WINDOW_HU
    grey = np.clip((voxels.astype(np.float32) - low) * (255 / (high - low)), 0, 255)
    picture = _cut(grey.astype(np.uint8), spacing_mm, centre, field_mm, size_px, smooth=True)
    panel = Image.fromarray(np.repeat(picture[:, :, None], 3, axis=2))
    if mask is not None:
        # The line runs outside of the mask: what it encloses is what was measured.
        inside = _cut(mask.astype(np.uint8), spacing_mm, centre, field_mm, size_px, smooth=False)
        pixels = np.array(panel)
        pixels[_around(inside.astype(bool))] = OUTLINE
        panel = Image.fromarray(pixels)
    draw = ImageDraw.Draw(panel)
    _scale_bar(draw, field_mm, size_px)
    _write_sides(draw, study.grid.axes, size_px)
    return panel


def _cut(
    pixels: np.ndarray,
    spacing_mm: tuple[float, float],
    centre: Point,
    field_mm: float,
    size_px: int,
    *,
    smooth: bool,
) -> np.ndarray:
    """(size, size) uint8 of a square field; black beyond the slice."""
    row_step, column_step = (field_mm / size_px / step for step in spacing_mm)
    half = (size_px - 1) / 2
    # Of PIL's transform: the input's coordinate of an output's pixel, both from pixel corners.
    shift = (0.5 + centre[1] - half * column_step - 0.5 * column_step,
             0.5 + centre[0] - half * row_step - 0.5 * row_step)  # fmt: skip
    return np.asarray(
        Image.fromarray(pixels).transform(
            (size_px, size_px),
            Image.Transform.AFFINE,
            (column_step, 0, shift[0], 0, row_step, shift[1]),
            Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST,
        )
    )


def _around(inside: np.ndarray) -> np.ndarray:
    """Pixels beside the mask, those at its corners among them."""
    grown = np.pad(inside, 1)
    grown = grown[:-2] | grown[1:-1] | grown[2:]
    grown = grown[:, :-2] | grown[:, 1:-1] | grown[:, 2:]
    return grown & ~inside


def _frame(
    panel: Image.Image,
    seat: Point,
    centre: Point,
    cut_mm: float,
    field_mm: float,
    spacing_mm: tuple[float, float],
) -> None:
    """Mark on the whole slice what the cut shows."""
    per_mm = PANEL_PX / field_mm
    row, column = (
        PANEL_PX / 2 + (s - c) * step * per_mm
        for s, c, step in zip(seat, centre, spacing_mm, strict=True)
    )
    half = cut_mm * per_mm / 2
    box = (column - half, row - half, column + half, row + half)
    ImageDraw.Draw(panel).rectangle(box, outline=OUTLINE)


def _scale_bar(draw: ImageDraw.ImageDraw, field_mm: float, size_px: int) -> None:
    length_mm = 10 if field_mm < 150 else 50
    length_px = length_mm * size_px / field_mm
    y = size_px - 12
    for colour, width in ((BACKGROUND, 5), (INK, 2)):
        draw.line([(12, y), (12 + length_px, y)], fill=colour, width=width)
        for x in (12, 12 + length_px):
            draw.line([(x, y - 4), (x, y + 4)], fill=colour, width=width - 1)
    _write(draw, (14, y - 20), f"{length_mm} mm", INK, SMALL_PX)


def _write_sides(draw: ImageDraw.ImageDraw, axes: np.ndarray, size_px: int) -> None:
    """Which side of the patient is right and left of, above and below the picture."""
    middle = size_px // 2
    for axis, before, after in (
        (axes[2], (4, middle), (size_px - 14, middle)),
        (axes[1], (middle, 4), (middle, size_px - 20)),
    ):
        along = int(np.argmax(np.abs(axis)))
        grows, falls = SIDES[along] if axis[along] > 0 else SIDES[along][::-1]
        _write(draw, before, falls, INK, TEXT_PX)
        _write(draw, after, grows, INK, TEXT_PX)


def describe(study: Study, nodule: Nodule | None, index: int) -> list[str]:
    """What the picture says, one fact a line."""
    place = f"slice {index + 1} of {study.grid.shape[0]}"
    if nodule is None:
        lines = ["No nodule reported", place, *map(_category, study.categories)]
        lines += study.not_detectable.lines.get("en", ())
    else:
        sizes = nodule.measures
        low, high = sizes.volume_interval_mm3
        lines = [
            f"{nodule.tracking_id} ({nodule.number} of {len(study.nodules)}), {place}",
            f"{nodule.texture.replace('_', '-')}, {nodule.location.get('en', '')}".rstrip(", "),
            f"{sizes.long_axis_mm:.1f} x {sizes.short_axis_mm:.1f} mm, "
            f"mean {sizes.mean_diameter_mm:.1f} mm",
            f"{sizes.volume_mm3:.0f} mm3 ({low:.0f} to {high:.0f})",
        ]
        if sizes.core is not None:
            lines.append(f"solid core {sizes.core.mean_diameter_mm:.1f} mm")
        lines += map(_category, nodule.categories)
        lines += _change(nodule.growth)
        lines.append(f"certainty {100 * nodule.finding.score:.0f} %")
    lines.append(f"model {study.model.name} {study.model.version}")
    return [line.translate(ASCII).encode("ascii", "replace").decode() for line in lines]


def _category(category: Category) -> str:
    return f"{category.rule_set} {category.version}: {category.code}"


def _change(growth: Growth | None) -> list[str]:
    if growth is None:
        return []
    if growth.vdt_days is None:
        return [f"against the prior: {growth.state}"]
    line = f"against the prior: {growth.state}, doubling time {growth.vdt_days:.0f} d"
    if growth.vdt_interval_days is not None:
        low, high = growth.vdt_interval_days
        line += f" ({low:.0f} to {high:.0f})" if math.isfinite(high) else f" ({low:.0f} to never)"
    return [line]


@cache
def _font(size_px: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size_px)


def _write(
    draw: ImageDraw.ImageDraw,
    place: tuple[int, int],
    text: str,
    colour: tuple[int, int, int],
    size_px: int,
) -> None:
    # With a dark rim: it may lie on bright tissue.
    font = _font(size_px)
    draw.text(place, text, fill=colour, font=font, stroke_width=1, stroke_fill=BACKGROUND)


def _write_lines(draw: ImageDraw.ImageDraw, place: tuple[int, int], lines: Sequence[str]) -> None:
    """Lines below each other, broken where the column ends; the first one stands out."""
    x, y = place
    font = _font(TEXT_PX)
    bottom = BAR_PX + PANEL_PX - TEXT_PX
    for number, line in enumerate(lines):
        row = ""
        for word in [*line.split(" "), ""]:
            longer = f"{row} {word}".strip()
            if word and font.getlength(longer) <= CUT_PX - 20:
                row = longer
                continue
            if row and y <= bottom:
                _write(draw, (x, y), row, INK if number == 0 else FAINT, TEXT_PX)
                y += TEXT_PX + 5
            row = word
        y += 3
