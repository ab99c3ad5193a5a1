"""Pictures of the report: SVG drawn here, frames as PNG inside it."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from kits.defect.line.cells import CELL_PX
from kits.defect.line.tally import CameraTally

COLOURS = {"OK": "var(--good)", "NG": "var(--bad)", "UNINSPECTED": "var(--unseen)"}
STAGES = {
    "captured": "image", "triaged": "triage", "detected": "detector", "decided": "rules, ledger",
}  # fmt: skip
SHADES = ("#9db8e8", "#6f97dd", "#3f74cf", "#1f4f9e")
WIDTH, HEIGHT = 1060, 150
MAX_BARS = 240


def picture_uri(file: Path) -> str:
    """A PNG file inside the page; "" if it is not there."""
    if not file.is_file():
        return ""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def heat_map(camera: CameraTally) -> str:
    """A frame with how often each cell was flagged, and rings where defects were."""
    height, width = camera.size_px
    parts = [
        f'<svg viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="flagged cells and defects over a frame">'
    ]
    if camera.background is None:
        parts.append(f'<rect width="{width}" height="{height}" fill="var(--plain-tint)"/>')
    else:
        parts.append(
            f'<image width="{width}" height="{height}" preserveAspectRatio="none" '
            f'href="{_png(camera.background)}"/>'
        )
    share = camera.flagged / max(1, camera.num_looked)
    for row, column in np.argwhere(share > 0).tolist():
        # By the root: a cell flagged once in a hundred parts is still to be seen.
        opacity = 0.15 + 0.6 * float(np.sqrt(share[row, column]))
        parts.append(
            f'<rect x="{column * CELL_PX}" y="{row * CELL_PX}" width="{CELL_PX}" '
            f'height="{CELL_PX}" fill="#ff9f1c" opacity="{opacity:.2f}">'
            f"<title>flagged in {100 * share[row, column]:.1f} % of parts</title></rect>"
        )
    most = max(1, int(camera.defects.max()))
    for row, column in np.argwhere(camera.defects > 0).tolist():
        number = int(camera.defects[row, column])
        radius = CELL_PX * (0.45 + 0.75 * np.sqrt(number / most))
        parts.append(
            f'<circle cx="{(column + 0.5) * CELL_PX:.0f}" cy="{(row + 0.5) * CELL_PX:.0f}" '
            f'r="{radius:.0f}" fill="none" stroke="#e0312b" stroke-width="{max(6, width // 320)}">'
            f"<title>{number} defects</title></circle>"
        )
    return "".join([*parts, "</svg>"])


def timeline(seconds: Mapping[int, Counter[str]]) -> str:
    """Verdicts over time, stacked by state."""
    if not seconds:
        return "<p>No part had a verdict.</p>"
    last = max(seconds)
    step = -(-(last + 1) // MAX_BARS)
    bins: list[Counter[str]] = [Counter() for _ in range(last // step + 1)]
    for second, counts in seconds.items():
        bins[second // step].update(counts)
    most = max(counts.total() for counts in bins)
    bar = WIDTH / len(bins)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT + 24}" role="img" aria-label="verdicts in time">']
    for at, counts in enumerate(bins):
        top = float(HEIGHT)
        for state, colour in COLOURS.items():
            size = HEIGHT * counts[state] / most
            top -= size
            if size:
                parts.append(
                    f'<rect x="{at * bar:.2f}" y="{top:.2f}" width="{max(0.5, bar - 0.6):.2f}" '
                    f'height="{size:.2f}" fill="{colour}"><title>{counts[state]} {state}'
                    "</title></rect>"
                )
    seconds_told = f"{step} s each" if step > 1 else "seconds"
    parts.append(
        f'<text x="0" y="{HEIGHT + 18}">0</text>'
        f'<text x="{WIDTH}" y="{HEIGHT + 18}" text-anchor="end">{last + 1} s</text>'
        f'<text x="{WIDTH / 2}" y="{HEIGHT + 18}" text-anchor="middle">{seconds_told}, '
        f"at most {most / step:.0f} parts per second</text></svg>"
    )
    return "".join(parts)


def latency_bars(stages: Mapping[str, Mapping[str, float]], whole: Mapping[str, float]) -> str:
    """Where the time goes: the stages' medians in a row, and the whole's quantiles as ticks."""
    if not whole:
        return ""
    scale = (WIDTH - 20) / max(1e-6, whole["p99"] * 1.05)
    parts = [f'<svg viewBox="0 0 {WIDTH} 92" role="img" aria-label="where the time goes">']
    left = 0.0
    for (stage, quantiles), shade in zip(stages.items(), SHADES, strict=False):
        size = quantiles["p50"] * scale
        name = STAGES.get(stage, stage)
        parts.append(
            f'<rect x="{left:.1f}" y="22" width="{size:.1f}" height="30" fill="{shade}">'
            f"<title>{name}: median {quantiles['p50']:.2f} ms</title></rect>"
        )
        if size > 60:
            parts.append(f'<text x="{left + 6:.1f}" y="16">{name} {quantiles["p50"]:.1f} ms</text>')
        left += size
    for name in ("p50", "p90", "p99"):
        at = min(whole[name] * scale, WIDTH - 2)
        parts.append(
            f'<line x1="{at:.1f}" x2="{at:.1f}" y1="18" y2="60" stroke="var(--ink)" '
            f'stroke-width="1.5"/><text x="{at:.1f}" y="{76 if name != "p90" else 90}" '
            f'text-anchor="{"end" if at > WIDTH - 90 else "middle"}">{name} {whole[name]:.1f} ms'
            "</text>"
        )
    return "".join([*parts, "</svg>"])


def _png(pixels: np.ndarray) -> str:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
