"""A finished run as what its bundle is made of: the fused network, samples, metric, provenance.

Inputs in a bundle are drawn here: no customer's part leaves the machine in them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from core.convert.source import Arrays, Axis, Draw, Sizes, Source
from core.kit import Exportable, Metric
from kits.defect.config import DefectTrainConfig
from kits.defect.evaluation import settings_of
from kits.defect.graph import OUTPUT_NAMES, fused
from kits.defect.trained import SAMPLES, load_module, read_facts

MAX_BATCH = 8
STEPS = 3  # multiples by which the largest tried side exceeds the smallest
# Validation images that the metric scores: it is asked for each layer that may stay in float.
METRIC_IMAGES = 40
# The lowest score that leaves the bundle: sites may set their own thresholds down to it.
LOWEST_SCORE = 0.05
INTENDED_USE = (
    "Marks possible surface defects in images of parts like those it was trained on, for an "
    "inspection line that rejects or shows them to a person. Not for safety functions."
)
FACTS = (
    "multiple", "planes", "has_template", "class_names", "threshold", "nms", "size_px", "graph",
    "width", "num_parameters", "data", "validation",
)  # fmt: skip


def open_run(run: Path) -> Exportable:
    """Read a run's folder.

    Raises:
        ValueError: the run is not finished, or an earlier version wrote it.
    """
    facts, samples = read_facts(run), read_samples(run)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    network = fused(load_module(run))
    # The decoder's own float32 arithmetic is the same in every runtime.
    draw = drawing(int(facts["planes"]), has_template=bool(facts["has_template"]))
    multiple = int(facts["multiple"])
    low, high = multiple, multiple * (1 + STEPS)
    axes = {2: Axis("height", low, high, multiple), 3: Axis("width", low, high, multiple)}
    example = draw({"batch": 1, "height": 2 * multiple, "width": 2 * multiple}, _seeded())
    score = min(LOWEST_SCORE, float(facts["threshold"]))
    return Exportable(
        source=Source(
            name="defect",
            origin=f"defect run: {facts['graph']} x {facts['width']:g}",
            module=network,
            example={"image": torch.from_numpy(example["image"])},
            output_names=OUTPUT_NAMES,
            axes={"image": {0: Axis("batch", 1, MAX_BATCH), **axes}},
            draw=draw,
        ),
        pre=[],
        post=[nms_step(facts, score)],
        calibration=samples,
        metric=_metric(config, facts),
        metric_name="map50",
        # The last convolutions say where boxes are: an eighth of a bit there is pixels.
        float_weights=("head.",),
        config_schema={
            "type": "object",
            "properties": {
                "class_names": {"type": "array", "items": {"type": "string"}},
                "score_threshold": {
                    "anyOf": [
                        {"$ref": "#/$defs/score"},
                        {"type": "array", "items": {"$ref": "#/$defs/score"}},
                    ]
                },
                "has_template": {"type": "boolean"},
            },
            "$defs": {"score": {"type": "number", "minimum": score, "maximum": 1}},
            "additionalProperties": False,
        },
        config_default={
            "class_names": list(facts["class_names"]),
            "score_threshold": float(facts["threshold"]),
            "has_template": bool(facts["has_template"]),
        },
        provenance={name: facts[name] for name in FACTS if name in facts},
        license="Apache-2.0",
        intended_use=INTENDED_USE,
    )


def nms_step(facts: Mapping[str, Any], score: float) -> dict[str, Any]:
    """The step behind the model, on every target."""
    return {
        "op": "nms",
        "input": ["boxes", "scores"],
        "output": ["boxes", "scores", "classes"],
        "iou": float(facts["nms"]["iou"]),
        "score": score,
        "max_boxes": int(facts["nms"]["max_boxes"]),
    }


def read_samples(run: Path) -> Arrays:
    """Real inputs that training left, in 0..1.

    Raises:
        ValueError: there are none.
    """
    path = run / SAMPLES
    if not path.is_file():
        raise ValueError(f"run={run} has no {SAMPLES}; train again")
    with np.load(path, allow_pickle=False) as archive:
        return {"image": archive["image"].astype(np.float32) / 255}


def drawing(planes: int, *, has_template: bool) -> Draw:
    """Nobody's part: brushed grey with holes, marks and scratches."""

    def draw(sizes: Sizes, rng: np.random.Generator) -> Arrays:
        shape = (sizes["height"], sizes["width"])
        return {
            "image": np.stack(
                [_planes(shape, planes, has_template, rng) for _ in range(sizes["batch"])]
            )
        }

    return draw


