"""Which torchvision model a state_dict belongs to: found by its keys and shapes."""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

# Parts of keys that only these builders have; tried first, the others follow.
HINTS = {
    r"^layer4\.|^layer1\.0\.conv1": r"^(resnet|resnext|wide_resnet)",
    r"denseblock": "^densenet",
    r"^features\..*\.layer_scale": "^convnext",
    r"trunk_output": "^regnet",
    r"^class_token|encoder_layer_0": "^vit",
    r"relative_position_bias_table": "^(swin|maxvit)",
    r"cpb_mlp": "^swin_v2",
    r"^features\.1\.block\.": "^mobilenet_v3",
    r"^features\.1\.0\.block\.": "^efficientnet",
    r"^stem\.\d": "^(r3d|mc3|r2plus1d)",
    r"^features\.\d+\.conv": "^mobilenet_v2",
    r"^layers\.": "^mnasnet",
    r"^stage2\.": "^shufflenet",
    r"^Mixed_|^AuxLogits": "^inception",
    r"^inception3a": "^googlenet",
    r"squeeze": "^squeezenet",
    r"^features\.0\.": "^(vgg|alexnet)",
    r"^rpn\.": "^(faster|mask|keypoint)",
    r"^backbone\.body": "^(fcos|retinanet)",
    r"^backbone\.": "^(deeplab|fcn|lraspp|ssd)",
}
DEFAULT_COUNTS = (1000, 91, 21, 400)  # classes torchvision's own weights know
FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn}


@dataclass(frozen=True)
class Architecture:
    """A builder of torchvision with the arguments that fit a state_dict."""

    name: str
    task: str  # classification, segmentation, detection, ...: torchvision's own folders
    arguments: Mapping[str, Any]

    def load(self, state: Mapping[str, Tensor]) -> nn.Module:
        """The model with these weights, in evaluation mode; draws no random ones if it can."""
        model = _build_on_meta(self.name, self.arguments)
        tensors = (*model.named_parameters(), *model.named_buffers())
        is_complete = all(key in state for key, tensor in tensors if tensor.is_meta)
        model = model if is_complete else _build(self.name, self.arguments)
        model.load_state_dict(state, assign=is_complete)
        return model.eval()


def find_architecture(state: Mapping[str, Tensor]) -> Architecture | None:
    """The torchvision model whose state_dict has exactly these keys and shapes; None if none has.

    Candidates are built without memory for their weights. Only builders of the likely family are
    built at first; all others follow.
    """
    keys = frozenset(state)
    for name in _candidates(keys):
        for variant in _variants(name, keys):
            model = _build_on_meta(name, variant)
            shapes = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
            if shapes.keys() != keys:
                continue
            for changes in ({}, *_other_sizes(shapes, state)):
                arguments = {**variant, **changes}
                if not changes or (model := _build_on_meta(name, arguments)):
                    found = {key: tuple(t.shape) for key, t in model.state_dict().items()}
                    if all(found[key] == tuple(state[key].shape) for key in keys):
                        return Architecture(name, _task(name), arguments)
    return None


def image_size_px(architecture: Architecture) -> int:
    """The height and width of images that torchvision evaluates the model with."""
    from torchvision.models import get_model_weights

    if "image_size" in architecture.arguments:
        return int(architecture.arguments["image_size"])
    if architecture.task not in ("classification", "video"):
        return 320 if architecture.task == "detection" else 224
    best = list(get_model_weights(architecture.name))
    return int(best[-1].transforms().crop_size[0]) if best else 224


class _WeightsOnMeta(TorchFunctionMode):
    """Weights get no memory; what builders compute with (`arange`) stays real."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func in FACTORIES and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        return func(*args, **kwargs)


def _build_on_meta(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    with _WeightsOnMeta():
        return _build(name, arguments)


def _build(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    from torchvision.models import get_model_builder

    builder = get_model_builder(name)
    known = inspect.signature(builder).parameters
    # None: torchvision would fetch the weights of a detector's backbone.
    silent = ("weights", "weights_backbone")
    fixed: dict[str, Any] = {key: None for key in silent if key in known}
    # `init_weights` is not in the signature of these two; unset, they warn of its default.
    fixed |= {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: nn.Module = builder(**fixed, **arguments)
    return model


def _candidates(keys: frozenset[str]) -> Iterator[str]:
    from torchvision.models import list_models

    names = [name for name in list_models() if not name.startswith("quantized_")]
    likely = [
        name
        for pattern, family in HINTS.items()
        if any(re.search(pattern, key) for key in keys)
        for name in names
        if re.search(family, name)
    ]
    yield from dict.fromkeys((*likely, *names))


def _variants(name: str, keys: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Arguments that add or leave out branches, as the keys say."""
    has_auxiliary = any(key.startswith(("aux", "AuxLogits")) for key in keys)
    if name in ("googlenet", "inception_v3"):
        yield {"aux_logits": has_auxiliary}
    elif name.startswith(("deeplab", "fcn_")):
        yield {"aux_loss": has_auxiliary}
    else:
        yield {}


def _other_sizes(
    shapes: Mapping[str, tuple[int, ...]], state: Mapping[str, Tensor]
) -> Iterator[dict[str, Any]]:
    """Arguments that could explain tensors of other shapes: number of classes, image size."""
    changes: dict[str, Any] = {}
    position = "encoder.pos_embedding"
    if position in shapes and shapes[position] != tuple(state[position].shape):
        patch = state["conv_proj.weight"].shape[-1]
        changes["image_size"] = patch * round((state[position].shape[1] - 1) ** 0.5)
        yield dict(changes)
    different = [
        (shapes[key][0], tensor.shape[0])
        for key, tensor in state.items()
        if key != position and tensor.dim() and shapes[key] != tuple(tensor.shape)
    ]
    # A head alone differs; another architecture differs nearly everywhere.
    if len(different) > 32:
        return
    counts = {
        given * count // default
        for default, given in different
        for count in DEFAULT_COUNTS
        if default % count == 0 and (given * count) % default == 0
    }
    for count in sorted(counts):
        yield {**changes, "num_classes": count}


def _task(name: str) -> str:
    from torchvision.models import get_model_builder

    module = get_model_builder(name).__module__.split(".")
    return module[2] if len(module) > 3 else "classification"
