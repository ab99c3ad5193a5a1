"""One picture for each nodule as a Secondary Capture, for viewers that show nothing else.

All text in it is ours and names neither patient nor date.

Dimensions: D slices, H rows, W columns of the scan.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset

from kits.medical.results import codes
from kits.medical.results.headers import (
    UNVERIFIED,
    copy_compression,
    new_object,
    numbered,
)
from kits.medical.results.picture import describe, render
from kits.medical.results.seg import reference
from kits.medical.results.study import Study


def key_images(
    study: Study,
    datasets: Sequence[Dataset],
    voxels: np.ndarray,
    *,
    clock: datetime | None = None,
) -> list[Dataset]:
    """A Secondary Capture for each nodule; one of the middle slice where there is none.

    Args:
        study: what is reported.
        datasets: headers of the scan, in the order of the volume.
        voxels: (D, H, W) int16, Hounsfield units.
        clock: when they were made; None: when the scan was.
    Raises:
        ValueError: headers or voxels are not those of the study's grid.
    """
    if voxels.shape != study.grid.shape:
        raise ValueError(f"voxels have shape={voxels.shape}, the study's grid {study.grid.shape}")
    first = new_object(study, datasets, "image", clock=clock)
    images = []
    for number, nodule in enumerate(study.nodules or (None,), 1):
        made = numbered(first, study, "image", number)
        index = nodule.measures.slice_index if nodule else study.grid.shape[0] // 2
        _describe(made, datasets[index], render(study, nodule, voxels[index], index))
        made.ImageComments = "; ".join([UNVERIFIED, *describe(study, nodule, index)])[:10_000]
        images.append(made)
    return images


def _describe(made: Dataset, source: Dataset, picture: np.ndarray) -> None:
    made.ConversionType = "WSD"
    made.SecondaryCaptureDeviceManufacturer = made.Manufacturer
    made.SecondaryCaptureDeviceManufacturerModelName = made.ManufacturerModelName
    made.DateOfSecondaryCapture = made.ContentDate
    made.TimeOfSecondaryCapture = made.ContentTime
    made.BodyPartExamined = "CHEST"
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.PatientOrientation = ""
    # Our own text names nobody; what a scanner burned into the slice still shows.
    made.BurnedInAnnotation = "YES" if source.get("BurnedInAnnotation") == "YES" else "NO"
    copy_compression(source, made)
    made.DerivationDescription = "Lung window, outline of the nodule, text; " + UNVERIFIED
    image = reference(source)
    image.PurposeOfReferenceCodeSequence = [codes.SOURCE_IMAGE.item()]
    made.SourceImageSequence = [image]
    made.SamplesPerPixel = 3
    made.PhotometricInterpretation = "RGB"
    made.PlanarConfiguration = 0
    made.Rows, made.Columns = picture.shape[:2]
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit = 7
    made.PixelRepresentation = 0
    made.PixelData = picture.tobytes()
    made["PixelData"].VR = "OB"
