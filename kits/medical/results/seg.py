"""The masks as a DICOM Segmentation: a segment for each nodule, on the scan's own slices.

Written with pydicom alone: a library that takes whole volumes would be handed 300 slices for the
ten that a nodule has. Other readers (highdicom, dcmqi) hold it to the standard in the tests.

Dimensions: D slices, H rows, W columns of the scan.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import numpy as np
from pydicom.dataset import Dataset

from kits.medical.results import codes
from kits.medical.results.content import decimal
from kits.medical.results.headers import UNVERIFIED, copy_compression, new_object
from kits.medical.results.study import Nodule, Study
from kits.medical.results.uids import derived_uid, object_uid

# Recommended colours, CIELab as 16-bit integers: one for each texture.
COLOURS = {
    "solid": [34885, 53485, 50171],  # red
    "part_solid": [47662, 39321, 55512],  # amber
    "non_solid": [53456, 24308, 30583],  # cyan
}
Frame = tuple[Nodule, int, np.ndarray]  # of whom, slice of the scan, (H, W) bool


def segmentation(
    study: Study,
    datasets: Sequence[Dataset],
    *,
    with_empty_frames: bool = False,
    clock: datetime | None = None,
) -> Dataset | None:
    """All masks of a study as one binary Segmentation; None where there is no nodule.

    The standard knows no Segmentation without a segment; the report alone says that none was
    found then.

    Args:
        study: what is reported.
        datasets: headers of the scan, in the order of the volume.
        with_empty_frames: every slice for every segment, for readers that misplace what is
            left out; else the slices on which a nodule has voxels.
        clock: when it was made; None: when the scan was.
    Raises:
        ValueError: the headers are not those of the study's grid, a mask is empty, or nodules
            are not numbered from 1 on.
    """
    if not study.nodules:
        return None
    numbers = [nodule.number for nodule in study.nodules]
    if numbers != list(range(1, len(numbers) + 1)):
        raise ValueError(f"nodules are numbered {numbers}; segments count 1, 2, 3 ...")
    made = new_object(study, datasets, "seg", clock=clock)
    frames = list(_frames(study, with_empty_frames))
    _describe_image(made, study, len(frames))
    copy_compression(datasets[0], made)
    made.FrameOfReferenceUID = frame_of_reference(datasets[0])
    made.PositionReferenceIndicator = datasets[0].get("PositionReferenceIndicator", "")
    made.SegmentSequence = [_segment(nodule, study) for nodule in study.nodules]
    _describe_dimensions(made, study)
    made.SharedFunctionalGroupsSequence = [_shared(study, datasets[0])]
    order = {index: rank for rank, index in enumerate(sorted({frame[1] for frame in frames}), 1)}
    made.PerFrameFunctionalGroupsSequence = [
        _per_frame(nodule, datasets[index], order[index]) for nodule, index, _ in frames
    ]
    made.ReferencedSeriesSequence = [_references(datasets, sorted(order))]
    bits = np.packbits(np.stack([frame[2] for frame in frames]).reshape(-1), bitorder="little")
    made.PixelData = bits.tobytes() + b"\0" * (bits.size % 2)
    made["PixelData"].VR = "OB"
    return made


def frame_of_reference(source: Dataset) -> str:
    """The scan's frame of reference; scans without one get that of their series."""
    return str(source.get("FrameOfReferenceUID") or derived_uid(source.SeriesInstanceUID, "frame"))


def _frames(study: Study, with_empty_frames: bool) -> Iterator[Frame]:
    _, height, width = study.grid.shape
    for nodule in study.nodules:
        rows, columns = nodule.finding.window[1:]
        first = nodule.finding.window[0].start
        mask = nodule.finding.mask
        if not mask.any():
            raise ValueError(f"{nodule.tracking_id} has an empty mask; leave it out of the report")
        filled = {first + int(index) for index in np.flatnonzero(mask.any(axis=(1, 2)))}
        for index in range(study.grid.shape[0]) if with_empty_frames else sorted(filled):
            frame = np.zeros((height, width), bool)
            if index in filled:
                frame[rows, columns] = mask[index - first]
            yield nodule, index, frame


def _describe_image(made: Dataset, study: Study, num_frames: int) -> None:
    made.ImageType = ["DERIVED", "PRIMARY"]
    made.ContentLabel = "LUNG_NODULES"
    made.ContentDescription = f"{UNVERIFIED}{' - PHANTOM' if study.is_phantom else ''}"
    made.ContentCreatorName = ""
    made.SegmentationType = "BINARY"
    made.SegmentsOverlap = "UNDEFINED"
    made.NumberOfFrames = num_frames
    made.Rows, made.Columns = study.grid.shape[1:]
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.BitsAllocated = made.BitsStored = 1
    made.HighBit = made.PixelRepresentation = 0


