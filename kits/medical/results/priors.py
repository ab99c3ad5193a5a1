"""An earlier scan of the same patient, as far as growth needs it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kits.medical.refusals import Refusal
from kits.medical.results.growth import Earlier, compare, days_between
from kits.medical.results.matching import GATE_MM, MAX_BOX_CHANGE, Box, earlier_only, match
from kits.medical.results.study import Growth, Measures, Source, Study
from kits.medical.results.summary import FORMAT, SUMMARY_FILE
from kits.medical.results.wording import LANGUAGES, note, wording


@dataclass(frozen=True)
class Prior:
    """What was found then."""

    date: str  # YYYYMMDD
    interval_days: float  # from then to the scan that is reported
    study_uid: str
    box: Box  # around the lungs
    nodules: tuple[Earlier, ...]


@dataclass(frozen=True)
class Compared:
    """Growth of each nodule, its partner on the prior, and what of the prior is left."""

    growth: tuple[Growth, ...]
    partners: tuple[Earlier | None, ...]
    notes: Mapping[str, tuple[str, ...]]  # language -> nodules that were not found again


def compare_all(
    prior: Prior, measures: Sequence[Measures], textures: Sequence[str], box: Box
) -> Compared:
    """Pair the nodules of a scan with those of its prior, and tell what grew."""
    now = np.array([each.centre_mm for each in measures], float)
    before = np.array([each.centre_mm for each in prior.nodules], float)
    found = match(now, before, (box, prior.box))
    partners = tuple(None if place is None else prior.nodules[place] for place in found.places)
    growth = tuple(
        _unpaired(prior, reason)
        if partner is None
        else compare(partner, (each.volume_mm3, texture), prior.date, prior.interval_days)
        for each, texture, partner, reason in zip(
            measures, textures, partners, found.reasons, strict=True
        )
    )
    gone = [prior.nodules[place] for place in earlier_only(found.places, len(prior.nodules))]
    notes = {
        language: tuple(
            wording(language)("growth.gone", number=each.number, volume=f"{each.volume_mm3:.0f}")
            for each in gone
        )
        for language in LANGUAGES
    }
    return Compared(growth, partners, notes)


def _unpaired(prior: Prior, reason: str) -> Growth:
    values = {"distance": f"{GATE_MM:g}", "percent": f"{100 * MAX_BOX_CHANGE:g}"}
    return Growth(
        state="new" if reason == "new" else "unmatched",
        prior_date=prior.date,
        interval_days=prior.interval_days,
        note=note(f"growth.why.{reason}", **values),
    )


def from_study(study: Study, box: Box, interval_days: float) -> Prior:
    """An earlier scan that was looked at by the same run."""
    nodules = [
        Earlier(
            number=each.number,
            centre_mm=each.measures.centre_mm,
            volume_mm3=each.measures.volume_mm3,
            mean_diameter_mm=each.measures.mean_diameter_mm,
            texture=each.texture,
            core_diameter_mm=each.measures.core.mean_diameter_mm if each.measures.core else None,
            tracking_uid=each.tracking_uid,
            codes=tuple((item.rule_set, item.code) for item in each.categories),
        )
        for each in study.nodules
    ]
    source = study.source
    return Prior(source.study_date, interval_days, source.study_uid, box, tuple(nodules))


def from_report(folder: Path, source: Source) -> Prior:
    """An earlier scan by the report that was written of it.

    Args:
        folder: with the report's `findings.json`.
        source: of the scan that is reported now.

    Raises:
        Refusal: it is of another patient, has no date, or is not earlier.
        ValueError: the file is not one of ours.
    """
    path = folder / SUMMARY_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"prior={path} is not of the format {FORMAT}; give a report's folder")
    patient = content["source"]["patient_id"]
    if not patient or patient != source.patient_id:
        raise Refusal(
            "different_patients",
            f"prior={folder} is of patient {patient!r}, the scan of {source.patient_id!r}; "
            "give an earlier report of the same patient",
        )
    date = str(content["source"]["study_date"])
    try:
        days = days_between(date, source.study_date)
    except ValueError as error:
        code = "prior_not_earlier" if date and source.study_date else "missing_date"
        raise Refusal(code, str(error)) from error
    box = content["lungs"]["box_mm"]
    return Prior(
        date,
        float(days),
        str(content["source"]["study_uid"]),
        Box(_triple(box[0]), _triple(box[1])),
        tuple(_earlier(each) for each in content["nodules"]),
    )


def _earlier(entry: Mapping[str, Any]) -> Earlier:
    measures = entry["measures"]
    core = measures["core"]
    return Earlier(
        number=int(entry["number"]),
        centre_mm=_triple(measures["centre_mm"]),
        volume_mm3=float(measures["volume_mm3"]),
        mean_diameter_mm=float(measures["mean_diameter_mm"]),
        texture=str(entry["texture"]),
        core_diameter_mm=None if core is None else float(core["mean_diameter_mm"]),
        tracking_uid=str(entry["tracking_uid"]),
        codes=tuple((str(item["rule_set"]), str(item["code"])) for item in entry["categories"]),
    )


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = values
    return float(x), float(y), float(z)
