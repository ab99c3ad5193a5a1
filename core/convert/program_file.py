"""`torch.export` files (.pt2): what makes one safe to open, and the inputs it was exported with.

`torch.export.load` unpickles what it finds marked so, evaluates size expressions and guards as
Python, and looks up operators anywhere in torch. So everything in the file is held against what
`torch.export.save` writes for a plain program, before torch sees it.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from core.convert.families import Inputs
from core.convert.source import Axis

MEMBERS = re.compile(
    r"data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json"
    r"|archive_format|archive_version|byteorder|version|\.data/\w+|\.format_version"
    r"|\.storage_alignment"
)
OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|torchvision|higher_order)\.(?!from_file|save)[a-z_]\w*(\.\w+)?"
    r"|_operator\.[a-z_]+|math\.[a-z]+|torch\.sym_[a-z]+"
)
WORDS = re.compile(r"[\w.,:/ +-]*")
CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
# In size expressions and guards: symbols and the functions torch writes for them.
NAMES = re.compile(
    r"[suz]\d+|L|Eq|Ne|Ge|Gt|Le|Lt|Equality|Unequality|GreaterThan|StrictGreaterThan|LessThan"
    r"|StrictLessThan|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|Add|Mul|Pow|Abs|And|Or|Not"
    r"|Integer|Rational|Float|Symbol|true|false|oo|int_oo|ToFloat|IntTrueDiv|FloatTrueDiv|max|min"
)
ATTRIBUTES = {"size", "stride", "storage_offset"}
NODES = (
    ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.Subscript,
    ast.Attribute, ast.Name, ast.Constant, ast.Load, ast.keyword, ast.operator, ast.unaryop,
    ast.boolop, ast.cmpop,
)  # fmt: skip
LARGEST_AXIS = 8  # where the program sets no bound: above its lowest
HOW = "pass trust_pickle=True if you know who made the file"


def check_program(path: Path) -> None:
    """Refuse a .pt2 file that holds anything that could run as code.

    Raises:
        ValueError: names what it is.
    """
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if not MEMBERS.fullmatch(name.partition("/")[2]):
                raise ValueError(f"{path.name} holds {name!r}, no part of a plain program; {HOW}")
        for name in archive.namelist():
            content = archive.read(name)
            if name.endswith(".json"):
                for problem in _problems(json.loads(content)):
                    raise ValueError(f"{path.name}: {name} holds {problem}; {HOW}")
            elif name.endswith(".pt") and content:
                try:
                    torch.load(io.BytesIO(content), weights_only=True)
                except pickle.UnpicklingError:
                    raise ValueError(f"{path.name}: {name} holds pickled objects; {HOW}") from None


def program_inputs(program: torch.export.ExportedProgram) -> Inputs:
    """The example and axes a program was exported with.

    Raises:
        ValueError: it takes something else than tensors by position.
    """
    arguments, keywords = program.example_inputs or ((), {})
    if keywords or not arguments or not all(isinstance(a, Tensor) for a in arguments):
        raise ValueError("the program takes more than tensors by position; export it with those")
    names = list(program.graph_signature.user_inputs)
    nodes = {node.name: node for node in program.graph.nodes}
    ranges = {str(symbol): bounds for symbol, bounds in program.range_constraints.items()}
    axes: dict[str, dict[int, Axis]] = {}
    for name in map(str, names):
        for dimension, size in enumerate(nodes[name].meta["val"].shape):
            if isinstance(size, torch.SymInt):
                axes.setdefault(name, {})[dimension] = _axis(size, ranges)
    example = dict(zip(map(str, names), arguments, strict=True))
    return Inputs(example, axes)


def _axis(size: torch.SymInt, ranges: dict[str, Any]) -> Axis:
    expression = size.node.expr
    symbols = [str(symbol) for symbol in expression.free_symbols]
    factor = expression.as_coeff_Mul()[0] if len(symbols) == 1 else 1
    if len(symbols) != 1 or str(expression) not in (symbols[0], f"{factor}*{symbols[0]}"):
        raise ValueError(
            f"an input size follows from others ({expression}); pass example= and axes="
        )
    bounds = ranges.get(symbols[0])
    low = max(1, int(bounds.lower)) if bounds is not None else 1
    upper = bounds.upper if bounds is not None else None
    high = int(upper) if upper is not None and str(upper).isdigit() else 1 << 30
    step = int(factor)
    # Bounds of torch mean any size; a comparison needs a size it can afford.
    high = min(high, low + LARGEST_AXIS - 1) if high >= 1 << 20 else high
    return Axis(symbols[0], low * step, high * step, step)


def _problems(content: Any, key: str = "") -> Iterator[str]:
    """What in a parsed JSON file could run as code."""
    if isinstance(content, dict):
        for name, value in content.items():
            if name == "use_pickle" and value:
                yield "pickled tensors"
            is_legal = _is_plain(name) if key == "range_constraints" else WORDS.fullmatch(name)
            if not is_legal:
                yield f"the name {name!r}"
            # Where the lines came from, for people; torch runs none of it.
            if name != "metadata":
                yield from _problems(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from _problems(value, key)
    elif isinstance(content, str) and not _is_legal(content, key):
        yield f"{key} {content!r}"


def _is_legal(text: str, key: str) -> bool:
    if key == "target":
        return bool(OPERATORS.fullmatch(text))
    if key in ("expr_str", "guards_code"):
        return _is_plain(text)
    if key in ("in_spec", "out_spec") and text:
        return _is_container(json.loads(text))
    # torch writes names and words into the code it generates.
    return bool(WORDS.fullmatch(text))


def _is_plain(expression: str) -> bool:
    """Only sizes, numbers and comparisons."""
    try:
        nodes = list(ast.walk(ast.parse(expression.strip(), mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    return all(
        isinstance(node, NODES)
        and not (isinstance(node, ast.Name) and not NAMES.fullmatch(node.id))
        and not (isinstance(node, ast.Constant) and not re.fullmatch(r"[\w.-]*", str(node.value)))
        and not (isinstance(node, ast.Attribute) and node.attr not in ATTRIBUTES)
        for node in nodes
    )


def _is_container(spec: Any) -> bool:
    if isinstance(spec, list):
        return all(_is_container(part) for part in spec)
    if isinstance(spec, dict):
        return (
            spec.get("type") in CONTAINERS
            and "__" not in json.dumps(spec.get("context"))
            and _is_container(spec.get("children_spec", []))
        )
    return isinstance(spec, int)
