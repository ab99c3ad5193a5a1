"""How like a real chest CT the phantoms are: `python -m benchmarks.medical.phantom_realism`.

Two real scans (read from ../shared/data/lung-ct-volumes-dev) and phantoms with their spacing are
measured in the same way: Hounsfield units in the lungs, vessels, the grain of calm lung.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np
from scipy import ndimage

from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_case import make_phantom

FOLDER = Path(__file__).resolve().parents[2] / "../shared/data/lung-ct-volumes-dev"
Spacing = tuple[float, float, float]
# File, slices that show lungs, and whether only the right one counts (a tumour fills the left).
SCANS = {
    "nsclc_LUNG1-001_ct.nii.gz": (slice(30, 134), True),
    "pyradiomics_lung1_ct.nii.gz": (slice(None), False),
}
AIR_HU, CALM_HU, VESSEL_HU = -400, -780, -550
PERCENTILES = (5, 25, 50, 75, 90, 95, 98)
AREAS_MM2 = (2, 5, 10, 20, 50)
CLOSED_MM, DEEP_MM = 6.0, 8.0


@dataclass(frozen=True)
class Look:
    """What is measured in the lungs of a scan."""

    hu_percentiles: list[float]  # of PERCENTILES, 3 mm or more inside
    above_600_share: float  # of voxels above -600 HU: vessels and walls
    vessels_per_100_cm2: list[float]  # cross-sections larger than AREAS_MM2
    grain_hu: float  # standard deviation of what is finer than 2 mm in calm lung
    grain_correlation: list[float]  # of neighbours along columns, rows, slices
    soft_noise_hu: float  # the same where heart, liver and muscle are flat


def measure(voxels: np.ndarray, spacing_mm: Spacing, lungs: np.ndarray) -> Look:
    """Measure one scan."""
    hu = voxels.astype(np.float32)
    depth = ndimage.distance_transform_edt(np.pad(lungs, 1), spacing_mm)[1:-1, 1:-1, 1:-1]
    inner = hu[depth > 3]
    sigma = (0, 2 / spacing_mm[1], 2 / spacing_mm[2])
    fine = hu - ndimage.gaussian_filter(hu, sigma)
    calm = (depth > 5) & (ndimage.maximum_filter(hu, (1, 5, 5)) < CALM_HU)
    flat = (hu > 0) & (hu < 110) & (ndimage.gaussian_filter(np.abs(fine), (0, 3, 3)) < 25)
    flat = ndimage.binary_erosion(flat, np.ones((1, 9, 9)))
    return Look(
        hu_percentiles=[round(float(p)) for p in np.percentile(inner, PERCENTILES)],
        above_600_share=round(float((inner > -600).mean()), 3),
        vessels_per_100_cm2=_vessels(hu, spacing_mm, depth),
        grain_hu=round(float(fine[calm].std()), 1),
        grain_correlation=[_neighbours(fine, calm, axis) for axis in (2, 1, 0)],
        soft_noise_hu=round(float(fine[flat].std()), 1),
    )


def _vessels(hu: np.ndarray, spacing_mm: Spacing, depth: np.ndarray) -> list[float]:
    areas, looked_cm2 = [np.empty(0)], 0.0
    pixel_mm2 = spacing_mm[1] * spacing_mm[2]
    for number in range(0, len(hu), max(1, int(10 / spacing_mm[0]))):
        deep = depth[number] > DEEP_MM
        labels, count = ndimage.label(deep & (hu[number] > VESSEL_HU))
        areas.append(np.bincount(labels.ravel(), minlength=count + 1)[1:] * pixel_mm2)
        looked_cm2 += deep.sum() * pixel_mm2 / 100
    every = np.concatenate(areas)
    return [round(float((every > area).sum() / looked_cm2 * 100), 1) for area in AREAS_MM2]


def _neighbours(values: np.ndarray, chosen: np.ndarray, axis: int) -> float:
    first, second = (np.swapaxes(one, 0, axis)[:-1] for one in (values, chosen))
    later, also = (np.swapaxes(one, 0, axis)[1:] for one in (values, chosen))
    both = second & also
    return round(float(np.corrcoef(first[both], later[both])[0, 1]), 2)


def air_lungs(voxels: np.ndarray, spacing_mm: Spacing) -> np.ndarray:
    """Large enclosed air and what lies inside: rough, but the same for real and simulated scans."""
    labels, _ = ndimage.label(voxels < AIR_HU)
    sides = (labels[:, 0], labels[:, -1], labels[:, :, 0], labels[:, :, -1])
    sizes = np.bincount(labels.ravel())
    sizes[np.unique(np.concatenate([side.ravel() for side in sides]))] = 0
    sizes[0] = 0
    large = np.nonzero(sizes > 0.1 * sizes.max())[0]
    far = int(CLOSED_MM / spacing_mm[1]) + 1
    air = np.pad(np.isin(labels, large), ((0, 0), (far, far), (far, far)))
    grown = ndimage.distance_transform_edt(~air, spacing_mm) < CLOSED_MM
    closed = ndimage.distance_transform_edt(grown, spacing_mm) > CLOSED_MM
    return closed[:, far:-far, far:-far]


def real(name: str) -> tuple[Look, Spacing]:
    """Measure one of the real scans."""
    slices, only_right = SCANS[name]
    image = nibabel.load(FOLDER / name)
    voxels = np.transpose(np.asarray(image.dataobj), (2, 1, 0))[slices]
    spacing = tuple(float(step) for step in image.header.get_zooms()[::-1])
    lungs = air_lungs(voxels, spacing)
    if only_right:
        # Columns grow to the patient's left.
        lungs[:, :, lungs.shape[2] // 2 :] = False
    return measure(voxels, spacing, lungs), spacing


def simulated(spacing_mm: Spacing, number: int) -> Look:
    """Measure a phantom with a real scan's spacing."""
    cfg = PhantomData(slice_mm=spacing_mm[0], pixel_mm=spacing_mm[1], max_height_mm=220.0)
    volume = make_phantom(cfg, "train", number).case.volume
    spacing = volume.grid.spacing_mm
    return measure(volume.voxels, spacing, air_lungs(volume.voxels, spacing))


def main() -> None:
    """Print one line of JSON for each scan."""
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    print(f"percentiles {PERCENTILES}, areas {AREAS_MM2} mm2")
    for name in SCANS:
        look, spacing = real(name)
        print(name, json.dumps(asdict(look)))
        for number in range(count):
            print(f"phantom {number}", json.dumps(asdict(simulated(spacing, number))))


if __name__ == "__main__":
    main()
