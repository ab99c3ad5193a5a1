"""The measurements as a structured report: Comprehensive 3D SR, template 1500.

One measurement group for each nodule, which names its segment; what holds for the whole scan (its
categories, what could not be seen in it, that nobody has verified this) stands below Qualitative
Evaluations. A scan without a nodule has these alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from datetime import datetime

from pydicom.dataset import Dataset

from kits.medical.results import codes
from kits.medical.results.codes import Code, own
from kits.medical.results.content import (
    ACQUISITION,
    CONTAINS,
    CONTEXT,
    INFERRED,
    MODIFIER,
    PROPERTIES,
    code,
    container,
    image,
    number,
    text,
    uid,
)
from kits.medical.results.headers import (
    IMPLEMENTATION,
    MANUFACTURER,
    PRODUCT,
    UNVERIFIED,
    new_object,
    plain,
)
from kits.medical.results.seg import frame_of_reference, parameters, reference
from kits.medical.results.study import Category, Growth, Measures, Nodule, SolidCore, Study

LANGUAGE = "en"  # of the report's texts


def structured_report(
    study: Study,
    datasets: Sequence[Dataset],
    segmentation: Dataset | None,
    *,
    clock: datetime | None = None,
) -> Dataset:
    """A study's measurements as a report that says of itself that it is unverified.

    Args:
        study: what is reported.
        datasets: headers of the scan, in the order of the volume.
        segmentation: the study's Segmentation; None where there is no nodule.
        clock: when it was made; None: when the scan was.
    Raises:
        ValueError: the headers are not those of the study's grid, or the Segmentation does not
            hold the study's segments.
    """
    segments = {} if segmentation is None else _segments(segmentation)
    missing = [nodule.number for nodule in study.nodules if nodule.number not in segments]
    if missing:
        raise ValueError(f"nodules={missing} have no segment; give the study's own Segmentation")
    made = new_object(study, datasets, "sr", clock=clock)
    made.PreliminaryFlag = "PRELIMINARY"
    made.CompletionFlag = "PARTIAL"
    made.CompletionFlagDescription = UNVERIFIED
    made.VerificationFlag = "UNVERIFIED"
    made.ReferencedPerformedProcedureStepSequence = []
    made.PerformedProcedureCodeSequence = []
    made.CodingSchemeIdentificationSequence = codes.scheme_items()
    made.CurrentRequestedProcedureEvidenceSequence = [_evidence(datasets, segmentation)]
    root = container(None, codes.REPORT, _tree(study, datasets, segmentation), "1500")
    _make_plain(root, made)
    made.update(root)
    return made


def _segments(segmentation: Dataset) -> set[int]:
    return {int(segment.SegmentNumber) for segment in segmentation.SegmentSequence}


def _evidence(datasets: Sequence[Dataset], segmentation: Dataset | None) -> Dataset:
    item = Dataset()
    item.StudyInstanceUID = datasets[0].StudyInstanceUID
    item.ReferencedSeriesSequence = []
    for members in (datasets, [] if segmentation is None else [segmentation]):
        if members:
            series = Dataset()
            series.SeriesInstanceUID = members[0].SeriesInstanceUID
            series.ReferencedSOPSequence = [reference(member) for member in members]
            item.ReferencedSeriesSequence.append(series)
    return item


def _make_plain(item: Dataset, made: Dataset) -> None:
    for element in item:
        if element.VR == "SQ":
            for below in element.value:
                _make_plain(below, made)
        elif element.keyword in ("TextValue", "CodeMeaning"):
            element.value = plain(element.value, made)


def _tree(
    study: Study, datasets: Sequence[Dataset], segmentation: Dataset | None
) -> Iterator[Dataset]:
    yield code(MODIFIER, codes.LANGUAGE, codes.ENGLISH)
    yield from _observer(study)
    yield code(MODIFIER, codes.PROCEDURE, codes.CHEST_CT)
    yield container(CONTAINS, codes.IMAGE_LIBRARY, [_library(datasets)], "1600")
    if segmentation is not None and study.nodules:
        groups = [_group(nodule, study, datasets, segmentation) for nodule in study.nodules]
        yield container(CONTAINS, codes.MEASUREMENTS, groups)
    yield container(CONTAINS, codes.EVALUATIONS, _evaluations(study))


def _observer(study: Study) -> Iterator[Dataset]:
    yield code(CONTEXT, codes.OBSERVER_TYPE, codes.DEVICE)
    yield uid(CONTEXT, codes.DEVICE_UID, IMPLEMENTATION)
    yield text(CONTEXT, codes.DEVICE_NAME, f"{study.model.name} {study.model.version}")
    yield text(CONTEXT, codes.DEVICE_MANUFACTURER, MANUFACTURER)
    yield text(CONTEXT, codes.DEVICE_MODEL, PRODUCT)
    yield text(CONTEXT, codes.DEVICE_SERIAL, study.model.sha256 or "unknown")


def _library(datasets: Sequence[Dataset]) -> Dataset:
    frame = frame_of_reference(datasets[0])
    return container(
        CONTAINS,
        codes.LIBRARY_GROUP,
        [
            code(ACQUISITION, codes.MODALITY, codes.CT),
            uid(ACQUISITION, codes.FRAME_OF_REFERENCE, frame),
            *(image(CONTAINS, None, dataset) for dataset in datasets),
        ],
    )


def _group(
    nodule: Nodule, study: Study, datasets: Sequence[Dataset], segmentation: Dataset
) -> Dataset:
    return container(
        CONTAINS,
        codes.GROUP,
        [
            text(CONTEXT, codes.TRACKING_ID, nodule.tracking_id),
            uid(CONTEXT, codes.TRACKING_UID, nodule.tracking_uid),
            code(CONTAINS, codes.FINDING, codes.NODULE_OF_LUNG),
            image(CONTAINS, codes.REFERENCED_SEGMENT, segmentation, segment=nodule.number),
            uid(CONTAINS, codes.SOURCE_SERIES, datasets[0].SeriesInstanceUID),
            text(MODIFIER, codes.ALGORITHM_NAME, study.model.name),
            text(MODIFIER, codes.ALGORITHM_VERSION, study.model.version),
            text(MODIFIER, codes.ALGORITHM_PARAMETERS, parameters(study)),
            code(MODIFIER, codes.FINDING_SITE, codes.LUNG),
            *_sizes(nodule.measures, datasets),
            *_core(nodule.measures.core),
            number(codes.CERTAINTY, 100 * nodule.finding.score, codes.PERCENT),
            *_growth(nodule.growth),
            code(CONTAINS, codes.TEXTURE, codes.TEXTURES[nodule.texture]),
            *(_category(category) for category in nodule.categories),
            *_location(nodule),
        ],
        "1411",
    )


def _sizes(measures: Measures, datasets: Sequence[Dataset]) -> Iterator[Dataset]:
    seen_on = image(INFERRED, codes.SOURCE_OF_MEASUREMENT, datasets[measures.slice_index])
    low, high = measures.volume_interval_mm3
    is_counted = measures.volume_method == "counted"
    method = codes.SEGMENTED_VOXELS if is_counted else codes.PARTIAL_VOLUME
    by_method = code(MODIFIER, codes.METHOD, method)
    by_voxels = code(MODIFIER, codes.METHOD, codes.SEGMENTED_VOXELS)
    mean = code(MODIFIER, codes.DERIVATION, codes.MEAN)
    mm, mm3 = codes.MILLIMETRE, codes.CUBIC_MILLIMETRE
    yield number(codes.VOLUME, measures.volume_mm3, mm3, [by_method])
    yield number(codes.VOLUME_LOW, low, mm3)
    yield number(codes.VOLUME_HIGH, high, mm3)
    yield number(codes.SEGMENT_VOLUME, measures.counted_volume_mm3, mm3, [by_voxels])
    yield number(codes.LONG_AXIS, measures.long_axis_mm, mm, [seen_on])
    yield number(codes.SHORT_AXIS, measures.short_axis_mm, mm, [seen_on])
    yield number(codes.DIAMETER, measures.mean_diameter_mm, mm, [mean])
    yield number(codes.LARGEST_DIAMETER, measures.max_diameter_3d_mm, mm)
    yield number(codes.ATTENUATION, measures.mean_hu, codes.HOUNSFIELD, [mean])


def _core(core: SolidCore | None) -> Iterator[Dataset]:
    if core is not None:
        yield number(codes.CORE_VOLUME, core.volume_mm3, codes.CUBIC_MILLIMETRE)
        yield number(codes.CORE_LONG, core.long_axis_mm, codes.MILLIMETRE)
        yield number(codes.CORE_SHORT, core.short_axis_mm, codes.MILLIMETRE)
        yield number(codes.CORE_DIAMETER, core.mean_diameter_mm, codes.MILLIMETRE)
        yield number(codes.CORE_THRESHOLD, core.threshold_hu, codes.HOUNSFIELD)


def _growth(growth: Growth | None) -> Iterator[Dataset]:
    if growth is None:
        return
    rate_low, rate_high = growth.doublings_interval or (None, None)
    low, high = growth.vdt_interval_days or (None, None)
    for name, value, unit in (
        (codes.INTERVAL, growth.interval_days, codes.DAY),
        (codes.PRIOR_VOLUME, growth.prior_volume_mm3, codes.CUBIC_MILLIMETRE),
        (codes.PRIOR_DIAMETER, growth.prior_mean_diameter_mm, codes.MILLIMETRE),
        (codes.PRIOR_CORE, growth.prior_core_diameter_mm, codes.MILLIMETRE),
        (codes.DOUBLINGS, growth.doublings_per_year, codes.PER_YEAR),
        (codes.DOUBLINGS_LOW, rate_low, codes.PER_YEAR),
        (codes.DOUBLINGS_HIGH, rate_high, codes.PER_YEAR),
        (codes.DOUBLING_TIME, growth.vdt_days, codes.DAY),
        (codes.DOUBLING_TIME_LOW, low, codes.DAY),
        # Infinite where the nodule may not grow at all: then there is no such limit to write.
        (codes.DOUBLING_TIME_HIGH, high, codes.DAY),
    ):
        if value is not None and math.isfinite(value):
            yield number(name, value, unit)
    note = growth.note.get(LANGUAGE, "")
    properties = [text(PROPERTIES, codes.COMMENT, note)] if note else []
    yield code(CONTAINS, codes.GROWTH, codes.GROWTHS[growth.state], properties)


def _category(category: Category) -> Dataset:
    """A rule set's answer; what it follows from and leads to stands below it."""
    name = f"{category.rule_set} {category.version}".strip()
    meaning = category.meaning.get(LANGUAGE, "")
    answer = f"{category.code}: {meaning}" if meaning else category.code
    lines = [*category.rationale.get(LANGUAGE, ()), category.action.get(LANGUAGE, "")]
    lines.append(f"Source: {category.source}" if category.source else "")
    reasons = "; ".join(line for line in lines if line)
    return code(
        CONTAINS,
        own(name, f"{name} category"),
        # One scheme, one meaning: a 3 of one rule set is not a 3 of another.
        own(f"{category.rule_set}:{category.code}", answer),
        [text(PROPERTIES, codes.RATIONALE, reasons)] if reasons else [],
    )


def _location(nodule: Nodule) -> Iterator[Dataset]:
    if nodule.location.get(LANGUAGE):
        yield text(CONTAINS, codes.LOCATION, nodule.location[LANGUAGE])


def _evaluations(study: Study) -> Iterator[Dataset]:
    yield code(CONTAINS, codes.STATUS, codes.UNVERIFIED)
    if study.is_phantom:
        yield code(CONTAINS, codes.STATUS, codes.PHANTOM)
    yield code(CONTAINS, codes.RESULT, codes.NODULES if study.nodules else codes.NO_NODULE)
    for category in study.categories:
        yield _category(category)
    yield from _texts(codes.LIMITS, study.not_detectable.lines.get(LANGUAGE, ()))
    yield from _texts(codes.NOTE, study.notes.get(LANGUAGE, ()))


def _texts(name: Code, lines: Sequence[str]) -> Iterator[Dataset]:
    for line in lines:
        yield text(CONTAINS, name, line)
