"""What faults do to the slices of a series."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from benchmarks.medical.healthy import Form, Series, chest, get_stored, make_series, set_stored
from benchmarks.medical.injection.fault import each, setting


def grow(series: Series, depth: int) -> None:
    """Start again from a longer series of the same form."""
    form = series.form
    longer = Form(**{**form.__dict__, "shape": (depth, *form.shape[1:])})
    other = make_series(longer, chest(longer))
    series.form, series.files, series.truth = longer, other.files, other.truth


def move(series: Series, number: int, steps: float) -> None:
    """Move one slice along the normal by so many slice distances."""
    one = series.slices[number][1]
    by = steps * series.form.spacing_mm[0] * series.truth.axes[0]
    place = np.array(one.ImagePositionPatient, float) + by
    one.ImagePositionPatient = [round(float(value), 6) for value in place]


def tilt(series: Series, degrees: float) -> None:
    """Tilt the slices against the table, which moves on along z."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    row, column = series.truth.axes[2], series.truth.axes[1] @ turn.T
    both = [round(float(value), 7) for value in (*row, *column)]
    each(series, setting("ImageOrientationPatient", both))
    series.truth.axes = np.stack([series.truth.axes[0], column, row])


def scout_of(series: Series) -> Dataset:
    scout = deepcopy(series.slices[0][1])
    scout.SOPInstanceUID = scout.file_meta.MediaStorageSOPInstanceUID = scout.SOPInstanceUID + ".7"
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [1, 0, 0, 0, 0, -1]
    scout.pop("SliceLocation", None)
    return scout


def pad(series: Series, value: int | None, declared: int | None, *, signed: bool = True) -> None:
    """Fill what lies outside of the circle; None: with water, and declare that."""
    height, width = series.form.shape[1:]
    y, x = np.meshgrid(np.linspace(-1, 1, height), np.linspace(-1, 1, width), indexing="ij")
    outside = x**2 + y**2 > 1.02
    for _, one in series.slices:
        hu = get_stored(one) + int(one.RescaleIntercept)
        one.PixelRepresentation, one.RescaleIntercept = int(signed), 0 if signed else -1024
        one.BitsStored, one.HighBit = 16, 15
        stored = hu - int(one.RescaleIntercept)
        stored[outside] = 0 if value is None else value
        set_stored(one, stored)
        if value is None:
            one.add_new("PixelPaddingValue", "SS", 0)
        elif declared is not None:
            one.add_new("PixelPaddingValue", "US", declared)
    series.truth.hu = series.truth.hu.copy()
    series.truth.hu[:, outside] = -1024


def metal(series: Series, *, signed: bool) -> None:
    """A dense blurred rod through all slices, stored in 12 bits without saturation."""
    height, width = series.form.shape[1:]
    y, x = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    rod = np.exp(-((y - height * 0.75) ** 2 + (x - width * 0.5) ** 2) / 18.0)
    truth = series.truth.hu + np.rint(rod * (4000 if signed else 6500)).astype(np.int32)
    series.truth.hu = truth.astype(np.int16)
    for (_, one), hu in zip(series.slices, truth, strict=True):
        one.RescaleIntercept = 0 if signed else -1024
        one.PixelRepresentation, one.BitsStored, one.HighBit = int(signed), 12, 11
        stored = hu - int(one.RescaleIntercept)
        stored = (stored + 2048) % 4096 - 2048 if signed else stored % 4096
        set_stored(one, stored)


def raw(one: Dataset, keyword: str, value: bytes) -> None:
    """Set a value that pydicom would not write."""
    tag = Tag(tag_for_keyword(keyword))
    implicit = one.file_meta.TransferSyntaxUID.is_implicit_VR
    one._dict[tag] = RawDataElement(
        tag, dictionary_VR(tag), len(value), value, 0, implicit, is_little_endian=True
    )