def _planes(
    shape: tuple[int, int], planes: int, has_template: bool, rng: np.random.Generator
) -> np.ndarray:
    template = _surface(shape, rng)
    image = _damaged(template, rng)
    if has_template:
        return np.stack([image, template, np.abs(image - template)])
    if planes == 1:
        return image[None]
    tints = rng.uniform(0.7, 1, planes).astype(np.float32)
    return image[None] * tints[:, None, None]


def _surface(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    height, width = shape
    grain = rng.standard_normal((height, 1), np.float32) * 0.03
    grain = grain + rng.standard_normal(shape, np.float32) * 0.02 + rng.uniform(0.3, 0.7)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    for _ in range(3):
        y, x, radius = rng.uniform(0, height), rng.uniform(0, width), rng.uniform(4, 16)
        grain[np.hypot(rows - y, columns - x) < radius] = rng.uniform(0, 0.2)
    return grain.clip(0, 1)


def _damaged(surface: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = surface.copy()
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    for _ in range(3):
        y, x = rng.uniform(0, image.shape[0]), rng.uniform(0, image.shape[1])
        angle, length, half = rng.uniform(0, np.pi), rng.uniform(3, 40), rng.uniform(0.7, 3)
        along = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle)
        across = (rows - y) * np.cos(angle) - (columns - x) * np.sin(angle)
        image[(np.abs(along) < length / 2) & (np.abs(across) < half)] += rng.uniform(-0.4, 0.4)
    return image.clip(0, 1).astype(np.float32)


def train_config(config: Mapping[str, Any]) -> DefectTrainConfig:
    """The part of a run's config.yaml that decides which images it saw.

    Raises:
        ValueError: an earlier version wrote it, whose images were others.
    """
    from kits.defect.kit import KIT

    given = config["data"]
    cls = KIT.groups["data"][given["name"]]
    if missing := [f.name for f in fields(cls) if f.init and f.name not in given]:
        raise ValueError(f"config.yaml does not say data.{', data.'.join(missing)}; train again")
    data = cls(**{f.name: _value(f.type, given[f.name]) for f in fields(cls) if f.init})
    cfg = DefectTrainConfig(data=data)
    cfg.trainer.smoke = bool(config["trainer"]["smoke"])
    return cfg


def _value(kind: Any, value: Any) -> Any:
    # YAML has neither tuples nor dataclasses.
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict):
        from kits.defect import optics_config

        return getattr(optics_config, str(kind))(**value)
    return value


def _metric(config: Mapping[str, Any], facts: Mapping[str, Any]) -> Metric:
    """Scores of whole validation images, read at the first call.

    Compression chooses by it which layers stay in float, so nothing of the test split is in it.
    """
    images: list[Any] = []

    def metric(predict: Any) -> dict[str, float]:
        from kits.defect.data.load import open_images
        from kits.defect.detecting import detect
        from kits.defect.metrics.average_precision import f_score, hits_of, map_metrics
        from kits.defect.metrics.matching import Scored
        from kits.defect.planes import planes_of
        from kits.defect.smoke import shrink
        from kits.defect.task import read

        if not images:
            cfg = shrink(train_config(config))
            images.extend(read(open_images(cfg.data), "validation", METRIC_IMAGES))
        settings = settings_of(dict(facts))
        hits = [
            hits_of(Scored(one, detect(planes_of(one.pixels, one.template), predict, settings)))
            for one in images
        ]
        return {**map_metrics(hits), "f_at_iou_0.33": f_score(hits, float(facts["threshold"]))}

    return metric


def _seeded() -> np.random.Generator:
    return np.random.default_rng(0)
