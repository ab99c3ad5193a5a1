"""Graph layers."""

from kernels.gat import GraphAttentionLayer

__all__ = ["GraphAttentionLayer"]
