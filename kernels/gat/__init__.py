"""Graph attention in plain torch: over a dense adjacency, and over a fixed number of neighbours.

Only this package of `kernels` imports torch; nothing that serves imports it.
"""

from kernels.gat.layer import GraphAttentionLayer
from kernels.gat.reference import graph_attention, neighbour_attention

__all__ = ["GraphAttentionLayer", "graph_attention", "neighbour_attention"]
