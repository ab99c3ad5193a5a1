"""Faults that leave everything known: reading must get it right."""

from __future__ import annotations

from copy import deepcopy

import numpy as np
from pydicom.uid import ExplicitVRBigEndian

from benchmarks.medical.healthy import Series, get_stored, make_series, set_stored
from benchmarks.medical.injection.changes import pad, scout_of
from benchmarks.medical.injection.encoding import compress, dicomdir
from benchmarks.medical.injection.fault import add_series, each, fault, setting


@fault("read")
def healthy(series: Series) -> None:
    """Nothing is wrong."""


@fault("read")
def shuffled_instance_numbers(series: Series) -> None:
    """Instance numbers are in no order."""
    for (_, one), number in zip(
        series.slices, series.rng.permutation(len(series.slices)), strict=True
    ):
        one.InstanceNumber = int(number) + 1


@fault("read")
def equal_instance_numbers(series: Series) -> None:
    """All instance numbers are 1."""
    each(series, setting("InstanceNumber", 1))


@fault("read")
def no_instance_numbers(series: Series) -> None:
    """There are no instance numbers."""
    each(series, lambda one: delattr(one, "InstanceNumber"))


@fault("read")
def zero_slice_locations(series: Series) -> None:
    """SliceLocation is 0 everywhere."""
    each(series, setting("SliceLocation", 0))


@fault("read")
def nested_random_names(series: Series) -> None:
    """Files have random names in several folders."""
    chosen = series.slices
    series.files = {
        f"{series.rng.integers(3)}/{series.rng.bytes(6).hex()}": one for _, one in chosen
    }


@fault("read")
def other_files_between(series: Series) -> None:
    """Texts, pictures and programs lie between the slices."""
    series.files |= {
        "README": b"read me", "viewer/run.exe": b"MZ" + bytes(300), "a.jpg": b"\xff\xd8\xff" * 99,
        "empty": b"",
    }  # fmt: skip


@fault("read")
def with_dicomdir(series: Series) -> None:
    """A DICOMDIR lists the files."""
    series.files["DICOMDIR"] = dicomdir([one for _, one in series.slices])


@fault("read")
def scout_series_beside(series: Series) -> None:
    """A scout view lies in the folder as a series of its own."""
    scout = scout_of(series)
    scout.SeriesInstanceUID = series.slices[0][1].SeriesInstanceUID + ".9"
    series.files["scout"] = scout


@fault("read")
def thick_series_beside(series: Series) -> None:
    """A reconstruction with every second position, twice as thick, lies beside it as a series."""
    other = make_series(series.form, series.truth.hu, 2)
    for name, one in other.slices[1::2]:
        del other.files[name], one
    each(other, setting("SliceThickness", series.form.thickness_mm * 2 + 1))
    each(other, setting("ConvolutionKernel", "STANDARD"))
    series.files.update(other.files)


@fault("read")
def derived_series_beside(series: Series) -> None:
    """A maximum intensity projection lies beside it as a series."""
    add_series(series, 2, setting("ImageType", ["DERIVED", "SECONDARY", "MIP"]))


@fault("read")
def exact_copies(series: Series) -> None:
    """Some files are there twice."""
    for name, one in series.slices[::3]:
        series.files[f"again/{name}"] = deepcopy(one)


@fault("read")
def rescaled_per_slice(series: Series) -> None:
    """Each slice has its own intercept, and stored values to match."""
    for _, one in series.slices:
        shift = int(series.rng.integers(0, 20))
        stored = get_stored(one)
        one.RescaleIntercept = int(one.RescaleIntercept) - shift
        set_stored(one, stored + shift)


@fault("read")
def half_slope(series: Series) -> None:
    """Stored values are doubled, the slope is one half."""
    for _, one in series.slices:
        set_stored(one, 2 * (get_stored(one) + int(one.RescaleIntercept) + 1024))
        one.RescaleSlope, one.RescaleIntercept = 0.5, -1024
        one.BitsStored, one.HighBit = 16, 15


@fault("read")
def padded_wrong_sign(series: Series) -> None:
    """Outside of the circle is padding -2000, declared as the unsigned 63536."""
    pad(series, -2000, 63536)


@fault("read")
def padded_undeclared(series: Series) -> None:
    """Outside of the circle is -2000, and no header says so."""
    pad(series, -2000, None)


@fault("read")
def padded_unsigned(series: Series) -> None:
    """Unsigned values with padding 63536, declared."""
    pad(series, 63536, 63536, signed=False)


@fault("read")
def big_endian(series: Series) -> None:
    """Explicit VR Big Endian, as old archives send it."""
    for name, one in series.slices:
        one.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
        swapped = get_stored(one).astype(">i2" if one.PixelRepresentation else ">u2")
        one["PixelData"].value = swapped.tobytes()
        series.files[name] = one


@fault("read")
def jpeg_lossless(series: Series) -> None:
    """JPEG Lossless."""
    compress(series, "jpeg_lossless")


@fault("read")
def jpeg_ls(series: Series) -> None:
    """JPEG-LS."""
    compress(series, "jpeg_ls")


@fault("read")
def jpeg_2000(series: Series) -> None:
    """JPEG 2000 without loss."""
    compress(series, "jpeg_2000")


@fault("read")
def rle(series: Series) -> None:
    """RLE."""
    compress(series, "rle")


@fault("read")
def non_square_pixels(series: Series) -> None:
    """Rows are farther apart than columns."""
    spacing = series.truth.spacing_mm
    series.truth.spacing_mm = np.array([spacing[0], round(spacing[1] * 1.3, 4), spacing[2]])
    each(series, setting("PixelSpacing", list(series.truth.spacing_mm[1:])))
    each(series, lambda one: one.pop("SliceLocation", None))


@fault("read")
def oblique(series: Series) -> None:
    """The whole stack is turned in space; slices stay straight above each other."""
    angles = series.rng.uniform(-0.25, 0.25, 3)
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        one = np.eye(3)
        first, second = (axis + 1) % 3, (axis + 2) % 3
        one[first, first] = one[second, second] = np.cos(angle)
        one[first, second], one[second, first] = -np.sin(angle), np.sin(angle)
        turn = turn @ one
    series.truth.axes = series.truth.axes @ turn.T
    for number, (_, one) in enumerate(series.slices):
        place = series.truth.to_patient(np.array([[number, 0, 0]]))[0]
        one.ImagePositionPatient = [round(float(value), 6) for value in place]
        both = [*series.truth.axes[2], *series.truth.axes[1]]
        one.ImageOrientationPatient = [round(float(value), 8) for value in both]
        one.pop("SliceLocation", None)


@fault("read")
def prone(series: Series) -> None:
    """The patient lay prone, feet first."""
    series.truth.axes = series.truth.axes * np.array([[1.0], [-1.0], [-1.0]])
    turned = [*series.truth.axes[2], *series.truth.axes[1]]
    each(series, setting("ImageOrientationPatient", turned))


@fault("read")
def rounded_positions(series: Series) -> None:
    """Positions are rounded to hundredths."""
    for _, one in series.slices:
        one.ImagePositionPatient = [round(float(v), 2) for v in one.ImagePositionPatient]


@fault("read")
def contrast_agent(series: Series) -> None:
    """A contrast agent was given."""
    each(series, setting("ContrastBolusAgent", "Iohexol"))
