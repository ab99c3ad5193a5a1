"""The definition of both attention operators in plain torch.

Dimensions: N nodes or neighbours, H heads, C channels of one head; row i attends to column j.
"""

import torch
from torch import Tensor
from torch.nn import functional


def graph_attention(
    values: Tensor,
    source_scores: Tensor,
    target_scores: Tensor,
    adjacency: Tensor,
    *,
    negative_slope: float = 0.2,
) -> Tensor:
    """Average each node's sources, weighted by a softmax over its row of the adjacency.

    Args:
        values: (..., N, H, C) projected node features.
        source_scores: (..., N, H) what a node contributes to the score when it is attended to.
        target_scores: (..., N, H) what a node contributes when it attends.
        adjacency: (N, N) or (..., N, N); a nonzero [i, j] lets i attend to j (edge j -> i).
        negative_slope: slope of the leaky ReLU for negative scores.

    Returns:
        (..., N, H, C): out[i] = sum_j softmax_j(leaky_relu(source[j] + target[i])) values[j];
        zeros where a row has no edge.

    Raises:
        ValueError: the last two dimensions of the adjacency are not (N, N).

    Source: Velickovic et al., "Graph Attention Networks", 2018, equations 1-6; compared with
    torch_geometric.nn.GATConv in tests/kernels/gat/test_layer.py.
    """
    num_nodes = values.shape[-3]
    if tuple(adjacency.shape[-2:]) != (num_nodes, num_nodes):
        raise ValueError(
            f"adjacency.shape={tuple(adjacency.shape)} does not end in ({num_nodes}, {num_nodes}), "
            "the number of nodes; pass one row and one column for each node"
        )
    # (..., i, j, H): whoever holds a dense adjacency has the memory for dense scores as well.
    scores = functional.leaky_relu(
        target_scores.unsqueeze(-2) + source_scores.unsqueeze(-3), negative_slope
    )
    is_edge = (adjacency != 0).unsqueeze(-1)
    # The lowest finite number, not -inf: a row without edges then gives 0 * finite, never NaN.
    scores = scores.masked_fill(~is_edge, torch.finfo(scores.dtype).min)
    weights = torch.softmax(scores, dim=-2) * is_edge
    return torch.einsum("...ijh,...jhc->...ihc", weights, values)


def neighbour_attention(values: Tensor, scores: Tensor, is_valid: Tensor) -> Tensor:
    """Average a fixed number of neighbours, weighted by a softmax that may also choose nobody.

    The softmax has one more slot of score 0 and value 0: an empty neighbourhood gives zeros
    without a special case, and the sum of the weights tells how much evidence there was.

    Args:
        values: (..., N, H, C) projected neighbours; what invalid slots hold has no influence.
        scores: (..., N, H) attention logits.
        is_valid: (..., N) bool, False for padding.

    Returns:
        (..., H, C): sum_j exp(scores[j]) values[j] / (1 + sum_j exp(scores[j])) over valid j.

    Raises:
        ValueError: the leading dimensions differ.

    Source: static-shape form of Velickovic et al. 2018 with the softmax-plus-one of E. Miller,
    "Attention Is Off By One", 2023; compared with graph_attention in tests/kernels/gat.
    """
    if not values.shape[:-1] == scores.shape or scores.shape[:-1] != is_valid.shape:
        raise ValueError(
            f"values {tuple(values.shape)}, scores {tuple(scores.shape)} and "
            f"is_valid {tuple(is_valid.shape)} are not (..., N, H, C), (..., N, H) and (..., N); "
            "give every neighbour one score for each head"
        )
    valid = is_valid.unsqueeze(-1)
    # Selected, not multiplied: NaN in a padded slot must not survive as NaN * 0.
    scores = torch.where(valid, scores, torch.finfo(scores.dtype).min)
    highest = scores.amax(dim=-2, keepdim=True).clamp(min=0.0).detach()
    weights = torch.where(valid, torch.exp(scores - highest), 0.0)
    total = weights.sum(dim=-2, keepdim=True) + torch.exp(-highest)
    values = torch.where(valid.unsqueeze(-1), values, 0.0)
    return torch.einsum("...nh,...nhc->...hc", weights / total, values)
