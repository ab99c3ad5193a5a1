"""What is wrong with images and their labels: all of it, by file and box, before work starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

# Boxes of tools that round may reach this far beyond the image; they are cut at its edge.
ROUNDING_PX = 1.0

Box = tuple[float, float, float, float]  # x1 y1 x2 y2, right and bottom edge exclusive


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong."""

    file: str
    what: str  # what was seen, and the rule
    image: str | None  # what leave_out has to name to go on without it; None: nothing would help


@dataclass
class Problems:
    """Collects what is wrong with a source, then refuses it."""

    path: str
    leave_out: Sequence[str]
    found: list[Problem] = field(default_factory=list)

    def add(self, file: str, what: str, image: str | None = None) -> None:
        """Note a problem, unless its image is left out anyway."""
        if image is None or image not in self.leave_out:
            self.found.append(Problem(file, what, image))

    def refuse(self) -> None:
        """Refuse the source if anything is wrong.

        Raises:
            ValueError: names every problem, and the images to leave out.
        """
        if not self.found:
            return
        lines = [f"  {problem.file}: {problem.what}" for problem in self.found]
        images = sorted({problem.image for problem in self.found if problem.image is not None})
        advice = "mend them"
        if images:
            names = ",".join([*self.leave_out, *images])
            advice += f", or go on without these images: 'data.leave_out=[{names}]'"
        raise ValueError(
            "\n".join([f"data.path={self.path!r} has problems={len(lines)}; {advice}", *lines])
        )


def box_problem(box: Box, width: int, height: int) -> str | None:
    """What is wrong with a box in an image of this size; None if nothing is."""
    text = "box=[" + ", ".join(f"{value:g}" for value in box) + "]"
    x1, y1, x2, y2 = box
    if not all(math.isfinite(value) for value in box):
        return f"{text} is not four finite numbers"
    if x2 <= x1 or y2 <= y1:
        return f"{text} has no area: x1 < x2 and y1 < y2"
    outside = max(-x1, -y1, x2 - width, y2 - height)
    if outside > ROUNDING_PX:
        return f"{text} reaches {outside:g} px beyond the image of {width}x{height}"
    if min(x2, width) <= max(x1, 0) or min(y2, height) <= max(y1, 0):
        return f"{text} is outside of the image of {width}x{height}"
    return None


def inside(box: Box, width: int, height: int) -> Box:
    """The box cut at the image's edge."""
    x1, y1, x2, y2 = box
    return max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))
