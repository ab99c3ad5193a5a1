"""The fraud kit's numbers: whole runs of the command a user types, each beside what was asked.

Every row of `results/fraud.json` names the command, its wall time, the metrics with their
intervals and the machine. S-FFSD is read from the folder in DEEPKITS_S_FFSD; without it that
row is skipped.
"""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from core.train.run import environment, write_atomic

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "fraud.json"
S_FFSD = os.environ.get("DEEPKITS_S_FFSD", "../shared/data/s-ffsd-dev")  # seen from the root
KEYS = ("ap", "auc", "cp_at_100", "recall_at_fpr_0.003", "detectable_recall_at_fpr_0.003",
        "value_recall_at_fpr_0.003", "fpr_test", "ece")  # fmt: skip
ORACLE_RECALL = "recall_at_fpr_0.003.oracle_threshold"


def train(name, tmp_path, *overrides):
    """Run the command; its metrics, also added to the results file."""
    command = ["-m", "kits.fraud.train", f"trainer.runs_dir={tmp_path}", *overrides]
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, check=False, capture_output=True, text=True
    )
    seconds = time.perf_counter() - started
    assert done.returncode == 0, done.stderr[-4000:]
    (run,) = (tmp_path / "fraud").iterdir()
    metrics = json.loads((run / "metrics.json").read_text())
    stages = json.loads((run / "facts.json").read_text())["seconds"]
    row = {
        "command": "python -m kits.fraud.train " + " ".join(overrides),
        "wall_s": round(seconds, 1),
        "stages_s": stages,
        "machine": {k: v for k, v in environment().items() if k not in ("command", "packages")},
        "metrics": {key: value for key, value in metrics.items() if is_headline(key)},
    }
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomic(RESULTS, json.dumps(results | {name: row}, indent=2) + "\n")
    return metrics


def is_headline(key):
    """The asked-for keys of every model, with intervals, and the paired differences."""
    for prefix in ("baseline.", "control.", "window."):
        key = key.split(".", 2)[2] if key.startswith(prefix) else key
    key = key.removeprefix("neural_gain.").removeprefix("oracle.").removeprefix("worth.")
    key = key.removesuffix(".low").removesuffix(".high")
    return key in (*KEYS, ORACLE_RECALL, "smoke") or key.startswith("week.")


def test_handbook(tmp_path):
    metrics = train("handbook", tmp_path)
    assert metrics["ap"] > metrics["baseline.logistic.ap"]


def test_handbook_on_another_seed(tmp_path):
    metrics = train("handbook_seed_1", tmp_path, "data.seed=1", "baselines=[]")
    assert metrics["smoke"] is False


def test_handbook_on_the_books_window(tmp_path):
    metrics = train("handbook_book_window", tmp_path, "experiment=book_window", "baselines=[]")
    assert metrics["ap"] > 0.687, "below the book's best on its own training window"


def test_rings(tmp_path):
    metrics = train("rings", tmp_path, "experiment=graph_controls")
    assert metrics["baseline.lstm_gat.ap"] > metrics["control.lstm_gat_shuffled.ap"]


@pytest.mark.published_data
@pytest.mark.skipif(not (ROOT / S_FFSD).is_dir(), reason="S-FFSD is not there; set DEEPKITS_S_FFSD")
def test_s_ffsd(tmp_path):
    metrics = train("s_ffsd", tmp_path, "data=s_ffsd", f"data.path={S_FFSD}", "baselines=[lstm]")
    assert metrics["ap"] > 0


def test_smoke(tmp_path):
    metrics = train("smoke", tmp_path, "trainer=smoke")
    assert metrics["smoke"] is True
