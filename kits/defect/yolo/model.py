"""The zoo as ultralytics' own kind of model, for users of its `YOLO(...).train(...)`.

    from kits.defect.yolo.model import Zoo
    Zoo("mine.yaml").train(data="parts.yaml", epochs=50)        # mine.yaml: graph: yolov7-kit

Public extension points only: `DetectionModel` with a graph builder and a criterion of its own,
`DetectionTrainer.get_model`, `YOLO.task_map`. A trained model is left as YAML and safetensors
beside ultralytics' pickled checkpoints, which name this module and load only where it is installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from kits.defect.graph import Network, build_network, fused
from kits.defect.losses import losses
from kits.defect.model_config import LossConfig, ModelConfig
from kits.defect.trained import save_network
from kits.defect.yolo.quiet import import_ultralytics

import_ultralytics()

from ultralytics import YOLO  # noqa: E402
from ultralytics.models.yolo.detect import (  # noqa: E402
    DetectionPredictor,
    DetectionTrainer,
    DetectionValidator,
)
from ultralytics.nn.tasks import DetectionModel  # noqa: E402

NO_CLASS = -1
DEFAULT_CLASSES = 80


class ZooModel(DetectionModel):
    """A network of the zoo with the methods that ultralytics calls."""

    def __init__(
        self,
        cfg: str | Path | Mapping[str, Any],
        ch: int = 3,
        nc: int | None = None,
        verbose: bool = True,
    ) -> None:
        """Build it.

        Args:
            cfg: `graph`, `width`, `attention` of ModelConfig, or a YAML file of them.
            ch: planes of the image.
            nc: classes.
            verbose: print the size.
        """
        # Not DetectionModel's own: it builds from ultralytics' form of YAML, which it evaluates.
        nn.Module.__init__(self)
        content = dict(cfg) if isinstance(cfg, Mapping) else _read(Path(cfg))
        self.cfg = ModelConfig(
            **{f.name: content[f.name] for f in fields(ModelConfig) if f.name in content}
        )
        classes = int(nc or content.get("nc") or DEFAULT_CLASSES)
        self.model = nn.ModuleList([build_network(self.cfg, ch, classes)])
        self.yaml = {**asdict(self.cfg), "nc": classes, "channels": ch, "yaml_file": self.cfg.graph}
        self.names = {k: str(k) for k in range(classes)}
        self.nc, self.task, self.inplace, self.save = classes, "detect", True, []
        self.stride = torch.tensor([float(self.network.multiple)])
        if verbose:
            self.info()

    @property
    def network(self) -> Network:
        """The zoo's own network."""
        network = self.model[0]
        assert isinstance(network, Network)
        return network

    def predict(self, x: Tensor, **_: Any) -> Any:
        """Maps in training; else their (N, 4 + K, B) of centres, sides and scores, and the maps."""
        network = self.network
        maps = network.maps(x)
        if self.training:
            return maps
        found = network.head.decode(network.maps_of(maps))
        low, high = found["boxes"].split(2, -1)
        rows = torch.cat([(low + high) / 2, high - low, found["scores"]], -1)
        return rows.transpose(1, 2), maps

    def init_criterion(self) -> ZooLoss:
        """Our loss."""
        return ZooLoss(self.network, LossConfig())

    def fuse(self, **_: Any) -> ZooModel:
        """Norms and branches into convolutions."""
        self.model = nn.ModuleList([fused(self.network)])
        return self

    def is_fused(self) -> bool:
        """Whether there is a norm left."""
        return not any(isinstance(module, nn.BatchNorm2d) for module in self.modules())

    def info(self, *_: Any, verbose: bool = True, **__: Any) -> None:
        """Print the size."""
        if verbose:
            number = sum(p.numel() for p in self.parameters())
            print(f"{self.cfg.graph} x {self.cfg.width:g}: {number:,} parameters")


class ZooLoss:
    """The kit's loss of one of ultralytics' batches."""

    def __init__(self, network: Network, cfg: LossConfig) -> None:
        self.network, self.cfg = network, cfg

    def __call__(self, preds: Any, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The sum over images, as their schedule of learning rates supposes, and the parts."""
        maps = preds[1] if isinstance(preds, tuple) else preds
        total, parts = losses(self.network, maps, targets_of(batch), self.cfg)
        return total * len(batch["img"]), {name: value.detach() for name, value in parts.items()}


class ZooValidator(DetectionValidator):
    """Its mAP, as it is: `ZooModel` answers in its form."""


class ZooTrainer(DetectionTrainer):
    """Builds models of the zoo, and leaves them as YAML and safetensors too."""

    def get_model(
        self, cfg: Any = None, weights: nn.Module | None = None, verbose: bool = True
    ) -> ZooModel:
        """A network for this data."""
        model = ZooModel(cfg, ch=self.data["channels"], nc=self.data["nc"], verbose=verbose)
        model.names = self.data["names"]
        if weights is not None:
            model.load_state_dict(weights.state_dict())
        return model

    def get_validator(self) -> ZooValidator:
        """For each epoch."""
        return ZooValidator(
            self.test_loader, save_dir=self.save_dir, args=vars(self.args).copy(),
            _callbacks=self.callbacks,
        )  # fmt: skip

    def save_model(self) -> bool:
        """Their checkpoint; of the best one also model/model.yaml and model/weights.safetensors."""
        is_saved: bool = super().save_model()
        if self.best_fitness == self.fitness:
            (self.save_dir / "model").mkdir(exist_ok=True)
            save_network(self.save_dir, self.ema.ema.network)
        return is_saved


class Zoo(YOLO):
    """`YOLO` for the zoo."""

    def __init__(self, model: str | Path, verbose: bool = False) -> None:
        """`model`: a YAML file with `graph`, `width` and `attention`, or a checkpoint."""
        super().__init__(str(model), task="detect", verbose=verbose)

    @property
    def task_map(self) -> dict[str, dict[str, Any]]:
        """Our classes where theirs would be."""
        return {
            "detect": {
                "model": ZooModel,
                "trainer": ZooTrainer,
                "validator": ZooValidator,
                "predictor": DetectionPredictor,
            }
        }


def targets_of(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their rows of boxes (shares of the image, centre and sides) as ours by image."""
    number, side = len(batch["img"]), batch["img"].shape[-2:]
    index = batch["batch_idx"].view(-1).long()
    most = max(1, int(torch.bincount(index, minlength=number).max()) if len(index) else 1)
    boxes = batch["bboxes"].new_zeros((number, most, 4))
    classes = torch.full((number, most), NO_CLASS, device=index.device)
    scale = boxes.new_tensor([side[1], side[0]])
    for image in range(number):
        rows = (index == image).nonzero()[:, 0]
        middle, sides = (batch["bboxes"][rows].view(-1, 2, 2) * scale).unbind(1)
        boxes[image, : len(rows)] = torch.cat([middle - sides / 2, middle + sides / 2], 1)
        classes[image, : len(rows)] = batch["cls"][rows].view(-1).long()
    return {"boxes": boxes, "classes": classes}


def _read(path: Path) -> dict[str, Any]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if not isinstance(content, dict) or "graph" not in content:
        raise ValueError(f"{path} does not say `graph`; write graph: yolov7-kit, width: 0.5")
    return content
