"""A network from a YAML file of the zoo: names and numbers are checked, nothing in it is executed.

layers:
  - {name: a, layer: conv, channels: 32, kernel: 3, stride: 2}   # from: the layer before
  - {from: [a, b], layer: fuse}
head: {kind: light, from: [a, b]}
auxiliary: {kind: light, from: [c, d]}                           # only while training
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from kits.defect.head import HEADS, Head
from kits.defect.layers import ACTIVATIONS, LAYERS, Layer, Style
from kits.defect.model_config import ZOO, ModelConfig

CHANNEL_KEYS = ("channels", "branch", "hidden")
ROUND_TO = 8
IMAGE = "image"
OUTPUT_NAMES = ("boxes", "scores")


class Network(nn.Module):
    """A graph of layers with its heads.

    In training it gives the maps of the lead head and, where there is one, of the auxiliary head;
    else `boxes` (N, B, 4) and `scores` (N, B, K).
    """

    def __init__(self, cfg: ModelConfig, planes: int, classes: int) -> None:
        """Build it with fresh weights.

        Args:
            cfg: which graph, how wide, which attention.
            planes: of the image.
            classes: of defects.
        Raises:
            ValueError: the graph is wrong; says which layer and why.
        """
        super().__init__()
        self.cfg, self.planes, self.classes = cfg, planes, classes
        content = read_graph(cfg.graph)
        style = Style(content["activation"], cfg.attention)
        self.layers = nn.ModuleList()
        self.sources: list[list[int]] = []
        known: dict[str, int] = {IMAGE: -1}
        widths, strides = [planes], [1.0]  # of the image, then of each layer
        for number, entry in enumerate(content["layers"]):
            where = f"zoo/{cfg.graph}.yaml: layer {number}"
            settings = dict(entry)
            name, kind = settings.pop("name", None), settings.pop("layer", None)
            named = _as_list(settings.pop("from", None))
            sources = [_place(each, known, where) for each in named] or [number - 1]
            layer = _build(kind, [widths[k + 1] for k in sources], style, settings, cfg, where)
            self.layers.append(layer)
            self.sources.append(sources)
            widths.append(layer.channels)
            strides.append(strides[sources[0] + 1] * layer.stride)
            if name is not None:
                if name in known:
                    raise ValueError(f"{where}: name={name!r} is taken; choose another")
                known[name] = number
        self.head, self.head_sources = self._head(content["head"], known, widths, strides)
        self.auxiliary: Head | None = None
        self.auxiliary_sources: list[int] = []
        if "auxiliary" in content:
            self.auxiliary, self.auxiliary_sources = self._head(
                content["auxiliary"], known, widths, strides
            )
        self.multiple = int(max(strides))
        self._last_use = self._last_uses()

    def _head(
        self,
        entry: Mapping[str, Any],
        known: Mapping[str, int],
        widths: Sequence[int],
        strides: Sequence[float],
    ) -> tuple[Head, list[int]]:
        settings, where = dict(entry), f"zoo/{self.cfg.graph}.yaml: head"
        kind, sources = settings.pop("kind"), _as_list(settings.pop("from"))
        if kind not in HEADS:
            raise ValueError(f"{where}: kind={kind!r} is not one of {', '.join(HEADS)}")
        places = [_place(each, known, where) for each in sources]
        inside = [widths[place + 1] for place in places]
        steps = [int(strides[place + 1]) for place in places]
        return HEADS[kind](inside, steps, self.classes, **settings), places

    def _last_uses(self) -> list[int]:
        """By which layer each layer is needed last, so that memory is given back."""
        last = list(range(len(self.layers)))
        for number, sources in enumerate(self.sources):
            for source in sources:
                if source >= 0:
                    last[source] = number
        for place in [*self.head_sources, *self.auxiliary_sources]:
            last[place] = len(self.layers)
        return last

    def features(self, image: Tensor) -> dict[int, Tensor]:
        """What the heads look at, by the number of the layer."""
        kept: dict[int, Tensor] = {-1: image}
        for number, (layer, sources) in enumerate(zip(self.layers, self.sources, strict=True)):
            kept[number] = layer(*(kept[source] for source in sources))
            for source in sources:
                if source >= 0 and self._last_use[source] == number:
                    kept.pop(source, None)
        return kept

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """(N, planes, H, W) in 0..1; H and W multiples of `multiple`."""
        output = self.maps(image)
        return output if self.training else self.head.decode(self.maps_of(output))

    def maps(self, image: Tensor) -> dict[str, Tensor]:
        """What the heads say of each cell, before it is read as boxes: `lead_4`, `lead_8` ..."""
        kept = self.features(image)
        result = self._named("lead", self.head, [kept[place] for place in self.head_sources])
        if self.auxiliary is not None and self.training:
            inside = [kept[place] for place in self.auxiliary_sources]
            result |= self._named("auxiliary", self.auxiliary, inside)
        return result

    def maps_of(self, output: Mapping[str, Tensor], which: str = "lead") -> list[Tensor]:
        """The maps of one head in what `maps` gave."""
        head = self.head if which == "lead" else self.auxiliary
        assert head is not None
        return [output[f"{which}_{stride}"] for stride in head.strides]

    @staticmethod
    def _named(which: str, head: Head, features: list[Tensor]) -> dict[str, Tensor]:
        maps = head(features)
        return {f"{which}_{stride}": one for stride, one in zip(head.strides, maps, strict=True)}


def build_network(cfg: ModelConfig, planes: int, classes: int) -> Network:
    """The network of these settings, in the memory layout that processors are fast with."""
    return Network(cfg, planes, classes).to(memory_format=torch.channels_last)


def fused(network: Network) -> Network:
    """A copy for prediction: norms and branches in their convolutions, no auxiliary head.

    The copy computes the same to 1e-5.
    """
    result = copy.deepcopy(network).eval()
    result.auxiliary, result.auxiliary_sources = None, []
    for module in result.modules():
        if module is not result and callable(fuse := getattr(module, "fuse", None)):
            fuse()
    return result


def read_graph(name: str) -> dict[str, Any]:
    """A file of the zoo, its form checked.

    Raises:
        ValueError: there is no such file, or it has other keys.
    """
    path = ZOO / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"model.graph={name!r} is not in {ZOO}; choose another")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = set(content)
    if (
        not {"activation", "layers", "head"}
        <= keys
        <= {"activation", "layers", "head", "auxiliary"}
    ):
        raise ValueError(
            f"{path} has the keys {', '.join(sorted(keys))}; activation, layers, head are needed"
        )
    if content["activation"] not in ACTIVATIONS:
        raise ValueError(
            f"{path}: activation={content['activation']!r} is not one of {', '.join(ACTIVATIONS)}"
        )
    result: dict[str, Any] = content
    return result


def _build(
    kind: object,
    inside: list[int],
    style: Style,
    settings: dict[str, Any],
    cfg: ModelConfig,
    where: str,
) -> Layer:
    if kind not in LAYERS:
        raise ValueError(f"{where}: layer={kind!r} is not one of {', '.join(LAYERS)}")
    for key in CHANNEL_KEYS:
        if key in settings:
            settings[key] = math.ceil(settings[key] * cfg.width / ROUND_TO) * ROUND_TO
    try:
        return LAYERS[str(kind)](inside, style, **settings)
    except TypeError as error:
        raise ValueError(f"{where}: {kind} does not take this: {error}") from error


def _place(name: object, known: Mapping[str, int], where: str) -> int:
    if name not in known:
        raise ValueError(
            f"{where}: from={name!r} is no earlier name; choose from {', '.join(known)}"
        )
    return known[str(name)]


def _as_list(value: object) -> list[object]:
    if value is None:
        return []
    return list(value) if isinstance(value, list) else [value]
