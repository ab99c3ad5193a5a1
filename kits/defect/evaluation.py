"""A run's numbers on images: metrics.json and report.html. Training ends with the same.

Flat keys of metrics.json; most with `.low` and `.high`, 95 % over images drawn again:

    map50, map50_95                    ultralytics' definition: 101 points, mean over classes
    f_at_iou_0.33                      F score at the run's threshold, which validation chose
    f_at_iou_0.33_best                 at the best threshold of these images: a bound, not a result
    per_class.<name>.ap50, .ap50_95, .num_defects, .detection_rate (and .lower_95)
    point_hit_rate                     of all defects: the middle of a found box lies on it
    length_recall                      of line-like defects: the share of their mm that was found
    detection_rate                     of all defects: overlapped by 0.33 or hit, by any class
    part_detection_rate                of images with defects: at least one was found
    false_reject_rate                  of images without defects: something was found
    ... .lower_95, .upper_95           one-sided Clopper-Pearson bounds of these three
    false_per_image                    found boxes that are no defect
    at_1_percent_false_reject.<key>    threshold, detection_rate and its bound where these images'
                                       own clean ones are rejected once in a hundred
    pod.<what>.a90, .a90_95            against width, length, contrast, where they are known
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from core.train.run import write_atomic
from kits.defect.data.image_set import ImageSet, names_of
from kits.defect.detecting import Detecting, Network, detect
from kits.defect.metrics import lines
from kits.defect.metrics.average_precision import (
    Hits,
    average_precisions,
    best_threshold,
    f_score,
    hits_of,
    map_metrics,
)
from kits.defect.metrics.bootstrap import intervals
from kits.defect.metrics.matching import Scored, match
from kits.defect.metrics.pod import pod_metrics
from kits.defect.metrics.proportions import lower_bound, upper_bound
from kits.defect.planes import planes_of

METRICS_FILE, REPORT_FILE = "metrics.json", "report.html"
LOOSE = 0.33
# Of clean images, how many may be rejected; fewer than these tell no hundredth.
REJECTED, LEAST_CLEAN = 0.01, 100
Told = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Evaluation:
    """All that a report shows."""

    metrics: dict[str, Any]
    images: tuple[Scored, ...]
    threshold: float
    class_names: tuple[str, ...]

    def confusion(self) -> np.ndarray:
        """(K + 1, K + 1): true class by found class; the last row and column are nothing."""
        number = len(self.class_names)
        table = np.zeros((number + 1, number + 1), np.int64)
        for one in self.images:
            shown = Scored(one.truth, one.found.above(self.threshold))
            places = match(shown, (LOOSE,), by_class=False)[:, 0]
            for place, found in zip(places, shown.found.classes, strict=True):
                true = one.truth.classes[place] if place >= 0 else number
                table[true, found] += 1
            missed = np.setdiff1d(np.arange(len(one.truth.classes)), places)
            np.add.at(table, (one.truth.classes[missed], number), 1)
        return table


def evaluate_run(
    run: Path,
    images: ImageSet,
    split: str | None = None,
    output: Path | None = None,
    *,
    told: Told | None = None,
) -> dict[str, Any]:
    """Compute metrics.json and report.html of a run.

    Args:
        run: folder of a finished training run.
        images: the data.
        split: train, validation, test or all; None: test of the images that the run was trained
            on, all of any others.
        output: where the files go; None: the run's folder.
        told: hears of each image before it is looked at.
    Returns:
        the content of metrics.json.
    Raises:
        ValueError: the run is not finished, the split is empty, or classes or planes are others.
    """
    from kits.defect.evaluation_report import write_report
    from kits.defect.trained import load_run_network, read_facts

    facts = read_facts(run)
    check_images(facts, images)
    is_same = facts.get("data_sha256") == images.fingerprint
    chosen = split or ("test" if is_same else "all")
    names = names_of(images, chosen)  # type: ignore[arg-type]
    scored = look(images, names, load_run_network(run), settings_of(facts), told)
    found = assess(scored, float(facts["threshold"]), images.class_names)
    about = {
        "data": images.name,
        "data_sha256": images.fingerprint,
        "split": chosen,
        "is_same_data_as_training": is_same,
        "threshold": found.threshold,
    }
    metrics = {**about, **found.metrics}
    folder = output or run
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / METRICS_FILE, json.dumps(metrics, indent=2, allow_nan=False) + "\n")
    write_report(folder / REPORT_FILE, found, metrics, run, facts)
    return metrics


def check_images(facts: dict[str, Any], images: ImageSet) -> None:
    """Refuse images that the network cannot judge.

    Raises:
        ValueError: their classes are others, or only one side has templates.
    """
    ours, theirs = list(facts["class_names"]), list(images.class_names)
    if ours != theirs:
        raise ValueError(
            f"data={images.name} has the classes {', '.join(theirs)}, the run knows "
            f"{', '.join(ours)}; set data.class_names, or choose another run"
        )
    if bool(facts["has_template"]) != images.has_template:
        having = "the run was" if facts["has_template"] else "the images are"
        raise ValueError(f"{having} with templates, the other is not; set data.templates")


def settings_of(facts: dict[str, Any]) -> Detecting:
    """How a run's answers become defects."""
    return Detecting(int(facts["multiple"]), iou=float(facts["nms"]["iou"]))


