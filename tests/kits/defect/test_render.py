import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_good_parts_are_written_to_a_folder(tmp_path):
    result = subprocess.run(
        [
            *(sys.executable, "-m", "kits.defect.render", f"output={tmp_path / 'good'}"),
            *("data.num_train=2", "data.clean=1", "data.width_px=128", "data.height_px=96"),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("2 images in ")
    assert len(list((tmp_path / "good/images").glob("*.png"))) == 2
