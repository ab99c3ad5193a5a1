"""What a run costs: seconds of a batch by model, kind of device and rows, measured and kept fresh.

A kind's cost of a model is a curve over rows. Between measured sizes it is linear, beyond them it
goes on at the last slope. What devices really take moves the curve (slowly, all their devices
together) and the device's own factor (fast), so that a slowed device is told from a slow model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from math import exp, isfinite, log
from pathlib import Path
from typing import Any

# One observation counts as at most this many times more, or less, than expected: a hiccup of the
# machine is no news, ten in a row are.
CLIP = log(2.0)
# What is more than this is rather the device's than the model's.
CURVE_CLIP = log(1.2)
DEVICE_RATE = 0.2  # how fast a device's own factor follows
DEVICE_DECAY = 0.01  # how fast it gives way to the curve, which explains all devices of the kind
CURVE_RATE = 0.05  # how fast the whole curve follows
POINT_RATE = 0.05  # how fast the observed size follows beside the others


class Curve:
    """Seconds over rows of one model on one kind of device."""

    __slots__ = ("_drawn", "largest", "points", "scale", "seconds")

    def __init__(self, points: Mapping[int, float]) -> None:
        self.points = dict(points)
        self.scale = 0.0  # logarithm, over all points
        self.largest = max(self.points)  # tried
        self.seconds: list[float] = []  # by rows
        self.draw(self.largest)

    def draw(self, rows: int) -> None:
        """Fill `seconds` up to `rows`, in place: whoever holds the list sees it."""
        self._drawn = self.scale
        factor = exp(self.scale)
        known = sorted((size, factor * seconds) for size, seconds in self.points.items())
        size, seconds = known[0]
        # One size tells nothing of batching: no saving from fewer rows, no gain from more.
        slope = seconds / size
        drawn = [0.0] + [seconds] * size
        for larger, longer in known[1:]:
            slope = max(0.0, longer - seconds) / (larger - size)
            drawn += [seconds + slope * step for step in range(1, larger - size + 1)]
            # A larger batch that measured faster is noise.
            size, seconds = larger, drawn[-1]
        most = max(rows, len(self.seconds) - 1)
        drawn += [seconds + slope * step for step in range(1, most - size + 1)]
        self.seconds[:] = drawn

    def observe(self, rows: int, taken: float, clip: float) -> float:
        """Learn from a run; logarithms of what it took and of how much more that was.

        Of a surprise it believes no more than `clip` at once, but tells more.
        """
        if rows > self.largest:
            # Beyond what was tried the curve is a guess; one look is worth more.
            self.points[rows] = exp(taken - self.scale)
            self.largest = rows
            return 0.0
        known = self.points.get(rows)
        if known is None:
            known = self.seconds[rows] * exp(-self._drawn)
        surprise = taken - self.scale - log(known)
        surprise = CLIP if surprise > CLIP else -CLIP if surprise < -CLIP else surprise
        believed = clip if surprise > clip else -clip if surprise < -clip else surprise
        self.scale += CURVE_RATE * believed
        self.points[rows] = known * exp(POINT_RATE * believed)
        return surprise


class CostTable:
    """Costs of all pairs of model and kind; a pair it does not know has to be probed."""

    def __init__(self, origin: str = "") -> None:
        self.origin = origin  # where the numbers come from, for every report that shows them
        self._curves: dict[tuple[str, str], Curve] = {}
        self._factors: dict[str, float] = {}  # logarithms

    def measure(self, model: str, kind: str, seconds: Mapping[int, float]) -> None:
        """Take measured durations, rows -> seconds, in place of what was known.

        Raises:
            ValueError: a size is below 1, or a duration not positive.
        """
        for rows, duration in seconds.items():
            if rows < 1 or not (duration > 0 and isfinite(duration)):
                raise ValueError(
                    f"costs of {model} on {kind}: {rows} rows in {duration} s is no measurement; "
                    "give at least one row and a positive time"
                )
        if not seconds:
            raise ValueError(f"costs of {model} on {kind} are empty; give at least one size")
        self._curves[model, kind] = Curve(seconds)

    def curve(self, model: str, kind: str, rows: int = 1) -> list[float] | None:
        """Seconds by rows, 0 to at least `rows`, with all that was observed; None: unknown.

        It holds for a device that is as fast as its kind; others take `factor` times as long.
        Whoever keeps the list sees later observations after the next call.
        """
        curve = self._curves.get((model, kind))
        if curve is None:
            return None
        curve.draw(rows)
        return curve.seconds

    def seconds(self, model: str, kind: str, rows: int = 1) -> float | None:
        """Expected duration of a batch; None: unknown."""
        curve = self.curve(model, kind, rows)
        return None if curve is None else curve[rows]

    def largest(self, model: str, kind: str) -> int:
        """Most rows that were measured or seen together; 0: none."""
        curve = self._curves.get((model, kind))
        return 0 if curve is None else curve.largest

    def observe(self, model: str, kind: str, rows: int, seconds: float, device: str = "") -> float:
        """Learn from a run; the device's factor after it."""
        curve = self._curves.get((model, kind))
        factor = self._factors.get(device, 0.0)
        if seconds <= 0.0:  # a clock too coarse
            return exp(factor)
        taken = log(seconds) - factor
        if curve is None:
            self._curves[model, kind] = Curve({rows: exp(taken)})
            return exp(factor)
        if len(curve.seconds) <= rows:
            curve.draw(rows)
        surprise = curve.observe(rows, taken, CURVE_CLIP if device else CLIP)
        if device:
            factor += DEVICE_RATE * surprise - DEVICE_DECAY * factor
            self._factors[device] = factor
        return exp(factor)

    def factor(self, device: str) -> float:
        """How many times longer than its kind a device takes."""
        return exp(self._factors.get(device, 0.0))

    def doubt(self, device: str) -> float:
        """Halve a device's factor (in the logarithm): it may have recovered; the new one."""
        factor = self._factors.get(device, 0.0) / 2
        self._factors[device] = factor
        return exp(factor)

    def forget_device(self, device: str) -> None:
        """It is gone; one of the same name starts as fast as its kind."""
        self._factors.pop(device, None)

    def forget_model(self, model: str) -> None:
        """It is unloaded."""
        for pair in [pair for pair in self._curves if pair[0] == model]:
            del self._curves[pair]

    def pairs(self) -> list[tuple[str, str]]:
        """(model, kind) of all that is known."""
        return sorted(self._curves)

    def to_json(self) -> dict[str, Any]:
        """As `from_json` reads it."""
        costs = [
            {
                "model": model,
                "kind": kind,
                "seconds": {
                    str(rows): float(f"{curve.points[rows] * exp(curve.scale):.6g}")
                    for rows in sorted(curve.points)
                },
            }
            for (model, kind), curve in sorted(self._curves.items())
        ]
        return {"origin": self.origin, "costs": costs}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> CostTable:
        """A table as `to_json` wrote it."""
        table = cls(str(data["origin"]))
        for row in data["costs"]:
            points = {int(rows): float(seconds) for rows, seconds in row["seconds"].items()}
            table.measure(row["model"], row["kind"], points)
        return table

    def save(self, path: Path) -> None:
        """Write it whole or not at all."""
        draft = path.with_name(f".{path.name}.{os.getpid()}")
        draft.write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        draft.replace(path)

    @classmethod
    def load(cls, path: Path) -> CostTable:
        """A table that `save` wrote."""
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))
