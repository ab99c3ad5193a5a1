"""Content items of a structured report: the leaves and branches that `sr` grows its tree from."""

from __future__ import annotations

import math
from collections.abc import Iterable

from pydicom.dataset import Dataset

from kits.medical.results.codes import Code

LONGEST_DECIMAL = 16  # characters of a decimal string (DS)
CONTAINS = "CONTAINS"
CONTEXT = "HAS OBS CONTEXT"
ACQUISITION = "HAS ACQ CONTEXT"
MODIFIER = "HAS CONCEPT MOD"
PROPERTIES = "HAS PROPERTIES"
INFERRED = "INFERRED FROM"


def _item(relation: str | None, kind: str, name: Code | None) -> Dataset:
    item = Dataset()
    if relation is not None:
        item.RelationshipType = relation
    item.ValueType = kind
    if name is not None:
        item.ConceptNameCodeSequence = [name.item()]
    return item


def with_children(item: Dataset, children: Iterable[Dataset]) -> Dataset:
    """The item with others below it."""
    below = list(children)
    if below:
        item.ContentSequence = below
    return item


def container(
    relation: str | None, name: Code, children: Iterable[Dataset], template: str = ""
) -> Dataset:
    """A heading with items below it; `template` is the number of one of the standard's."""
    item = _item(relation, "CONTAINER", name)
    item.ContinuityOfContent = "SEPARATE"
    if template:
        origin = Dataset()
        origin.MappingResource = "DCMR"
        origin.TemplateIdentifier = template
        item.ContentTemplateSequence = [origin]
    return with_children(item, children)


def text(relation: str, name: Code, value: str) -> Dataset:
    """A text; it must not be empty."""
    item = _item(relation, "TEXT", name)
    item.TextValue = value
    return item


def code(relation: str, name: Code, value: Code, children: Iterable[Dataset] = ()) -> Dataset:
    """A coded value."""
    item = _item(relation, "CODE", name)
    item.ConceptCodeSequence = [value.item()]
    return with_children(item, children)


def uid(relation: str, name: Code, value: str) -> Dataset:
    """A UID."""
    item = _item(relation, "UIDREF", name)
    item.UID = value
    return item


def image(
    relation: str, name: Code | None, referenced: Dataset, *, segment: int | None = None
) -> Dataset:
    """A pointer to an image, or to one segment of a Segmentation."""
    item = _item(relation, "IMAGE", name)
    pointer = Dataset()
    pointer.ReferencedSOPClassUID = referenced.SOPClassUID
    pointer.ReferencedSOPInstanceUID = referenced.SOPInstanceUID
    if segment is not None:
        pointer.ReferencedSegmentNumber = segment
    item.ReferencedSOPSequence = [pointer]
    return item


def number(name: Code, value: float, unit: Code, children: Iterable[Dataset] = ()) -> Dataset:
    """A measured value; what a decimal string cannot hold exactly is given in binary beside it.

    Raises:
        ValueError: the value is not finite; leave such a measurement out.
    """
    if not math.isfinite(value):
        raise ValueError(f"{name.meaning}={value} is not finite; leave the measurement out")
    item = _item(CONTAINS, "NUM", name)
    measured = Dataset()
    measured.NumericValue = decimal(value)
    if float(measured.NumericValue) != value:
        measured.FloatingPointValue = float(value)
    measured.MeasurementUnitsCodeSequence = [unit.item()]
    item.MeasuredValueSequence = [measured]
    return with_children(item, children)


def decimal(value: float) -> str:
    """A number as a decimal string: as many digits as it needs, and as fit."""
    shortest = repr(float(value)).removesuffix(".0")
    if len(shortest) <= LONGEST_DECIMAL:
        return shortest
    return next(
        written
        for digits in range(16, 5, -1)
        if len(written := f"{value:.{digits}g}") <= LONGEST_DECIMAL
    )
