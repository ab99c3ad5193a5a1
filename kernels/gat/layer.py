"""A graph attention layer over a dense adjacency matrix."""

import torch
from torch import Tensor, nn

from kernels.gat.reference import graph_attention


class GraphAttentionLayer(nn.Module):
    """Graph attention (GAT) over a dense adjacency matrix.

    The row attends to its columns: a nonzero `adj_matrix[i, j]` is the edge j -> i, along which
    node j is seen by node i. The same parameters in torch_geometric.nn.GATConv are
    lin.weight = projection.weight, att_src = attention_source[None], att_dst =
    attention_target[None] and bias, with edge_index = adj_matrix.T.nonzero().T.

    Args:
        in_features: channels of a node.
        out_features: channels of a node afterwards, for each head.
        heads: number of attention heads.
        concat: True gives heads * out_features channels, False the mean over the heads.
        negative_slope: slope of the leaky ReLU on the scores.
        add_self_loops: let every node attend to itself, whatever the diagonal says.
        bias: add a learned bias to the output.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        heads: int = 1,
        concat: bool = True,
        negative_slope: float = 0.2,
        add_self_loops: bool = True,
        bias: bool = True,
    ) -> None:
        """Create the layer with Glorot-uniform weights and a zero bias."""
        super().__init__()
        self.in_features, self.out_features, self.heads = in_features, out_features, heads
        self.concat = concat
        self.negative_slope = negative_slope
        self.add_self_loops = add_self_loops
        self.projection = nn.Linear(in_features, heads * out_features, bias=False)
        self.attention_source = nn.Parameter(torch.empty(heads, out_features))
        self.attention_target = nn.Parameter(torch.empty(heads, out_features))
        width = heads * out_features if concat else out_features
        self.bias = nn.Parameter(torch.empty(width)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new weights, as GATConv does."""
        nn.init.xavier_uniform_(self.projection.weight)
        nn.init.xavier_uniform_(self.attention_source)
        nn.init.xavier_uniform_(self.attention_target)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, adj_matrix: Tensor) -> Tensor:
        """Attend once over the graph.

        Args:
            x: (..., N, in_features) node features.
            adj_matrix: (N, N) for all, or (..., N, N); nonzero [i, j] = edge j -> i.

        Returns:
            (..., N, heads * out_features), or (..., N, out_features) without `concat`.

        Raises:
            ValueError: the shapes do not fit each other or the layer.
        """
        if x.shape[-1] != self.in_features:
            raise ValueError(
                f"x.shape={tuple(x.shape)} does not end in in_features={self.in_features}; "
                "pass (..., nodes, in_features)"
            )
        is_edge = adj_matrix != 0
        if self.add_self_loops:
            is_edge = is_edge | torch.eye(adj_matrix.shape[-1], dtype=torch.bool, device=x.device)
        values = self.projection(x).unflatten(-1, (self.heads, self.out_features))
        out = graph_attention(
            values,
            (values * self.attention_source).sum(-1),
            (values * self.attention_target).sum(-1),
            is_edge,
            negative_slope=self.negative_slope,
        )
        out = out.flatten(-2) if self.concat else out.mean(-2)
        return out if self.bias is None else out + self.bias
