import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = (
    *("torch", "torchvision", "sklearn", "lightgbm", "xgboost", "matplotlib", "duckdb"),
    *("onnx", "onnxruntime", "openvino", "nacl", "ultralytics"),
)
VERBS = sorted(
    f"kits.{file.parent.name}.{file.stem}"
    for file in ROOT.glob("kits/*/*.py")
    if "launch(" in file.read_text(encoding="utf-8")
)

# Has loaded only what comes from outside and is light. Asked in JSON, it forks a process that has
# seen nothing of the project, which imports modules or runs one like `python -m`; then it tells
# what came along.
NURSERY = f"""
import importlib, json, os, runpy, sys, tempfile
import hydra, numpy, prometheus_client, starlette.applications, uvicorn
for line in sys.stdin:
    streams = [tempfile.TemporaryFile("w+", encoding="utf-8") for _ in range(2)]
    if (child := os.fork()) == 0:
        break
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for stream in streams:
        stream.seek(0)
    print(json.dumps([code, *(stream.read() for stream in streams)]), flush=True)
else:
    sys.exit()
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
for number, stream in enumerate(streams, start=1):
    os.dup2(stream.fileno(), number)
how, *names = json.loads(line)
code = 0
try:
    if how == "import":
        for name in names:
            importlib.import_module(name)
    else:
        sys.argv[1:] = names[1:]
        runpy.run_module(names[0], run_name="__main__", alter_sys=True)
except SystemExit as stopped:
    code = stopped.code or 0
print("heavy:", sorted({set(HEAVY)} & set(sys.modules)))
sys.exit(code)
"""


@pytest.fixture(scope="module")
def probe():
    """`probe("import", *modules)`, `probe("run", module, *arguments)`: the process that did it."""
    with subprocess.Popen(
        [sys.executable, "-c", NURSERY],
        cwd=ROOT,
        # Without threads of its own, which a fork would lose.
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as nursery:

        def probe(how, *names):
            nursery.stdin.write(json.dumps([how, *names]) + "\n")
            nursery.stdin.flush()
            code, *texts = json.loads(nursery.stdout.readline())
            return subprocess.CompletedProcess(names, code, *texts)

        yield probe
        nursery.stdin.close()


def module_name(file):
    return ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def torch_free_modules():
    parts = ("edge", "core/serve", "core/schedule")
    files = [file for part in parts for file in (ROOT / part).rglob("*.py")]
    files += ROOT.glob("kits/*/serve.py")
    files += (ROOT / "core" / "kit.py", ROOT / "core" / "launch.py")
    yield from map(module_name, sorted(files))


@pytest.mark.parametrize("module", list(torch_free_modules()))
def test_device_and_server_code_loads_nothing_heavy(probe, module):
    result = probe("import", module)
    assert (result.returncode, result.stdout) == (0, "heavy: []\n"), result.stderr


def test_all_of_the_line_loads_nothing_heavy(probe):
    files = [*(ROOT / "kits/defect/line").rglob("*.py"), *(ROOT / "kernels/triage").rglob("*.py")]
    # The verbs that run beside the line.
    verbs = ("inspect.py", "learn.py", "optics.py")
    files += [file for file in (ROOT / "kits/defect").glob("*.py") if file.name in verbs]
    modules = [module_name(file) for file in sorted(files)]
    result = probe("import", *modules)
    assert (result.returncode, result.stdout) == (0, "heavy: []\n"), result.stderr


def test_there_are_verbs():
    assert "kits.fraud.train" in VERBS


@pytest.mark.parametrize("module", VERBS)
def test_help_loads_nothing_heavy(probe, module):
    result = probe("run", module, "--help")
    assert result.returncode == 0, result.stderr
    assert f"usage: python -m {module}" in result.stdout
    assert result.stdout.endswith("heavy: []\n")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optim.lrr=1"], ["optim.lrr is not a key", "weight_decay", "did you mean optim.lr?"]),
        (["data=moon"], ["data=moon is not an option", "handbook, rings, s_ffsd, table"]),
        (["trainer=moon"], ["trainer=moon is not an option", "smoke"]),
        (["optim.lr=high"], ["optim.lr='high' is not of type float"]),
        (["trainer.precision=fp8"], ["trainer.precision='fp8' is not one of", "bf16"]),
        (["data.label_delay_days=-1"], ["data.label_delay_days=-1.0"]),
    ],
)
def test_a_mistake_ends_before_anything_heavy_is_loaded(probe, arguments, words):
    result = probe("run", "kits.fraud.train", *arguments)
    assert result.returncode == 2
    assert result.stdout == "heavy: []\n"
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    for word in words:
        assert word in result.stderr


def test_the_usual_command_line_is_composed(probe):
    result = probe(
        "run", "kits.fraud.train", "trainer=smoke", "data=handbook", "optim.lr=3e-4", "--cfg", "job"
    )
    assert result.returncode == 0, result.stderr
    for line in ("  smoke: true\n", "  lr: 0.0003\n", "  name: handbook\n"):
        assert line in result.stdout
