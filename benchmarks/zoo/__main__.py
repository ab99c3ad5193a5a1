"""`python -m benchmarks.zoo`: every model of the zoo to every target, and the table of it.

Can be stopped and started: what is done is not done again, unless `--again` is said. Each model
runs in a process of its own with a time limit, so that a crash costs one cell of the table.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks.zoo.table import write_results

ROOT = Path(__file__).parents[2]
WORK = ROOT / "build" / "zoo"
# In the order in which they run: the fastest for all models first.
TARGETS = (
    "portable-onnx", "x86_64-ort-cpu", "aarch64-ort-cpu", "x86_64-openvino-cpu",
    "x86_64-openvino-cpu-bf16", "jetson-orin-trt", "ascend-310p-om", "ascend-910b-om",
    "x86_64-trt-rtx", "any-executorch-xnnpack", "x86_64-aoti-cpu",
)  # fmt: skip
WORKED = ("equal", "built", "contract-only")


def run_model(model: str, targets: list[str], limit_s: float) -> None:
    """Convert one model to the targets that are not done yet, whatever happens."""
    folder = WORK / model
    folder.mkdir(parents=True, exist_ok=True)
    while todo := [target for target in targets if not (folder / f"{target}.json").exists()]:
        (folder / "current").write_text(todo[0])
        command = [sys.executable, "-m", "benchmarks.zoo", "--child", model, *todo]
        before = len(list(folder.glob("*.json")))
        with (folder / "log.txt").open("ab") as log:
            child = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
            try:
                child.wait(limit_s)
                reason = f"the process ended with status {child.returncode}"
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                reason = f"took longer than {limit_s:.0f} s"
        left = [target for target in targets if not (folder / f"{target}.json").exists()]
        at = (folder / "current").read_text()
        if at in left and (child.returncode != 0 or len(list(folder.glob("*.json"))) == before):
            row = {"model": model, "target": at, "outcome": "crashed", "reason": reason}
            (folder / f"{at}.json").write_text(json.dumps(row))


def main() -> int:
    """Run what is asked for and write the results; 1 if a model does not become ONNX."""
    from benchmarks.zoo.models import MODELS

    parser = argparse.ArgumentParser(prog="python -m benchmarks.zoo", description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=TARGETS)
    parser.add_argument("--limit-s", type=float, default=600, help="per process of one model")
    parser.add_argument("--again", action="store_true", help="forget what is done already")
    parser.add_argument("--retry", action="store_true", help="only forget what did not work")
    parser.add_argument("--table", action="store_true", help="only write the results again")
    args = parser.parse_args()
    for model in args.models:
        if args.again:
            shutil.rmtree(WORK / model, ignore_errors=True)
        if args.retry:
            forget_failures(WORK / model, args.targets)
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        if not args.table:
            # Column by column: what matters most is known for all models first.
            total = len(args.models) * len(args.targets)
            task = progress.add_task("", total=total)
            for group in groups(args.targets):
                for model in args.models:
                    progress.update(task, description=f"{model}: {group[0]} ...")
                    run_model(model, group, args.limit_s)
                    progress.advance(task, len(group))
                    if not progress.console.is_terminal:
                        outcomes = ", ".join(f"{id_} {outcome(model, id_)}" for id_ in group)
                        print(f"{model}: {outcomes}", flush=True)
                write_results(WORK, list(MODELS), TARGETS)
    rows = write_results(WORK, list(MODELS), TARGETS)
    wanted = [row for row in rows if row["target"] == TARGETS[0] and row["model"] in args.models]
    failed = [row["model"] for row in wanted if row["outcome"] != "equal"]
    print(f"{len(wanted) - len(failed)} of {len(args.models)} models are equal as {TARGETS[0]}")
    return int(len(wanted) < len(args.models) or bool(failed))


def outcome(model: str, target: str) -> str:
    """What became of a model on a target that was run."""
    told: str = json.loads((WORK / model / f"{target}.json").read_text())["outcome"]
    return told


def forget_failures(folder: Path, targets: list[str]) -> None:
    """Have the targets done again that did not work."""
    for target in targets:
        file = folder / f"{target}.json"
        if file.exists() and outcome(folder.name, target) not in WORKED:
            file.unlink()


def groups(targets: list[str]) -> list[list[str]]:
    """Targets that share a process: starting torch takes longer than most conversions."""
    slow = [target for target in targets if target in TARGETS[-3:]]
    quick = [target for target in targets if target not in slow]
    portable = [target for target in quick if target == TARGETS[0]]
    rest = [target for target in quick if target != TARGETS[0]]
    return [group for group in (portable, rest, *([target] for target in slow)) if group]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        from benchmarks.zoo.convert import convert

        convert(sys.argv[2], sys.argv[3:], WORK / sys.argv[2])
    else:
        sys.exit(main())
