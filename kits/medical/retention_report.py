"""What a student kept of its teacher, for people: `report_retention.html`, one file, no scripts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.train.run import write_atomic
from kits.medical.config import DistillRunConfig
from kits.medical.data.case import Cases
from kits.medical.metrics.froc import FP_RATES, RATE_NAMES
from kits.medical.retention import TABLE_RATE

REPORT_FILE = "report_retention.html"
# Goals: lower bound of the hits kept, points of Dice lost, and how much less work each voxel is
# than for the teacher at its published size.
GOAL_HITS, GOAL_DICE, GOAL_FLOP = 0.96, 1.0, 30.0
GROUP_NAMES = {
    "": "all nodules",
    "under_6_mm": "below 6 mm",
    "6_to_10_mm": "6 to 10 mm",
    "over_10_mm": "10 mm and more",
    "solid": "solid",
    "part_solid": "part-solid",
    "non_solid": "non-solid",
}
RATE_TEXTS = ("1/8", "1/4", "1/2", "1", "2", "4", "8")
CONTROL_NAMES = {"steps": "no teacher, as many steps", "seconds": "no teacher, as much time"}
# Of the drawing, in its own units.
WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 560, 250, 46, 36, 12, 12


@dataclass(frozen=True)
class Row:
    """One group of nodules, or one rate of false positives."""

    name: str
    kept: str
    low: str
    of: str
    gained: str
    loss: str
    interval: str
    number: str


def write_retention_report(
    run: Path, found: Mapping[str, float], cfg: DistillRunConfig, cases: Cases
) -> Path:
    """Write the page into a run's folder.

    Args:
        run: the student's.
        found: `retention.json`.
        cfg: of the run.
        cases: whose test split was looked at.
    Returns:
        the page's path.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    view = {
        "found": found,
        "cards": _cards(found),
        "rates": [_rate_row(found, k) for k in range(len(FP_RATES))] if _has_hits(found) else [],
        "groups": [_group_row(found, name) for name in GROUP_NAMES],
        "controls": _control_rows(found),
        "networks": _network_rows(found),
        "curve": _curve(found) if _has_hits(found) else "",
        "is_smoke": cfg.trainer.smoke,
        "is_phantom": cases.name == "phantom",
        "data": cases.name,
        "sha256": cases.fingerprint[:12],
        "teacher": cfg.teacher,
        "student": cfg.model.name,
        "widths": list(cfg.model.widths),
    }
    path = run / REPORT_FILE
    write_atomic(path, environment.get_template("retention.html.j2").render(**view))
    return path


def _has_hits(found: Mapping[str, float]) -> bool:
    return "num_targets" in found


def _cards(found: Mapping[str, float]) -> list[dict[str, Any]]:
    cards = []
    key = f"hits_kept_at_{TABLE_RATE}_fp"
    if key in found:
        cards.append(
            {
                "title": "Hits kept at 1 FP/scan",
                "value": _percent(found[key]),
                "interval": f"≥ {_percent(found[f'{key}.low'])} with 95 % confidence",
                "note": f"of the teacher’s {found[f'{key}.of']:.0f} hits; goal: bound ≥ 96 %",
                "is_met": found[f"{key}.low"] >= GOAL_HITS,
            }
        )
    if "dice_loss_points" in found:
        low, high = found["dice_loss_points.low"], found["dice_loss_points.high"]
        cards.append(
            {
                "title": "Dice lost, points",
                "value": _signed(found["dice_loss_points"]),
                "interval": f"95 %: {_signed(low)} to {_signed(high)}",
                "note": "against the other readers, paired by nodule; goal ≤ 1 point",
                "is_met": found["dice_loss_points"] <= GOAL_DICE,
            }
        )
    for what, title, goal in (
        ("num_parameters", "Parameters", None),
        ("flop_per_voxel", "Operations per voxel", GOAL_FLOP),
    ):
        ratio = found[f"published_{what}_ratio"]
        wanted = "" if goal is None else f"; goal ≤ 1/{goal:.0f} of the published"
        cards.append(
            {
                "title": title,
                "value": f"1/{ratio:.1f}",
                "interval": f"{_count(found[f'student.{what}'])} of the published size’s "
                f"{_count(found[f'published.{what}'])}",
                "note": f"1/{found[f'{what}_ratio']:.1f} of the teacher trained here{wanted}",
                "is_met": None if goal is None else ratio >= goal,
            }
        )
    return cards


def _rate_row(found: Mapping[str, float], index: int) -> dict[str, str]:
    name = RATE_NAMES[index]
    key = f"hits_kept_at_{name}_fp"
    return {
        "rate": RATE_TEXTS[index],
        "teacher": _percent(found[f"teacher.sensitivity_at_{name}_fp"]),
        "student": _percent(found[f"student.sensitivity_at_{name}_fp"]),
        "rates": f"{found[f'{key}.teacher_fp_per_scan']:.2f} / "
        f"{found[f'{key}.student_fp_per_scan']:.2f}",
        "kept": _percent(found[key]) if key in found else "–",
        "low": f"≥ {_percent(found[f'{key}.low'])}" if key in found else "",
        "of": f"{found[f'{key}.of']:.0f}",
        "gained": f"{found[f'{key}.gained']:.0f}",
    }


