"""Whether a part with these defects is good: the recipe's rules, in mm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from kits.defect.line.recipe import EVERY, Recipe, Rule, Zone
from kits.defect.line.verdict import Defect

LIMITS = (("max_length_mm", "length_mm"), ("max_width_mm", "width_mm"),
          ("max_area_mm2", "area_mm2"))  # fmt: skip


def judge(defects: Sequence[Defect], recipe: Recipe) -> tuple[tuple[Defect, ...], str]:
    """Say of each defect which rule it breaks, and of the part why it is not good.

    Args:
        defects: with their zones.
        recipe: whose rules.
    Returns:
        the defects with `breaks` filled in; the reason, empty if the part is good.
    """
    judged = [replace(defect, breaks=_breaks(defect, recipe.rules)) for defect in defects]
    reasons = [f"{defect.kind}: {defect.breaks}" for defect in judged if defect.breaks]
    for rule in recipe.rules:
        if rule.max_count is None:
            continue
        counted = [one for one in judged if not one.breaks and _fits(rule, one)]
        if len(counted) > rule.max_count:
            what = f"{len(counted)} of {_told(rule)}, {rule.max_count} are tolerated"
            reasons.append(what)
            judged = [replace(one, breaks=what) if one in counted else one for one in judged]
    return tuple(judged), "; ".join(dict.fromkeys(reasons))


def _breaks(defect: Defect, rules: Sequence[Rule]) -> str:
    """The first limit that a defect does not keep; empty: it is tolerated."""
    fitting = [rule for rule in rules if _fits(rule, defect)]
    if not fitting:
        return "no rule tolerates it"
    for rule in fitting:
        for limit_name, name in LIMITS:
            limit, value = getattr(rule, limit_name), getattr(defect, name)
            if limit is not None and value > limit:
                return f"{name}={value:.3g} is over {limit:g} for {_told(rule)}"
    return ""


def _fits(rule: Rule, defect: Defect) -> bool:
    return rule.defect in (EVERY, defect.kind) and (rule.zone == EVERY or rule.zone in defect.zones)


def _told(rule: Rule) -> str:
    what = "any defect" if rule.defect == EVERY else rule.defect
    return what if rule.zone == EVERY else f"{what} in {rule.zone}"


def zones_at(
    x: float, y: float, zones: Sequence[Zone], shift_px: tuple[float, float]
) -> tuple[Zone, ...]:
    """The zones that hold a point of the frame.

    Args:
        x: of the point, in pixels.
        y: likewise.
        zones: of the recipe.
        shift_px: how far right and down of its place in the recipe the part lies.
    """
    at = np.array(x - shift_px[0]), np.array(y - shift_px[1])
    return tuple(zone for zone in zones if contains(zone.polygon_px, *at))


def contains(polygon: Sequence[tuple[float, float]], x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Whether a polygon holds points: a ray to the right crosses its border an odd number of times.

    Args:
        polygon: corners.
        x: of the points, any shape, or one number.
        y: likewise.
    Returns:
        bool of that shape.
    Source: Shimrat, CACM 5 (1962), algorithm 112, with Hacker's correction.
    """
    px, py = np.asarray(x, np.float64), np.asarray(y, np.float64)
    inside = np.zeros(px.shape, bool)
    for (x1, y1), (x2, y2) in zip(polygon, [*polygon[1:], polygon[0]], strict=True):
        if y1 != y2:
            crosses = (y1 > py) != (y2 > py)
            inside ^= crosses & (px < x1 + (py - y1) * (x2 - x1) / (y2 - y1))
    return inside


def ignored_cells(
    zones: Sequence[Zone], shape: tuple[int, int], cell_px: int, shift_px: tuple[float, float]
) -> np.ndarray:
    """(rows, columns) bool: cells that lie in zones that are ignored, at their corners and middle.

    The corners are taken a little inside, since a zone may end where a cell does.
    """
    polygons = [zone.polygon_px for zone in zones if zone.is_ignored]
    if not polygons:
        return np.zeros(shape, bool)
    y, x = np.mgrid[: shape[0], : shape[1]].astype(np.float64)
    ignored = np.ones(shape, bool)
    for dx, dy in ((0.01, 0.01), (0.99, 0.01), (0.01, 0.99), (0.99, 0.99), (0.5, 0.5)):
        at = (x + dx) * cell_px - shift_px[0], (y + dy) * cell_px - shift_px[1]
        ignored &= np.any([contains(polygon, *at) for polygon in polygons], axis=0)
    return ignored
