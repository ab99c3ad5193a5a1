"""The fold: causal features, sequences and neighbourhoods of time-ordered events.

State = fold(events, labels). An event's row is written before the event changes the state; a label
changes it only from the time at which it is visible. `reference.py` is the definition, the native
code gives the same bits; `FEATURES` says what each feature means.
"""

from kernels.fold.features import FEATURES
from kernels.fold.native import Fold
from kernels.fold.rows import HISTORY, NEIGHBOURS, Labels, Rows

__all__ = ["FEATURES", "HISTORY", "NEIGHBOURS", "Fold", "Labels", "Rows"]
