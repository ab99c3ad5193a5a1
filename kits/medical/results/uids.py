"""UIDs and dates that follow from what was looked at: the same run makes the same bytes.

A report that is made again (a restart, a second attempt to send) must carry the UIDs it had, or
an archive keeps it twice. Nothing here asks the clock or the dice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from uuid import UUID

from pydicom.dataset import Dataset

from kits.medical.results.study import Study

# In the order of preference; of each, the latest among the slices.
DATES = ("Content", "Acquisition", "Series", "Study")
NO_DATE = ("19000101", "000000")  # of a scan whose headers hold no date


def derived_uid(*parts: str) -> str:
    """A DICOM UID that follows from its parts: a UUID below the root 2.25.

    Args:
        parts: what it is made from; ("ab", "c") and ("a", "bc") differ.
    """
    return as_uid(hashlib.sha256(json.dumps(parts).encode()).digest())


def as_uid(digest: bytes) -> str:
    """The first 16 bytes of a digest as a UUID below the root 2.25."""
    value = bytearray(digest[:16])
    value[6] = value[6] & 0x0F | 0x80  # version 8: an own rule (RFC 9562)
    value[8] = value[8] & 0x3F | 0x80  # variant of the RFC
    return f"2.25.{UUID(bytes=bytes(value)).int}"


def object_uid(study: Study, kind: str, *parts: str) -> str:
    """The UID of one object of a report, or of one of its series.

    It follows from the source series, the model, its settings, the rule sets, what was said about
    the patient and the prior; not from what was found, so that a run that is repeated makes the
    objects it made before.
    """
    model = study.model
    return derived_uid(
        study.source.series_uid,
        model.name,
        model.version,
        model.sha256,
        json.dumps(dict(model.thresholds), sort_keys=True),
        model.runtime,
        *(f"{category.rule_set} {category.version}" for category in study.categories),
        json.dumps(asdict(study.person), sort_keys=True),
        study.prior_study_uid,
        kind,
        *parts,
    )


def moment(datasets: Sequence[Dataset], clock: datetime | None = None) -> tuple[str, str]:
    """Date and time (DA, TM) to write as an object's creation.

    Args:
        datasets: headers of the scan.
        clock: the time to write; None: when the scan was made, which is the same at every run.
    """
    if clock is not None:
        return clock.strftime("%Y%m%d"), clock.strftime("%H%M%S")
    for name in DATES:
        found = [
            (date, _time(dataset.get(f"{name}Time")))
            for dataset in datasets
            if (date := _date(dataset.get(f"{name}Date")))
        ]
        if found:
            return max(found)
    return NO_DATE


def _date(value: object) -> str:
    digits = str(value or "").replace(".", "")  # 1999.01.31 of the oldest files
    try:
        return datetime.strptime(digits, "%Y%m%d").strftime("%Y%m%d")
    except ValueError:
        return ""


def _time(value: object) -> str:
    digits = str(value or "").replace(":", "")[:6].ljust(6, "0")
    try:
        return datetime.strptime(digits, "%H%M%S").strftime("%H%M%S")
    except ValueError:
        return "000000"
