"""The report's plots as inline SVG that follows the page's colours.

matplotlib draws with stand-in colours; each becomes a CSS variable of the page, so that one plot
reads on light, dark and paper. Plots hold fixed words only: names that come from the data are set
by the page, which escapes them.
"""

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import beta

from kits.fraud.scores import Scored
from kits.fraud.tables import signed

_INK, _MUTED, _GRID, _ACCENT, _BAD = "#010a01", "#010a02", "#010a03", "#010a04", "#010a05"
_SERIES = tuple(f"#020b{number:02x}" for number in range(12))
_VARIABLES = {_INK: "ink", _MUTED: "muted", _GRID: "grid", _ACCENT: "accent", _BAD: "bad"} | {
    colour: f"series-{number}" for number, colour in enumerate(_SERIES)
}
NUM_SERIES = len(_SERIES)
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
    "lines.solid_capstyle": "round",
}
RECALL_GRID = np.linspace(0.0, 1.0, 201)


def precision_recall(weeks: Mapping[str, Sequence[Scored]], primary: str) -> Markup:
    """Precision over recall, the mean of the weeks, one line per model in the given order."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("Recall: share of frauds found", "Precision: share of alerts right")
        for number, (model, scored) in enumerate(weeks.items()):
            curve = np.mean([precision_at(RECALL_GRID, week) for week in scored], axis=0)
            ours = model == primary
            axes.plot(
                RECALL_GRID,
                curve,
                color=_ACCENT if ours else _SERIES[number % NUM_SERIES],
                linewidth=2.4 if ours else 1.2,
                zorder=4 if ours else 3,
            )
        axes.set(xlim=(0, 1), ylim=(0, 1.02))
        return _svg(figure, "Precision over recall of all models")


def precision_at(recall: np.ndarray, scored: Scored) -> np.ndarray:
    """Precision of the highest threshold that reaches each recall, (len(recall),)."""
    order = np.argsort(-scored.score, kind="stable")
    score, label = scored.score[order], scored.label[order]
    last = np.append(score[1:] != score[:-1], True)
    hits = np.cumsum(label)[last]
    precision = hits / (np.flatnonzero(last) + 1)
    reached = np.searchsorted(hits / hits[-1], recall - 1e-12, side="left")
    return precision[np.minimum(reached, len(precision) - 1)]


def reliability(probability: np.ndarray, label: np.ndarray) -> Markup:
    """Observed fraud share over predicted probability, both logarithmic, with 95 % intervals."""
    edges = np.array([0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95, 1.0])
    bins = np.clip(np.searchsorted(edges, probability, side="right") - 1, 0, len(edges) - 2)
    floor = 1e-4
    with mpl.rc_context(_STYLE):
        figure, axes = _figure("Predicted probability of fraud", "Observed share of fraud")
        axes.plot([floor, 1], [floor, 1], color=_MUTED, linewidth=1, linestyle=(0, (4, 3)))
        for number in np.unique(bins):
            inside = bins == number
            count, frauds = int(inside.sum()), int(label[inside].sum())
            low = beta.ppf(0.025, frauds, count - frauds + 1) if frauds else 0.0
            high = beta.ppf(0.975, frauds + 1, count - frauds) if frauds < count else 1.0
            at = max(float(probability[inside].mean()), floor)
            axes.plot([at, at], [max(low, floor), max(high, floor)], color=_ACCENT, linewidth=1.4)
            size = 3.5 + 1.5 * np.log10(count)
            full = _ACCENT if frauds else "none"  # a hollow point: no fraud seen, drawn at the edge
            axes.plot(
                [at],
                [max(frauds / count, floor)],
                marker="o",
                markersize=size,
                color=_ACCENT,
                markerfacecolor=full,
                clip_on=False,
                zorder=4,
            )
        axes.set(xscale="log", yscale="log", xlim=(floor, 1.15), ylim=(floor, 1.15))
        _percent_ticks(axes, floor)
        return _svg(figure, "Reliability of the calibrated probability")


def histogram(score: np.ndarray, label: np.ndarray, label_x: str) -> Markup:
    """Events per bin of the score, frauds and the rest, on a logarithmic count."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure(label_x, "Transactions (log scale)")
        low, high = float(score.min()), float(score.max())
        if 0 <= low and high <= 1:
            low, high = 0.0, 1.0
        edges = np.linspace(low, high if high > low else low + 1.0, 51)
        for value, colour in ((0, _SERIES[0]), (1, _BAD)):
            counts, _ = np.histogram(score[label == value], edges)
            axes.stairs(counts, edges, fill=True, color=colour, alpha=0.25)
            axes.stairs(counts, edges, color=colour, linewidth=1.3)
        axes.set(yscale="log", xlim=(edges[0], edges[-1]), ylim=(0.7, None))
        return _svg(figure, "Scores of frauds and of legitimate transactions")


def differences(rows: Sequence[tuple[str, float, float, float]], title: str) -> Markup:
    """Each (name, difference, low, high) as a point with its interval, and a line at zero."""
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(6.2, 0.45 + 0.3 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        axes.grid(visible=False, axis="y")
        axes.axvline(0, color=_MUTED, linewidth=1.2)
        for height, (_, value, low, high) in enumerate(reversed(rows)):
            colour = _ACCENT if low > 0 else _BAD if high < 0 else _MUTED
            axes.plot([low, high], [height, height], color=colour, linewidth=3, alpha=0.55)
            axes.plot([value], [height], marker="o", markersize=7, color=colour)
        axes.set_yticks(range(len(rows)), [row[0] for row in reversed(rows)], color=_INK)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_ylim(-0.6, len(rows) - 0.4)
        widest = max(max(abs(low), abs(high)) for _, _, low, high in rows) or 0.01
        axes.set_xlim(-1.1 * widest, 1.1 * widest)
        axes.xaxis.set_major_formatter(lambda value, _: signed(value) if value else "0")
        axes.locator_params(axis="x", nbins=7)
        return _svg(figure, title)


def _figure(label_x: str, label_y: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.2, 3.7), layout="constrained")
    axes = figure.add_subplot()
    axes.set(xlabel=label_x, ylabel=label_y)
    return figure, axes


def _percent_ticks(axes: Axes, floor: float) -> None:
    ticks = [tick for tick in (1e-4, 1e-3, 1e-2, 1e-1, 1.0) if tick >= floor]
    names = [f"{100 * tick:g} %" for tick in ticks]
    axes.set_xticks(ticks, names)
    axes.set_yticks(ticks, names)
    axes.minorticks_off()


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
    head = f'<svg class="plot" role="img" {box[0]}><title>{title}</title>'
    text = head + text[text.index(">") + 1 :]
    text = text.replace("xlink:href", "href")
    # Two plots may hold the same clip path or marker: ids must differ within one page.
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'(id="|href="#|url\(#)', rf"\1{prefix}-", text)
    for colour, name in _VARIABLES.items():
        text = text.replace(colour, f"var(--{name})")
    return Markup(text)
