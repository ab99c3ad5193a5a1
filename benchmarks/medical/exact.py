"""The product's findings beside the exact ones: every voxel by the same network, fp32, at once.

Exact: the whole coarse volume and the whole fine volume go through the torch module in float32,
in tiles whose halo is wider than the network can see (checked against one pass over a part), or at
once where they are small. What follows is the product's own: peaks, connected masks, scores.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.medical.study import Item, Study, print_table
from benchmarks.medical.subject import Subject, forms, read_volume, scan_folder, subject
from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_case import make_phantom
from kits.medical.findings import Finding, Findings
from kits.medical.geometry import Shape, Volume, Window
from kits.medical.infer.coarse import find_candidates, find_heat
from kits.medical.infer.crops import FineGrid, Patch
from kits.medical.infer.find import examine, find_nodules
from kits.medical.infer.lungs import Lungs, find_lungs
from kits.medical.infer.network import open_network
from kits.medical.infer.settings import HEAT_STRIDE, Network, Settings
from kits.medical.infer.tiles import plan_tiles

# Wider than any network of the kit sees, the large teacher aside.
HALO = 64
TILE_VOXELS = 9_000_000
NUM_CASES, QUICK_CASES = 5, 1
SAME_MM = 3.0  # between the centres of one nodule, found twice


@dataclass(frozen=True)
class WholeFine:
    """What the network says of every voxel of a scan's fine grid."""

    mask: np.ndarray
    heat: np.ndarray
    texture: np.ndarray

    def look(self, windows: Sequence[Window]) -> Iterator[Patch]:
        """As crops, which they are not."""
        for window in windows:
            half = tuple(slice(p.start // HEAT_STRIDE, p.stop // HEAT_STRIDE) for p in window)
            yield Patch(window, self.mask[window], self.heat[half], self.texture[:, *half])


def exact_findings(
    volume: Volume, network: Network, settings: Settings, *, tile_voxels: int = TILE_VOXELS
) -> Findings:
    """As `find_nodules`, with nothing left out: each voxel of both scales is computed.

    Args:
        volume: of the chest.
        network: in float32.
        settings: the product's; halos and tiles are not taken from it.
        tile_voxels: below the size of the volume it goes through in tiles of wide halos.
    """
    lungs = find_lungs(volume)
    wide = replace(settings, halo=HALO, max_tile_voxels=tile_voxels)
    heat = find_heat(volume, _everywhere(volume, lungs), network, wide, lambda *_: None)
    candidates = find_candidates(heat, lungs, settings)
    fine = FineGrid(volume, settings.multiple)
    whole = whole_fine(fine, network, tile_voxels)
    # A mask may lie anywhere in the whole: crops bound it, as far as they can grow.
    findings = examine(candidates, fine, settings, whole.look)
    return Findings(volume.grid, findings, lungs.window, lungs.volume_ml)


def whole_fine(fine: FineGrid, network: Network, tile_voxels: int) -> WholeFine:
    """The network over the whole fine grid."""
    half: Shape = tuple(size // HEAT_STRIDE for size in fine.shape)  # type: ignore[assignment]
    found = WholeFine(
        np.empty(fine.shape, np.float32),
        np.empty(half, np.float32),
        np.empty((3, *half), np.float32),
    )
    blocks = np.ones([size // fine.multiple for size in fine.shape], bool)
    for tile in plan_tiles(blocks, fine.multiple, HALO, tile_voxels):
        given = np.empty((1, 1, *(p.stop - p.start for p in tile.window)), np.float32)
        fine.cut(tile.window, given[0, 0])
        outputs = network({"image": given})
        inner = tuple(
            slice(c.start - w.start, c.stop - w.start)
            for c, w in zip(tile.core, tile.window, strict=True)
        )
        inner_half, core_half = (
            tuple(slice(p.start // HEAT_STRIDE, p.stop // HEAT_STRIDE) for p in parts)
            for parts in (inner, tile.core)
        )
        found.mask[tile.core] = outputs["mask"][0, 0][inner]
        found.heat[core_half] = outputs["heat"][0, 0][inner_half]
        found.texture[:, *core_half] = outputs["texture"][0][:, *inner_half]
    return found


def _everywhere(volume: Volume, lungs: Lungs) -> Lungs:
    window: Window = tuple(slice(0, size) for size in volume.grid.shape)  # type: ignore[assignment]
    return replace(lungs, window=window, region=np.ones_like(lungs.region))


def compare(exact: Findings, found: Findings) -> dict[str, Any]:
    """Dice over all voxels of the scan and for each nodule; lost and new ones."""
    pairs = [(one, _same(one, found.findings)) for one in exact.findings]
    dices = [_dice([one], [other]) for one, other in pairs if other is not None]
    scores = [abs(one.score - other.score) for one, other in pairs if other is not None]
    taken = {id(other) for _, other in pairs}
    return {
        "exact": len(exact.findings),
        "found": len(found.findings),
        "lost": sum(other is None for _, other in pairs),
        "new": sum(id(other) not in taken for other in found.findings),
        "dice": _dice(exact.findings, found.findings),
        "nodule_dice": dices,
        "score_difference": max(scores, default=0.0),
    }


def _same(one: Finding, others: Sequence[Finding]) -> Finding | None:
    near = [
        (float(np.linalg.norm(np.subtract(one.centre_mm, other.centre_mm))), at)
        for at, other in enumerate(others)
    ]
    distance, at = min(near, default=(np.inf, -1))
    return others[at] if distance <= SAME_MM else None


def _dice(some: Sequence[Finding], others: Sequence[Finding]) -> float:
    one, other = _voxels(some), _voxels(others)
    total = len(one) + len(other)
    return 1.0 if not total else 2 * len(one & other) / total


def _voxels(findings: Sequence[Finding]) -> set[tuple[int, int, int]]:
    found: set[tuple[int, int, int]] = set()
    for finding in findings:
        at = np.argwhere(finding.mask) + [part.start for part in finding.window]
        found.update(map(tuple, at.tolist()))
    return found


def measure(study: Study) -> dict[str, Any]:
    """Phantoms of the test split, every form of the bundle."""
    from kits.medical.network import Network as TorchNetwork
    from kits.medical.trained import load_module

    made: Subject = subject(study)
    os.environ["DEEPKITS_HOME"] = str(made.home)
    reference = TorchNetwork(load_module(made.run))
    networks = {
        form: open_network(bundle, study.threads, device)
        for form, (bundle, device) in forms(made).items()
    }
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in networks}
    for case, volume in _volumes(study):
        settings = networks["fp32"].settings(threads=study.threads)
        study.say(f"{case}: {volume.grid.shape}, exact")
        exact = exact_findings(volume, reference, settings)
        for name, network in networks.items():
            found = find_nodules(volume, network, network.settings(threads=study.threads))
            rows[name].append({"case": case, "shape": volume.grid.shape, **compare(exact, found)})
            study.say(f"{name}: {rows[name][-1]}")
    return {
        "is_trained": made.is_trained,
        "run": made.run.name,
        "no_int8": made.note,
        "precisions": {name: _pooled(each) for name, each in rows.items()},
    }


def _volumes(study: Study) -> Iterator[tuple[str, Volume]]:
    """The scan whose seconds are measured, and patients on scanners of other kinds."""
    if not study.quick:
        yield "scan", read_volume(scan_folder(study))
    cfg = PhantomData(max_slices=32, pixel_mm=1.2) if study.quick else PhantomData()
    for number in range(QUICK_CASES if study.quick else NUM_CASES):
        case = make_phantom(cfg, "test", number + 1).case
        yield case.name, case.volume


def _pooled(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    dices = [value for row in rows for value in row["nodule_dice"]]
    # A scan in which neither found anything says nothing of Dice.
    seen = [row for row in rows if row["exact"] + row["found"]]
    return {
        **{name: sum(row[name] for row in rows) for name in ("exact", "found", "lost", "new")},
        "dice": round(float(np.mean([row["dice"] for row in seen])), 5) if seen else None,
        "least_scan_dice": round(min(row["dice"] for row in seen), 5) if seen else None,
        "mean_nodule_dice": round(float(np.mean(dices)), 5) if dices else None,
        "least_nodule_dice": round(min(dices), 5) if dices else None,
        "score_difference": round(max(row["score_difference"] for row in rows), 5),
        "cases": [
            {
                "name": row["case"],
                "shape": list(row["shape"]),
                "dice": round(row["dice"], 5),
                "exact": row["exact"],
            }
            for row in rows
        ],
    }


def show(found: Mapping[str, Any]) -> None:
    """A row for each precision."""
    columns = ("precision", "exact", "lost", "new", "Dice", "worst scan", "worst nodule", "score ±")
    keys = ("exact", "lost", "new", "dice", "least_scan_dice", "least_nodule_dice",
            "score_difference")  # fmt: skip
    rows = [[name, *(row[key] for key in keys)] for name, row in found["precisions"].items()]
    print_table("Beside the exact result of the same weights", columns, rows)


ITEM = Item(measure, show)
