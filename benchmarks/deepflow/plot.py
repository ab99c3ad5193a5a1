"""The charts of the page, as SVG whose colours are the style sheet's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

WIDTH = 1072
# Of the wide charts: where the names end.
LEFT = 236
BAR, BAR_GAP, GROUP_GAP = 13, 3, 18
LANE, LANE_GAP, MISSES = 34, 6, 16
SMALL_WIDTH, SMALL_HEIGHT = 336, 196
SMALL_LEFT, SMALL_RIGHT, SMALL_TOP, SMALL_BOTTOM = 46, 12, 14, 34
# Of the bound: longer bars have their number inside, where the bound's line does not cross it.
INSIDE = 0.86
# A batch narrower than this has no number in it.
READABLE = 15


@dataclass(frozen=True)
class Line:
    """One rule in a small chart."""

    name: str
    kind: str  # class of its colour
    points: Sequence[tuple[float, float]]


def bars(rows: Sequence[Mapping[str, Any]], kinds: Mapping[str, str]) -> Markup:
    """Per mix what each rule sustains, as a share of the bound.

    Args:
        rows: with mix, bound, rules, gain.
        kinds: rule -> class of its colour; others are left out.
    """
    shown = [[name for name in kinds if name in row["rules"]] for row in rows]
    heights = [len(names) * (BAR + BAR_GAP) + GROUP_GAP for names in shown]
    top, bottom = 24, 24 + sum(heights)
    right = WIDTH - 70
    parts = [_open(WIDTH, bottom + 22, "What each rule sustains, as a share of the bound")]

    def x(share: float) -> float:
        return LEFT + share * (right - LEFT)

    for tenth in range(0, 11, 2):
        parts.append(_line(x(tenth / 10), top - 6, x(tenth / 10), bottom - 8, "grid"))
        parts.append(_text(x(tenth / 10), bottom + 10, f"{10 * tenth} %", "axis", "middle"))
    at: float = top
    for row, names, height in zip(rows, shown, heights, strict=True):
        middle = at + (height - GROUP_GAP) / 2
        gain = row.get("gain")
        parts.append(_text(LEFT - 14, middle - 2, row["mix"], "name", "end"))
        told = "" if gain is None else f"{100 * gain:+.0f} % over AUTO’s rule"
        kind = "good" if gain is not None and gain >= 0 else "bad"
        parts.append(_text(LEFT - 14, middle + 14, told, f"note {kind}", "end"))
        for name in names:
            rate = row["rules"][name]["rate"]
            share = rate / row["bound"]
            width = max(x(min(share, 1.06)) - LEFT, 1)
            parts.append(_box(LEFT, at, width, BAR, f"fill {kinds[name]}", f"{name}: {rate:.0f}/s"))
            words, y = f"{rate:.0f}/s · {100 * share:.0f} %", at + BAR - 2.5
            if share > INSIDE:
                parts.append(_text(LEFT + width - 7, y, words, "value inside", "end"))
            else:
                parts.append(_text(LEFT + width + 7, y, words, "value"))
            at += BAR + BAR_GAP
        at += GROUP_GAP
    parts.append(_line(x(1), top - 8, x(1), bottom - 4, "limit"))
    parts.append(_text(x(1), top - 12, "bound", "limit-word", "middle"))
    return _close(parts)


def gantt(
    chart: Mapping[str, Any], rule: str, workers: Sequence[str], colours: Mapping[str, str]
) -> Markup:
    """Who computed what when: a lane per worker, and when requests were asked that were missed."""
    start, seconds = chart["from_s"], chart["seconds"]
    bottom = len(workers) * (LANE + LANE_GAP) + MISSES + 10
    parts = [_open(WIDTH, bottom + 24, f"Batches on each worker under {rule}")]
    left = 150

    def x(at: float) -> float:
        return left + (at - start) / seconds * (WIDTH - left - 10)

    for step in range(11):
        at = start + seconds * step / 10
        parts.append(_line(x(at), 0, x(at), bottom, "grid"))
        words = f"{seconds * step * 100:.0f}" + (" ms" if step == 10 else "")
        parts.append(_text(x(at), bottom + 16, words, "axis", "middle" if step < 10 else "end"))
    for lane, worker in enumerate(workers):
        top = lane * (LANE + LANE_GAP)
        number, _, kind = worker.partition(": ")
        parts.append(_text(left - 12, top + 16, kind, "name", "end"))
        parts.append(_text(left - 12, top + 30, f"core {number}", "axis", "end"))
        parts.append(_box(left, top, WIDTH - left - 10, LANE, "lane"))
    for worker, model, begin, end, rows in chart[rule]["spans"]:
        top = workers.index(worker) * (LANE + LANE_GAP)
        first, last = x(max(begin, start)), x(min(end, start + seconds))
        width = max(last - first - 0.8, 0.8)
        told = f"{model}, {rows} rows, {(end - begin) * 1e3:.1f} ms"
        parts.append(_box(first, top + 2, width, LANE - 4, f"fill {colours[model]}", told))
        if rows > 1 and width > READABLE:
            middle = first + width / 2
            parts.append(_text(middle, top + LANE / 2 + 4, f"{rows}", "rows", "middle"))
    top = len(workers) * (LANE + LANE_GAP) + 4
    parts.append(_text(left - 12, top + 11, "not in time", "axis", "end"))
    for at, model in chart[rule]["misses"]:
        place = x(at)
        parts.append(
            Markup('<line class="miss {}" x1="{:.1f}" y1="{}" x2="{:.1f}" y2="{}"/>').format(
                colours[model], place, top, place, top + MISSES
            )
        )
    return _close(parts)


def curves(lines: Sequence[Line], bound: float, words: tuple[str, str]) -> Markup:
    """Goodput over what is offered; the diagonal is everything in time."""
    most = max([bound, *(x for line in lines for x, _ in line.points)])
    frame = _Frame(most, max(bound, most * 0.2), *words)
    parts = frame.open()
    end = min(frame.most_x, frame.most_y)
    parts.append(_line(frame.x(0), frame.y(0), frame.x(end), frame.y(end), "diagonal"))
    parts.append(_line(frame.x(0), frame.y(bound), frame.x(frame.most_x), frame.y(bound), "limit"))
    parts += frame.draw(lines)
    return _close(parts)


def latencies(lines: Sequence[Line], words: tuple[str, str]) -> Markup:
    """Latency over the SLO against what is offered."""
    most = max(x for line in lines for x, _ in line.points)
    highest = max(y for line in lines for _, y in line.points)
    frame = _Frame(most, min(max(1.2, highest), 3.0), *words)
    parts = frame.open()
    parts.append(_line(frame.x(0), frame.y(1), frame.x(frame.most_x), frame.y(1), "limit"))
    parts += frame.draw(lines)
    return _close(parts)


class _Frame:
    """Axes of a small chart, both from 0."""

    def __init__(self, most_x: float, most_y: float, name_x: str, name_y: str) -> None:
        self.most_x, self.most_y = most_x * 1.04, most_y * 1.06
        self.names = (name_x, name_y)

    def x(self, value: float) -> float:
        inner = SMALL_WIDTH - SMALL_LEFT - SMALL_RIGHT
        return SMALL_LEFT + inner * value / self.most_x

    def y(self, value: float) -> float:
        inner = SMALL_HEIGHT - SMALL_TOP - SMALL_BOTTOM
        return SMALL_TOP + inner * (1 - min(value, self.most_y) / self.most_y)

    def open(self) -> list[Markup]:
        parts = [_open(SMALL_WIDTH, SMALL_HEIGHT, f"{self.names[1]} over {self.names[0]}")]
        for value in ticks(self.most_y):
            y = self.y(value)
            parts.append(_line(SMALL_LEFT, y, SMALL_WIDTH - SMALL_RIGHT, y, "grid"))
            parts.append(_text(SMALL_LEFT - 7, y + 4, f"{value:g}", "axis", "end"))
        for value in ticks(self.most_x):
            words = f"{value:g}"
            parts.append(_text(self.x(value), SMALL_HEIGHT - 18, words, "axis", "middle"))
        name_x, name_y = self.names
        parts.append(_text(SMALL_WIDTH - SMALL_RIGHT, SMALL_HEIGHT - 3, name_x, "axis-name", "end"))
        parts.append(_text(2, 10, name_y, "axis-name"))
        return parts

    def draw(self, lines: Sequence[Line]) -> list[Markup]:
        parts = []
        # The first is drawn last, on top.
        for line in reversed(lines):
            places = [(self.x(x), self.y(y)) for x, y in line.points]
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
            parts.append(Markup('<polyline class="line {}" points="{}"/>').format(line.kind, path))
            parts += [
                Markup(
                    '<circle class="fill {}" cx="{:.1f}" cy="{:.1f}" r="2.6">'
                    "<title>{}: {:.0f}, {:.4g}</title></circle>"
                ).format(line.kind, x, y, line.name, *value)
                for (x, y), value in zip(places, line.points, strict=True)
            ]
        return parts


def ticks(most: float) -> list[float]:
    """Three to six round numbers from 0."""
    step = 10 ** math.floor(math.log10(most / 3))
    step *= next(factor for factor in (1, 2, 5, 10) if most / (step * factor) <= 5)
    return [round(number * step, 10) for number in range(int(most / step) + 1)]


def _open(width: float, height: float, label: str) -> Markup:
    return Markup('<svg class="plot" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">').format(
        width, height, label
    )


def _close(parts: Sequence[Markup]) -> Markup:
    return Markup("\n").join([*parts, Markup("</svg>")])


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> Markup:
    return Markup('<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>').format(
        kind, x1, y1, x2, y2
    )


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(
        kind, x, y, anchor, words
    )


def _box(x: float, y: float, width: float, height: float, kind: str, title: str = "") -> Markup:
    inner = Markup("<title>{}</title>").format(title) if title else Markup()
    return Markup(
        '<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{}" rx="2">{}</rect>'
    ).format(kind, x, y, width, height, inner)
