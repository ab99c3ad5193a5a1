import pytest
import torch
import yaml
from torch import nn

from kits.defect import graph
from kits.defect.graph import Network, build_network, fused
from kits.defect.layers import RepConv, Style
from kits.defect.model_config import (
    FullConfig,
    HalfKitConfig,
    KitConfig,
    ModelConfig,
    QuarterKitConfig,
    TinyConfig,
)

RELU = Style("relu", "none")


def size_of(network, side=640):
    """Parameters in millions, operations in billions at 640 px: multiply-adds count two."""
    operations = 0

    def count(module, _, output):
        nonlocal operations
        if isinstance(module, nn.Conv2d):
            per_number = module.weight[0].numel() + (module.bias is not None)
        else:
            per_number = 2
        operations += 2 * per_number * output.numel()

    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.register_forward_hook(count)
    image = torch.empty(1, network.planes, side, side, device="meta")
    with torch.no_grad():
        network(image)
    return sum(p.numel() for p in network.parameters()) / 1e6, operations / 1e9


def with_statistics(network):
    """Norms as after training: running statistics and scales that are not their first values."""
    torch.manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
    return network.eval()


@pytest.mark.parametrize(
    ("cfg", "is_fused", "parameters", "operations"),
    # As their authors count: YOLOv7 fused, tiny as trained (norms are two operations per number).
    [(FullConfig(), True, 36.9, 104.7), (TinyConfig(), False, 6.2, 13.8)],
    ids=["yolov7", "yolov7-tiny"],
)
def test_published_networks_have_their_published_size(cfg, is_fused, parameters, operations):
    with torch.device("meta"):
        network = Network(cfg, 3, 80).eval()
    found = size_of(fused(network) if is_fused else network)
    assert [round(value, 1) for value in found] == [parameters, operations]


def test_the_kits_network_is_small():
    with torch.device("meta"):
        found = {cfg.width: Network(cfg, 3, 6) for cfg in (KitConfig(), HalfKitConfig())}
    sizes = {width: size_of(network.eval()) for width, network in found.items()}
    assert sizes[1.0][0] < 6.2
    assert 3 < sizes[1.0][1] / sizes[0.5][1] < 4.5


@pytest.mark.parametrize(
    ("width", "attention"), [(1.0, "none"), (0.5, "cbam"), (0.25, "cbam"), (0.25, "simam")]
)
def test_fused_computes_the_same(width, attention):
    network = with_statistics(build_network(KitConfig(width=width, attention=attention), 1, 2))
    image = torch.rand(1, 1, 64, 96)
    with torch.no_grad():
        before, after = network(image), fused(network)(image)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused(network).modules())
    for name in ("boxes", "scores"):
        # Of boxes in units of their size, as the numbers are pixels.
        assert torch.allclose(before[name], after[name], atol=1e-5, rtol=1e-5), name


def test_fused_published_head_computes_the_same():
    network = with_statistics(build_network(TinyConfig(width=0.125), 3, 3))
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        before, after = network(image), fused(network)(image)
    for name in ("boxes", "scores"):
        assert torch.allclose(before[name], after[name], atol=1e-4, rtol=1e-5), name


@pytest.mark.parametrize("identity", [True, False])
def test_branches_become_one_convolution(identity):
    layer = with_statistics(RepConv([8], RELU, channels=8, identity=identity))
    x = torch.randn(2, 8, 7, 5)
    with torch.no_grad():
        before = layer(x)
        layer.fuse()
        after = layer(x)
    assert torch.allclose(before, after, atol=1e-5)
    assert [type(m) for m in layer.children() if list(m.parameters())] == [nn.Conv2d]


def test_an_identity_needs_equal_channels():
    assert RepConv([4], RELU, channels=8, identity=True).identity is None


def test_strides_and_maps_agree():
    network = build_network(QuarterKitConfig(), 3, 2).train()
    output = network(torch.rand(1, 3, 64, 96))
    assert {name: tuple(value.shape[-2:]) for name, value in output.items()} == {
        f"{head}_{stride}": (64 // stride, 96 // stride)
        for head in ("lead", "auxiliary")
        for stride in (4, 8, 16)
    }


def test_an_image_without_a_defect_gives_few(rectangles):
    network = build_network(QuarterKitConfig(), 1, 2).eval()
    with torch.no_grad():
        scores = network(torch.rand(1, 1, 64, 64))["scores"]
    assert float(scores.max()) < 0.1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layers": [{"layer": "cnov"}]}, "layer='cnov' is not one of"),
        ({"layers": [{"layer": "conv", "kernels": 3}]}, "conv does not take this"),
        ({"layers": [{"from": "b", "layer": "pool"}]}, "from='b' is no earlier name"),
        ({"activation": "torch.nn.SiLU()"}, "activation='torch.nn.SiLU()' is not one of"),
        ({"head": {"kind": "stock", "from": ["a"]}}, "kind='stock' is not one of"),
        ({"extra": 1}, "has the keys"),
        (
            {
                "layers": [
                    {"name": "a", "layer": "conv", "channels": 8},
                    {"name": "b", "layer": "conv", "channels": 16},
                    {"from": ["a", "b"], "layer": "fuse"},
                ]
            },
            "give layers of one width",
        ),
    ],
)
def test_a_wrong_graph_is_named(tmp_path, monkeypatch, change, message):
    content = {
        "activation": "relu",
        "layers": [{"name": "a", "layer": "conv", "channels": 8, "stride": 2}],
        "head": {"kind": "light", "from": ["a"]},
    }
    (tmp_path / "yolov7.yaml").write_text(yaml.safe_dump(content | change))
    monkeypatch.setattr(graph, "ZOO", tmp_path)
    with pytest.raises(ValueError, match=message.replace("(", r"\(").replace(")", r"\)")):
        Network(ModelConfig(graph="yolov7"), 1, 1)


def test_a_name_that_yaml_would_execute_is_only_text(tmp_path, monkeypatch):
    (tmp_path / "yolov7.yaml").write_text("activation: !!python/object/apply:os.system ['true']")
    monkeypatch.setattr(graph, "ZOO", tmp_path)
    with pytest.raises(yaml.YAMLError):
        Network(ModelConfig(graph="yolov7"), 1, 1)
