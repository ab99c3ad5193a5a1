"""Readable images that are not one chest CT of one known patient."""

from __future__ import annotations

import numpy as np

from benchmarks.medical.healthy import ROOT, Series, get_stored, make_series, set_stored
from benchmarks.medical.injection.fault import add_series, each, fault, half, names, setting


@fault("decline", "wrong_modality")
def other_modality(series: Series) -> None:
    """It is an MR."""
    each(series, setting("Modality", "MR"))


@fault("decline", "wrong_body_part")
def other_body_part(series: Series) -> None:
    """The header says that it is a head."""
    each(series, setting("BodyPartExamined", "HEAD"))


@fault("decline", "no_lungs", "implausible_hu")
def head_unsaid(series: Series) -> None:
    """It is a head, and the header is silent."""
    form = series.form
    _, y, x = np.meshgrid(*(np.linspace(-1, 1, size) for size in form.shape), indexing="ij")
    radius = (x / 0.7) ** 2 + (y / 0.85) ** 2
    hu = np.where(radius < 1, 900.0, -1000.0)
    hu[radius < 0.8] = 35
    hu = np.clip(np.rint(hu + series.rng.normal(0, 8, form.shape)), -1024, 3000).astype(np.int16)
    other = make_series(form, hu)
    each(other, lambda one: delattr(one, "BodyPartExamined"))
    series.files, series.truth = other.files, other.truth


@fault("decline", "too_thick")
def too_thick(series: Series) -> None:
    """Slices are 8 mm thick."""
    each(series, setting("SliceThickness", 8.0))


@fault("decline", "too_few_slices")
def too_few(series: Series) -> None:
    """There are six slices."""
    for name in names(series)[6:]:
        del series.files[name]


@fault("decline", "not_axial")
def coronal(series: Series) -> None:
    """Slices are coronal."""
    series.truth.axes = np.array([[0.0, 1, 0], [0, 0, -1], [1, 0, 0]])
    for number, (_, one) in enumerate(series.slices):
        place = series.truth.to_patient(np.array([[number, 0, 0]]))[0]
        one.ImagePositionPatient = [round(float(value), 6) for value in place]
        one.ImageOrientationPatient = [*series.truth.axes[2], *series.truth.axes[1]]
        one.pop("SliceLocation", None)


@fault("decline", "derived")
def derived(series: Series) -> None:
    """It is a maximum intensity projection."""
    each(series, setting("ImageType", ["DERIVED", "SECONDARY", "MIP"]))


@fault("decline", "burned_in")
def burned_in(series: Series) -> None:
    """Text is burned in."""
    each(series, setting("BurnedInAnnotation", "YES"))


@fault("decline", "secondary_capture")
def secondary_capture(series: Series) -> None:
    """It is a secondary capture that calls itself CT."""
    for _, one in series.slices:
        one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.7"


@fault("decline", "enhanced_multiframe")
def enhanced(series: Series) -> None:
    """All slices are in one enhanced CT file."""
    name, one = series.slices[0]
    values = np.stack([get_stored(other) for _, other in series.slices])
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2.1"
    one.NumberOfFrames = len(values)
    set_stored(one, values)
    series.files = {name: one}


@fault("decline", "several_patients")
def two_patients(series: Series) -> None:
    """Half of the slices name another patient."""
    half(series, setting("PatientID", "OTHER"))


@fault("decline", "several_patients")
def other_patient_beside(series: Series) -> None:
    """A series of another patient lies in the folder."""
    add_series(series, 2, setting("PatientID", "OTHER"))


@fault("decline", "several_studies")
def two_studies(series: Series) -> None:
    """Two studies of the patient lie in the folder."""
    add_series(series, 2, setting("StudyInstanceUID", ROOT + "99"))
