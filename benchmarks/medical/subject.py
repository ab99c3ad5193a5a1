"""What is measured: a student's run with its bundles, and a scan as volume and as DICOM."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.medical.study import WORK, Study, fresh
from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_case import Phantom, make_phantom
from kits.medical.data.phantom_dicom import write_series
from kits.medical.geometry import Grid, Volume

PLAIN_TARGETS = "[x86_64-openvino-cpu-bf16,x86_64-openvino-cpu,x86_64-ort-cpu]"
INT8_TARGETS = "[x86_64-openvino-cpu,x86_64-ort-cpu]"
FULL, QUICK = (300, 512, 512), (96, 224, 288)
SLICE_MM, PIXEL_MM = 1.0, 0.7
QUICK_MM = (2.5, 1.4)


@dataclass(frozen=True)
class Subject:
    """A network in all its forms."""

    run: Path  # of the student
    bundle: Path
    int8_bundle: Path | None
    home: Path  # with the key that signed them
    is_trained: bool
    note: str = ""  # why there is no int8 bundle


def subject(study: Study) -> Subject:
    """Export a run's network, or that of a run of a few steps: as fast, and without meaning."""
    WORK.mkdir(parents=True, exist_ok=True)
    home = WORK / "home"
    if not list(home.glob("keys/*.key")):
        fresh(["-m", "edge.keys", "new", "--name", "benchmark"], home, 1)
    run = study.run or _smoke_run(study, home)
    bundle = _exported(study, run, home, "plain", f"target.ids={PLAIN_TARGETS}")
    note, int8 = "", None
    try:
        int8 = _exported(study, run, home, "int8", f"target.ids={INT8_TARGETS}", "compress=int8")
    except RuntimeError as error:
        note = str(error).strip().splitlines()[-1]
        study.say(f"no int8 bundle: {note}")
    return Subject(run, bundle, int8, home, study.run is not None, note)


def forms(made: Subject) -> dict[str, tuple[Path, str]]:
    """Precision -> the bundle and its target, as OpenVINO computes it."""
    found = {
        "fp32": (made.bundle, "x86_64-openvino-cpu"),
        "bf16": (made.bundle, "x86_64-openvino-cpu-bf16"),
    }
    if made.int8_bundle:
        found["int8"] = (made.int8_bundle, "x86_64-openvino-cpu")
    return found


def _smoke_run(study: Study, home: Path) -> Path:
    runs = WORK / "runs"
    found = sorted(runs.glob("medical/*/model/model.json"))
    if not found:
        study.say("a student of a few steps is trained")
        fresh(
            ["-m", "kits.medical.train", "model=student", "trainer=smoke",
             f"trainer.runs_dir={runs}", "trainer.tensorboard=false"],
            home, study.threads,
        )  # fmt: skip
        found = sorted(runs.glob("medical/*/model/model.json"))
    return found[-1].parents[1]


def _exported(study: Study, run: Path, home: Path, name: str, *settings: str) -> Path:
    output = WORK / "bundles" / run.resolve().name / name
    bundle = output / "medical.ebundle"
    newest = max(path.stat().st_mtime for path in (run / "model").iterdir())
    if bundle.exists() and bundle.stat().st_mtime > newest:
        return bundle
    study.say(f"bundle {name} is exported")
    shutil.rmtree(output, ignore_errors=True)
    fresh(
        ["-m", "kits.medical.export", f"run={run}", f"output={output}", *settings],
        home, study.threads,
    )  # fmt: skip
    return bundle


def phantom(study: Study, number: int = 0) -> Phantom:
    """A simulated patient of the test split, scanned from apex to base."""
    slice_mm, pixel_mm = QUICK_MM if study.quick else (SLICE_MM, PIXEL_MM)
    shape = QUICK if study.quick else FULL
    cfg = PhantomData(shape=shape, pixel_mm=pixel_mm, slice_mm=slice_mm)
    return make_phantom(cfg, "test", number)


def scan_folder(study: Study) -> Path:
    """The phantom as a DICOM series on disk, and as an array beside it; made once."""
    folder = WORK / ("scan-quick" if study.quick else "scan")
    if not (folder / "grid.json").exists():
        study.say("the phantom is simulated and written as DICOM")
        shutil.rmtree(folder, ignore_errors=True)
        made = phantom(study)
        write_series(made, folder / "dicom")
        grid = made.case.volume.grid
        np.save(folder / "voxels.npy", made.case.volume.voxels)
        content = {
            "spacing_mm": grid.spacing_mm,
            "origin_mm": grid.origin_mm,
            "axes": grid.axes.tolist(),
            "nodules": len(made.case.nodules),
        }
        (folder / "grid.json").write_text(json.dumps(content))
    return folder


def read_volume(folder: Path) -> Volume:
    """The array that `scan_folder` left."""
    voxels = np.load(folder / "voxels.npy")
    content = json.loads((folder / "grid.json").read_text())
    grid = Grid(
        voxels.shape,
        tuple(content["spacing_mm"]),
        tuple(content["origin_mm"]),
        np.array(content["axes"]),
    )
    return Volume(grid, voxels)


def drop_from_page_cache(folder: Path) -> None:
    """Make the next reader fetch a folder's files from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)
