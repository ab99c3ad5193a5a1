"""Distilling toy students: what is learned, what is kept, and what is left behind."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from core.compress.config import (
    BoundaryConfig,
    DistillConfig,
    FeatureConfig,
    OutputLossConfig,
    RelationConfig,
)
from core.compress.distill import STATE, distill
from core.kit import Step
from core.train.batches import Batches
from core.train.callbacks import Callback
from core.train.checkpoint import load_weights
from core.train.config import OptimConfig, TrainConfig, TrainerConfig
from core.train.randomness import seed_all
from core.train.trainer import Trainer

ROOT = Path(__file__).parents[3]
MSE = {"output": OutputLossConfig(loss="mse")}
QUIET = {"progress": False, "tensorboard": False, "num_threads": 1}
# Other batches, other roundings.
FLOAT32 = 1e-5


class Curve(nn.Module):
    """Three numbers to one, over named layers."""

    def __init__(self, width):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, width), nn.Tanh())
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        return self.head(self.dropout(self.body(x)))


def truth(x):
    return torch.sin(2 * x[:, :1]) * x[:, 1:2] + x[:, 2:]


class Regression:
    """Few samples with wrong labels, many without noise to be judged by."""

    def __init__(self, width=6, num=64, noise=1.0):
        torch.manual_seed(3)
        self.model = Curve(width)
        draw = torch.Generator().manual_seed(5)
        self.x = torch.randn(num, 3, generator=draw)
        self.y = truth(self.x) + noise * torch.randn(num, 1, generator=draw)
        self.seen = torch.randn(512, 3, generator=draw)

    def batches(self, split):
        return Batches(
            len(self.x), 16, lambda index: (self.x[index], self.y[index]), seed=1, shuffle=True
        )

    def step(self, batch):
        x, y = batch
        return Step(functional.mse_loss(self.model(x), y), {"mean": float(y.mean())})

    @torch.no_grad()
    def evaluate(self, split):
        return {"loss": functional.mse_loss(self.model(self.seen), truth(self.seen)).item()}

    def example(self):
        return {"x": self.x[:1]}


class Volumes:
    """Bright balls in small volumes: a mask, a heat-map at half the resolution, a type."""

    def __init__(self, width=2):
        torch.manual_seed(width)
        self.model = Net(width)
        draw = np.random.default_rng(0)
        grid = np.stack(np.meshgrid(*[np.arange(8)] * 3, indexing="ij"))
        centres = draw.uniform(2, 6, (8, 3, 1, 1, 1))
        distance = np.sqrt(((grid - centres) ** 2).sum(1, keepdims=True))
        self.votes = torch.tensor(np.clip(3 - distance, 0, 1), dtype=torch.float32)
        self.image = (
            2 * self.votes - 1 + torch.tensor(draw.normal(0, 0.3, self.votes.shape)).float()
        )

    def batches(self, split):
        def collate(index):
            return {"image": self.image[index], "votes": self.votes[index]}

        return Batches(len(self.image), 4, collate, seed=0, shuffle=True)

    def step(self, batch):
        mask = self.model(batch["image"])["mask"]
        return Step(functional.binary_cross_entropy_with_logits(mask, batch["votes"]))

    def evaluate(self, split):
        return {"loss": 0.0}

    def example(self):
        return {"image": self.image[:1]}

    def targets(self, batch):
        return {"mask": batch["votes"]}


class Net(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv3d(1, width, 3, padding=1), nn.BatchNorm3d(width), nn.ReLU()
        )
        self.down = nn.Conv3d(width, width, 2, stride=2)
        self.mask = nn.Conv3d(width, 1, 1)
        self.heat = nn.Conv3d(width, 1, 1)
        self.texture = nn.Conv3d(width, 3, 1)

    def forward(self, image):
        fine = self.stem(image)
        coarse = self.down(fine)
        return {"mask": self.mask(fine), "heat": self.heat(coarse), "texture": self.texture(coarse)}


DENSE = {
    "mask": OutputLossConfig(dice_weight=1.0, boundary=BoundaryConfig(strength=4.0)),
    "heat": OutputLossConfig(temperature=2.0),
    "texture": OutputLossConfig(loss="kl", where="heat"),
}
STEM = FeatureConfig(student="stem", teacher="stem")


def settings(epochs=3, **trainer):
    return TrainConfig(
        TrainerConfig(epochs=epochs, **QUIET, **trainer), OptimConfig(lr=0.02, clip_norm=None)
    )


def good_teacher():
    """Many clean samples, a wide model."""
    task = Regression(width=48, num=2048, noise=0.0)
    optimizer = torch.optim.Adam(task.model.parameters(), lr=0.01)
    for epoch in range(6):
        batches = task.batches("train")
        batches.set_epoch(epoch)
        for batch in batches:
            optimizer.zero_grad()
            task.step(batch).loss.backward()
            optimizer.step()
    return task.model


@pytest.fixture(scope="module")
def teacher():
    return good_teacher()


def digest(model):
    state = hashlib.sha256()
    for name, value in model.state_dict().items():
        state.update(name.encode() + value.numpy().tobytes())
    return state.hexdigest()


def fit(task, folder, cfg=None, callbacks=()):
    folder.mkdir(exist_ok=True)
    return Trainer(task, cfg or settings(), callbacks, folder).fit()


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return sum(len(getattr(part, kind)) for part in model.modules() for kind in kinds)


class Losses(Callback):
    def __init__(self, crash_at=None):
        self.losses, self.crash_at = [], crash_at

    def on_step(self, trainer, step, loss):
        self.losses.append(loss)
        if step == self.crash_at:
            raise InterruptedError


def test_a_student_learns_more_from_its_teacher_than_from_labels_alone(tmp_path, teacher):
    errors = {}
    for name, cfg in (
        ("labels", DistillConfig(weight=0)),
        ("both", DistillConfig(outputs=MSE, label_weight=0.1)),
    ):
        task = Regression(width=32, num=256, noise=2.0)
        with distill(task, teacher, cfg) as distilled:
            fit(distilled, tmp_path / name, settings(15, metric=None))
        task.model.eval()
        errors[name] = task.evaluate("test")["loss"]
    assert errors["both"] < 0.7 * errors["labels"]


def test_weight_zero_is_plain_training_bit_for_bit(tmp_path, teacher):
    plain, other = Regression(), Regression()
    first, second = Losses(), Losses()
    fit(plain, tmp_path / "plain", callbacks=[first])
    cfg = DistillConfig(weight=0, outputs=MSE, features=[FeatureConfig("body", "body")])
    with distill(other, teacher, cfg) as task:
        fit(task, tmp_path / "distilled", callbacks=[second])
    assert first.losses == second.losses
    assert digest(plain.model) == digest(other.model)


def test_terms_of_zero_weight_leave_plain_training_beside_the_others(teacher):
    task = Regression()
    outputs = {"output": OutputLossConfig(loss="mse", weight=0)}
    with distill(task, teacher, DistillConfig(outputs=outputs, weight=0)) as distilled:
        batch = next(iter(distilled.batches("train")))
        torch.manual_seed(0)
        ours = distilled.step(batch)
        torch.manual_seed(0)
        assert ours.loss == task.step(batch).loss
        assert STATE not in dict(task.model.named_children())


def test_the_loss_is_the_sum_of_what_it_says(teacher):
    task = Regression()
    outputs = {"output": OutputLossConfig(loss="mse", weight=3.0)}
    with distill(task, teacher, DistillConfig(0.5, 0.25, outputs=outputs)) as distilled:
        batch = next(iter(distilled.batches("train")))
        task.model.dropout.p = 0.0
        step = distilled.step(batch)
        own = functional.mse_loss(task.model(batch[0]), batch[1])
        apart = functional.mse_loss(task.model(batch[0]), teacher(batch[0]))
        assert step.loss.item() == pytest.approx((0.25 * own + 0.5 * 3 * apart).item())
        assert step.logs["distill/output"] == pytest.approx(3 * apart.item())
        assert step.logs["distill/own"] == pytest.approx(own.item())
        assert step.logs["mean"] == pytest.approx(batch[1].mean().item())
        task.model.eval()
        assert distilled.step(batch).loss.item() == pytest.approx(own.item())


def test_the_weight_grows_then_falls(teacher):
    task = Regression()
    task.model.dropout.p = 0.0
    cfg = DistillConfig(
        outputs=MSE, warmup_batches=2, decay_batches=4, decay="linear", final_share=0.5
    )
    shares = []
    with distill(task, teacher, cfg) as distilled:
        batch = next(iter(distilled.batches("train")))
        for _ in range(8):
            step = distilled.step(batch)
            extra = step.loss.item() - step.logs["distill/own"]
            shares.append(extra / step.logs["distill/total"])
    wanted = [0.5, 1, 1, 0.875, 0.75, 0.625, 0.5, 0.5]
    assert shares == pytest.approx(wanted, rel=1e-4)


def test_the_teacher_never_changes_and_nothing_stays_in_the_student(tmp_path):
    task, teacher = Volumes(), Net(6)
    before, keys = digest(teacher), list(task.model.state_dict())
    cfg = DistillConfig(outputs=DENSE, features=[STEM], relations=[RelationConfig("down", "down")])
    with distill(task, teacher, cfg) as distilled:
        assert any(name.startswith(STATE) for name in task.model.state_dict())
        best = fit(distilled, tmp_path, settings(2, metric=None))
    assert digest(teacher) == before
    assert not teacher.training
    assert list(task.model.state_dict()) == keys
    assert hooks(task.model) == hooks(teacher) == 0
    # A plain student reads the run's checkpoint.
    plain = Volumes()
    load_weights(best, plain.model)
    assert digest(plain.model) == digest(task.model)
    with pytest.raises(ValueError, match="closed"):
        distilled.step(next(iter(task.batches("train"))))


def test_hooks_are_gone_after_an_error():
    task, teacher = Volumes(), Net(6)
    with distill(task, teacher, DistillConfig(outputs=DENSE, features=[STEM])) as distilled:
        with pytest.raises(KeyError):
            distilled.step({"image": torch.zeros(1, 1, 8, 8, 8)})
        assert hooks(task.model) == hooks(teacher) == 0


def test_dense_outputs_features_and_relations_all_teach():
    task, teacher = Volumes(), Net(6)
    with torch.no_grad():
        teacher.heat.bias.fill_(2.0)
    features = [
        STEM,
        FeatureConfig("down", "down", loss="cosine"),
        FeatureConfig("stem.0", "stem.0", loss="attention"),
    ]
    relations = [RelationConfig("down", "stem", of="voxels", positions_per_axis=3)]
    cfg = DistillConfig(label_weight=0.0, outputs=DENSE, features=features, relations=relations)
    with distill(task, teacher, cfg) as distilled:
        optimizer = torch.optim.Adam(task.model.parameters(), lr=0.02)
        logs = []
        for epoch in range(15):
            batches = distilled.batches("train")
            batches.set_epoch(epoch)
            for batch in batches:
                step = distilled.step(batch)
                optimizer.zero_grad()
                step.loss.backward()
                assert all(p.grad is not None for p in task.model.parameters())
                optimizer.step()
                logs.append(step.logs)
    names = {"mask", "heat", "texture", "feature/stem", "feature/down", "feature/stem.0"}
    assert set(logs[0]) == {f"distill/{n}" for n in names | {"relation/down", "own", "total"}}
    for name in logs[0].keys() - {"distill/own"}:
        assert logs[-1][name] < logs[0][name], name


@pytest.mark.parametrize("optim", [{}, {"ema_decay": 0.9}])
def test_a_resumed_distillation_repeats_the_unbroken_one_bit_for_bit(tmp_path, optim):
    cfg = DistillConfig(outputs=DENSE, features=[STEM], warmup_batches=3, decay_batches=5)
    train = TrainConfig(
        TrainerConfig(epochs=4, checkpoint_every_steps=3, metric=None, **QUIET),
        OptimConfig(lr=0.02, **optim),
    )

    def run(folder, watch):
        task = Volumes()
        with distill(task, Net(6), cfg) as distilled:
            fit(distilled, folder, train, [watch])
        return task.model

    whole, broken, resumed = Losses(), Losses(crash_at=5), Losses()
    model = run(tmp_path / "whole", whole)
    with pytest.raises(InterruptedError):
        run(tmp_path / "broken", broken)
    seed_all(9)
    again = run(tmp_path / "broken", resumed)
    # Checkpoints are written every three steps.
    assert resumed.losses == whole.losses[3:]
    assert digest(again) == digest(model)


def test_resuming_refuses_another_teacher_and_other_settings(tmp_path):
    train = settings(1, metric=None)
    with distill(Volumes(), Net(6), DistillConfig(outputs=DENSE)) as task:
        fit(task, tmp_path, train)
    train.trainer.epochs = 2
    train.optim.schedule = "constant"
    for net, weight in ((Net(7), 1.0), (Net(6), 2.0)):
        with distill(Volumes(), net, DistillConfig(weight, outputs=DENSE)) as task:
            trainer = Trainer(task, train, run_dir=tmp_path)
            facts = tmp_path / "checkpoints" / "step-000000002" / "state.json"
            text = facts.read_text().replace('"cosine"', '"constant"')
            facts.write_text(text.replace('"number of steps": 2', '"number of steps": 4'))
            with pytest.raises(ValueError, match="another teacher or with other settings"):
                trainer.fit()


def test_a_cached_run_equals_one_that_asks(tmp_path):
    cfg = {"outputs": DENSE, "features": [STEM]}
    folder = tmp_path / "cache"
    models = {}
    for name, cache in (("asks", None), ("fills", str(folder)), ("reads", str(folder))):
        task = Volumes()
        with distill(task, Net(6), DistillConfig(**cfg, cache_dir=cache)) as distilled:
            fit(distilled, tmp_path / name, settings(3, metric=None))
            if cache is not None:
                # Eight samples, three passes.
                met = distilled.teacher.cache
                assert (met.hits, met.misses) == ((16, 8) if name == "fills" else (24, 0))
        models[name] = torch.cat([v.flatten() for v in task.model.state_dict().values()])
    assert len(list(folder.glob("*/*.npz"))) == 8
    torch.testing.assert_close(models["fills"], models["asks"], rtol=FLOAT32, atol=FLOAT32)
    assert torch.equal(models["reads"], models["fills"])
    # Another teacher shares nothing.
    with distill(Volumes(), Net(7), DistillConfig(**cfg, cache_dir=str(folder))) as distilled:
        distilled.step(next(iter(distilled.batches("train"))))
        assert distilled.teacher.cache.hits == 0


def test_a_damaged_cache_is_refused(tmp_path):
    cfg = DistillConfig(outputs=DENSE, cache_dir=str(tmp_path))
    with distill(Volumes(), Net(6), cfg) as task:
        batch = next(iter(task.batches("train")))
        task.step(batch)
        for path in tmp_path.glob("*/*.npz"):
            path.write_bytes(path.read_bytes()[:100])
        with pytest.raises(ValueError, match=r"npz cannot be read .*delete it"):
            task.step(batch)


def test_a_cache_is_refused_where_samples_do_not_come_again(tmp_path):
    class Augmented(Regression):
        def batches(self, split):
            made = super().batches(split)
            plain = made.collate
            made.collate = lambda index: (plain(index)[0] + made.epoch, plain(index)[1])
            return made

    class Noisy(Regression):
        def step(self, batch):
            return super().step((batch[0] + torch.randn_like(batch[0]), batch[1]))

    class Coupled(Curve):
        def forward(self, x):
            return super().forward(x - x.mean(0))

    cfg = DistillConfig(outputs=MSE, cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="not the same in two epochs"):
        distill(Augmented(), Curve(9), cfg)
    with pytest.raises(ValueError, match="hangs on its batch"):
        distill(Regression(), Coupled(9), cfg)
    with (
        distill(Noisy(), Curve(9), cfg) as task,
        pytest.raises(ValueError, match="never knew the sample"),
    ):
        fit(task, tmp_path / "run", settings(9, metric=None))
    small = DistillConfig(outputs=MSE, cache_dir=str(tmp_path / "small"), cache_limit_mib=1)
    with distill(Noisy(), Curve(9), small) as task:
        task.teacher.cache._num_bytes = 1 << 20
        with pytest.raises(ValueError, match="holds more than cache_limit_mib=1 "):
            task.step(next(iter(task.batches("train"))))


def test_readers_votes_say_where_the_edge_is():
    outputs = {"mask": OutputLossConfig(boundary=BoundaryConfig(strength=4.0, of="label"))}
    with distill(Volumes(), Net(6), DistillConfig(outputs=outputs)) as task:
        assert task.step(next(iter(task.batches("train")))).loss > 0
    with pytest.raises(ValueError, match=r"needs a task that has `targets\(batch\)`"):
        distill(Regression(), Curve(9), DistillConfig(outputs={"output": outputs["mask"]}))


def test_a_step_of_several_calls_counts_each_by_its_samples():
    class Twice(Volumes):
        def step(self, batch):
            losses = [self.model(batch["image"][part])["mask"].mean() for part in self.parts]
            return Step(torch.stack(losses).mean())

    task, teacher = Twice(), Net(6)
    task.parts = (slice(0, 1), slice(1, 4))
    cfg = DistillConfig(outputs={"heat": OutputLossConfig()})
    with distill(task, teacher, cfg) as distilled:
        batch = next(iter(task.batches("train")))
        # Each sample for itself, so that parts and whole agree.
        task.model.stem[1].eval()
        split = distilled.step(batch).logs["distill/heat"]
        task.parts = (slice(0, 4),)
        assert split == pytest.approx(distilled.step(batch).logs["distill/heat"], rel=FLOAT32)


def test_a_detector_is_watched_at_its_head():
    class Detector(nn.Module):
        """Losses while it trains, a list of boxes after."""

        def __init__(self, width):
            super().__init__()
            self.body = nn.Conv2d(1, width, 3, padding=1)
            self.head = nn.Conv2d(width, 1, 1)

        def forward(self, images):
            heat = self.head(self.body(images))
            if self.training:
                return {"loss": heat.square().mean()}
            return [
                {"boxes": torch.tensor([[0.0, 0, 4, 4]]), "scores": torch.ones(1), "labels": [1]}
                for _ in images
            ]

    class Found:
        def __init__(self):
            self.model = Detector(2)
            self.images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(0))

        def batches(self, split):
            return Batches(4, 2, lambda i: self.images[i], seed=0, shuffle=False)

        def step(self, batch):
            return Step(self.model(batch)["loss"])

    teacher = Detector(5)
    cfg = DistillConfig(
        outputs={"output": OutputLossConfig()}, student_outputs="head", teacher_outputs="head"
    )
    with distill(Found(), teacher, cfg) as task:
        step = task.step(task.student.images)
        assert step.loss > step.logs["distill/own"]
    with pytest.raises(ValueError, match=r"is no tensor; give distill a `read_...`"):
        distill(Found(), teacher, DistillConfig(outputs=cfg.outputs))
    read = lambda found: {"output": torch.zeros(len(found), 1, 6, 6)}  # noqa: E731
    cfg = DistillConfig(outputs=cfg.outputs, student_outputs="head")
    with distill(Found(), teacher, cfg, read_teacher=read) as task:
        assert task.step(task.student.images).loss > 0


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        (DistillConfig(), "weighs nothing"),
        (DistillConfig(outputs={"maks": OutputLossConfig()}), "maks is no output of the student"),
        (
            DistillConfig(outputs={"texture": OutputLossConfig(loss="kl", where="mask")}),
            "with the same positions",
        ),
        (DistillConfig(features=[FeatureConfig("stm", "stem")]), "choose from stem"),
        (DistillConfig(features=[FeatureConfig("stem", "stm")]), "choose from stem"),
        (
            DistillConfig(features=[FeatureConfig("stem", "stem", is_projected=False)]),
            "stem has 2 channels, stem 6",
        ),
    ],
)
def test_settings_that_do_not_fit_are_told_before_training(cfg, message):
    task = Volumes()
    with pytest.raises(ValueError, match=message):
        distill(task, Net(6), cfg)
    assert STATE not in dict(task.model.named_children())
    assert hooks(task.model) == 0


def test_models_that_do_not_fit_are_told_before_training():
    task = Volumes()
    outputs = {"mask": OutputLossConfig()}
    cfg = DistillConfig(outputs=outputs)
    with pytest.raises(ValueError, match="share weights"):
        distill(task, task.model, cfg)
    wide = Net(6)
    wide.mask = nn.Conv3d(6, 2, 1)
    with pytest.raises(ValueError, match=r"shape \(4, 1, 8, 8, 8\) from the student"):
        distill(task, wide, cfg)
    with distill(task, Net(6), cfg), pytest.raises(ValueError, match="already"):
        distill(task, Net(6), cfg)
    task.step = lambda batch: Step(task.model.stem(batch["image"]).mean())
    with pytest.raises(ValueError, match="did not call its model"):
        distill(task, Net(6), cfg)


def test_preparing_leaves_generators_and_the_student_as_they_were():
    task, teacher = Volumes(), Net(6)
    before, model = torch.get_rng_state(), digest(task.model)
    distill(task, teacher, DistillConfig(outputs=DENSE, features=[STEM])).close()
    assert torch.equal(before, torch.get_rng_state())
    # Running statistics too.
    assert digest(task.model) == model


def test_the_teacher_follows_precision_and_memory_format(tmp_path):
    task, teacher = Volumes(), Net(6)
    task.model.to(memory_format=torch.channels_last_3d)
    with distill(task, teacher, DistillConfig(outputs=DENSE, features=[STEM])) as distilled:
        weight = teacher.stem[0].weight
        assert weight.is_contiguous(memory_format=torch.channels_last_3d)
        seen = []
        handle = teacher.mask.register_forward_hook(lambda *call: seen.append(call[2].dtype))
        fit(distilled, tmp_path, settings(1, metric=None, precision="bf16"))
        handle.remove()
    assert set(seen) == {torch.bfloat16}


@pytest.mark.slow
def test_two_ranks_distil_like_one_process(tmp_path):
    module = ["-m", "tests.core.compress.distill_ranks", str(tmp_path)]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    for command in ([sys.executable, *launch, *module], [sys.executable, *module]):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-4000:]
    first, second, alone = (
        json.loads((tmp_path / f"losses-{rank}.json").read_text()) for rank in (0, 1, "alone")
    )
    assert first == second
    for parallel in ("ddp", "fsdp"):
        # Means by weights are taken over a rank's samples, not over all.
        np.testing.assert_allclose(first[parallel], alone[parallel], rtol=1e-2)


@pytest.mark.parametrize(
    ("cls", "values", "message"),
    [
        (OutputLossConfig, {"loss": "ce"}, "loss='ce' is not one of bce, kl, mse"),
        (OutputLossConfig, {"loss": "mse", "temperature": 2.0}, "needs logits"),
        (OutputLossConfig, {"temperature": 0.0}, "temperature=0.0 is not positive"),
        (BoundaryConfig, {"of": "reader"}, "one of teacher, label"),
        (FeatureConfig, {"student": "a"}, "teacher='' is not the name of a module"),
        (RelationConfig, {"student": "a", "teacher": "b", "of": "x"}, "one of samples, voxels"),
        (DistillConfig, {"weight": 0, "label_weight": 0.5}, "is no mixture"),
        (DistillConfig, {"decay_batches": 0}, "decay_batches=0 is not 1 or more"),
    ],
)
def test_config_refuses(cls, values, message):
    with pytest.raises(ValueError, match=message):
        cls(**values)