def look(
    images: ImageSet,
    names: Sequence[str],
    network: Network,
    settings: Detecting,
    told: Told | None = None,
) -> tuple[Scored, ...]:
    """What is found in each image."""
    result = []
    for number, name in enumerate(names):
        if told is not None:
            told(number, len(names), name)
        image = images.load(name)
        planes = planes_of(image.pixels, image.template)
        result.append(Scored(image, detect(planes, network, settings)))
    return tuple(result)


def assess(images: Sequence[Scored], threshold: float, class_names: Sequence[str]) -> Evaluation:
    """All numbers of what was found."""
    hits = [hits_of(one) for one in images]
    metrics: dict[str, Any] = {"num_images": len(images)}
    metrics["num_defects"] = sum(len(one.true_classes) for one in hits)

    def scores(drawn: Sequence[Hits]) -> dict[str, float]:
        return {**map_metrics(drawn), "f_at_iou_0.33": f_score(drawn, threshold)}

    if metrics["num_defects"]:
        metrics |= {**scores(hits), **intervals(hits, scores)}
        metrics["f_at_iou_0.33_best"] = best_threshold(hits)[1]
        metrics["per_class"] = _per_class(images, hits, threshold, class_names)
        metrics |= _rates(images, threshold)
        metrics |= _line_metrics(images, threshold)
        metrics |= _pod(images, threshold)
    metrics |= _rejects(images, threshold)
    return Evaluation(metrics, tuple(images), threshold, tuple(class_names))


def _per_class(
    images: Sequence[Scored], hits: Sequence[Hits], threshold: float, class_names: Sequence[str]
) -> dict[str, dict[str, float]]:
    classes = np.concatenate([one.truth.classes for one in images])
    is_hit = np.concatenate([lines.hits(one, threshold) for one in images])
    result = {}
    for k, each in average_precisions(hits).items():
        mine = is_hit[classes == k]
        result[class_names[k]] = {
            "ap50": float(each[0]),
            "ap50_95": float(each.mean()),
            "num_defects": len(mine),
            "detection_rate": float(mine.mean()),
            "detection_rate.lower_95": lower_bound(int(mine.sum()), len(mine)),
        }
    return result


def _rates(images: Sequence[Scored], threshold: float) -> dict[str, float]:
    """Hits of defects and parts, with what so many of them prove."""
    marked = [one for one in images if len(one.truth.classes)]
    is_hit = [lines.hits(one, threshold) for one in marked]
    result = _bounded("detection_rate", int(np.concatenate(is_hit).sum()), sum(map(len, is_hit)))
    result |= _bounded("part_detection_rate", sum(map(any, is_hit)), len(marked))
    points = np.concatenate([lines.point_hits(one, threshold) for one in marked])
    return result | {"point_hit_rate": float(points.mean())}


