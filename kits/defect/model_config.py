"""Settings of the networks and of their losses; plain dataclasses that need no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ZOO = Path(__file__).parent / "zoo"
ATTENTIONS = ("none", "cbam", "simam")


@dataclass
class ModelConfig:
    """Which network of `kits/defect/zoo`, and how wide."""

    # The option's own name.
    name: str = ""
    # A YAML file of kits/defect/zoo, without its ending.
    graph: str = ""
    # All channels times this, rounded up to a multiple of 8.
    width: float = 1.0
    # At the places that the graph keeps for it: none, cbam, simam.
    attention: str = "none"

    def __post_init__(self) -> None:
        """Check names and ranges."""
        known = sorted(path.stem for path in ZOO.glob("*.yaml"))
        if self.graph not in known:
            raise ValueError(f"model.graph={self.graph!r} is not one of {', '.join(known)}; set it")
        if self.attention not in ATTENTIONS:
            raise ValueError(
                f"model.attention={self.attention!r} is not one of {', '.join(ATTENTIONS)}; set it"
            )
        if not 0 < self.width <= 4:
            raise ValueError(f"model.width={self.width} is not in (0, 4]; set model.width")


@dataclass
class KitConfig(ModelConfig):
    """The kit's own network: ELAN, ReLU, weighted fusion, a head at stride 4 for small defects."""

    name: str = "kit"
    graph: str = "yolov7-kit"
    attention: str = "cbam"


@dataclass
class HalfKitConfig(KitConfig):
    """The same with half of the channels: a quarter of the work."""

    name: str = "kit_half"
    width: float = 0.5


@dataclass
class QuarterKitConfig(KitConfig):
    """The same with a quarter of the channels."""

    name: str = "kit_quarter"
    width: float = 0.25


@dataclass
class TinyConfig(ModelConfig):
    """YOLOv7-tiny as published."""

    name: str = "yolov7_tiny"
    graph: str = "yolov7-tiny"


@dataclass
class FullConfig(ModelConfig):
    """YOLOv7 as published: a teacher."""

    name: str = "yolov7"
    graph: str = "yolov7"


@dataclass
class LossConfig:
    """How found boxes are assigned to true ones, and what their distance costs."""

    # Weights of the three parts.
    box: float = 2.0
    classes: float = 1.0
    # Networks with an objectness of its own (the published ones).
    objectness: float = 1.0
    # Share of the normalised Wasserstein distance beside CIoU, in assignment and loss: it also
    # tells apart boxes of a few pixels that do not overlap.
    nwd_share: float = 0.5
    # A distance as long as the true box's side, but at least so many pixels, counts 1/e.
    nwd_px: float = 12.0
    # Predictions within so many cells of a true box's centre may be assigned to it.
    radius: float = 2.5
    # The sum over so many best overlaps is the number of predictions that a true box gets.
    candidates: int = 10
    # Of the auxiliary heads, which are told what the lead head found, more generously.
    auxiliary: float = 0.25

    def __post_init__(self) -> None:
        """Check ranges."""
        for name in ("box", "classes", "objectness", "auxiliary"):
            if getattr(self, name) < 0:
                raise ValueError(f"loss.{name}={getattr(self, name)} is below 0; set loss.{name}")
        if not 0 <= self.nwd_share <= 1:
            raise ValueError(f"loss.nwd_share={self.nwd_share} is not in [0, 1]; set it")
        for name in ("nwd_px", "radius", "candidates"):
            if getattr(self, name) <= 0:
                raise ValueError(f"loss.{name}={getattr(self, name)} is not positive; set it")
