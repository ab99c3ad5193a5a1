import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["source=a", "recipe=b"], "run is not set; add run=..."),
        (["source=a", "recipe=none.zip", "run=c"], "none.zip"),
        (["source=a", "recipe=b", "run=c", "slots=0"], "slots=0 is below 1; set slots"),
    ],
)
def test_a_mistake_ends_with_one_line_and_status_2(tmp_path, arguments, words):
    command = [sys.executable, "-m", "kits.defect.inspect", *arguments, f"output={tmp_path}/out"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()
