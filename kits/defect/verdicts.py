"""Whether every runtime gives every image the same verdict: the gate before a bundle is released.

Outputs agree to rounding already when a bundle is packed; this asks what the line asks: the same
defects, of the same classes, at the same places, in the same images that validation kept.

Dimensions: N images, P planes, H rows, W columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.boxes import nms
from edge.bundle import Bundle
from edge.pipeline import Pipeline
from kits.defect.detecting import Found, Network
from kits.defect.metrics.matching import overlaps
from kits.defect.planes import padded

FROZEN = "model/frozen.npz"
SAME_PLACE = 0.9  # overlap of two runtimes' boxes of one defect


@dataclass(frozen=True)
class Verdicts:
    """One runtime beside the reference."""

    target: str
    images: int
    differing: tuple[int, ...]  # places in the frozen set

    @property
    def share(self) -> float:
        """Of images with the same verdict."""
        return 1 - len(self.differing) / self.images

    def to_json(self) -> dict[str, Any]:
        """For verdicts.json."""
        return {
            "target": self.target, "images": self.images, "same": self.share,
            "differing": list(self.differing),
        }  # fmt: skip


def read_frozen(run: Path) -> list[np.ndarray]:
    """Planes (P, H, W) uint8 of validation images that training kept.

    Raises:
        ValueError: there are none.
    """
    path = run / FROZEN
    if not path.is_file():
        raise ValueError(f"run={run} has no {FROZEN}; train again")
    with np.load(path, allow_pickle=False) as archive:
        return [archive[name] for name in sorted(archive.files)]


def compare_bundle(
    path: Path,
    targets: Sequence[str],
    frozen: Sequence[np.ndarray],
    facts: Mapping[str, Any],
    reference: Network | None = None,
) -> list[Verdicts]:
    """Every target of a bundle beside the network that was trained.

    Args:
        path: of the bundle.
        targets: those that run here.
        frozen: images.
        facts: of the run.
        reference: the trained network; None (8-bit bundles): the first target.
    """
    bundle, found = Bundle.open(path), []
    truth = None if reference is None else _all(reference, frozen, facts)
    for target in targets:
        seen = _all(_through(Pipeline.open(bundle, device=target)), frozen, facts)
        truth = truth or seen
        differing = tuple(
            k for k, pair in enumerate(zip(truth, seen, strict=True)) if not same(*pair)
        )
        found.append(Verdicts(target, len(frozen), differing))
    return found


def same(first: Found, second: Found) -> bool:
    """The same defects: as many, each with one of its class at its place."""
    if len(first.boxes) != len(second.boxes):
        return False
    if not len(first.boxes):
        return True
    table = overlaps(first.boxes, second.boxes) * (first.classes[:, None] == second.classes[None])
    best = table.argmax(1)
    return bool((table.max(1) >= SAME_PLACE).all()) and len(set(best.tolist())) == len(best)


def _all(network: Network, frozen: Sequence[np.ndarray], facts: Mapping[str, Any]) -> list[Found]:
    return [_verdict(network, planes, facts) for planes in frozen]


def _verdict(network: Network, planes: np.ndarray, facts: Mapping[str, Any]) -> Found:
    image = padded(planes, int(facts["multiple"]))[None].astype(np.float32) / 255
    answer = network({"image": image})
    if "classes" in answer:
        boxes, scores, classes = (answer[name][0] for name in ("boxes", "scores", "classes"))
    else:
        kept = nms(
            answer["boxes"], answer["scores"], iou=float(facts["nms"]["iou"]),
            score=float(facts["threshold"]), max_boxes=int(facts["nms"]["max_boxes"]),
        )  # fmt: skip
        boxes, scores, classes = (part[0] for part in kept)
    is_real = classes >= 0
    return Found(boxes[is_real], scores[is_real], classes[is_real]).above(float(facts["threshold"]))


def _through(pipeline: Pipeline) -> Network:
    return lambda inputs: pipeline.predict({"image": inputs["image"]})
