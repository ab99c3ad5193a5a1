"""Places, distances and shapes that are not known."""

from __future__ import annotations

from copy import deepcopy

import numpy as np

from benchmarks.medical.healthy import ROOT, Series, get_stored, make_series, set_stored
from benchmarks.medical.injection.changes import grow, move, raw, scout_of, tilt
from benchmarks.medical.injection.encoding import dicomdir
from benchmarks.medical.injection.fault import each, fault, half, inner, names, setting


@fault("refuse", "missing_slices")
def one_slice_missing(series: Series) -> None:
    """One slice is not there."""
    del series.files[names(series)[inner(series)]]


@fault("refuse", "missing_slices")
def slices_missing(series: Series) -> None:
    """A sixth of the slices, neighbours, is not there."""
    number = max(2, len(series.slices) // 6)
    start = int(series.rng.integers(2, len(series.slices) - 1 - number))
    for name in names(series)[start : start + number]:
        del series.files[name]


@fault("refuse", "gaps", "too_few_slices", "missing_slices", "spacing_conflict")
def every_third_slice(series: Series) -> None:
    """Two of three slices are not there; what is left is regular."""
    grow(series, 40)
    for number, name in enumerate(names(series)):
        if number % 3:
            del series.files[name]


@fault("refuse", "missing_slices", "gaps")
def every_second_declared(series: Series) -> None:
    """Every second slice is missing, overlap hides the gap, SpacingBetweenSlices tells."""
    grow(series, 30)
    step = series.form.spacing_mm[0]
    for number, (name, one) in enumerate(series.slices):
        one.SpacingBetweenSlices, one.SliceThickness = step, min(5.0, 2.5 * step)
        if number % 2:
            del series.files[name]


@fault("refuse", "missing_file")
def end_missing_from_dicomdir(series: Series) -> None:
    """The last slices are not there; the DICOMDIR knows of them."""
    grow(series, 20)
    series.files["DICOMDIR"] = dicomdir([one for _, one in series.slices])
    for name in names(series)[-3:]:
        del series.files[name]


@fault("refuse", "duplicate_slices")
def second_slice_at_a_position(series: Series) -> None:
    """At one position there are two different slices."""
    one = deepcopy(series.slices[inner(series)][1])
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = one.SOPInstanceUID + ".9"
    set_stored(one, np.roll(get_stored(one), 3, 0))
    series.files["second"] = one


@fault("refuse", "duplicate_slices")
def two_reconstructions(series: Series) -> None:
    """A second reconstruction with the same headers shares the series UID."""
    other = make_series(series.form, np.roll(series.truth.hu, 1, 1), 2)
    each(other, setting("SeriesInstanceUID", series.slices[0][1].SeriesInstanceUID))
    series.files.update(other.files)


@fault("refuse", "conflicting_copies")
def one_uid_two_contents(series: Series) -> None:
    """Two files have one SOP UID and different pixels."""
    name, one = series.slices[inner(series)]
    other = deepcopy(one)
    set_stored(other, np.roll(get_stored(one), 2, 1))
    series.files[f"again/{name}"] = other


@fault("refuse", "duplicate_slices")
def equal_positions(series: Series) -> None:
    """All slices say the same position."""
    each(series, setting("ImagePositionPatient", list(series.slices[0][1].ImagePositionPatient)))


@fault("refuse", "uneven_spacing")
def one_slice_off(series: Series) -> None:
    """One slice lies a third of the distance too high."""
    move(series, inner(series), 0.33)


@fault("refuse", "uneven_spacing")
def spacing_changes(series: Series) -> None:
    """The upper half of the slices lies closer together."""
    middle = len(series.slices) // 2
    for number in range(middle, len(series.slices)):
        move(series, number, -0.3 * (number - middle))


@fault("refuse", "uneven_spacing")
def spacing_creeps(series: Series) -> None:
    """Each distance is one percent larger than the one before."""
    grow(series, 24)
    for number in range(len(series.slices)):
        move(series, number, 0.005 * number * (number - 1))


@fault("refuse", "spacing_conflict", "uneven_spacing")
def positions_by_thickness(series: Series) -> None:
    """A tool wrote positions as number times thickness, SliceLocation kept the truth."""
    for number, (_, one) in enumerate(series.slices):
        place = series.truth.to_patient(np.array([[number, 0, 0]]))[0]
        one.SliceLocation = round(float(place @ series.truth.axes[0]), 4)
        one.SliceThickness = min(5.0, series.form.spacing_mm[0] * 2)
    for number in range(len(series.slices)):
        move(series, number, number * (min(5.0, 2 * series.form.spacing_mm[0])
                                        / series.form.spacing_mm[0] - 1))  # fmt: skip


@fault("refuse", "gantry_tilt")
def gantry_tilt(series: Series) -> None:
    """The gantry was tilted by 15 degrees."""
    tilt(series, 15.0)
    each(series, setting("GantryDetectorTilt", 15.0))


@fault("refuse", "gantry_tilt")
def gantry_tilt_unsaid(series: Series) -> None:
    """The gantry was tilted by 3 degrees, only the positions tell."""
    tilt(series, 3.0)


@fault("refuse", "gantry_tilt")
def gantry_tilt_only_said(series: Series) -> None:
    """The header speaks of a tilt, the positions do not."""
    each(series, setting("GantryDetectorTilt", -12.0))


@fault("refuse", "shifted_slices")
def slices_shifted(series: Series) -> None:
    """The upper half is shifted by 5 mm in its plane."""

    def shift(one):
        x, y, z = one.ImagePositionPatient
        one.ImagePositionPatient = [x + 5, y, z]

    half(series, shift)


@fault("refuse", "mixed_kernel")
def mixed_kernels(series: Series) -> None:
    """Half of the slices have another kernel."""
    half(series, setting("ConvolutionKernel", "SOFT"))


@fault("refuse", "mixed_field", "mixed_spacing", "shifted_slices")
def mixed_fields(series: Series) -> None:
    """Half of the slices show a smaller field, magnified."""
    row, column = series.form.spacing_mm[1:]
    half(series, setting("PixelSpacing", [row * 0.8, column * 0.8]))


@fault("refuse", "mixed_spacing")
def one_other_pixel_spacing(series: Series) -> None:
    """One slice has another pixel spacing."""
    row, column = series.form.spacing_mm[1:]
    series.slices[inner(series)][1].PixelSpacing = [row * 1.02, column * 1.02]


@fault("refuse", "mixed_matrix")
def mixed_matrices(series: Series) -> None:
    """One slice has fewer rows."""
    one = series.slices[inner(series)][1]
    stored = get_stored(one)[:-4]
    one.Rows = len(stored)
    set_stored(one, stored)


@fault("refuse", "mixed_orientation")
def one_slice_turned(series: Series) -> None:
    """One slice is turned by 5 degrees."""
    one = series.slices[inner(series)][1]
    row, column = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
    c, s = np.cos(np.radians(5)), np.sin(np.radians(5))
    turned = [*(c * row + s * column), *(c * column - s * row)]
    one.ImageOrientationPatient = [round(float(value), 7) for value in turned]


@fault("refuse", "mixed_thickness")
def mixed_thicknesses(series: Series) -> None:
    """Half of the slices are thicker."""
    half(series, setting("SliceThickness", 4.0))


@fault("refuse", "mixed_acquisition")
def mixed_voltages(series: Series) -> None:
    """Half of the slices were made with 80 kV."""
    half(series, setting("KVP", 80))


@fault("refuse", "mixed_frames")
def mixed_frames(series: Series) -> None:
    """Half of the slices have another frame of reference: the patient got up between."""
    half(series, setting("FrameOfReferenceUID", ROOT + "77"))


@fault("refuse", "missing_frame_of_reference")
def no_frame_of_reference(series: Series) -> None:
    """There is no frame of reference."""
    each(series, lambda one: delattr(one, "FrameOfReferenceUID"))


@fault("refuse", "localiser_inside")
def scout_inside(series: Series) -> None:
    """A scout view is part of the series."""
    series.files["scout"] = scout_of(series)


@fault("refuse", "mixed_orientation")
def scout_inside_unsaid(series: Series) -> None:
    """A scout view of the slices' size is part of the series and does not say that it is one."""
    scout = scout_of(series)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    series.files["scout"] = scout


@fault("refuse", "missing_tag")
def one_position_missing(series: Series) -> None:
    """One slice has no position."""
    del series.slices[inner(series)][1].ImagePositionPatient


@fault("refuse", "missing_tag")
def orientation_missing(series: Series) -> None:
    """No slice has an orientation."""
    each(series, lambda one: delattr(one, "ImageOrientationPatient"))


@fault("refuse", "missing_tag")
def pixel_spacing_missing(series: Series) -> None:
    """No slice has a pixel spacing."""
    each(series, lambda one: delattr(one, "PixelSpacing"))


@fault("refuse", "bad_tag", "unreadable_file")
def position_not_a_number(series: Series) -> None:
    """One position holds a NaN."""
    one = series.slices[inner(series)][1]
    raw(one, "ImagePositionPatient", b"NaN\\0.0\\1.0 ")


@fault("refuse", "not_orthogonal")
def axes_not_orthogonal(series: Series) -> None:
    """Rows and columns are not at right angles."""
    row = np.array(series.slices[0][1].ImageOrientationPatient[:3], float)
    column = np.array(series.slices[0][1].ImageOrientationPatient[3:], float)
    skewed = column + 0.1 * row
    skewed /= np.linalg.norm(skewed)
    value = [round(float(v), 6) for v in (*row, *skewed)]
    each(series, setting("ImageOrientationPatient", value))


@fault("refuse", "implausible_spacing", "spacing_conflict")
def spacing_in_centimetres(series: Series) -> None:
    """Pixel spacing is in centimetres."""
    row, column = series.form.spacing_mm[1:]
    each(series, setting("PixelSpacing", [round(row / 10, 6), round(column / 10, 6)]))


@fault("refuse", "spacing_conflict", "implausible_spacing")
def spacing_beyond_field(series: Series) -> None:
    """Pixels span half as much again as the reconstruction's diameter."""
    _, row, column = series.form.spacing_mm
    field = round(max(series.form.shape[1] * row, series.form.shape[2] * column), 4)
    each(series, setting("ReconstructionDiameter", field))
    each(series, setting("PixelSpacing", [round(row * 1.5, 6), round(column * 1.5, 6)]))


@fault("refuse", "repeated_pixels")
def slice_copied(series: Series) -> None:
    """One slice has the pixels of its neighbour."""
    at = inner(series)
    set_stored(series.slices[at][1], get_stored(series.slices[at - 1][1]))
