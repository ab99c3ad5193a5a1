"""`data=phantom`: real nodule masks with their readers in simulated chests. No file is needed.

No image of a patient is in it: everything but the outlines of the nodules is simulated.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np

from core.kit import Split
from kits.medical.data.case import Case, TrueNodule
from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_case import AXES, case_name, make_phantom
from kits.medical.data.phantom_nodules import SAMPLE, SPLITS
from kits.medical.geometry import Grid, Volume

# What does not change a case: how many there are, and where they are kept.
NOT_IN_KEY = ("cache_dir", "num_train", "num_validation", "num_test")


class PhantomCases:
    """Simulated scans, made when first asked for and then kept in the cache folder."""

    name = "phantom"
    max_readers = 4

    def __init__(self, cfg: PhantomData) -> None:
        self.cfg = cfg
        key = {k: v for k, v in asdict(cfg).items() if k not in NOT_IN_KEY}
        text = json.dumps([code_version(), key], sort_keys=True)
        self.folder = _cache_root(cfg) / "medical" / f"phantom-{_digest(text.encode())[:16]}"
        counts = [len(self.names(split)) for split in SPLITS]
        self.fingerprint = _digest(json.dumps([text, counts]).encode())

    def names(self, split: Split) -> Sequence[str]:
        """Simulated patients of a split."""
        count = getattr(self.cfg, f"num_{split}")
        return [case_name(self.cfg.seed, split, number) for number in range(count)]

    def load(self, name: str) -> Case:
        """One case.

        Raises:
            ValueError: there is no case of this name, or the cache cannot be written.
        """
        split, number = self._place(name)
        path = self.folder / f"{name}.npz"
        try:
            return _read(path, name)
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, zipfile.BadZipFile):
            # Cut short, or not ours: made again below.
            path.unlink(missing_ok=True)
        case = make_phantom(self.cfg, split, number).case
        _write(path, case)
        return case

    def _place(self, name: str) -> tuple[Split, int]:
        for split in SPLITS:
            if name in (names := self.names(split)):
                return split, names.index(name)
        raise ValueError(f"name={name!r} is no case of data=phantom; take one of names(split)")


def _cache_root(cfg: PhantomData) -> Path:
    if cfg.cache_dir is not None:
        return Path(cfg.cache_dir)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "deepkits"


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@cache
def code_version() -> str:
    """Hash of the simulator's source and of the masks: other code makes other cases."""
    folder = Path(__file__).parent
    written_from_cases = {folder / "phantom_dicom.py", folder / "phantom_picture.py"}
    files = [*sorted(set(folder.glob("phantom*.py")) - written_from_cases), SAMPLE]
    return _digest("".join(_digest(file.read_bytes()) for file in files).encode())


def _write(path: Path, case: Case) -> None:
    arrays = {
        "voxels": case.volume.voxels,
        "spacing_mm": np.array(case.volume.grid.spacing_mm),
        "origin_mm": np.array(case.volume.grid.origin_mm),
        "lungs": np.packbits(case.lungs),
    }
    facts = []
    for number, nodule in enumerate(case.nodules):
        arrays[f"votes_{number}"] = nodule.votes
        facts.append(
            {
                "name": nodule.name,
                "window": [[part.start, part.stop] for part in nodule.window],
                "num_readers": nodule.num_readers,
                "diameter_mm": nodule.diameter_mm,
                "texture": nodule.texture,
                "malignancy": nodule.malignancy,
            }
        )
    arrays["facts"] = np.frombuffer(json.dumps(facts).encode(), np.uint8)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
        # numpy's own compression takes as long as simulating; level 1 keeps nearly as little.
        with (
            os.fdopen(handle, "wb") as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        ):
            for name, array in arrays.items():
                content = io.BytesIO()
                np.lib.format.write_array(content, np.ascontiguousarray(array), allow_pickle=False)
                archive.writestr(
                    zipfile.ZipInfo(f"{name}.npy"), content.getvalue(), zipfile.ZIP_DEFLATED, 1
                )
        Path(temporary).replace(path)
    except OSError as error:
        raise ValueError(
            f"data.cache_dir={str(path.parent)!r} cannot be written, {error.strerror}; "
            "set data.cache_dir"
        ) from error


def _read(path: Path, name: str) -> Case:
    # Opened here: numpy leaves a file open that turns out to be no archive.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        voxels = stored["voxels"]
        lungs = np.unpackbits(stored["lungs"], count=voxels.size).reshape(voxels.shape)
        facts = json.loads(stored["facts"].tobytes())
        nodules = tuple(
            TrueNodule(
                name=fact["name"],
                window=tuple(slice(*part) for part in fact["window"]),  # type: ignore[arg-type]
                votes=stored[f"votes_{number}"],
                num_readers=fact["num_readers"],
                diameter_mm=fact["diameter_mm"],
                texture=fact["texture"],
                malignancy=fact["malignancy"],
            )
            for number, fact in enumerate(facts)
        )
        spacing, origin = (
            tuple(float(value) for value in stored[key]) for key in ("spacing_mm", "origin_mm")
        )
    grid = Grid(voxels.shape, spacing, origin, AXES)  # type: ignore[arg-type]
    return Case(
        name,
        name,
        Volume(grid, voxels),
        nodules,
        "scan",
        is_phantom=True,
        lungs=lungs.view(bool),
    )
