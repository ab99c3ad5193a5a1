"""The accuracy rows of finished runs and peers, side by side.

    python -m benchmarks.defect.accuracy runs/defect/<time>... --peers <output of peer_yolo>...

Reads what trainings left; nothing is computed again. A row says how long it took from the start
of the command to its report, on how many threads.
"""

from __future__ import annotations

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from benchmarks.defect.study import RESULTS, write_part
from benchmarks.serve.study import print_table
from kits.defect.trained import read_facts

KEPT = ("map50", "map50_95", "f_at_iou_0.33", "f_at_iou_0.33_best", "detection_rate",
        "false_per_image", "length_recall")  # fmt: skip
OPTIONS = ("trainer", "sampling", "optim", "loss")


def row_of_run(run: Path) -> dict[str, Any]:
    """What a finished run says of its test images."""
    metrics = json.loads((run / "metrics.json").read_text())
    about = json.loads((run / "environment.json").read_text())
    config = yaml.safe_load((run / "config.yaml").read_text())
    facts = read_facts(run)
    begun = datetime.fromisoformat(about["time"]).timestamp()
    return {
        "model": facts["model"],
        "num_parameters": facts["num_parameters"],
        "data": metrics["data"],
        "split": metrics["split"],
        "num_images": metrics["num_images"],
        "num_defects": metrics["num_defects"],
        "whole_s": round((run / "metrics.json").stat().st_mtime - begun),
        "threads": config["trainer"]["num_threads"],
        "command": about["command"][1:],
        "git_commit": about["git_commit"],
        "options": {name: config[name] for name in OPTIONS},
        **{key: value for key, value in metrics.items()
           if key.removesuffix(".low").removesuffix(".high") in KEPT},
        "per_class": metrics["per_class"],
    }  # fmt: skip


def row_of_peer(file: Path) -> dict[str, Any]:
    """What `peer_yolo` printed at its end."""
    text = file.read_text()
    found, _ = json.JSONDecoder().raw_decode(text, text.index('{\n "model"'))
    return {**found, "whole_s": found["train_s"]}


def main() -> None:
    """Write and show the rows."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.defect.accuracy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--peers", nargs="*", type=Path, default=[])
    parser.add_argument("--results", type=Path, default=RESULTS.with_name("defect_accuracy.json"))
    options = parser.parse_args()
    rows = [*map(row_of_run, options.runs), *map(row_of_peer, options.peers)]
    for data in sorted({row["data"] for row in rows}):
        some = [row for row in rows if row["data"] == data]
        write_part(data, {"rows": some}, options.results, quick=False)
        print_table(
            data,
            ("network", "parameters", "minutes", "threads", "mAP50", "95 %", "F at IoU .33"),
            [
                (row["model"], row["num_parameters"], round(row["whole_s"] / 60, 1),
                 row["threads"], f"{row['map50']:.3f}",
                 f"{row['map50.low']:.3f} to {row['map50.high']:.3f}"
                 if "map50.low" in row else None,
                 f"{row.get('f_at_iou_0.33', row['f_at_iou_0.33_best']):.3f}")
                for row in some
            ],
        )  # fmt: skip


if __name__ == "__main__":
    main()
