"""Configuration dataclasses: turned into what OmegaConf understands, and built from what it gives.

OmegaConf knows neither `Literal` nor `Sequence` and runs no `__post_init__`. `Schemas.convert`
makes a twin of a dataclass that it understands; `Schemas.build` makes the real one from a
composed node and checks what the twin could not.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import io
import textwrap
import tokenize
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Optional, Union, get_args, get_origin

MISSING = "???"  # OmegaConf's mark of a value that must be given


class Schemas:
    """The twins made so far; a subclass's twin is a subclass of its parent's twin."""

    def __init__(self) -> None:
        self._twins: dict[type, type] = {}
        self._originals: dict[type, type] = {}

    def convert(self, cls: type, *, left_open: Collection[str] = ()) -> type:
        """Make the twin of a dataclass that OmegaConf understands.

        Args:
            cls: a dataclass; nested dataclasses are converted too.
            left_open: fields filled by a config group, so that no default of another option
                shines through.
        """
        if cls in self._twins:
            return self._twins[cls]
        hints = typing.get_type_hints(cls)
        parents = tuple(self.convert(base) for base in cls.__bases__ if _is_dataclass(base))
        own = inspect.get_annotations(cls)
        fields = [
            (field.name, self._annotation(hints[field.name]), self._default(field, left_open))
            for field in dataclasses.fields(cls)
            if field.name in own or field.name in left_open
        ]
        twin = dataclasses.make_dataclass(cls.__name__, fields, bases=parents, kw_only=True)
        twin.__module__ = cls.__module__
        self._twins[cls] = twin
        self._originals[twin] = cls
        return twin

    def build(
        self, cls: type, node: Mapping[Any, Any], type_of: Callable[[Any], type | None]
    ) -> Any:
        """Make the real dataclass from a composed node.

        Args:
            cls: the dataclass that was converted.
            node: the composed values.
            type_of: gives the twin behind a nested node.

        Raises:
            ValueError: a value is not among a Literal's, or a `__post_init__` refused.
        """
        return self._value(cls, node, "", type_of)

    def original(self, twin: type | None, otherwise: type) -> type:
        """The dataclass behind a twin."""
        return self._originals.get(twin, otherwise) if twin else otherwise

    def _annotation(self, hint: Any) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if _is_dataclass(hint):
            return self.convert(hint)
        if origin is Literal:
            kinds = {type(value) for value in arguments if value is not None}
            kind = kinds.pop() if len(kinds) == 1 else Any
            return Optional[kind] if None in arguments else kind  # noqa: UP045 (kind is a value)
        if origin in (Union, types.UnionType):
            return Union[tuple(self._annotation(part) for part in arguments)]  # noqa: UP007
        if origin in (list, tuple, Sequence):
            kinds = {self._annotation(part) for part in arguments if part is not Ellipsis}
            return list[kinds.pop() if len(kinds) == 1 else Any]  # type: ignore[misc]
        if origin in (dict, Mapping):
            return dict[arguments[0], self._annotation(arguments[1])]  # type: ignore[misc,valid-type]
        return hint

    def _default(self, field: dataclasses.Field[Any], left_open: Collection[str]) -> Any:
        if field.name in left_open:
            return dataclasses.field(default=MISSING)
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        elif field.default is not dataclasses.MISSING:
            default = field.default
        else:
            return dataclasses.field(default=MISSING)
        return dataclasses.field(default_factory=lambda: self._plain(default))

    def _plain(self, value: Any) -> Any:
        if _is_dataclass(type(value)):
            names = [field.name for field in dataclasses.fields(value)]
            twin = self.convert(type(value))
            return twin(**{name: self._plain(getattr(value, name)) for name in names})
        if isinstance(value, tuple | list):
            return [self._plain(item) for item in value]
        if isinstance(value, Mapping):
            return {key: self._plain(item) for key, item in value.items()}
        return value

    def _value(self, hint: Any, node: Any, key: str, type_of: Callable[[Any], type | None]) -> Any:
        origin, arguments = get_origin(hint), get_args(hint)
        if node is None:
            return None
        if _is_dataclass(hint):
            cls = self.original(type_of(node), otherwise=hint)
            hints = typing.get_type_hints(cls)
            unknown = set(node) - hints.keys()
            if unknown:
                raise ValueError(
                    f"{_join(key, min(unknown))} is not a key; "
                    f"choose from {', '.join(sorted(hints))}"
                )
            return cls(
                **{
                    field.name: self._value(
                        hints[field.name], node[field.name], _join(key, field.name), type_of
                    )
                    for field in dataclasses.fields(cls)
                    if field.init
                }
            )
        if origin is Literal:
            if node not in arguments:
                raise ValueError(
                    f"{key}={node!r} is not one of {', '.join(map(str, arguments))}; set {key}"
                )
            return node
        if origin in (Union, types.UnionType):
            kinds = [part for part in arguments if part is not type(None)]
            return self._value(kinds[0], node, key, type_of) if len(kinds) == 1 else node
        if origin in (list, tuple, Sequence):
            return self._sequence(origin, arguments, node, key, type_of)
        if origin in (dict, Mapping):
            return {
                name: self._value(arguments[1], node[name], _join(key, str(name)), type_of)
                for name in node
            }
        return node

    def _sequence(
        self,
        origin: Any,
        arguments: tuple[Any, ...],
        node: Sequence[Any],
        key: str,
        type_of: Callable[[Any], type | None],
    ) -> Any:
        fixed = origin is tuple and Ellipsis not in arguments
        if fixed and len(node) != len(arguments):
            raise ValueError(f"{key}={list(node)} is not of length {len(arguments)}; set {key}")
        kinds = arguments if fixed else arguments[:1] * len(node)
        items = (
            self._value(kind, item, f"{key}[{number}]", type_of)
            for number, (kind, item) in enumerate(zip(kinds, node, strict=True))
        )
        return tuple(items) if origin is tuple else list(items)


def comments(cls: type) -> dict[str, str]:
    """The comment of each field: behind it on its line, or alone on the lines above it."""
    found: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        if _is_dataclass(base):
            found |= _own_comments(base)
    return found


def _own_comments(cls: type) -> dict[str, str]:
    source = textwrap.dedent(inspect.getsource(cls))
    behind: dict[int, str] = {}
    alone: dict[int, str] = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            is_alone = not token.line[: token.start[1]].strip()
            (alone if is_alone else behind)[token.start[0]] = token.string.lstrip("# ")
    found = {}
    for statement in ast.parse(source).body[0].body:  # type: ignore[attr-defined]
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            above: list[str] = []
            while (line := statement.lineno - 1 - len(above)) in alone:
                above.insert(0, alone[line])
            found[statement.target.id] = behind.get(statement.end_lineno or 0, " ".join(above))
    return found


def type_name(hint: Any) -> str:
    """A type as a person writes it: `float`, `a|b` for a Literal, `str|None`."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "|".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        return "|".join(type_name(part) for part in arguments)
    if origin is not None:
        inner = ", ".join("..." if part is Ellipsis else type_name(part) for part in arguments)
        return f"{origin.__name__}[{inner}]"
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _is_dataclass(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _join(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if prefix else name
