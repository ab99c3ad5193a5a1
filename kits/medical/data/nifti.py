"""A user's own volumes: `<case>_ct.nii.gz` with masks `<case>_<label>.nii.gz` on the same grid.

`<case>_lungs.nii.gz` is used where it lies beside them. A file says nothing of patients: the
patient is the case's name up to `__`, so that two scans of one patient can be called alike and stay
in one split (`anna__2019_ct.nii.gz`, `anna__2021_ct.nii.gz`). A mask has one reader; each connected
part of it is a nodule.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.nifti1 import Nifti1Image
from scipy.ndimage import find_objects, label

from core.kit import Split
from kits.medical.data.case import Case, TrueNodule
from kits.medical.data.config import NiftiData
from kits.medical.data.split import names_of
from kits.medical.data.votes import equivalent_diameter_mm
from kits.medical.geometry import Grid, Volume

SUFFIXES = (".nii.gz", ".nii")
AIR_HU = -1024
LEAST_AIR_HU = -500  # a chest holds air
MILLIMETRES = ("mm", "unknown")
SAME_MM = 1e-2  # two grids, or two affines of one file, are the same up to this
SKEW = 1e-3  # of unit vectors; beyond it a grid is sheared
TOUCHING = np.ones((3, 3, 3), bool)  # voxels that share a corner are one part


class NiftiCases:
    """Fills `Cases` from a folder of NIfTI files."""

    name = "nifti"
    max_readers = 1

    def __init__(self, cfg: NiftiData) -> None:
        self.cfg, self.path = cfg, Path(cfg.path).expanduser()
        self.files = {}
        for suffix in SUFFIXES:
            for file in sorted(self.path.glob(f"*_ct{suffix}")):
                case = file.name.removesuffix(f"_ct{suffix}")
                if case in self.files:
                    raise ValueError(f"{file} and {self.files[case].name} are one case; keep one")
                self.files[case] = file
                self._beside(case, cfg.label)
        if not self.files:
            raise ValueError(
                f"data.path={cfg.path!r} holds no *_ct.nii.gz; volumes are <case>_ct.nii.gz, "
                f"masks <case>_{cfg.label}.nii.gz"
            )

    @cached_property
    def fingerprint(self) -> str:
        """Of the content of all files; reads them once."""
        masks = (self._beside(case, self.cfg.label) for case in self.files)
        return fingerprint_files([*self.files.values(), *masks])

    def names(self, split: Split) -> Sequence[str]:
        """Cases of a split, sorted."""
        return names_of(split, {case: case.split("__")[0] for case in self.files}, self.cfg)

    def load(self, name: str) -> Case:
        """Read one volume with its mask."""
        volume = read_volume(self.files[name])
        mask = read_mask(self._beside(name, self.cfg.label), volume.grid)
        lungs = [self.path / f"{name}_lungs{suffix}" for suffix in SUFFIXES]
        inside = [read_mask(file, volume.grid) for file in lungs if file.is_file()]
        return Case(
            name,
            name.split("__")[0],
            volume,
            parts_of(mask, volume.grid, name),
            extent="scan",
            lungs=inside[0] if inside else None,
        )

    def _beside(self, case: str, kind: str) -> Path:
        for suffix in SUFFIXES:
            file = self.path / f"{case}_{kind}{suffix}"
            if file.is_file():
                return file
        raise ValueError(
            f"{self.path} has {case}_ct but no {case}_{kind}.nii.gz; add the mask, also an empty "
            "one, or set data.label"
        )


def read_volume(path: Path) -> Volume:
    """A CT, turned (without interpolation) so that it is stored feet to head, front to back.

    Raises:
        ValueError: the file is damaged, has no sure geometry, or no Hounsfield units.
    """
    image, values = _read(path)
    grid, values = _to_grid(path, image, values)
    if not np.isfinite(values).all():
        raise ValueError(f"{path} has values that are no numbers; export it again")
    low, high = float(values.min()), float(values.max())
    if low > LEAST_AIR_HU or high > np.iinfo(np.int16).max:
        raise ValueError(
            f"{path} has values {low:g} to {high:g}, which are no Hounsfield units of a chest "
            f"(air is below {LEAST_AIR_HU}); export it without rescaling"
        )
    return Volume(grid, np.rint(np.maximum(values, AIR_HU)).astype(np.int16))


def read_mask(path: Path, wanted: Grid) -> np.ndarray:
    """(D, H, W) bool on the grid of its volume.

    Raises:
        ValueError: it lies on another grid, or its values are no labels.
    """
    image, values = _read(path)
    grid, values = _to_grid(path, image, values)
    corners = np.array([(0, 0, 0), np.array(wanted.shape) - 1])
    if grid.shape != wanted.shape or not np.allclose(
        grid.to_patient(corners), wanted.to_patient(corners), atol=SAME_MM
    ):
        raise ValueError(
            f"{path} has shape={grid.shape}, spacing_mm={grid.spacing_mm}, origin_mm="
            f"{grid.origin_mm}, its volume {wanted.shape}, {wanted.spacing_mm}, "
            f"{wanted.origin_mm}; resample the mask to its volume"
        )
    if (values != np.rint(values)).any() or (values < 0).any():
        raise ValueError(f"{path} has values that are no labels 0, 1, ...; give a mask")
    return values > 0


def parts_of(mask: np.ndarray, grid: Grid, name: str) -> tuple[TrueNodule, ...]:
    """Each connected part of one reader's mask as a nodule, in the order of the volume."""
    numbered, _ = label(mask, structure=TOUCHING)
    nodules = []
    for number, window in enumerate(find_objects(numbered), start=1):
        votes = (numbered[window] == number).astype(np.uint8)
        volume_mm3 = float(votes.sum() * grid.voxel_mm3)
        nodules.append(
            TrueNodule(f"{name}_{number - 1}", window, votes, 1, equivalent_diameter_mm(volume_mm3))
        )
    return tuple(nodules)


