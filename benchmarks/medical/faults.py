"""What readers of DICOM make of faults: `python -m benchmarks.medical.faults [--forms 50]`.

Every fault is put into series of many forms, and every reader reads the folder. Its volume is held
against the truth at 500 voxels: where each lies in the patient, and its Hounsfield units.

    right      all are where and what they are
    refused    an error instead of a volume
    accepted   all are where they are, but it should have been refused: the header makes the place
               or the density of something uncertain, or it is not one chest CT of one patient
    wrong      a volume that is not the patient's, and no error
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.medical.healthy import Series, Truth, forms
from benchmarks.medical.injection import FAULTS, Fault, inject
from benchmarks.medical.readers import Read, Worker, available
from core.train.run import environment, write_atomic

RESULTS = Path(__file__).parents[1] / "results" / "medical_faults.json"
OUTCOMES = ("right", "refused", "accepted", "wrong")
PLACE_VOXELS, SPACING, HU = 0.1, 0.01, 1.0


def errors(truth: Truth, read: Read) -> dict[str, float]:
    """What is wrong with a volume; empty where nothing is.

    Returns:
        "volume": how much too large every volume is, as a ratio minus 1; "place": share of voxels
        that are not where they should be; "hu": largest error of those that are.
    """
    voxels, matrix = read
    found: dict[str, float] = {}
    volume = abs(np.linalg.det(matrix[:3, :3])) / _volume(truth) - 1
    if voxels.ndim != 3 or not np.isfinite(volume):
        return {"place": 1.0}
    if volume < -0.999:
        return {"volume": float(volume), "place": 1.0}
    if abs(volume) > SPACING:
        found["volume"] = float(volume)
    rng = np.random.default_rng(0)
    at = rng.integers(0, truth.hu.shape, (500, 3))
    points = truth.to_patient(at.astype(float))
    indices = np.linalg.solve(matrix[:3, :3], (points - matrix[:3, 3]).T).T
    nearest = np.rint(indices).astype(int)
    is_there = (np.abs(indices - nearest) < PLACE_VOXELS).all(1)
    is_there &= ((nearest >= 0) & (nearest < voxels.shape)).all(1)
    if not is_there.all():
        found["place"] = float(1 - is_there.mean())
    if is_there.any():
        theirs = voxels[tuple(nearest[is_there].T)].astype(float)
        off = np.abs(np.maximum(theirs, -1024) - truth.hu[tuple(at[is_there].T)])
        if off.max() > HU:
            found["hu"] = float(off.max())
    return found


def _volume(truth: Truth) -> float:
    return float(abs(np.linalg.det(truth.axes * truth.spacing_mm[:, None])))


def outcome(fault: Fault, series: Series, read: Read | str) -> tuple[str, dict[str, Any]]:
    """One of OUTCOMES, and what was seen."""
    if isinstance(read, str):
        return "refused", {"error": read[:200]}
    found = errors(series.truth, read)
    if found:
        return "wrong", found
    return ("right" if fault.must == "read" else "accepted"), {}


def folder_for(reader: str, folder: Path, series: Series) -> Path:
    """Ours takes any folder; stock readers take the one in which the slices lie."""
    parents = {(folder / name).parent for name, _ in series.slices}
    return parents.pop() if reader != "ours" and len(parents) == 1 else folder


def run(num_forms: int, names: list[str], readers: list[str]) -> dict[str, Any]:
    """Every fault in every form through every reader."""
    workers = {reader: Worker(reader) for reader in readers}
    counts: dict[str, dict[str, Counter[str]]] = {
        name: {reader: Counter() for reader in readers} for name in names
    }
    seen: dict[str, dict[str, dict[str, Any]]] = {name: {} for name in names}
    for done, form in enumerate(forms(num_forms), 1):
        for name in names:
            with tempfile.TemporaryDirectory() as place:
                series = inject(name, form)
                folder = series.write(Path(place))
                for reader, worker in workers.items():
                    read = worker.read(folder_for(reader, folder, series))
                    what, detail = outcome(FAULTS[name], series, read)
                    counts[name][reader][what] += 1
                    _keep(seen[name].setdefault(reader, {}), what, detail)
        print(f"form {done} of {num_forms}: {_line(counts, readers)}", flush=True)
    for worker in workers.values():
        worker.close()
    return {"num_forms": num_forms, "readers": readers, "faults": [
        {"name": name, "must": FAULTS[name].must, "text": FAULTS[name].text,
         "outcomes": {reader: dict(counts[name][reader]) for reader in readers},
         "seen": seen[name]}
        for name in names
    ]}  # fmt: skip


def _keep(kept: dict[str, Any], what: str, detail: dict[str, Any]) -> None:
    """The first error's text, and the largest of each number."""
    for key, value in detail.items():
        if key == "error":
            kept.setdefault("error", value)
        elif abs(value) > abs(kept.get(f"{what}_{key}", 0)):
            kept[f"{what}_{key}"] = round(value, 4)


def _line(counts: dict[str, dict[str, Counter[str]]], readers: list[str]) -> str:
    totals = {
        reader: sum((row[reader] for row in counts.values()), Counter()) for reader in readers
    }
    return "; ".join(
        f"{reader} " + " ".join(f"{totals[reader][what]} {what}" for what in OUTCOMES)
        for reader in readers
    )


def summary(found: dict[str, Any]) -> dict[str, dict[str, dict[str, int]]]:
    """must -> reader -> outcome -> how often."""
    rows: dict[str, dict[str, Counter[str]]] = {}
    for fault in found["faults"]:
        for reader, outcomes in fault["outcomes"].items():
            of = rows.setdefault(fault["must"], {}).setdefault(reader, Counter())
            of.update(outcomes)
    return {must: {reader: dict(of) for reader, of in row.items()} for must, row in rows.items()}


def main() -> int:
    """Run, print and write; 1 where ours was wrong once."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.medical.faults",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--forms", type=int, default=50, help="series of so many forms")
    parser.add_argument("--faults", nargs="+", default=list(FAULTS), choices=list(FAULTS))
    parser.add_argument("--readers", nargs="+", default=available(), choices=available())
    parser.add_argument("--output", type=Path, default=RESULTS)
    args = parser.parse_args()
    found = run(args.forms, args.faults, args.readers)
    machine = environment()
    packages = ("pydicom", "python-gdcm", "SimpleITK", "simpleitk", "monai", "itk", "numpy")
    machine["packages"] = {
        name: machine["packages"][name] for name in packages if name in machine["packages"]
    }
    found = {"environment": machine, "summary": summary(found), **found}
    write_atomic(args.output, json.dumps(found, indent=1) + "\n")
    from benchmarks.medical.faults_page import write_page

    write_page(args.output)
    for must, row in found["summary"].items():
        for reader, of in row.items():
            print(
                f"must {must:8} {reader:20}", *(f"{of.get(what, 0):6} {what}" for what in OUTCOMES)
            )
    ours = [fault["outcomes"].get("ours", {}) for fault in found["faults"]]
    return int(any(of.get("wrong", 0) or of.get("accepted", 0) for of in ours))


if __name__ == "__main__":
    sys.exit(main())
