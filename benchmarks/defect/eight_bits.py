"""What eight bits cost: a run's bundles in float32 and in int8 on its test images.

    python -m benchmarks.defect.eight_bits runs/defect/<time>

Exports both for each target where they are missing, looks at every test image with each, and
compares mAP on the same images: intervals come from drawing images again, for both alike.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.defect.study import RESULTS, Study, write_part
from benchmarks.serve.study import print_table
from core.compress.config import CompressConfig
from core.convert.config import ExportConfig, TargetConfig
from edge.bundle import Bundle
from edge.pipeline import Pipeline
from kits.defect.data.load import open_images
from kits.defect.detecting import Arrays, Network
from kits.defect.evaluation import look, settings_of
from kits.defect.exportable import train_config
from kits.defect.exporting import BUNDLE, export_checked
from kits.defect.metrics.average_precision import Hits, hits_of, map_metrics
from kits.defect.metrics.bootstrap import intervals
from kits.defect.trained import load_run_network, read_facts

TARGETS = ["x86_64-ort-cpu", "x86_64-openvino-cpu"]
BITS = {"float32": CompressConfig(), "int8": CompressConfig(is_quantized=True)}
KEYS = ("map50", "map50_95")


def measure(run: Path, study: Study) -> dict[str, Any]:
    """Scores of the trained network and of each target of both bundles.

    Returns:
        `rows`, name -> map50 and map50_95, with `.loss` in points against the first float32 bundle
        and its `.loss.low` and `.loss.high`, 95 %. Bundles leave out scores below 0.05, which costs
        all of them alike.
    """
    facts = read_facts(run)
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    images = open_images(train_config(config).data)
    names, settings = images.names("test"), settings_of(facts)

    def hits(network: Network, name: str) -> list[Hits]:
        study.say(f"{len(names)} test images: {name}")
        return [hits_of(one) for one in look(images, names, network, settings)]

    found = hits(load_run_network(run), "the trained network")
    rows = {"trained": {key: map_metrics(found)[key] for key in KEYS}}
    reference: list[Hits] = []
    for (bits, compress), target in itertools.product(BITS.items(), TARGETS):
        path = run / f"export-{bits}-{target}" / BUNDLE
        if not path.exists():
            study.say(f"exporting {bits} for {target}")
            # One bundle each: runtimes round eight bits differently, and one with both would be
            # refused for the first verdict that differs.
            export_checked(
                ExportConfig(
                    run=str(run), output=str(path.parent), target=TargetConfig([target]),
                    compress=compress,
                )
            )  # fmt: skip
        pipeline = Pipeline.open(Bundle.open(path), device=target)
        found = hits(_dense(pipeline, len(facts["class_names"])), f"{bits}, {target}")
        reference = reference or found
        rows[f"{bits}, {target}"] = _beside(reference, found)
    return {
        "data": images.name, "data_sha256": images.fingerprint, "num_images": len(names),
        "model": facts["model"], "num_parameters": facts["num_parameters"], "rows": rows,
    }  # fmt: skip


def _dense(pipeline: Pipeline, num_classes: int) -> Network:
    """A bundle, whose boxes are suppressed already, as a network whose boxes are not."""

    def network(inputs: Arrays) -> Arrays:
        found = pipeline.predict({"image": inputs["image"]})
        is_class = found["classes"][..., None] == np.arange(num_classes)
        return {"boxes": found["boxes"], "scores": is_class * found["scores"][..., None]}

    return network


def _beside(reference: Sequence[Hits], found: Sequence[Hits]) -> dict[str, float]:
    """Scores, and the points that they are below the reference's on the same images."""

    def losses(pairs: Sequence[tuple[Hits, Hits]]) -> dict[str, float]:
        before, after = (map_metrics([pair[k] for pair in pairs]) for k in (0, 1))
        return {f"{key}.loss": 100 * (before[key] - after[key]) for key in KEYS}

    pairs = list(zip(reference, found, strict=True))
    scores = map_metrics(found)
    return {**{key: scores[key] for key in KEYS}, **losses(pairs), **intervals(pairs, losses)}


def show(found: dict[str, Any]) -> None:
    """For people."""
    print_table(
        f"{found['num_images']} test images of {found['data']}, {found['model']}",
        ("", "mAP50", "mAP50-95", "points of mAP50 lost", "95 %"),
        [
            (name, f"{row['map50']:.4f}", f"{row['map50_95']:.4f}",
             *((f"{row['map50.loss']:.2f}",
                f"{row['map50.loss.low']:.2f} to {row['map50.loss.high']:.2f}")
               if "map50.loss" in row else (None, None)))
            for name, row in found["rows"].items()
        ],
    )  # fmt: skip


def main() -> None:
    """Measure one run."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.defect.eight_bits",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run", type=Path, help="folder of a finished training run")
    parser.add_argument("--results", type=Path, default=RESULTS.with_name("defect_int8.json"))
    options = parser.parse_args()
    found = measure(options.run, Study())
    write_part(found["data"], found, options.results, quick=False)
    show(found)


if __name__ == "__main__":
    main()
