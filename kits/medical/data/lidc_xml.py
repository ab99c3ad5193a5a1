"""The readers' files of LIDC-IDRI: one XML file for each CT series, beside its slices.

Four sessions, each one reader's second look. A nodule of 3 mm or more has ratings and outlines;
smaller ones are single points without ratings, and non-nodules are listed as such: neither is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from kits.medical.data.lidc_marks import MAX_SESSIONS, Mark, Outline

ROOT = "LidcReadMessage"  # of CT; those of radiographs are called otherwise
SERIES_TAGS = ("SeriesInstanceUid", "CTSeriesInstanceUid")


def series_of(path: Path) -> str | None:
    """UID of the CT series that a file is about; None: the file is of another kind.

    Raises:
        ValueError: it is no XML, or a readers' file without a series.
    """
    try:
        is_first = True
        for _, element in ElementTree.iterparse(path, events=("start", "end")):
            name = _plain(element.tag)
            if is_first and name != ROOT:
                return None
            is_first = False
            if name in SERIES_TAGS and (element.text or "").strip():
                return (element.text or "").strip()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no XML file, {error}; copy it again") from error
    raise ValueError(f"{path} names no {SERIES_TAGS[0]}; the slices it is about are not known")


def read_marks(path: Path) -> list[Mark]:
    """All nodules of 3 mm or more, reader by reader.

    Raises:
        ValueError: the file breaks a rule, which the error names.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except ElementTree.ParseError as error:
        raise ValueError(f"{path} is no XML file, {error}; copy it again") from error
    sessions = _children(root, "readingSession")
    if len(sessions) > MAX_SESSIONS:
        raise ValueError(f"{path} has {len(sessions)} reading sessions, more than {MAX_SESSIONS}")
    return [
        mark for reader, session in enumerate(sessions) for mark in _marks(path, reader, session)
    ]


def _marks(path: Path, reader: int, session: Element) -> Iterator[Mark]:
    for nodule in _children(session, "unblindedReadNodule"):
        name = _text(path, nodule, "noduleID")
        rated = _children(nodule, "characteristics")
        ratings = {
            _plain(entry.tag): _number(path, name, entry)
            for group in rated
            for entry in group
            if (entry.text or "").strip()
        }
        # Below 3 mm: a point, and nothing said of it (some files have an empty list).
        if ratings:
            outlines = tuple(_outline(path, name, roi) for roi in _children(nodule, "roi"))
            if not outlines:
                raise ValueError(f"{path}: nodule {name!r} has ratings and no roi; copy it again")
            yield Mark(reader, name, outlines, ratings)


def _outline(path: Path, name: str, roi: Element) -> Outline:
    points = [
        [int(_text(path, edge, axis)) for axis in ("yCoord", "xCoord")]
        for edge in _children(roi, "edgeMap")
    ]
    if not points:
        raise ValueError(f"{path}: nodule {name!r} has a roi without edgeMap; copy it again")
    inclusion = _text(path, roi, "inclusion").upper()
    if inclusion not in ("TRUE", "FALSE"):
        raise ValueError(f"{path}: nodule {name!r} has inclusion={inclusion!r}, not TRUE or FALSE")
    return Outline(
        float(_text(path, roi, "imageZposition")),
        _text(path, roi, "imageSOP_UID"),
        inclusion == "TRUE",
        np.array(points),
    )


def _plain(tag: str) -> str:
    """A name without its namespace; files of several years have different ones."""
    return tag.rpartition("}")[2]


def _children(element: Element, name: str) -> list[Element]:
    return [child for child in element if _plain(child.tag) == name]


def _text(path: Path, element: Element, name: str) -> str:
    found = _children(element, name)
    if not found or not (found[0].text or "").strip():
        raise ValueError(f"{path}: a {_plain(element.tag)} has no {name}; copy it again")
    return (found[0].text or "").strip()


def _number(path: Path, name: str, entry: Element) -> float:
    try:
        return float(entry.text or "")
    except ValueError as error:
        raise ValueError(
            f"{path}: nodule {name!r} has {_plain(entry.tag)}={entry.text!r}, not a number"
        ) from error
