"""What compression may be told. Dataclasses only: no torch, so that ``--help`` stays quick."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class QuantizeConfig:
    """How a model's numbers become 8-bit integers."""

    # static (scales from the calibration set), dynamic (scales from each input), nncf (OpenVINO's
    # accuracy-aware search), or auto: static and dynamic are tried, the faster one within the
    # loss budget is kept.
    method: str = "auto"
    # How a tensor's range is taken from the calibration set: minmax, percentile or entropy.
    calibration: str = "minmax"
    # percentile: the share of values inside the range, in percent.
    percentile: float = 99.999
    # Calibration samples in one run of the model.
    calibration_batch: int = 16
    # Samples on which a layer's share of the output error is measured.
    sensitivity_samples: int = 16
    # The search for layers to leave in float ends after this; what was found by then is kept.
    max_search_s: float = 600.0
    # Standard operators only, for any runtime; an LSTM in 8 bits exists in ONNX Runtime alone.
    is_portable: bool = False
    # Names of nodes that stay in float whatever the search says.
    float_nodes: list[str] = field(default_factory=list)
    # Beginnings of the names of weights whose nodes stay in float likewise; a kit adds its own.
    float_weights: list[str] = field(default_factory=list)
    # The before/after table measures the latency of these batches, on one thread.
    latency_batches: list[int] = field(default_factory=lambda: [1])
    # Runs of each model and batch behind a median; the models take turns.
    latency_runs: int = 30

    def __post_init__(self) -> None:
        """Check names and ranges."""
        _one_of("quantize.method", self.method, "auto", "static", "dynamic", "nncf")
        _one_of("quantize.calibration", self.calibration, "minmax", "percentile", "entropy")
        _check("quantize.percentile", self.percentile, "in (50, 100]", lambda v: 50 < v <= 100)
        for name in ("calibration_batch", "sensitivity_samples", "latency_runs"):
            _check(f"quantize.{name}", getattr(self, name), "1 or more", lambda v: v >= 1)
        _check("quantize.max_search_s", self.max_search_s, "positive", lambda v: v > 0)
        _check(
            "quantize.latency_batches", self.latency_batches, "a list of batches of 1 or more",
            lambda v: len(v) > 0 and min(v) >= 1,
        )  # fmt: skip


@dataclass
class PruneConfig:
    """How whole channels are taken out of a model."""

    # Share of the FLOPs that remain.
    flops_share: float = 0.5
    # How far the share reached may lie from the share wanted.
    tolerance: float = 0.02
    # The model is pruned in so many rounds, and trained on after each.
    rounds: int = 3
    # No layer loses more than this share of its channels.
    max_layer_share: float = 0.9
    # Remaining channels are a multiple of this where a layer has as many.
    round_to: int = 1
    # A channel's importance is this norm of its weights, over all layers coupled to it.
    norm: int = 2
    # Names of modules that keep their channels; recurrent and attention layers always do.
    kept_modules: list[str] = field(default_factory=list)
    # Latency of the before/after table, as in quantize.
    latency_runs: int = 30

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("flops_share", "max_layer_share", "tolerance"):
            _check(f"prune.{name}", getattr(self, name), "in (0, 1)", lambda v: 0 < v < 1)
        for name in ("rounds", "round_to", "norm", "latency_runs"):
            _check(f"prune.{name}", getattr(self, name), "1 or more", lambda v: v >= 1)


@dataclass
class BoundaryConfig:
    """Where an output counts more: at the edge of an object, the more the smaller the object is."""

    # Weight that a voxel at the edge of an object of `reference_voxels` gets besides `background`;
    # 0 counts every voxel alike.
    strength: float = 0.0
    # Weight of a voxel far from all objects. The loss is a mean by weights: a low one keeps what is
    # empty from drowning small objects.
    background: float = 1.0
    # Whose objects: teacher (its output) or label (the task then says its `targets`).
    of: str = "teacher"
    # Probability from which a voxel belongs to an object.
    threshold: float = 0.5
    # Distance from the edge, in voxels, at which the added weight has fallen to 61 %.
    width_voxels: float = 2.0
    # An object of half the size gets 2 ** size_power times the added weight; 0: sizes are alike.
    size_power: float = 1.0
    reference_voxels: float = 250.0
    # No voxel counts more than this.
    max_weight: float = 20.0

    def __post_init__(self) -> None:
        """Check names and ranges."""
        _one_of("distill.boundary.of", self.of, "teacher", "label")
        for name in ("strength", "size_power"):
            _check(f"distill.boundary.{name}", getattr(self, name), "0 or more", lambda v: v >= 0)
        for name in ("width_voxels", "reference_voxels", "background"):
            _check(f"distill.boundary.{name}", getattr(self, name), "positive", lambda v: v > 0)
        _check("distill.boundary.threshold", self.threshold, "in (0, 1)", lambda v: 0 < v < 1)
        _check("distill.boundary.max_weight", self.max_weight, "1 or more", lambda v: v >= 1)


