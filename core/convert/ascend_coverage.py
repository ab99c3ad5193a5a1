"""Which nodes of a model Ascend's model compiler does not take, by the vendor's published list.

The list and the opsets of each operator are dated in `targets/ascend_operators.json`: the names
are those of the published list, the opsets those that the vendor's open parsers register.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import onnx

from core.convert.build_bundle import opset_of
from core.convert.graph import graphs_of

TABLE = Path(__file__).with_name("targets") / "ascend_operators.json"
NAMED_NODES = 5


@dataclass(frozen=True)
class Unsupported:
    """Nodes of one operator that the compiler does not take."""

    operator: str  # "Loop", "com.microsoft::FusedMatMul"
    nodes: tuple[str, ...]  # by name, or by the first output where a node has none
    reason: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; the first nodes by name."""
        return {
            "operator": self.operator,
            "count": len(self.nodes),
            "nodes": list(self.nodes[:NAMED_NODES]),
            "reason": self.reason,
        }

    def __str__(self) -> str:
        more = ", ..." if len(self.nodes) > NAMED_NODES else ""
        names = ", ".join(self.nodes[:NAMED_NODES])
        return f"{self.operator} x{len(self.nodes)} ({names}{more}): {self.reason}"


@cache
def operator_table() -> Mapping[str, Any]:
    """The shipped table: `published` and `registered` say where and when it was taken from."""
    table: Mapping[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def find_unsupported(model: onnx.ModelProto) -> list[Unsupported]:
    """Operators of a model, subgraphs included, that are not in the table at its opset."""
    opset = opset_of(model)
    local = {(function.domain, function.name) for function in model.functions}
    nodes: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    bodies = [graph.node for graph in graphs_of(model.graph)]
    bodies += [function.node for function in model.functions]
    for body in bodies:
        for node in body:
            if (node.domain, node.op_type) in local:
                continue
            reason = _reason(node.op_type, node.domain, opset)
            if reason:
                is_own = node.domain in ("", "ai.onnx")
                operator = node.op_type if is_own else f"{node.domain}::{node.op_type}"
                reasons[operator] = reason
                first = next((output for output in node.output if output), "")
                nodes.setdefault(operator, []).append(node.name or first)
    return [Unsupported(name, tuple(nodes[name]), reasons[name]) for name in sorted(nodes)]


def _reason(operator: str, domain: str, opset: int) -> str:
    """Why the compiler does not take an operator; empty if it does."""
    table = operator_table()
    if domain not in ("", "ai.onnx"):
        return "not an operator of ONNX itself"
    if operator in table["operators"]:
        ranges = table["operators"][operator]
        known = not ranges or opset in _opsets(ranges)
        return "" if known else f"registered for opset {ranges}, the model has {opset}"
    if operator in table["unlisted"]:
        return "has a parser in the vendor's sources, but is not in the published list"
    return "not in the published list"


def _opsets(ranges: str) -> set[int]:
    """The numbers in "8,12-18"."""
    opsets: set[int] = set()
    for part in ranges.split(","):
        low, _, high = part.partition("-")
        opsets.update(range(int(low), int(high or low) + 1))
    return opsets
