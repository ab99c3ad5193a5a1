"""LightGBM's text model as plain tensor operations, which every target of a conversion knows.

All nodes of all trees compare at once; which leaf an event reaches follows from one matrix product
of their answers, because a leaf is reached when every node above it sends the event its way.

Dimensions: B batch, F features, T trees, I inner nodes, L leaves, H nodes that test a category.

Source: Nakandala et al., "A Tensor Compiler for Unified Machine Learning Prediction Serving"
(Hummingbird), 2020; decisions as in LightGBM's tree.h, compared with it in
tests/kits/fraud/test_trees.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

_IS_CATEGORY, _DEFAULT_LEFT = 1, 2  # bits of decision_type; two more say what counts as missing
_MISSING_ZERO, _MISSING_NAN = 1, 2
_ZERO = float(np.float32(1e-35))  # LightGBM takes what is as near to 0 for 0
_WORD_BITS = 32
_UNSUPPORTED = {"num_class": "1", "num_tree_per_iteration": "1"}


@dataclass(frozen=True)
class Tree:
    """One tree as the file has it; children below 0 are leaves, `~child` their number."""

    feature: np.ndarray  # (I,) int
    threshold: np.ndarray  # (I,) float64; for a category the number of its bit set
    decision: np.ndarray  # (I,) int, LightGBM's decision_type
    left: np.ndarray  # (I,) int
    right: np.ndarray  # (I,) int
    leaf_value: np.ndarray  # (L,) float64
    categories: Sequence[np.ndarray] = field(
        default_factory=tuple
    )  # bit set -> values that go left


class TreeEnsemble(nn.Module):
    """The raw score of boosted trees: the sum of the leaves that an event reaches.

    Args:
        trees: of one model or several.
        scale: of every leaf value; 1 / models for a mean over models.
        num_features: F.

    Raises:
        ValueError: there is no tree, or one tests a feature that is not there.
    """

    index: Tensor
    threshold: Tensor
    nan_goes_left: Tensor
    zero_is_missing: Tensor
    path: Tensor
    needed: Tensor
    value: Tensor
    category_index: Tensor
    category_goes_left: Tensor
    order: Tensor

    def __init__(self, trees: Sequence[Tree], num_features: int, scale: float = 1.0) -> None:
        super().__init__()
        highest = max((int(tree.feature.max(initial=-1)) for tree in trees), default=None)
        if highest is None or highest >= num_features:
            raise ValueError(
                f"trees={len(trees)} test feature {highest}, the events have {num_features}; "
                "use the trees of this run"
            )
        self.num_trees = len(trees)
        self.num_nodes = max(1, *(len(tree.feature) for tree in trees))
        num_leaves = max(len(tree.leaf_value) for tree in trees)
        nodes = (self.num_trees, self.num_nodes)
        index, threshold = np.zeros(nodes, np.int64), np.full(nodes, -np.inf, np.float32)
        nan_goes_left, zero_is_missing = np.zeros(nodes, bool), np.zeros(nodes, bool)
        path = np.zeros((self.num_trees, num_leaves, self.num_nodes), np.float32)
        # A leaf that only fills up the array needs more than it can get.
        needed = np.ones((self.num_trees, num_leaves, 1), np.float32)
        value = np.zeros((self.num_trees, num_leaves, 1), np.float32)
        tests: list[tuple[int, int, np.ndarray]] = []  # place, feature, categories that go left
        for number, tree in enumerate(trees):
            size = len(tree.feature)
            index[number, :size] = tree.feature
            threshold[number, :size] = round_down(tree.threshold)
            missing = tree.decision >> 2 & 3
            default_left = (tree.decision & _DEFAULT_LEFT) > 0
            # Without a missing type NaN counts as 0.
            nan_goes_left[number, :size] = np.where(missing > 0, default_left, tree.threshold >= 0)
            zero_is_missing[number, :size] = missing == _MISSING_ZERO
            for node in np.flatnonzero(tree.decision & _IS_CATEGORY):
                threshold[number, node] = -np.inf
                nan_goes_left[number, node] = zero_is_missing[number, node] = False
                goes_left = tree.categories[int(tree.threshold[node])]
                place = number * self.num_nodes + int(node)
                tests.append((place, int(tree.feature[node]), goes_left))
            leaves = len(tree.leaf_value)
            path[number, :leaves, :size], needed[number, :leaves, 0] = _paths(tree)
            value[number, :leaves, 0] = tree.leaf_value * scale
        self.has_zero_missing = bool(zero_is_missing.any())
        self.has_categories = bool(tests)
        num_codes = 1 + max((int(goes.max(initial=0)) for _, _, goes in tests), default=0)
        # The last column stands for every value that is not in a set.
        table = np.zeros((len(tests), num_codes + 1), bool)
        order = np.arange(index.size)
        for row, (place, _, goes_left) in enumerate(tests):
            table[row, goes_left] = True
            order[place] = index.size + row
        category_index = np.array([feature for _, feature, _ in tests], np.int64)
        buffers = {
            "index": index.reshape(-1),
            "threshold": threshold[..., None],
            "nan_goes_left": nan_goes_left[..., None],
            "zero_is_missing": zero_is_missing[..., None],
            "path": path,
            "needed": needed,
            "value": value,
        }
        if tests:
            buffers |= {"category_index": category_index, "category_goes_left": table}
            buffers["order"] = order
        for name, array in buffers.items():
            # A copy: numpy's new axis has stride 0, which ExecuTorch refuses.
            self.register_buffer(name, torch.from_numpy(array.copy()))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) float32 features as the fold gives them, NaN where missing -> (B,) raw scores."""
        columns = features.t()
        shape = (self.num_trees, self.num_nodes, -1)
        x = columns.index_select(0, self.index).view(shape)
        # NaN is not <= anything. Logical operators: runtimes lack a choice between booleans.
        goes_left = (x <= self.threshold) | (x.isnan() & self.nan_goes_left)
        if self.has_zero_missing:
            is_missing = self.zero_is_missing & (x.abs() <= _ZERO)
            goes_left = (goes_left & ~is_missing) | (is_missing & self.nan_goes_left)
        if self.has_categories:
            flat = [goes_left.flatten(0, 1), self._category_goes_left(columns)]
            goes_left = torch.cat(flat).index_select(0, self.order).view(shape)
        # Nodes that agree with a leaf's path, less those that do not: (T, L, B).
        agreeing = torch.matmul(self.path, goes_left.to(self.path.dtype))
        # Whole numbers; half-way leaves room for runtimes that round.
        reached = (agreeing > self.needed - 0.5).to(self.value.dtype)
        return (reached * self.value).sum((0, 1))

    def _category_goes_left(self, columns: Tensor) -> Tensor:
        """(F, B) -> (H, B) bool; a missing, negative or unknown category goes right."""
        code = columns.index_select(0, self.category_index)
        other = float(self.category_goes_left.shape[1] - 1)
        code = torch.where(code > -1, code, other).clamp(0.0, other)  # NaN is not > -1 either
        return self.category_goes_left.gather(1, code.long())


