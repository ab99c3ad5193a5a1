"""The plots of an evaluation as inline SVG that follows the page's colours.

matplotlib draws with stand-in colours; each becomes a CSS variable of the page. Plots hold fixed
words and numbers only: names that come from the data are set by the page, which escapes them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kits.medical.looking import Drawn
from kits.medical.metrics.froc import FP_RATES, Curve, sensitivity_at
from kits.medical.metrics.human_normalised import SIZE_BINS, Agreement

_INK, _MUTED, _GRID, _ACCENT, _GOOD = "#010a01", "#010a02", "#010a03", "#010a04", "#010a05"
_PANEL = "#010a06"
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "grid", _ACCENT: "accent", _GOOD: "good"} | {
    _PANEL: "panel"
}
_STYLE = {
    "svg.fonttype": "none",  # text stays text, in the page's font
    "svg.hashsalt": "deepkits",  # equal content gives equal ids, so a report is reproducible
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _MUTED,
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.6,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _MUTED,
    "ytick.labelcolor": _MUTED,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}
SIZE_LABELS = {
    "": "all",
    "under_6_mm": "below 6 mm",
    "6_to_10_mm": "6 to 10 mm",
    "over_10_mm": "10 mm and more",
}
WINDOW_HU = (-1350, 150)  # the lung window
MODEL_COLOUR, READER_COLOUR = "#ffb000", "#58c4ff"
assert set(SIZE_LABELS) == {"", *SIZE_BINS}


def size_bars(metrics: Mapping[str, Any]) -> Markup:
    """The model over the human for each size, with the human's line and the oracle's marks."""
    groups = [name for name in SIZE_LABELS if _key("human_normalised_dice", name) in metrics]
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("", "Dice over the human's")
        for place, name in enumerate(groups):
            key = _key("human_normalised_dice", name)
            value, low, high = (metrics[f"{key}{end}"] for end in ("", ".low", ".high"))
            axes.bar(place, value, width=0.56, color=_ACCENT, alpha=0.85)
            axes.plot([place, place], [low, high], color=_INK, linewidth=1.4)
            # At the foot, where no line crosses it.
            axes.annotate(
                f"{value:.3f}", (place, 0.02), ha="center", va="bottom", fontsize=10, color=_PANEL
            )
            for other, colour in (
                ("oracle_normalised_dice", _GOOD),
                ("baseline_threshold_normalised_dice", _MUTED),
            ):
                reached = metrics.get(_key(other, name))
                if reached is not None:
                    axes.plot([place - 0.38, place + 0.38], [reached] * 2, color=colour, lw=2)
        axes.axhline(1, color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set_xticks(range(len(groups)), [SIZE_LABELS[name] for name in groups])
        axes.grid(visible=False, axis="x")
        axes.set_ylim(0, None)
        return _svg(figure, "Dice over the human's, by size")


def froc_curve(curve: Curve) -> Markup:
    """Sensitivity over false positives per scan, with the seven points of CPM."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("False positives per scan", "Sensitivity")
        least = FP_RATES[0] / 2
        rates = np.clip(curve.fp_per_scan, least, None)
        axes.step(
            np.concatenate([[least], rates]),
            np.concatenate([[0], curve.sensitivity]),
            where="post",
            color=_ACCENT,
            linewidth=2,
        )
        points = [sensitivity_at(curve, rate) for rate in FP_RATES]
        axes.plot(FP_RATES, points, "o", color=_ACCENT, markersize=5)
        axes.set_xscale("log", base=2)
        axes.set_xticks(FP_RATES, ["1/8", "1/4", "1/2", "1", "2", "4", "8"])
        axes.set(xlim=(least, FP_RATES[-1] * 1.3), ylim=(0, 1.02))
        return _svg(figure, "Sensitivity over false positives per scan")


def nodule_scatter(agreements: Sequence[Agreement]) -> Markup:
    """Each nodule: the model's Dice over the human's, against the same references."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("Human against the others", "Model against the same")
        human = [one.human["vs_others"] for one in agreements]
        model = [one.model["vs_others"] for one in agreements]
        size = [min(12 + one.diameter_mm**2 / 3, 160) for one in agreements]
        axes.scatter(human, model, s=size, color=_ACCENT, alpha=0.35, linewidths=0)
        axes.plot([0, 1], [0, 1], color=_INK, linewidth=1, linestyle=(0, (4, 3)))
        axes.set(xlim=(0, 1), ylim=(0, 1), aspect="equal")
        return _svg(figure, "Every nodule: the model's Dice over the human's")


def picture(drawn: Drawn, number: int) -> Markup:
    """The slice with most consensus, with the readers' outlines and the model's."""
    with mpl.rc_context({**_STYLE, "image.composite_image": False}):
        figure = Figure(figsize=(2.2, 2.2))
        axes = figure.add_axes((0, 0, 1, 1))
        low, high = WINDOW_HU
        axes.imshow(drawn.slice_hu, cmap="gray", vmin=low, vmax=high, interpolation="nearest")
        for reader in drawn.slice_readers:
            _outline(axes, reader, READER_COLOUR, 0.9)
        _outline(axes, drawn.slice_model, MODEL_COLOUR, 1.8)
        axes.axis("off")
        return _svg(figure, f"Nodule {number}")


def _outline(axes: Axes, mask: np.ndarray, colour: str, width: float) -> None:
    if mask.any() and not mask.all():
        axes.contour(mask, levels=[0.5], colors=[colour], linewidths=width)


def _key(name: str, group: str) -> str:
    return f"{name}.{group}" if group else name


def _figure(label_x: str, label_y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=label_x, ylabel=label_y)
    return figure, axes


def _svg(figure: Figure, title: str) -> Markup:
    """The figure as an SVG element that scales, uses the page's colours and names no address."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", transparent=True)
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.DOTALL)
    # A style element holds for the whole page, so the page's own style sheet says it instead.
    text = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>\s*", "", text, flags=re.DOTALL)
    box = re.search(r'viewBox="[^"]+"', text)
    assert box is not None, "matplotlib writes a viewBox"
    name = title.replace("'", "’")
    head = f'<svg class="plot" role="img" {box[0]}><title>{name}</title>'
    text = head + text[text.index(">") + 1 :]
    text = text.replace("xlink:href", "href")
    # Two plots may hold the same clip path or marker: ids must differ within one page.
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'(id="|href="#|url\(#)', rf"\1{prefix}-", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var(--{variable})")
    return Markup(text)
