"""Every command in a README is one that works.

By default the quick ones (smoke, evaluate, `--help`, `--cfg`) run as written; of a long run the
configuration is composed, of a make target the rule is looked up. The slow set runs all of them as
written, in the README's order and in one empty folder.
"""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READMES = sorted([ROOT / "README.md", *ROOT.glob("kits/*/README.md")])
QUICK = ("trainer=smoke", ".evaluate ", ".phantom_dicom ", "--help", "--cfg")
ENDLESS = ("make serve ", "make monitor ", ".serve ")
# Runs this very test.
RECURSIVE = ("make test", "make test-slow")


def commands(readme):
    text = readme.read_text(encoding="utf-8")
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            command = line.partition(" #")[0].strip()
            if command and not command.startswith(("source ", ". ", "#")):
                yield command


def environment_of(cwd):
    return os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "DEEPKITS_HOME": str(cwd / "keys"),
        # Threads that wait for one another sleep: beside other tests they would burn the cores.
        "OMP_WAIT_POLICY": "passive",
    }


def shell(command, cwd):
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT if command.startswith("make ") else cwd,
        env=environment_of(cwd),
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-4000:]}"


def serve_until_ready(command, cwd):
    """Run what does not end by itself until it says its address."""
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", command],
        cwd=ROOT if command.startswith("make ") else cwd,
        env=environment_of(cwd),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as server:
        try:
            assert any("http://" in line for line in server.stdout), f"{command} ended"
        finally:
            os.killpg(server.pid, signal.SIGTERM)


def quick_form(command):
    """What can be checked of a command in seconds."""
    if command.startswith("make "):
        return command.replace("make ", "make --dry-run ", 1)
    parts = ("python -m core.", "python -m edge.", "python -m benchmarks.")
    parts += tuple(f"python -m kits.{kit}.serve" for kit in ("fraud", "defect", "medical"))
    if command.startswith(parts) and "edge.keys" not in command:
        # What they read was not made by the quick forms; tests/test_end_to_end.py runs them.
        return " ".join(command.split()[:3]) + " --help"
    if command.startswith("python -m kits.") and not any(word in command for word in QUICK):
        return f"{command} --cfg job"
    return "true" if command.startswith('python -c "import torch') else command


@pytest.mark.timeout(400)  # holds a whole smoke run
@pytest.mark.parametrize("readme", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_hold(readme, tmp_path):
    found = list(commands(readme))
    assert found
    for command in found:
        shell(quick_form(command), tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("readme", READMES, ids=lambda file: str(file.relative_to(ROOT)))
def test_commands_run_as_written(readme, tmp_path):
    for command in commands(readme):
        if any(word in f"{command} " for word in ENDLESS):
            serve_until_ready(command, tmp_path)
        elif command not in RECURSIVE:
            shell(command, tmp_path)


def test_links_lead_somewhere():
    for document in [*READMES, ROOT / "ARCHITECTURE.md", ROOT / "LICENSES.md"]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