def read_ensemble(folder: Path, num_features: int) -> TreeEnsemble:
    """The mean over the models `trees_*.txt` of a folder.

    Raises:
        ValueError: there is none, or one holds what cannot be converted.
    """
    files = sorted(folder.glob("trees_*.txt"))
    trees = [tree for file in files for tree in read_trees(file.read_text(encoding="utf-8"))]
    if not files:
        raise ValueError(f"{folder.name} has no trees_*.txt; name a finished run")
    return TreeEnsemble(trees, num_features, 1.0 / len(files))


def read_trees(text: str) -> list[Tree]:
    """The trees of a LightGBM text model.

    Raises:
        ValueError: the model has several classes, linear leaves, or averages its trees.
    """
    head, *blocks = text.split("\nTree=")
    facts = _entries(head)
    for key, rule in _UNSUPPORTED.items():
        if facts.get(key) != rule:
            raise ValueError(f"{key}={facts.get(key)} is not {rule}; train on two classes")
    if "average_output" in head.split("\n"):
        raise ValueError("average_output is set, which only random forests do; train boosted trees")
    trees = []
    for block in blocks:
        found = _entries(block.split("\n\n", 1)[0])
        if found.get("is_linear", "0") != "0":
            raise ValueError("is_linear=1 has no conversion; train with linear_tree=false")
        words = _numbers(found, "cat_threshold", np.int64)
        bounds = _numbers(found, "cat_boundaries", np.int64)
        sets = [_members(words[low:high]) for low, high in pairwise(bounds)]
        trees.append(
            Tree(
                feature=_numbers(found, "split_feature", np.int64),
                threshold=_numbers(found, "threshold", np.float64),
                decision=_numbers(found, "decision_type", np.int64),
                left=_numbers(found, "left_child", np.int64),
                right=_numbers(found, "right_child", np.int64),
                leaf_value=_numbers(found, "leaf_value", np.float64),
                categories=sets,
            )
        )
    return trees


def round_down(threshold: np.ndarray) -> np.ndarray:
    """float64 -> float32 such that `x <= threshold` is LightGBM's answer for every float32 x."""
    # Its rows take a value as near to 0 as this for 0, on whichever side of the threshold it is.
    is_zero = np.abs(threshold) <= _ZERO
    threshold = np.where(
        is_zero, np.where(threshold < 0, -np.nextafter(_ZERO, 1), _ZERO), threshold
    )
    with np.errstate(over="ignore"):
        near = threshold.astype(np.float32)
        below = np.nextafter(near, np.float32(-np.inf))
    return np.where(near.astype(np.float64) > threshold, below, near)


def _paths(tree: Tree) -> tuple[np.ndarray, np.ndarray]:
    """(L, I) what each node must answer for a leaf: 1 left, -1 right, 0 any; (L,) how many left."""
    size, leaves = len(tree.feature), len(tree.leaf_value)
    path = np.zeros((leaves, size), np.float32)
    open_nodes = [(0, np.zeros(size, np.float32))] if size else []
    while open_nodes:
        node, answers = open_nodes.pop()
        for child, answer in ((int(tree.left[node]), 1.0), (int(tree.right[node]), -1.0)):
            ours = answers.copy()
            ours[node] = answer
            if child < 0:
                path[~child] = ours
            else:
                open_nodes.append((child, ours))
    return path, (path > 0).sum(1).astype(np.float32)


def _members(words: np.ndarray) -> np.ndarray:
    """The numbers in a bit set of 32-bit words."""
    bits = words[:, None] >> np.arange(_WORD_BITS) & 1
    return np.flatnonzero(bits)


def _entries(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.split("\n") if "=" in line)


def _numbers(found: dict[str, str], key: str, dtype: type) -> np.ndarray:
    return np.array(found.get(key, "").split(), dtype)
