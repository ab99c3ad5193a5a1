"""The medical kit: DICOM to report, the same weights behind peers, exactness; about half an hour.

    pytest benchmarks/bench_medical.py -s                     with a student of a few steps
    python -m benchmarks.medical report --run runs/medical/... one item with a trained one
    python -m benchmarks.medical report --quick                does it work? its numbers are noise

`DEEPKITS_MEDICAL_RUN` names a trained student's run here; DEEPKITS_QUICK=1 takes the short forms.
Accuracy has other commands, in the kit's README; faults in DICOM `benchmarks.medical.faults`.
"""

import os
from pathlib import Path

import pytest

from benchmarks.medical.__main__ import ITEMS, run_item
from benchmarks.medical.page import write_page
from benchmarks.medical.study import RESULTS, Study

QUICK = os.environ.get("DEEPKITS_QUICK") == "1"
RUN = os.environ.get("DEEPKITS_MEDICAL_RUN")

pytestmark = pytest.mark.timeout(0)


@pytest.mark.parametrize("name", list(ITEMS))
def test_item(name, tmp_path):
    """What must hold whatever the machine does; the other numbers are there to be read."""
    results = tmp_path / "medical.json" if QUICK else RESULTS
    study = Study(quick=QUICK, run=Path(RUN) if RUN else None, rounds=1 if QUICK else 3)
    found = run_item(name, study, results)
    write_page(results)
    if name == "exactness":
        assert found["precisions"]["fp32"]["lost"] == 0
        assert (found["precisions"]["fp32"]["dice"] or 1) >= 0.995
    if name == "report" and not QUICK:
        assert all(form["rss_mib"]["max"] < 2048 for form in found["forms"].values())
