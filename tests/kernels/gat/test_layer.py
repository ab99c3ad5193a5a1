import pytest
import torch

from kernels.gat import GraphAttentionLayer, graph_attention, neighbour_attention

gatconv = pytest.importorskip("torch_geometric.nn", reason="needs the extra dev").GATConv

# Both sides sum at most 12 terms of order 1; their orders differ, so float32 rounds at about 1e-7.
TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


def adjacency(name: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    random = torch.rand(12, 12, generator=generator)
    return {
        "empty": torch.zeros(5, 5),
        "one node": torch.zeros(1, 1),
        "chain": torch.diag(torch.ones(6), -1),
        "asymmetric": (random < 0.3).float(),
        "with self loops": ((random < 0.2) | torch.eye(12, dtype=torch.bool)).float(),
        "isolated nodes": (random < 0.4).float()
        * (torch.arange(12) % 3 > 0).float().outer((torch.arange(12) % 4 > 0).float()),
        "complete": torch.ones(7, 7),
        "weighted": (random < 0.3) * random,
    }[name]


def twins(heads: int, concat: bool, self_loops: bool, dtype: torch.dtype):
    torch.manual_seed(3)
    layer = GraphAttentionLayer(10, 6, heads=heads, concat=concat, add_self_loops=self_loops)
    peer = gatconv(10, 6, heads=heads, concat=concat, add_self_loops=self_loops)
    torch.nn.init.normal_(layer.bias)
    with torch.no_grad():
        peer.lin.weight.copy_(layer.projection.weight)
        peer.att_src.copy_(layer.attention_source[None])
        peer.att_dst.copy_(layer.attention_target[None])
        peer.bias.copy_(layer.bias)
    return layer.to(dtype), peer.to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("heads", "concat"), [(1, True), (4, True), (3, False)])
@pytest.mark.parametrize("self_loops", [True, False])
@pytest.mark.parametrize(
    "graph",
    [
        "empty",
        "one node",
        "chain",
        "asymmetric",
        "with self loops",
        "isolated nodes",
        "complete",
        "weighted",
    ],
)
def test_layer_agrees_with_gatconv_in_values_and_gradients(graph, self_loops, heads, concat, dtype):
    adj = adjacency(graph)
    layer, peer = twins(heads, concat, self_loops, dtype)
    x = torch.randn(len(adj), 10, dtype=dtype, generator=torch.Generator().manual_seed(1))
    x_ours, x_peer = x.clone().requires_grad_(), x.clone().requires_grad_()
    edge_index = adj.T.nonzero().T  # [j, i] of every nonzero adj[i, j]
    out, expected = layer(x_ours, adj), peer(x_peer, edge_index)
    tolerance = TOLERANCE[dtype]
    torch.testing.assert_close(out, expected, atol=tolerance, rtol=tolerance)

    direction = torch.randn(out.shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
    (out * direction).sum().backward()
    (expected * direction).sum().backward()
    pairs = [
        (x_ours.grad, x_peer.grad),
        (layer.projection.weight.grad, peer.lin.weight.grad),
        (layer.attention_source.grad[None], peer.att_src.grad),
        (layer.attention_target.grad[None], peer.att_dst.grad),
        (layer.bias.grad, peer.bias.grad),
    ]
    for ours, theirs in pairs:
        scale = max(1.0, float(theirs.abs().max()))
        assert float((ours - theirs).abs().max()) <= tolerance * scale


def test_row_attends_to_its_columns():
    layer = GraphAttentionLayer(2, 3, add_self_loops=False)
    x = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 2.0]])
    adj = torch.zeros(3, 3)
    adj[0, 2] = 1
    out = layer(x, adj) - layer.bias
    torch.testing.assert_close(out[0], layer.projection(x[2]))
    assert not out[1:].any()


def test_batch_of_graphs_equals_one_graph_at_a_time():
    layer = GraphAttentionLayer(4, 5, heads=2)
    x = torch.randn(3, 6, 4)
    adj = torch.rand(3, 6, 6) < 0.4
    one_by_one = torch.stack([layer(x[k], adj[k]) for k in range(3)])
    torch.testing.assert_close(layer(x, adj), one_by_one, atol=1e-6, rtol=1e-6)
    shared = torch.stack([layer(x[k], adj[0]) for k in range(3)])
    torch.testing.assert_close(layer(x, adj[0]), shared, atol=1e-6, rtol=1e-6)


def test_wrong_shapes_are_named():
    layer = GraphAttentionLayer(4, 5)
    with pytest.raises(ValueError, match="in_features=4"):
        layer(torch.zeros(3, 5), torch.zeros(3, 3))
    with pytest.raises(ValueError, match="number of nodes"):
        layer(torch.zeros(3, 4), torch.zeros(2, 2))
    with pytest.raises(ValueError, match="one score for each head"):
        neighbour_attention(torch.zeros(2, 3, 1, 4), torch.zeros(2, 3, 2), torch.ones(2, 3) > 0)


def test_neighbour_attention_is_graph_attention_with_a_silent_node():
    torch.manual_seed(0)
    num_neighbours, heads, channels = 5, 2, 3
    values = torch.randn(num_neighbours, heads, channels, dtype=torch.float64, requires_grad=True)
    scores = torch.randn(num_neighbours, heads, dtype=torch.float64).abs().requires_grad_()
    is_valid = torch.tensor([True, False, True, True, False])
    out = neighbour_attention(values[None], scores[None], is_valid[None])[0]

    silent = torch.zeros(1, heads, channels, dtype=torch.float64)
    nodes = torch.cat([silent, values])
    node_scores = torch.cat([torch.zeros(1, heads, dtype=torch.float64), scores])
    adj = torch.zeros(len(nodes), len(nodes))
    adj[0] = torch.cat([torch.tensor([True]), is_valid])
    expected = graph_attention(nodes, node_scores, torch.zeros_like(node_scores), adj)[0]
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=0)
    ours = torch.autograd.grad(out.square().sum(), [values, scores], retain_graph=True)
    theirs = torch.autograd.grad(expected.square().sum(), [values, scores])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-12, rtol=0)


def test_neighbour_attention_of_nobody_is_zero_and_ignores_nan():
    values = torch.full((2, 4, 1, 3), torch.nan).requires_grad_()
    scores = torch.full((2, 4, 1), torch.nan).requires_grad_()
    is_valid = torch.zeros(2, 4, dtype=torch.bool)
    out = neighbour_attention(values, scores, is_valid)
    out.sum().backward()
    assert torch.equal(out, torch.zeros(2, 1, 3))
    assert torch.equal(scores.grad, torch.zeros(2, 4, 1))
    assert torch.equal(values.grad, torch.zeros(2, 4, 1, 3))


def test_neighbour_attention_survives_large_scores():
    values = torch.tensor([[[[1.0]], [[3.0]]]])
    scores = torch.tensor([[[500.0], [500.0]]])
    out = neighbour_attention(values, scores, torch.ones(1, 2, dtype=torch.bool))
    torch.testing.assert_close(out, torch.tensor([[[2.0]]]))
