"""The mask of the one nodule that a patch is cut around. No torch."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from kits.medical.data.case import Case
from kits.medical.geometry import Shape, Triple, Window
from kits.medical.sampling import Network, View, cut, end_in_air, view_of

MIRRORS: tuple[tuple[int, ...], ...] = ((), (1,), (2,), (1, 2))  # axes that are flipped
LEAST = 0.1  # probability from which on a voxel may hang together with the nodule


def predict_patch(
    case: Case,
    network: Network,
    *,
    multiple: int = 16,
    sample: Shape = (24, 96, 96),
    is_mirrored: bool = False,
) -> np.ndarray:
    """The mask with the highest Dice to be expected from what the network says.

    Args:
        case: with `extent="patch"`.
        network: takes and gives what the network contract says.
        multiple: what its input's sizes are multiples of.
        sample: (D, H, W) it was trained on. It sees as many rows and columns around the middle,
            and as many slices or more; beyond the patch's slices there is air.
        is_mirrored: take the mean over the four mirror images of the slices.
    Returns:
        (D, H, W) bool on the scan's own grid: what hangs together nearest to the patch's middle.
    """
    view = view_of(case, "fine", "share", 1)
    window = _window(view, multiple, sample)
    image = end_in_air(*cut(view, window, is_edge=True))
    total = np.zeros(image.shape, np.float32)
    mirrors = MIRRORS if is_mirrored else MIRRORS[:1]
    for axes in mirrors:
        given = np.ascontiguousarray(np.flip(image, axes))[None, None]
        total += np.flip(network({"image": given})["mask"][0, 0], axes)
    seen = tuple(
        slice(max(part.start, 0), min(part.stop, size))
        for part, size in zip(window, view.shape, strict=True)
    )
    inside = tuple(
        slice(now.start - part.start, now.stop - part.start)
        for now, part in zip(seen, window, strict=True)
    )
    probability = np.zeros(view.shape, np.float32)
    probability[seen] = 1 / (1 + np.exp(-total[inside] / len(mirrors)))
    probability = probability[:: view.factor]
    spacing_mm = case.volume.grid.spacing_mm
    near = nearest_part(probability >= LEAST, spacing_mm)
    return nearest_part(best_mask(np.where(near, probability, 0)), spacing_mm)


def best_mask(probability: np.ndarray) -> np.ndarray:
    """The mask with the highest Dice to be expected against a truth of these probabilities.

    Of m voxels the most probable ones are best, so all m are tried. The expectation of the
    ratio is taken as the ratio of expectations. A nodule on whose outline readers differ so gets a
    lower threshold than one that all outline alike.

    Args:
        probability: (D, H, W), 0 to 1.
    Returns:
        (D, H, W) bool; empty where every probability is 0.
    """
    falling = np.sort(probability, axis=None)[::-1].astype(np.float64)
    within = np.cumsum(falling)
    sizes = np.arange(1, len(falling) + 1)
    level = falling[int((within / (sizes + within[-1])).argmax())]
    mask: np.ndarray = (probability >= level) & (probability > 0)
    return mask


def nearest_part(mask: np.ndarray, spacing_mm: Triple) -> np.ndarray:
    """Of the connected parts of a mask the one that comes nearest to the middle."""
    labels, number = ndimage.label(mask, np.ones((3, 3, 3), bool))
    if number < 2:
        return mask
    middle = (np.array(mask.shape) - 1) / 2
    places = np.argwhere(mask)
    distance = np.linalg.norm((places - middle) * spacing_mm, axis=1)
    # Of parts that touch the middle alike the larger one.
    sizes = np.bincount(labels.ravel())
    owner = labels[tuple(places.T)]
    best = min(range(len(places)), key=lambda k: (round(distance[k], 3), -sizes[owner[k]]))
    found: np.ndarray = labels == owner[best]
    return found


def _window(view: View, multiple: int, sample: Shape) -> Window:
    wanted = (max(view.shape[0], sample[0]), *sample[1:])
    parts = []
    for size, have in zip(wanted, view.shape, strict=True):
        whole = -(-size // multiple) * multiple
        start = -((whole - have) // 2)
        parts.append(slice(start, start + whole))
    return parts[0], parts[1], parts[2]
