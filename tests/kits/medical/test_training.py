"""A whole run of seconds on the phantom: its files, its resumption, its bundle."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from core.convert.config import ExportConfig, TargetConfig
from core.convert.job import export_run
from core.train.checkpoint import load_weights
from core.train.config import OptimConfig, TrainerConfig
from edge.arrays import read_npz
from edge.bundle import Bundle
from edge.keys import new_key
from edge.pipeline import Pipeline
from edge.selftest import VECTORS
from kits.medical.config import MedicalTrainConfig
from kits.medical.data.config import PhantomData
from kits.medical.exportable import draw, open_run
from kits.medical.kit import KIT
from kits.medical.model import build_network
from kits.medical.model_config import UNetConfig
from kits.medical.trained import best_checkpoint, load_run_network, read_facts
from kits.medical.training import train_run

# Phantoms are simulated, a network is trained and looks at whole scans.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

IDS = ["x86_64-openvino-cpu-bf16", "x86_64-ort-cpu", "portable-onnx"]
STEPS = 6


def config(folder, cache, *, max_steps=STEPS, run_dir=None):
    return MedicalTrainConfig(
        trainer=TrainerConfig(
            max_steps=max_steps, smoke=True, progress=False, tensorboard=False, precision="bf16",
            runs_dir=str(folder), num_threads=1, run_dir=run_dir, checkpoint_every_steps=3,
        ),
        optim=OptimConfig(lr=2e-3, schedule="constant"),
        data=PhantomData(cache_dir=str(cache)),
        model=UNetConfig(
            "student", [4, 6, 8], decoder_convolutions=1, upsampling="nearest", negative_slope=0.0
        ),
    )  # fmt: skip


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def run(tmp_path_factory, cache):
    return train_run(config(tmp_path_factory.mktemp("runs"), cache))


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("trust")
        patch.setenv("DEEPKITS_HOME", str(folder))
        new_key(folder)
        yield export_run(ExportConfig(run=str(run), target=TargetConfig(IDS)), KIT)


def weights(run):
    network = build_network(config(run, run).model)
    load_weights(best_checkpoint(run), network)
    return network.state_dict()


def test_a_run_says_what_it_is_and_what_it_is_worth(run):
    facts = read_facts(run)
    assert facts["multiple"] == 4
    assert 0.05 <= facts["threshold"] <= 0.95
    assert 0.1 <= facts["mask_threshold"] <= 0.75
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["is_phantom"] is True
    assert "human_normalised_dice" in metrics
    data = json.loads((run / "data.json").read_text())
    assert data["name"] == "phantom"
    assert data["num_train"] == 2
    assert (run / "report.html").stat().st_size > 1000


def test_the_same_command_gives_the_same_network(run, tmp_path, cache):
    again = weights(train_run(config(tmp_path, cache)))
    assert all(torch.equal(value, again[name]) for name, value in weights(run).items())


def test_a_run_goes_on_where_it_stopped(run, tmp_path, cache):
    shutil.copytree(run, tmp_path / "run", symlinks=True)
    folder = tmp_path / "run" / "checkpoints"
    # As if it had been stopped after half of its steps.
    for path in folder.iterdir():
        if path.name != "step-000000003":
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
    resumed = train_run(config(tmp_path, cache, run_dir=str(tmp_path / "run")))
    assert resumed == tmp_path / "run"
    again = weights(resumed)
    assert all(torch.equal(value, again[name]) for name, value in weights(run).items())


def test_two_ranks_leave_one_finished_run(run, tmp_path, cache):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    told = ["trainer=smoke", "model=student", "model.widths=[4,6,8]", f"data.cache_dir={cache}"]
    told += ["trainer.max_steps=3", "trainer.num_threads=1", f"trainer.runs_dir={tmp_path}"]
    done = subprocess.run(
        [*launch, "-m", "kits.medical.train", *told], cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder,) = (tmp_path / "medical").iterdir()
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics) == set(json.loads((run / "metrics.json").read_text()))


def test_every_target_computes_what_the_run_does(run, exported):
    report = json.loads((exported.folder / "parity.json").read_text())
    assert report["passed"] is True
    assert [entry["id"] for entry in report["targets"]] == IDS
    for entry in report["targets"]:
        sizes = {tuple(case["sizes"].values()) for case in entry["parity"]["cases"]}
        assert len(sizes) >= 5
    pipeline = Pipeline.open(Bundle.open(exported.bundle), device="x86_64-ort-cpu")
    image = draw({"batch": 2, "depth": 20, "height": 24, "width": 16}, np.random.default_rng(7))
    wanted = load_run_network(run, folded=False, is_bf16=False)(image)
    for name, value in pipeline.predict(image).items():
        # The same operations in another order of summation.
        np.testing.assert_allclose(value, wanted[name], atol=1e-4)


def test_a_bundle_says_what_prediction_has_to_know(exported):
    bundle = Bundle.open(exported.bundle)
    build = json.loads(bundle.read("provenance.json"))["predicate"]["buildDefinition"]
    told = build["internalParameters"]
    assert told["multiple"] == 4
    assert told["textures"] == ["solid", "part_solid", "non_solid"]
    assert {"threshold", "mask_threshold", "coarse_mm", "fine_slice_mm"} <= set(told)


def test_a_bundle_holds_no_part_of_a_scan(run, exported):
    vectors = read_npz(Bundle.open(exported.bundle).read(VECTORS))["input/image"]
    with np.load(run / "model" / "samples.npz") as samples:
        real = {row.tobytes() for row in samples["image"].reshape(-1, 8)}
    assert not real & {row.tobytes() for row in vectors.reshape(-1, 8).astype(np.float32)}


def test_compression_is_judged_on_validation_crops(run):
    exportable = open_run(run)
    assert exportable.metric is not None
    found = exportable.metric(load_run_network(run))
    assert found[exportable.metric_name] == np.mean([found["dice"], found["heat_ap"]])


def test_an_unfinished_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match="finished run"):
        open_run(tmp_path)
