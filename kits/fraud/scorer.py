"""The whole decision of a fraud run as one module: network, trees and their blend.

Dimensions: B batch, K history, N neighbours, F numeric features, C categorical columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from kits.fraud.stack import MAX_LOGIT
from kits.fraud.trees import TreeEnsemble


class Scorer(nn.Module):
    """Scores events as `kits.fraud.stack.Stack.score` does, from the network's raw inputs.

    Args:
        network: takes a mapping of inputs, see `LstmGat.forward`.
        trees: read the current event's F + C columns.
        weights: (network's, trees') weight in the blend.
        bias: of the blend.
        input_names: of the inputs, in the order in which `forward` takes them. Without a
            categorical column `c_history` and `c_neighbours` are left out.
    """

    def __init__(
        self,
        network: nn.Module,
        trees: TreeEnsemble,
        weights: tuple[float, float],
        bias: float,
        input_names: Sequence[str],
    ) -> None:
        super().__init__()
        self.network, self.trees = network, trees
        self.weights, self.bias = weights, bias
        self.input_names = tuple(input_names)

    # A fixed signature, since exporters do not read `*values`: 4 inputs of the history, 4 of the
    # neighbours where there is a graph, and the codes of both where there are any.
    def forward(
        self,
        input_0: Tensor,
        input_1: Tensor,
        input_2: Tensor,
        input_3: Tensor,
        input_4: Tensor | None = None,
        input_5: Tensor | None = None,
        input_6: Tensor | None = None,
        input_7: Tensor | None = None,
        input_8: Tensor | None = None,
        input_9: Tensor | None = None,
    ) -> Tensor:
        """Inputs in the order of `input_names` -> (B,) float32 blended logits."""
        values = (input_0, input_1, input_2, input_3, input_4, input_5)
        given = [v for v in (*values, input_6, input_7, input_8, input_9) if v is not None]
        inputs = dict(zip(self.input_names, given, strict=True))
        by_network, by_trees = self.weights
        network = self.network(_with_codes(inputs)).clamp(-MAX_LOGIT, MAX_LOGIT)
        trees = self.trees(columns(inputs)).clamp(-MAX_LOGIT, MAX_LOGIT)
        return by_network * network + by_trees * trees + self.bias


def columns(inputs: Mapping[str, Tensor]) -> Tensor:
    """(B, F + C) what the trees were trained on: the current event, NaN where missing."""
    now = inputs["x_history"][:, -1]
    if "c_history" not in inputs:
        return now
    codes = inputs["c_history"][:, -1]
    # The network's code 0 is missing and 1 the first value, which the trees know as 0.
    values = torch.where(codes > 0, (codes - 1).to(now.dtype), float("nan"))
    return torch.cat([now, values], dim=1)


def _with_codes(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's own inputs: it asks for codes even where there is no categorical column."""
    if "c_history" in inputs:
        return dict(inputs)
    empty = {
        name.replace("x_", "c_"): value[..., :0].long()
        for name, value in inputs.items()
        if name.startswith("x_")
    }
    return {**inputs, **empty}
