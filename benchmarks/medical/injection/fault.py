"""Faults put into healthy CT series: what scanners, archives, tools and attackers do to them.

Each fault says what a reader must do. `must="read"`: the scan is still known exactly, and reading
it as something else is an error (refusing is not wrong, but of no use). `must="refuse"`: the
position or the density of something is unknown, so any volume is a guess. `must="decline"`: the
voxels can be placed, but the series is not one chest CT of one known patient.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset

from benchmarks.medical.healthy import Form, Series, make_series

Change = Callable[[Series], None]
Must = Literal["read", "refuse", "decline"]


@dataclass(frozen=True)
class Fault:
    """One way in which a series is not as it should be."""

    name: str
    must: Must
    codes: tuple[str, ...]  # any of them is the right reason to refuse
    change: Change

    @property
    def text(self) -> str:
        """One sentence."""
        return (self.change.__doc__ or "").strip()


FAULTS: dict[str, Fault] = {}


def fault(must: Must, *codes: str) -> Callable[[Change], Change]:
    """Register a function as a fault of its own name."""

    def register(change: Change) -> Change:
        FAULTS[change.__name__] = Fault(change.__name__, must, codes, change)
        return change

    return register


def inject(name: str, form: Form) -> Series:
    """A healthy series of this form with one fault."""
    series = make_series(form)
    FAULTS[name].change(series)
    return series


def names(series: Series) -> list[str]:
    """Of the slices' files, from the first position on."""
    return [name for name, _ in series.slices]


def inner(series: Series) -> int:
    """A slice that is none of the two outer ones."""
    return int(series.rng.integers(2, len(series.slices) - 2))


def each(series: Series, change: Callable[[Dataset], object]) -> None:
    """Change all slices."""
    for _, one in series.slices:
        change(one)


def half(series: Series, change: Callable[[Dataset], None]) -> None:
    """Change the upper half of the slices."""
    chosen = series.slices
    for _, one in chosen[len(chosen) // 2 :]:
        change(one)


def setting(keyword: str, value: object) -> Callable[[Dataset], None]:
    """A change: give an element a value."""
    return lambda one: setattr(one, keyword, value)


def add_series(series: Series, number: int, change: Callable[[Dataset], None]) -> None:
    """Another series of the same study beside it."""
    other = make_series(series.form, series.truth.hu, number)
    each(other, change)
    series.files.update(other.files)