def fingerprint_files(files: Iterable[Path]) -> str:
    """sha256 of names and contents."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\n")
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _read(path: Path) -> tuple[Nifti1Image, np.ndarray]:
    try:
        image = nibabel.load(path)
        values = np.asanyarray(image.dataobj)
    except (ImageFileError, OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read, {error}; copy it again") from error
    if values.ndim != 3:
        raise ValueError(f"{path} has shape={values.shape}, not three axes; export one volume")
    return image, values


def _to_grid(path: Path, image: Nifti1Image, values: np.ndarray) -> tuple[Grid, np.ndarray]:
    """NIfTI's (i, j, k) and RAS become (D, H, W) and LPS, by swapping and flipping axes."""
    affine = _affine(path, image)
    steps = affine[:3, :3] * np.array([[-1], [-1], [1]])  # to the left, the back, the head
    spacing = np.linalg.norm(steps, axis=0)
    if not (spacing > 0).all():
        raise ValueError(f"{path} has voxels of size {spacing}; the affine is broken")
    axes = (steps / spacing).T  # row k: where axis k of the file leads
    if not np.allclose(axes @ axes.T, np.eye(3), atol=SKEW):
        raise ValueError(
            f"{path} has an affine whose axes are not at right angles (a tilted gantry?); "
            "resample it to a regular grid"
        )
    order = _order(axes)
    axes, spacing, values = axes[order], spacing[order], values.transpose(order)
    origin = affine[:3, 3] * (-1, -1, 1)
    for axis, towards in enumerate((2, 1, 0)):  # D to z, H to y, W to x
        if axes[axis, towards] < 0:
            origin = origin + axes[axis] * spacing[axis] * (values.shape[axis] - 1)
            axes[axis] = -axes[axis]
            values = np.flip(values, axis)
    shape = (values.shape[0], values.shape[1], values.shape[2])
    grid = Grid(shape, _triple(spacing), _triple(origin), _square(axes))
    return grid, values


def _order(axes: np.ndarray) -> list[int]:
    """Which axis of the file becomes D, H and W: those closest to z, y, x."""
    left = [0, 1, 2]
    order = []
    for towards in (2, 1, 0):
        best = max(left, key=lambda axis: abs(axes[axis, towards]))
        left.remove(best)
        order.append(best)
    return order


def _affine(path: Path, image: Nifti1Image) -> np.ndarray:
    header = image.header
    unit = header.get_xyzt_units()[0]
    if unit not in MILLIMETRES:
        raise ValueError(f"{path} is in {unit}, not in mm; export it again")
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    known = [np.asarray(form, np.float64) for form in (sform, qform) if form is not None]
    if not known:
        raise ValueError(
            f"{path} has neither sform nor qform, so where it lies is not known; export it again"
        )
    corners = np.array([[0, 0, 0, 1], [*(np.array(image.shape[:3]) - 1), 1]], np.float64)
    if len(known) == 2 and not np.allclose(*(corners @ form.T for form in known), atol=SAME_MM):
        raise ValueError(f"{path} has an sform and a qform that differ; export it again")
    return known[0]


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _square(axes: np.ndarray) -> np.ndarray:
    """The closest exactly orthonormal axes: files keep single precision."""
    left, _, right = np.linalg.svd(axes)
    squared: np.ndarray = left @ right
    return squared
