"""The triage: which cells of a full-resolution frame do not look like those of a good part.

Three channels in one pass over the frame: what leaves an envelope learned from good parts, ridges
(scratches) without any template, and cells whose mean is off (stains). `match` finds where the part
lies. `reference.py` is the definition; the native code gives the same bits.
"""

from kernels.triage.native import match, scan
from kernels.triage.reference import (
    CELL,
    DIRECTIONS,
    GAIN_ONE,
    MAX_SHIFT,
    Counts,
    block_means,
    cell_grid,
    ridges,
    to_planes,
)

__all__ = [
    "CELL",
    "DIRECTIONS",
    "GAIN_ONE",
    "MAX_SHIFT",
    "Counts",
    "block_means",
    "cell_grid",
    "match",
    "ridges",
    "scan",
    "to_planes",
]
