"""The fold: causal features, sequences and neighbourhoods of time-ordered events.

State = fold(events, labels). An event's row is written before the event changes the state; a label
changes it only from the time at which it is visible. `reference.py` is the definition, the native
code gives the same bits.
"""

from kernels.fold.native import Fold, Labels, Rows

__all__ = ["Fold", "Labels", "Rows"]