def algorithm(study: Study) -> Dataset:
    """Who made the masks, as an item of an Algorithm Identification Sequence."""
    item = Dataset()
    item.AlgorithmFamilyCodeSequence = [codes.AI.item()]
    item.AlgorithmName = study.model.name[:64] or "unknown"
    item.AlgorithmVersion = study.model.version[:64] or "unknown"
    item.AlgorithmParameters = parameters(study)
    item.AlgorithmSource = "deepkits"
    return item


def parameters(study: Study) -> str:
    """The model's hash, its settings and its runtime, in one line."""
    model = study.model
    settings = [f"{name}={value:g}" for name, value in sorted(model.thresholds.items())]
    return "; ".join([f"sha256={model.sha256}", f"runtime={model.runtime}", *settings])


def _segment(nodule: Nodule, study: Study) -> Dataset:
    item = Dataset()
    item.SegmentNumber = nodule.number
    item.SegmentLabel = nodule.tracking_id[:64]
    item.SegmentDescription = f"{nodule.texture.replace('_', '-')}; {UNVERIFIED}"[:1024]
    item.SegmentAlgorithmType = "AUTOMATIC"
    item.SegmentAlgorithmName = study.model.name[:64] or "unknown"
    item.SegmentationAlgorithmIdentificationSequence = [algorithm(study)]
    item.SegmentedPropertyCategoryCodeSequence = [codes.ABNORMAL_STRUCTURE.item()]
    item.SegmentedPropertyTypeCodeSequence = [codes.NODULE.item()]
    item.AnatomicRegionSequence = [codes.LUNG.item()]
    item.TrackingID = nodule.tracking_id
    item.TrackingUID = nodule.tracking_uid
    item.RecommendedDisplayCIELabValue = COLOURS[nodule.texture]
    return item


def _describe_dimensions(made: Dataset, study: Study) -> None:
    organisation = object_uid(study, "seg", "dimensions")
    item = Dataset()
    item.DimensionOrganizationUID = organisation
    made.DimensionOrganizationSequence = [item]
    made.DimensionIndexSequence = []
    for pointer, group, label in (
        (0x0062_000B, 0x0062_000A, "Segment Number"),
        (0x0020_0032, 0x0020_9113, "Image Position Patient"),
    ):
        item = Dataset()
        item.DimensionOrganizationUID = organisation
        item.DimensionIndexPointer = pointer
        item.FunctionalGroupPointer = group
        item.DimensionDescriptionLabel = label
        made.DimensionIndexSequence.append(item)


def _shared(study: Study, source: Dataset) -> Dataset:
    measures = Dataset()
    measures.SliceThickness = source.get("SliceThickness") or study.grid.spacing_mm[0]
    measures.SpacingBetweenSlices = decimal(study.grid.spacing_mm[0])
    measures.PixelSpacing = source.PixelSpacing
    orientation = Dataset()
    orientation.ImageOrientationPatient = source.ImageOrientationPatient
    item = Dataset()
    item.PixelMeasuresSequence = [measures]
    item.PlaneOrientationSequence = [orientation]
    return item


def _per_frame(nodule: Nodule, source: Dataset, rank: int) -> Dataset:
    content = Dataset()
    content.DimensionIndexValues = [nodule.number, rank]
    position = Dataset()
    position.ImagePositionPatient = source.ImagePositionPatient
    image = reference(source)
    image.PurposeOfReferenceCodeSequence = [codes.SOURCE_IMAGE.item()]
    image.SpatialLocationsPreserved = "YES"
    derivation = Dataset()
    derivation.SourceImageSequence = [image]
    derivation.DerivationCodeSequence = [codes.SEGMENTATION.item()]
    segment = Dataset()
    segment.ReferencedSegmentNumber = nodule.number
    item = Dataset()
    item.FrameContentSequence = [content]
    item.PlanePositionSequence = [position]
    item.DerivationImageSequence = [derivation]
    item.SegmentIdentificationSequence = [segment]
    return item


def reference(source: Dataset) -> Dataset:
    """An item that points to an object."""
    item = Dataset()
    item.ReferencedSOPClassUID = source.SOPClassUID
    item.ReferencedSOPInstanceUID = source.SOPInstanceUID
    return item


def _references(datasets: Sequence[Dataset], indices: Sequence[int]) -> Dataset:
    item = Dataset()
    item.SeriesInstanceUID = datasets[0].SeriesInstanceUID
    item.ReferencedInstanceSequence = [reference(datasets[index]) for index in indices]
    return item