@dataclass
class OutputLossConfig:
    """How one output of the student follows the teacher's."""

    # bce: every number is a logit of its own; kl: axis 1 holds the logits of classes, the first of
    # them the background where there are objects; mse: numbers that are no logits.
    loss: str = "bce"
    weight: float = 1.0
    # Both models' logits are divided by it, and the loss is multiplied by its square.
    temperature: float = 1.0
    # Weight of a soft Dice loss between the two probabilities, beside `loss`.
    dice_weight: float = 0.0
    # Name of another output: the teacher's probability there says how much a voxel counts here.
    where: str = ""
    boundary: BoundaryConfig = field(default_factory=BoundaryConfig)

    def __post_init__(self) -> None:
        """Check names, ranges and pairs of values."""
        _one_of("distill.outputs.loss", self.loss, "bce", "kl", "mse")
        for name in ("weight", "dice_weight"):
            _check(f"distill.outputs.{name}", getattr(self, name), "0 or more", lambda v: v >= 0)
        _check("distill.outputs.temperature", self.temperature, "positive", lambda v: v > 0)
        if self.loss == "mse":
            for name, value, plain in (
                ("temperature", self.temperature, 1.0),
                ("dice_weight", self.dice_weight, 0.0),
                ("boundary.strength", self.boundary.strength, 0.0),
            ):
                if value != plain:
                    raise ValueError(
                        f"distill.outputs.{name}={value} needs logits, and loss=mse has none; "
                        f"set it to {plain}, or loss to bce or kl"
                    )


@dataclass
class FeatureConfig:
    """A module of the student whose output follows that of a module of the teacher."""

    # Names as in `model.named_modules()`.
    student: str = ""
    teacher: str = ""
    weight: float = 1.0
    # mse (of the teacher's mean square), cosine (of each position's channels), attention (where the
    # energy lies, whatever the channels say; needs no projection).
    loss: str = "mse"
    # Student's channels -> teacher's channels by a learned 1x1 projection, which is trained and
    # kept with the run and no part of the student.
    is_projected: bool = True
    # null: axis 1 of (N, C, H, W) and (N, C, D, H, W), else the last one.
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        """Check names and ranges."""
        _one_of("distill.features.loss", self.loss, "mse", "cosine", "attention")
        _check_pair("features", self.student, self.teacher, self.weight)


@dataclass
class RelationConfig:
    """Two modules whose similarities between samples, or between positions, are to be the same."""

    student: str = ""
    teacher: str = ""
    weight: float = 1.0
    # samples (of a batch) or voxels (of each sample).
    of: str = "samples"
    # voxels: features are averaged to so many positions along each axis before.
    positions_per_axis: int = 6
    # As in a feature.
    channel_axis: int | None = None

    def __post_init__(self) -> None:
        """Check names and ranges."""
        _one_of("distill.relations.of", self.of, "samples", "voxels")
        _check_pair("relations", self.student, self.teacher, self.weight)
        _check(
            "distill.relations.positions_per_axis", self.positions_per_axis, "2 or more",
            lambda v: v >= 2,
        )  # fmt: skip


@dataclass
class DistillConfig:
    """What a student learns from its teacher beside its own task."""

    # Of everything below together; 0 is plain training.
    weight: float = 1.0
    # Of the task's own loss: labels, or readers' votes where the task learns from them.
    label_weight: float = 1.0
    # Output -> its loss. A model that gives one tensor calls it `output`.
    outputs: dict[str, OutputLossConfig] = field(default_factory=dict)
    features: list[FeatureConfig] = field(default_factory=list)
    relations: list[RelationConfig] = field(default_factory=list)
    # Modules whose results are taken for the outputs, where a model in training gives losses
    # instead (torchvision's detectors: head); empty: the model itself.
    student_outputs: str = ""
    teacher_outputs: str = ""
    # Batches over which the weight grows from nothing.
    warmup_batches: int = 0
    # Then it falls, straight or in half a cosine wave, to this share of it after so many batches;
    # null: it stays.
    decay_batches: int | None = None
    decay: str = "cosine"
    final_share: float = 0.0
    # Folder that keeps what the teacher gave for a sample; null asks the teacher each time. For
    # samples that come again unchanged; others are refused.
    cache_dir: str | None = None
    # Files in the folder, at most.
    cache_limit_mib: int = 8192

    def __post_init__(self) -> None:
        """Check names, ranges and pairs of values."""
        for name in ("weight", "label_weight", "warmup_batches"):
            _check(f"distill.{name}", getattr(self, name), "0 or more", lambda v: v >= 0)
        _one_of("distill.decay", self.decay, "linear", "cosine")
        _check("distill.final_share", self.final_share, "in [0, 1]", lambda v: 0 <= v <= 1)
        _check("distill.cache_limit_mib", self.cache_limit_mib, "1 or more", lambda v: v >= 1)
        if self.decay_batches is not None:
            _check("distill.decay_batches", self.decay_batches, "1 or more", lambda v: v >= 1)
        if self.weight == 0 and self.label_weight != 1:
            raise ValueError(
                f"distill.label_weight={self.label_weight} beside distill.weight=0 is no mixture; "
                "set it to 1, which is plain training"
            )


@dataclass
class CompressConfig:
    """What happens to a model before it is converted; pruning comes first."""

    is_pruned: bool = False
    is_quantized: bool = False
    # How much of the metric (higher is better) quantisation may cost; null sets no limit.
    max_loss: float | None = 0.002
    prune: PruneConfig = field(default_factory=PruneConfig)
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)

    def __post_init__(self) -> None:
        """Check the budget."""
        if self.max_loss is not None:
            _check("compress.max_loss", self.max_loss, "0 or more", lambda v: v >= 0)


def _check(name: str, value: Any, rule: str, is_kept: Callable[[Any], bool]) -> None:
    if not is_kept(value):
        raise ValueError(f"{name}={value!r} is not {rule}; set {name}")


def _one_of(name: str, value: str, *names: str) -> None:
    _check(name, value, f"one of {', '.join(names)}", lambda v: v in names)


def _check_pair(group: str, student: str, teacher: str, weight: float) -> None:
    for name, value in (("student", student), ("teacher", teacher)):
        _check(f"distill.{group}.{name}", value, "the name of a module", lambda v: bool(v))
    _check(f"distill.{group}.weight", weight, "0 or more", lambda v: v >= 0)
