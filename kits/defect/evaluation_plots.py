"""The pictures of an evaluation: curves as inline SVG in the page's colours, images as PNG."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup
from PIL import Image, ImageDraw

from kits.defect.detecting import Found
from kits.defect.metrics.matching import Scored
from kits.defect.metrics.pod import WANTED, Curve, fit

WIDTH, HEIGHT, MARGIN = 420, 230, 38
BINS = 8
MOST_PX = 360  # side of a picture
TRUE, RIGHT, WRONG = "#ffb000", "#58c4ff", "#ff5d5d"


def pod_curve(sizes: Sequence[float], is_hit: Sequence[bool], label: str) -> Markup:
    """Share of hits by size, the fitted curve and its lower band; empty without sizes."""
    if len(sizes) < 2 or min(sizes) == max(sizes):
        return Markup("")
    size, hit = np.asarray(sizes, float), np.asarray(is_hit, float)
    low, high = np.log(size.min()), np.log(size.max())
    grid = np.linspace(low, high, 120)

    def place(x: np.ndarray, y: np.ndarray) -> str:
        across = MARGIN + (x - low) / (high - low) * (WIDTH - MARGIN - 12)
        down = HEIGHT - MARGIN - y * (HEIGHT - MARGIN - 12)
        return " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across, down, strict=True))

    parts = [_axes(low, high, label)]
    curve: Curve | None = fit(sizes, is_hit)
    if curve is not None:
        for values, dashes in ((curve.probability, ""), (curve.lower, "4 3")):
            points = place(grid, values(np.exp(grid)))
            parts.append(
                f'<polyline points="{points}" fill="none" stroke="var(--accent)" '
                f'stroke-width="2" stroke-dasharray="{dashes}"/>'
            )
    edges = np.quantile(np.log(size), np.linspace(0, 1, BINS + 1))
    for k in range(BINS):
        inside = (np.log(size) >= edges[k]) & (np.log(size) <= edges[k + 1])
        if inside.any():
            point = place(np.log(size)[inside].mean(keepdims=True), hit[inside].mean(keepdims=True))
            x, y = point.split(",")
            parts.append(f'<circle cx="{x}" cy="{y}" r="3.5" fill="var(--ink)"/>')
    body = "".join(parts)
    return Markup(f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{body}</svg>')


def _axes(low: float, high: float, label: str) -> str:
    bottom, right = HEIGHT - MARGIN, WIDTH - 12
    parts = []
    for share in (0.0, 0.5, WANTED, 1.0):
        y = bottom - share * (bottom - 12)
        parts.append(f'<line x1="{MARGIN}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{share:g}</text>')
    for k in range(4):
        x = MARGIN + k / 3 * (right - MARGIN)
        value = np.exp(low + k / 3 * (high - low))
        parts.append(f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle">{value:.2g}</text>')
    middle = (MARGIN + right) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle">{label}</text>')
    return "".join(parts)


def picture(one: Scored, matched: np.ndarray, found: Found) -> Markup:
    """An image with its true boxes and the found ones, right or wrong."""
    pixels = one.truth.pixels
    image = Image.fromarray(pixels).convert("RGB")
    factor = min(1.0, MOST_PX / max(image.size))
    if factor < 1:
        image = image.resize(tuple(max(1, round(side * factor)) for side in image.size))
    drawing = ImageDraw.Draw(image)
    for box in one.truth.boxes_px:
        drawing.rectangle(_corners(box * factor, 2), outline=TRUE, width=1)
    for box, place in zip(found.boxes, matched, strict=True):
        drawing.rectangle(
            _corners(box * factor, 0), outline=RIGHT if place >= 0 else WRONG, width=1
        )
    content = io.BytesIO()
    image.save(content, "PNG")
    text = base64.b64encode(content.getvalue()).decode()
    return Markup(f'<img alt="" src="data:image/png;base64,{text}">')


def _corners(box: np.ndarray, more: float) -> tuple[float, float, float, float]:
    x1, y1, x2, y2 = (float(side) for side in box)
    return x1 - more, y1 - more, max(x1, x2 - 1) + more, max(y1, y2 - 1) + more
