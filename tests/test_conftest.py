import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SKIPPED = "import pytest\ndef test_it(): pytest.skip('no server')\n"
HARDWARE = "import pytest\n@pytest.mark.gpu\ndef test_it(): pytest.skip('no CUDA device')\n"
MODULE = "import pytest\npytest.importorskip('no_such_package')\ndef test_it(): pass\n"


@pytest.mark.parametrize(
    ("source", "ci", "code"),
    [
        (SKIPPED, "false", 0),
        (SKIPPED, "true", 1),
        (HARDWARE, "true", 0),
        (MODULE, "true", 2),
    ],
)
def test_in_ci_a_skip_for_something_missing_fails(tmp_path, source, ci, code):
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    (tmp_path / "test_it.py").write_text(source)
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        env=os.environ | {"CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert result.returncode == code, result.stdout
    assert ("where nothing may be missing" in result.stdout) == (code != 0)
