"""Look at a phantom: `python -m kits.medical.data.phantom_picture <file.png> [seed] [number]`.

Above, slices through the chest; below, its nodules with the lines that 1, 2, 3, 4 readers drew.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from kits.medical.data.case import Case, TrueNodule
from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_case import make_phantom

LUNG_WINDOW, SOFT_WINDOW = (-1350, 150), (-160, 240)  # HU
COLUMNS = 6
AROUND_MM = 22.0
COLOURS = ("#4da3ff", "#4fd1c5", "#f6d743", "#ff5a5a")


def draw(case: Case, path: Path) -> None:
    """Write a picture of a case."""
    figure = Figure(figsize=(18, 12), facecolor="black", layout="constrained")
    grid = figure.add_gridspec(3, COLUMNS, height_ratios=(2, 1.6, 1.2))
    voxels, (step, pixel, _) = case.volume.voxels, case.volume.grid.spacing_mm
    depth, height, width = voxels.shape
    flat = step / pixel
    views = (
        (voxels[depth // 2], 1.0, LUNG_WINDOW, "axial"),
        (voxels[depth // 2], 1.0, SOFT_WINDOW, "axial, soft tissue"),
        (voxels[depth // 5], 1.0, LUNG_WINDOW, "axial, lower"),
        (voxels[::-1, height // 2], flat, LUNG_WINDOW, "coronal"),
        (voxels[::-1, :, width // 4], flat, LUNG_WINDOW, "sagittal"),
        (voxels[::-1, int(height * 0.7)], flat, SOFT_WINDOW, "coronal, soft tissue"),
    )
    for number, (image, aspect, window, title) in enumerate(views):
        row, column = divmod(number, 3)
        axes = figure.add_subplot(grid[row, 2 * column : 2 * column + 2])
        _show(axes, image, window, title, aspect)
    for number, nodule in enumerate(case.nodules[:COLUMNS]):
        _draw_nodule(figure.add_subplot(grid[2, number]), case, nodule)
    spacing = " x ".join(f"{value:.2f}" for value in case.volume.grid.spacing_mm)
    figure.suptitle(f"{case.name}: simulated, not a patient. {spacing} mm", color="white")
    figure.savefig(path, dpi=80, bbox_inches="tight", metadata={"Software": None})


def _draw_nodule(axes: Axes, case: Case, nodule: TrueNodule) -> None:
    middle = [(part.start + part.stop) // 2 for part in nodule.window]
    around = round(AROUND_MM / case.volume.grid.spacing_mm[1])
    rows, columns = (slice(max(0, at - around), at + around) for at in middle[1:])
    count = np.zeros(case.volume.voxels.shape[1:], np.int64)
    layer = middle[0] - nodule.window[0].start
    for reader in range(nodule.num_readers):
        count[nodule.window[1:]] += nodule.reader(reader)[layer]
    title = f"{nodule.diameter_mm:.1f} mm, {nodule.num_readers} readers"
    _show(axes, case.volume.voxels[middle[0], rows, columns], LUNG_WINDOW, title, 1.0)
    near = count[rows, columns]
    for number in range(near.max()):
        axes.contour(near, levels=[number + 0.5], colors=[COLOURS[number]], linewidths=1.2)


def _show(
    axes: Axes, image: np.ndarray, window: tuple[int, int], title: str, aspect: float
) -> None:
    low, high = window
    axes.imshow(image, cmap="gray", vmin=low, vmax=high, aspect=aspect, interpolation="nearest")
    axes.set_title(title, color="white", fontsize=10)
    axes.axis("off")


def main() -> None:
    """Draw one phantom of the test split."""
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return
    mpl.use("agg")
    seed, number = ([int(word) for word in sys.argv[2:4]] + [0, 0])[:2]
    draw(make_phantom(PhantomData(seed=seed), "test", number).case, Path(sys.argv[1]))


if __name__ == "__main__":
    main()
