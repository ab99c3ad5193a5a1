"""What comparing every target found: `parity.json` for programs, `parity.html` for people."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from core.convert.export import ExportTrail
from core.convert.parity import CaseParity, Parity
from core.convert.parity_plot import Bar, plot_bars, power, printable
from edge.target import Target

SCHEMA = "deepkits.parity/1"
NEVER_RAN = ("built", "contract-only")
FAILED = "failed"
MEANING = {
    "verified": "It ran on a device of this kind, and every output was compared.",
    "emulated": (
        "No device of this kind was at hand. The file was compared here, and is run once more "
        "under an emulator of the device; a speed is not stated."
    ),
    "built": (
        "The engine was built for real and never ran: no device of this kind was at hand. How far "
        "its outputs lie from the source's, and how fast it is, is not known."
    ),
    "contract-only": (
        "Only the recipe exists: the device builds its engine itself and compares it with the "
        "golden outputs before using it. Neither error nor speed is known."
    ),
    FAILED: "It was compared and is wrong. It must not be used.",
}


@dataclass(frozen=True)
class Entry:
    """One target on the page."""

    target: Target
    parity: Parity | None = None  # None where nothing here can run it
    notes: tuple[str, ...] = ()  # as `Artifact.notes`

    def __post_init__(self) -> None:
        is_impossible = self.parity is not None and self.target.state in NEVER_RAN
        if is_impossible or (self.parity is None and self.target.state == "verified"):
            raise ValueError(
                f"target {self.target.id!r} is {self.target.state} and has "
                f"{'a' if self.parity else 'no'} comparison; correct its state"
            )

    @property
    def verdict(self) -> str:
        """The target's state, or "failed"."""
        return self.target.state if self.parity is None or self.parity.passed else FAILED

    def to_json(self) -> dict[str, Any]:
        """Plain values; a target that never ran has no numbers at all."""
        target = self.target.to_json()
        return {
            "id": target["id"],
            "verdict": self.verdict,
            "meaning": MEANING[self.verdict],
            "target": target,
            "notes": list(self.notes),
            "parity": self.parity.to_json() if self.parity else None,
        }


def write_reports(
    json_path: Path,
    html_path: Path,
    entries: Sequence[Entry],
    *,
    model: str,
    origin: str = "",
    trail: ExportTrail | None = None,
) -> None:
    """Write both reports of one model; equal content gives equal bytes.

    Args:
        json_path: where the facts go; `passed` in them is None if nothing was compared.
        html_path: where the page goes, one file without scripts that fetches nothing.
        entries: the targets, in the order to show.
        model: its name.
        origin: what its file was recognised as.
        trail: the exporters tried; None for a model that came as ONNX.
    """
    verdicts = [entry.parity.passed for entry in entries if entry.parity]
    content = {
        "schema": SCHEMA,
        "model": model,
        "origin": origin,
        "passed": all(verdicts) if verdicts else None,
        "export": trail.to_json() if trail else None,
        "targets": [entry.to_json() for entry in entries],
    }
    text = json.dumps(content, indent=1, allow_nan=False, ensure_ascii=False)
    json_path.write_text(text + "\n", encoding="utf-8")
    html_path.write_text(_render(content, entries, trail), encoding="utf-8")


def _render(content: dict[str, Any], entries: Sequence[Entry], trail: ExportTrail | None) -> str:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {"error": _error, "cosine": _cosine, "times": _times}
    return environment.get_template("parity.html.j2").render(
        content=content,
        trail=trail,
        views=[_view(entry) for entry in entries],
        meaning=MEANING,
        headline=_headline(entries),
    )


def _headline(entries: Sequence[Entry]) -> str:
    compared = [entry for entry in entries if entry.parity]
    wrong = sum(entry.verdict == FAILED for entry in compared)
    rest = len(entries) - len(compared)
    words = []
    if compared:
        words.append(f"Of {len(compared)} compared here, {len(compared) - wrong} passed.")
    if rest:
        words.append(f"{rest} did not run here: nothing is known of their errors and speed.")
    return " ".join(words)


def _view(entry: Entry) -> dict[str, Any]:
    """What the template shows of one target."""
    target, parity = entry.target, entry.parity
    outputs = [output for case in parity.cases for output in case.outputs] if parity else []
    return {
        "entry": entry,
        "target": target,
        "parity": parity,
        "verdict": entry.verdict,
        "max_absolute": max((o.max_absolute for o in outputs), default=math.nan),
        "violation": max((o.violation for o in outputs), default=math.nan),
        "num_outputs": len({output.name for output in outputs}),
        "plot": plot_bars([_bar(case) for case in parity.cases]) if parity else None,
        "recipe": json.dumps(target.recipe, indent=1, default=str) if target.recipe else "",
        "options": json.dumps(dict(target.options), default=str) if target.options else "",
        "tolerance": asdict(target.tolerance),
    }


def _bar(case: CaseParity) -> Bar:
    marks = tuple(output.violation for output in case.outputs)
    return Bar(str(case.case), marks, passed=case.passed)


def _error(value: float | None) -> Markup:
    """As 1.2 · 10⁻⁷; a dash for what is not known."""
    return power(value) if value is not None and math.isfinite(value) else Markup("–")


def _cosine(value: float | None) -> str:
    """With as many nines as there are, up to nine."""
    return "–" if value is None else f"{value:.9f}"


def _times(value: float) -> str:
    """A multiple of what is allowed."""
    if math.isnan(value):
        return "–"
    if math.isinf(value):
        return "∞"
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}" if value >= 0.001 else "< 0.001"


def _printable(value: Any) -> Markup | str:
    return value if isinstance(value, Markup) else printable(str(value))