def _bounded(key: str, hits: int, tries: int) -> dict[str, float]:
    rate = {key: hits / tries, f"{key}.lower_95": lower_bound(hits, tries)}
    return {**rate, f"{key}.hits": hits, f"{key}.tries": tries}


def _rejects(images: Sequence[Scored], threshold: float) -> dict[str, float]:
    """Of images without a defect; and how many found boxes are none, of all images."""
    loose = [match(_shown(one, threshold), (LOOSE,), by_class=False)[:, 0] for one in images]
    false = [int((places < 0).sum()) for places in loose]
    result: dict[str, float] = {"false_per_image": float(np.mean(false))}
    clean = [one for one in images if not len(one.truth.classes)]
    if clean:
        rejected = sum(len(one.found.above(threshold).scores) > 0 for one in clean)
        result |= {
            "false_reject_rate": rejected / len(clean),
            "false_reject_rate.upper_95": upper_bound(rejected, len(clean)),
            "false_reject_rate.hits": rejected,
            "false_reject_rate.tries": len(clean),
        }
    if len(clean) >= LEAST_CLEAN and len(clean) < len(images):
        result |= _at_one_percent(images, clean)
    return result


def _at_one_percent(images: Sequence[Scored], clean: Sequence[Scored]) -> dict[str, float]:
    """Where one clean image in a hundred is rejected: what is found then."""
    highest = np.sort([max(one.found.scores, default=0.0) for one in clean])[::-1]
    threshold = float(np.nextafter(highest[int(REJECTED * len(clean))], np.float32(2)))
    rates = _rates(images, threshold)
    keys = [key for key in rates if key.startswith(("detection_rate", "part_detection_rate"))]
    found = {"threshold": threshold, **{key: rates[key] for key in keys}}
    return {f"at_1_percent_false_reject.{key}": value for key, value in found.items()}


def _line_metrics(images: Sequence[Scored], threshold: float) -> dict[str, float]:
    """Of line-like defects, weighted by their length."""
    each = [
        (lines.found_shares(one, threshold), _lengths(one)[lines.line_like(one)])
        for one in images
        if len(lines.line_like(one))
    ]
    if not each:
        return {}

    def recall(drawn: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
        total = sum(float(length.sum()) for _, length in drawn)
        found = sum(float((share * length).sum()) for share, length in drawn)
        return {"length_recall": found / max(total, 1e-9)}

    return {**recall(each), **intervals(each, recall), "num_lines": sum(len(s) for s, _ in each)}


def _lengths(one: Scored) -> np.ndarray:
    """(G,) mm, or pixels where no scale is known."""
    truth = one.truth
    if truth.lengths_mm is not None and np.isfinite(truth.lengths_mm).any():
        return np.nan_to_num(truth.lengths_mm.astype(np.float64))
    assert truth.segments_px is not None
    return np.nan_to_num(np.linalg.norm(truth.segments_px[:, 1] - truth.segments_px[:, 0], axis=1))


def sizes_of(
    images: Sequence[Scored], threshold: float, what: str
) -> tuple[list[float], list[bool]]:
    """Of each defect that has it, the size (`widths_mm`, ...) and whether it was hit."""
    sizes: list[float] = []
    is_hit: list[bool] = []
    for one in images:
        values = getattr(one.truth, what)
        if values is None or not len(values):
            continue
        known = np.isfinite(values) & (values > 0)
        sizes += values[known].astype(float).tolist()
        is_hit += lines.hits(one, threshold)[known].tolist()
    return sizes, is_hit


SIZES = {
    "width_mm": "widths_mm",
    "length_mm": "lengths_mm",
    "contrast_to_noise": "contrasts_to_noise",
}


def _pod(images: Sequence[Scored], threshold: float) -> dict[str, float]:
    result: dict[str, float] = {}
    for name, what in SIZES.items():
        found = pod_metrics(*sizes_of(images, threshold, what))
        result |= {f"pod.{name}.{key}": value for key, value in found.items()}
    return result


def _shown(one: Scored, threshold: float) -> Scored:
    return Scored(one.truth, one.found.above(threshold))
