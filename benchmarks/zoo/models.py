"""The zoo: each model's name, how it is built, and which of its axes are free.

Weights are random and seeded, images and texts small: what is tested is the conversion. Nothing is
downloaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.zoo import networks
from core.convert.source import Arrays, Axis, Draw, Sizes, Source

BATCH = Axis("batch", 1, 4)
Axes = Mapping[str, Mapping[int, Axis]]


def build(name: str) -> Source:
    """The model of a name, with the same weights at every call.

    Raises:
        ValueError: no such model.
    """
    if name not in MODELS:
        raise ValueError(f"model={name!r} is not one of {', '.join(MODELS)}")
    torch.manual_seed(0)
    return MODELS[name](name)


def source(
    name: str,
    module: nn.Module,
    example: Mapping[str, Tensor],
    outputs: str,
    axes: Axes,
    draw: Draw | None = None,
) -> Source:
    """A source in evaluation mode, none of whose layers is without effect."""
    origin = f"zoo, {type(module).__name__}, seed 0"
    enliven(module)
    return Source(name, origin, module.eval(), example, tuple(outputs.split()), axes, draw=draw)


def enliven(module: nn.Module) -> None:
    """Draw weights that a library starts as constants: behind those, no error would be seen."""
    for weight in module.parameters():
        if weight.dim() > 1 and weight.is_floating_point() and weight.min() == weight.max():
            nn.init.normal_(weight, std=weight[0].numel() ** -0.5)


@torch.no_grad()
def settle(module: nn.Module, *inputs: Any) -> None:
    """Give batch normalisations the statistics of some inputs.

    Without it a random network fades to nothing or overflows, and errors mean little.
    """
    for name, norm in module.eval().named_modules():
        if isinstance(norm, nn.modules.batchnorm._BatchNorm):
            norm.train()
            norm.momentum = None
            # The last of a residual block: at full strength, rounding grows from block to block.
            if name.endswith("bn3"):
                nn.init.constant_(norm.weight, 0.3)
    module(*inputs)


def classifier(name: str, size_px: int, max_px: int = 0, **arguments: Any) -> Source:
    """A torchvision classifier; height and width are free too where `max_px` is given."""
    import torchvision

    module = torchvision.models.get_model(name, weights=None, num_classes=10, **arguments)
    # Larger than what is converted, so that the last layers see more than one pixel.
    settling_px = arguments.get("image_size", 2 * size_px)
    settle(module, torch.randn(16, 3, settling_px, settling_px))
    return source(name, module, image(size_px), "logits", image_axes(size_px, max_px))


def segmenter(name: str, size_px: int, max_px: int, **arguments: Any) -> Source:
    """A torchvision segmentation model; all four axes of the image but the channels are free."""
    import torchvision

    module = torchvision.models.get_model(
        name, weights=None, weights_backbone=None, num_classes=4, **arguments
    )
    settle(module, torch.randn(8, 3, 2 * size_px, 2 * size_px))
    outputs = "out aux" if arguments.get("aux_loss") else "out"
    return source(name, module, image(size_px), outputs, image_axes(size_px, max_px))


def detector(name: str, size_px: int, gain: float, **arguments: Any) -> Source:
    """A torchvision detector with its post-processing: one image, boxes as many as are found."""
    import torchvision

    # The best boxes only: among hundreds, some pair's scores differ by less than rounding does.
    module = torchvision.models.get_model(
        name,
        weights=None,
        weights_backbone=None,
        num_classes=4,
        detections_per_img=20,
        **arguments,
    )
    # As drawn, all scores are nearly equal, and which box is kept would be a matter of rounding.
    for part in module.head.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.normal_(part.weight, std=gain * part.weight[0].numel() ** -0.5)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    settle(module, [torch.rand(3, size_px, size_px) for _ in range(4)])
    example = {"image": torch.rand(3, size_px, size_px)}
    return source(name, networks.Detector(module), example, "boxes scores labels", {})


def image(size_px: int) -> dict[str, Tensor]:
    """Two images."""
    return {"image": torch.randn(2, 3, size_px, size_px)}


def image_axes(size_px: int, max_px: int = 0) -> Axes:
    """The free axes of (B, 3, H, W)."""
    free = {0: BATCH}
    if max_px:
        free[2] = Axis("height", size_px, max_px, 32)
        free[3] = Axis("width", size_px, max_px, 32)
    return {"image": free}


def graph(name: str, convolution: str, **arguments: Any) -> Source:
    """A PyG network with free numbers of nodes and edges."""
    import torch_geometric.nn as geometric

    def draw(sizes: Sizes, rng: np.random.Generator) -> Arrays:
        num_nodes, num_edges = sizes["nodes"], sizes["edges"]
        edges = rng.integers(0, num_nodes, (2, num_edges))
        return {"x": rng.standard_normal((num_nodes, 12), np.float32), "edges": edges}

    module = networks.Graph(partial(getattr(geometric, convolution), **arguments), (12, 16, 4))
    example = {"x": torch.randn(6, 12), "edges": torch.randint(0, 6, (2, 14))}
    axes = {"x": {0: Axis("nodes", 2, 30)}, "edges": {1: Axis("edges", 3, 90)}}
    return source(name, module, example, "logits", axes, draw)


def sequence(name: str, module: Callable[[], nn.Module]) -> Source:
    """A network over (B, T, 8), both free."""
    axes = {"x": {0: BATCH, 1: Axis("time", 2, 20)}}
    return source(name, module(), {"x": torch.randn(2, 5, 8)}, "y", axes)


def recurrent(kind: str, **arguments: Any) -> nn.Module:
    """An nn.LSTM or nn.GRU, without its state."""
    return networks.FirstOutput(getattr(nn, kind)(8, 16, batch_first=True, **arguments))


def transformer_encoder() -> nn.Module:
    """nn.TransformerEncoder, which has a fast path of its own in evaluation mode."""
    layer = nn.TransformerEncoderLayer(8, 2, 32, batch_first=True)
    return nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)


SMALL_TEXT = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
              "intermediate_size": 64, "vocab_size": 99, "max_position_embeddings": 64}  # fmt: skip


def text(name: str, kind: str, outputs: str, **settings: Any) -> Source:
    """A transformers text model over (B, T) tokens, each row masked at its end."""
    import transformers

    config = getattr(transformers, f"{kind}Config")(**settings)
    module = getattr(transformers, f"{kind}Model")(config)
    example = {"input_ids": torch.ones(2, 7).long(), "attention_mask": torch.ones(2, 7).long()}
    wrapped = networks.Named(module, list(example), outputs.split())
    free = {0: BATCH, 1: Axis("tokens", 2, 30)}
    return source(name, wrapped, example, outputs, dict.fromkeys(example, free), draw_tokens)


def draw_tokens(sizes: Sizes, rng: np.random.Generator) -> Arrays:
    """Token numbers, and a mask that hides up to half of each row."""
    batch, tokens = sizes["batch"], sizes["tokens"]
    length = rng.integers((tokens + 1) // 2, tokens + 1, (batch, 1))
    mask = (np.arange(tokens) < length).astype(np.int64)
    return {"input_ids": rng.integers(5, 99, (batch, tokens)), "attention_mask": mask}


def vision_transformer(name: str) -> Source:
    """The ViT of transformers."""
    import transformers

    settings = {key: SMALL_TEXT[key] for key in list(SMALL_TEXT)[:4]}
    config = transformers.ViTConfig(image_size=32, patch_size=8, **settings)
    module = networks.Named(
        transformers.ViTModel(config), ["pixel_values"], ["last_hidden_state", "pooler_output"]
    )
    example = {"pixel_values": torch.randn(2, 3, 32, 32)}
    axes = {"pixel_values": {0: BATCH}}
    return source(name, module, example, "last_hidden_state pooler_output", axes)


def clip(name: str) -> Source:
    """CLIP: texts and images, each as many as wanted."""
    import transformers

    texts = SMALL_TEXT | {"eos_token_id": 98, "bos_token_id": 97}
    images = {key: SMALL_TEXT[key] for key in list(SMALL_TEXT)[:4]}
    config = transformers.CLIPConfig(
        text_config=texts, vision_config=images | {"image_size": 32, "patch_size": 8},
        projection_dim=24,
    )  # fmt: skip

    def draw(sizes: Sizes, rng: np.random.Generator) -> Arrays:
        tokens = draw_tokens({"batch": sizes["texts"], "tokens": sizes["tokens"]}, rng)
        pixels = rng.standard_normal((sizes["images"], 3, 32, 32), np.float32)
        return {"input_ids": tokens["input_ids"], "pixel_values": pixels,
                "attention_mask": tokens["attention_mask"]}  # fmt: skip

    example = {"input_ids": torch.ones(2, 7).long(), "pixel_values": torch.randn(3, 3, 32, 32),
               "attention_mask": torch.ones(2, 7).long()}  # fmt: skip
    outputs = "logits_per_image text_embeds image_embeds"
    module = networks.Named(transformers.CLIPModel(config), list(example), outputs.split())
    words = {0: Axis("texts", 1, 4), 1: Axis("tokens", 2, 30)}
    axes = {"input_ids": words, "attention_mask": words, "pixel_values": {0: Axis("images", 1, 4)}}
    return source(name, module, example, outputs, axes, draw)


def unet_3d(name: str) -> Source:
    """A 3D U-Net with a free volume."""
    axes = {2: Axis("depth", 8, 24, 4), 3: Axis("height", 8, 24, 4), 4: Axis("width", 8, 24, 4)}
    example = {"volume": torch.randn(2, 1, 8, 12, 16)}
    return source(name, networks.UNet3d(), example, "logits", {"volume": {0: BATCH} | axes})


def yolo(name: str) -> Source:
    """A YOLO-style detector with a free image."""
    module = networks.Yolo()
    settle(module, torch.randn(8, 3, 128, 128))
    return source(name, module, image(64), "boxes scores", image_axes(64, 160))


def fraud_lstm_gat(name: str) -> Source:
    """The fraud kit's default network, at its own size."""
    from kits.fraud.model import LstmGat
    from kits.fraud.model_config import LstmGatConfig

    K, N, F, C = 16, 32, 7, 2
    model = LstmGat(LstmGatConfig(), F, C, torch.arange(N) // 16 + 1)
    model.fit_inputs(torch.randn(500, F) * 50, 0.01)

    def draw(sizes: Sizes, rng: np.random.Generator) -> Arrays:
        B = sizes["batch"]
        arrays: Arrays = {}
        for kind, prefix, length in (("history", "history", K), ("neighbours", "neighbour", N)):
            x = rng.standard_normal((B, length, F), np.float32) * 50
            x[0, -1, 0] = np.nan
            arrays[f"x_{kind}"] = x
            arrays[f"c_{kind}"] = rng.integers(0, 300, (B, length, C))
            arrays[f"{prefix}_gap"] = rng.integers(0, 10**7, (B, length)).astype(np.float32)
            arrays[f"{prefix}_mask"] = np.arange(length) >= rng.integers(0, length, (B, 1))
            arrays[f"{prefix}_status"] = rng.integers(-1, 2, (B, length))
        return arrays

    example = as_tensors(draw({"batch": 2}, np.random.default_rng(0)))
    axes = {key: {0: Axis("batch", 1, 64)} for key in example}
    module = networks.OfMapping(model, list(example), "logit")
    return source(name, module, example, "logit", axes, draw)


def fraud_brief(name: str) -> Source:
    """The brief's own FraudDetector with its encoder, over two windows of events."""
    from kits.fraud.brief import BriefScorer

    # The window's length is a setting of the kit, no axis of its model.
    N, F, C = 24, 7, 2
    model = BriefScorer(F, C, 256)
    model.fit_inputs(torch.randn(500, F) * 50, 0.01)

    def draw(_: Sizes, rng: np.random.Generator) -> Arrays:
        x = rng.standard_normal((2, N, F), np.float32) * 50
        edges = np.tril(rng.random((2, N, N)) < 0.3, -1)
        return {"x": x, "c": rng.integers(0, 300, (2, N, C)), "adjacency": edges}

    example = as_tensors(draw({}, np.random.default_rng(0)))
    module = networks.OfMapping(model, list(example), "logit")
    return source(name, module, example, "logit", {}, draw)


def as_tensors(arrays: Arrays) -> dict[str, Tensor]:
    """The same values."""
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def small(kind: str, outputs: str, **settings: Any) -> Callable[[str], Source]:
    """A text model of a small configuration."""
    return lambda name: text(name, kind, outputs, **(settings or SMALL_TEXT))


def by_hand() -> nn.Module:
    """See `networks.TwoWayLstm`."""
    return networks.TwoWayLstm(8, 16)


MODELS: dict[str, Callable[[str], Source]] = {
    "resnet18": partial(classifier, size_px=64, max_px=128),
    "resnet50": partial(classifier, size_px=64),
    "mobilenet_v2": partial(classifier, size_px=64),
    "mobilenet_v3_small": partial(classifier, size_px=64, max_px=128),
    "efficientnet_b0": partial(classifier, size_px=64),
    "convnext_tiny": partial(classifier, size_px=64),
    "densenet121": partial(classifier, size_px=64),
    "vit_b_16": partial(classifier, size_px=64, image_size=64),
    "swin_t": partial(classifier, size_px=64),
    "regnet_y_400mf": partial(classifier, size_px=64),
    "shufflenet_v2_x1_0": partial(classifier, size_px=64),
    "squeezenet1_1": partial(classifier, size_px=64, max_px=128),
    "googlenet": partial(classifier, size_px=96, aux_logits=False, init_weights=True),
    "inception_v3": partial(classifier, size_px=96, aux_logits=False, init_weights=True),
    "vgg11_bn": partial(classifier, size_px=64),
    "deeplabv3_mobilenet_v3_large": partial(segmenter, size_px=64, max_px=128),
    "lraspp_mobilenet_v3_large": partial(segmenter, size_px=64, max_px=128),
    "fcn_resnet50": partial(segmenter, size_px=64, max_px=128, aux_loss=True),
    "ssdlite320_mobilenet_v3_large": partial(detector, size_px=320, gain=0.1),
    "retinanet_resnet50_fpn": partial(detector, size_px=128, gain=0.3, min_size=128, max_size=128),
    "fcos_resnet50_fpn": partial(detector, size_px=128, gain=1.4, min_size=128, max_size=128),
    "gcn": partial(graph, convolution="GCNConv"),
    "gat": partial(graph, convolution="GATConv"),
    "graphsage": partial(graph, convolution="SAGEConv"),
    "lstm": partial(sequence, module=partial(recurrent, "LSTM")),
    "gru": partial(sequence, module=partial(recurrent, "GRU")),
    "lstm_stacked": partial(sequence, module=partial(recurrent, "LSTM", num_layers=3)),
    "lstm_bidirectional": partial(sequence, module=partial(recurrent, "LSTM", bidirectional=True)),
    "lstm_bidirectional_by_hand": partial(sequence, module=by_hand),
    "transformer_encoder": partial(sequence, module=transformer_encoder),
    "unet_3d": unet_3d,
    "yolo": yolo,
    "bert": small("Bert", "last_hidden_state pooler_output"),
    "distilbert": small("DistilBert", "last_hidden_state", dim=32, n_layers=2, n_heads=2,
                        hidden_dim=64, vocab_size=99, max_position_embeddings=64),
    "roberta": small("Roberta", "last_hidden_state pooler_output"),
    "gpt2": small("GPT2", "last_hidden_state", n_embd=32, n_layer=2, n_head=2, n_positions=64,
                  vocab_size=99, use_cache=False),
    "vit": vision_transformer,
    "clip": clip,
    "fraud_lstm_gat": fraud_lstm_gat,
    "fraud_brief": fraud_brief,
}  # fmt: skip