def _group_row(found: Mapping[str, float], name: str) -> Row:
    suffix = f".{name}" if name else ""
    key = f"hits_kept_at_{TABLE_RATE}_fp{suffix}"
    loss = f"dice_loss_points{suffix}"
    has_loss = loss in found
    return Row(
        name=GROUP_NAMES[name],
        kept=_percent(found[key]) if key in found else "–",
        low=f"≥ {_percent(found[f'{key}.low'])}" if key in found else "",
        of=f"{found[f'{key}.of']:.0f}" if f"{key}.of" in found else "–",
        gained=f"{found[f'{key}.gained']:.0f}" if f"{key}.gained" in found else "–",
        loss=_signed(found[loss]) if has_loss else "–",
        interval=f"{_signed(found[f'{loss}.low'])} to {_signed(found[f'{loss}.high'])}"
        if has_loss
        else "",
        number=f"{found.get(f'num_outlines{suffix}', 0):.0f}",
    )


def _control_rows(found: Mapping[str, float]) -> list[dict[str, str]]:
    names = [name for name in CONTROL_NAMES if f"controls.{name}.steps" in found]
    if not names:
        return []
    rows = [_student_row("distilled", found, "")]
    return rows + [_student_row(CONTROL_NAMES[n], found, f"controls.{n}.") for n in names]


def _student_row(name: str, found: Mapping[str, float], prefix: str) -> dict[str, str]:
    key, loss = f"{prefix}hits_kept_at_{TABLE_RATE}_fp", f"{prefix}dice_loss_points"
    has_loss = loss in found
    return {
        "name": name,
        "steps": f"{found[f'{prefix}steps']:,.0f}",
        "minutes": f"{found[f'{prefix}cpu_s'] / 60:.1f}",
        "kept": _percent(found[key]) if key in found else "–",
        "low": f"≥ {_percent(found[f'{key}.low'])}" if key in found else "",
        "cpm": f"{found[f'{prefix}student.cpm']:.3f}" if f"{prefix}student.cpm" in found else "–",
        "loss": _signed(found[loss]) if has_loss else "–",
        "interval": f"{_signed(found[f'{loss}.low'])} to {_signed(found[f'{loss}.high'])}"
        if has_loss
        else "",
        "human": f"{found[f'{prefix}student.human_normalised_dice']:.3f}"
        if f"{prefix}student.human_normalised_dice" in found
        else "–",
    }


def _network_rows(found: Mapping[str, float]) -> list[dict[str, str]]:
    rows = []
    names = {"published": "teacher, published size (not trained)"} | {
        "teacher": "teacher",
        "student": "student",
    }
    for who, name in names.items():
        human = f"{who}.human_normalised_dice"
        rows.append(
            {
                "name": name,
                "parameters": _count(found[f"{who}.num_parameters"]),
                "flop": _count(found[f"{who}.flop_per_voxel"]),
                "cpm": f"{found[f'{who}.cpm']:.3f}" if f"{who}.cpm" in found else "–",
                "human": f"{found[human]:.3f}" if human in found else "–",
            }
        )
    return rows


def _curve(found: Mapping[str, float]) -> Markup:
    """Sensitivity over false positives per scan at the seven rates, of both networks."""
    across = np.linspace(LEFT, WIDTH - RIGHT, len(FP_RATES))
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _height(share)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y}" y2="{y}"/>')
        parts.append(
            f'<text x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{100 * share:.0f} %</text>'
        )
    for x, text in zip(across, RATE_TEXTS, strict=True):
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 18}" text-anchor="middle">{text}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 2}" text-anchor="middle">false positives per scan</text>'
    )
    for who in ("teacher", "student"):
        heights = [_height(found[f"{who}.sensitivity_at_{name}_fp"]) for name in RATE_NAMES]
        points = " ".join(f"{x:.1f},{y}" for x, y in zip(across, heights, strict=True))
        parts.append(f'<polyline class="{who}" points="{points}"/>')
        parts += [
            f'<circle class="{who}" cx="{x:.1f}" cy="{y}" r="4"/>'
            for x, y in zip(across, heights, strict=True)
        ]
    # Numbers and fixed words only.
    drawn = "".join(parts)
    return Markup(
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="Sensitivity of both networks">{drawn}</svg>'
    )


def _height(share: float) -> float:
    return round(HEIGHT - BOTTOM - share * (HEIGHT - BOTTOM - TOP), 1)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _signed(points: float) -> str:
    rounded = round(points, 2)
    return f"{rounded:+.2f}".replace("-", "−") if rounded else "0.00"


def _count(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return f"{number:.0f}"
