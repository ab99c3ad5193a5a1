"""What the zoo found, as `benchmarks/results/zoo.json` and as a page to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from core.train.run import environment, write_atomic

RESULTS = Path(__file__).parents[1] / "results"
SIGNS = {"equal": "✓", "built": "built", "contract-only": "recipe", "differs": "≠",
         "refused": "no", "no export": "no", "crashed": "crash"}  # fmt: skip
LEGEND = """\
✓ converted, run here and equal to the source at every shape, with the largest absolute error;
**built** a real engine that nothing here can run; **recipe** what the device builds itself, never
run here (*contract-only*; what the vendor's list of operators lacks is said below);
**≠** runs, but differs by more than the tolerance; **no** refused; **crash** the converter died or
took too long; a dot has not been tried. `aarch64-ort-cpu` is compared here on x86-64.
"""


def write_results(
    work: Path, models: Sequence[str], targets: Sequence[str]
) -> list[dict[str, Any]]:
    """Collect the rows of all models and write both files; gives the rows."""
    files = [work / model / f"{target}.json" for model in models for target in targets]
    rows = [json.loads(file.read_text()) for file in files if file.exists()]
    machine = environment()
    machine.pop("command")
    packages = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "executorch",
                "tensorrt_rtx", "torchvision", "transformers", "torch-geometric")  # fmt: skip
    machine["packages"] = {name: machine["packages"].get(name) for name in packages}
    content = {"environment": machine, "rows": rows}
    write_atomic(RESULTS / "zoo.json", (json.dumps(content, indent=1) + "\n"))
    write_atomic(RESULTS / "zoo.md", page(rows, models, targets, machine))
    return rows


def page(
    rows: Sequence[dict[str, Any]],
    models: Sequence[str],
    targets: Sequence[str],
    machine: dict[str, Any],
) -> str:
    """The table of models and targets, the reasons of what did not work, the exporters."""
    by_place = {(row["model"], row["target"]): row for row in rows}
    shown = [target for target in targets if any(row["target"] == target for row in rows)]
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    lines = [
        "# Which target takes which model",
        "",
        f"{len(models)} models, seeded random weights, float32. Commit {machine['git_commit']}, "
        f"{machine['processor']}, {packages}. Made by `make zoo`.",
        "",
        *_counts(rows, models, shown),
        "",
        LEGEND,
        "| model | exporter | free axes | " + " | ".join(shown) + " |",
        "| --- " * (len(shown) + 3) + "|",
    ]
    for model in models:
        cells = [_cell(by_place.get((model, target))) for target in shown]
        portable = by_place.get((model, targets[0]), {})
        exporter = portable.get("export", {}).get("used", "")
        axes = ", ".join(f"{name} {span}" for name, span in portable.get("axes", {}).items())
        lines.append(f"| {model} | {exporter} | {axes} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *_reasons(rows, targets[0]), ""])


def _counts(
    rows: Sequence[dict[str, Any]], models: Sequence[str], shown: Sequence[str]
) -> list[str]:
    lines = [
        "| target | equal | built | recipe | differs | refused | crashed | of |",
        "| --- " * 8 + "|",
    ]
    for target in shown:
        outcomes = [row["outcome"] for row in rows if row["target"] == target]
        kinds = ("equal", "built", "contract-only", "differs", "refused", "crashed")
        numbers = [str(outcomes.count(kind)) for kind in kinds]
        numbers[4] = str(outcomes.count("refused") + outcomes.count("no export"))
        lines.append(f"| {target} | " + " | ".join(numbers) + f" | {len(models)} |")
    return lines


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return "·"
    sign = SIGNS[row["outcome"]]
    if row.get("max_absolute") is not None:
        return f"{sign} {row['max_absolute']:.0e}"
    return sign


def _reasons(rows: Sequence[dict[str, Any]], portable: str) -> list[str]:
    """What did not work and what the targets say of it, equal words once."""
    told: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        words = [row["reason"]] if row["reason"] else row.get("notes", [])
        if row["outcome"] not in ("equal", "built") and words:
            told.setdefault((row["target"], _plain("; ".join(words))), []).append(row["model"])
    lines = ["## Why not", ""]
    lines += [f"- {target}: {', '.join(names)}: {text}" for (target, text), names in told.items()]
    lines += ["", "## Exporters that did not work, and why", ""]
    for row in rows:
        steps = row.get("export", {}).get("steps", []) if row["target"] == portable else []
        lines += [
            f"- {row['model']}, {step['name']}: {_plain(step['reason'])}"
            for step in steps
            if step["reason"]
        ]
    return lines


def _plain(text: str) -> str:
    """One line, nothing of it markup."""
    return "`" + " ".join(text.replace("`", "'").split())[:600] + "`"
