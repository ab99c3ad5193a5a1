import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "kits.defect.optics", *arguments],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip


def test_a_set_up_that_does_is_described():
    result = run("fov_mm=300", "defect_mm=0.2")
    assert result.returncode == 0, result.stderr
    assert "2.56 px across, 25.6 px long" in result.stdout
    assert "256 mm for 3 px, 154 mm for 5 px" in result.stdout
    assert "note: 2.6 px across is below the rule of 3" in result.stdout


def test_a_set_up_that_does_not_ends_with_status_3_and_the_numbers():
    result = run("fov_mm=600", "defect_mm=0.2")
    assert result.returncode == 3
    assert result.stderr.startswith("refused: defect_mm=0.2 is 1.28 px across at fov_mm=600")
    assert "1.28 px across" in result.stdout


def test_a_mistake_ends_with_status_2():
    result = run("fov_mm=0")
    assert result.returncode == 2
    assert result.stderr == "error: fov_mm=0.0 is not from 0.1 to 100000; set fov_mm\n"
