"""The command line of a service, made from `ServeConfig`: its fields, types and comments."""

from __future__ import annotations

import argparse
import dataclasses
import types
import typing
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin

from core.serve.config import ServeConfig
from core.serve.model import parse_model

PROGRAM = "python -m core.serve"


class _Parser(argparse.ArgumentParser):
    """Tells a mistake in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message}; see {PROGRAM} --help\n")


def build_parser(*, with_help: bool = False) -> argparse.ArgumentParser:
    """A flag for each field; what is not given keeps its default."""
    notes: dict[str, str] = {}
    if with_help:
        from core.schema import comments

        notes = comments(ServeConfig)
    parser = _Parser(
        PROGRAM,
        description="Serve models: Open Inference Protocol v2, typed JSON, metrics, a page at /.",
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,
    )
    parser.add_argument(
        "models",
        nargs="+",
        metavar="[NAME[@VERSION]=]FILE",
        help=f"{notes.get('models', '')}; a name given twice has two versions".replace("%", "%%"),
    )
    # Of ServiceDeployer: a socket on which to say what is served, and to watch for its end.
    parser.add_argument("--control", type=int, default=None, help=argparse.SUPPRESS)
    hints = typing.get_type_hints(ServeConfig)
    for field in dataclasses.fields(ServeConfig):
        if field.name != "models":
            _add(parser, field, hints[field.name], notes.get(field.name, ""))
    return parser


def _add(
    parser: argparse.ArgumentParser, field: dataclasses.Field[Any], hint: Any, note: str
) -> None:
    flag = f"--{field.name.replace('_', '-')}"
    default = "none" if field.default is None else field.default
    note = note.replace("%", "%%")
    if hint is bool:
        help_ = f"{note} (default: {'yes' if field.default else 'no'})"
        parser.add_argument(flag, action=argparse.BooleanOptionalAction, help=help_)
        return
    help_ = f"{note} (default: {default})"
    if get_origin(hint) is Literal:
        parser.add_argument(flag, choices=get_args(hint), help=help_)
        return
    kind = next(kind for kind in _kinds(hint) if kind is not type(None))
    names = {Path: "FILE", int: "N", float: "N"}
    parser.add_argument(flag, type=kind, metavar=names.get(kind, "TEXT"), help=help_)


def _kinds(hint: Any) -> tuple[Any, ...]:
    is_union = get_origin(hint) in (types.UnionType, typing.Union)
    return get_args(hint) if is_union else (hint,)


def read_config(flags: argparse.Namespace) -> ServeConfig:
    """The configuration of a parsed command line.

    Raises:
        ValueError: a value or a pair of values is wrong, or a file is not there.
    """
    given = {
        field.name: getattr(flags, field.name)
        for field in dataclasses.fields(ServeConfig)
        if hasattr(flags, field.name)
    }
    for name, value in given.items():
        if isinstance(value, Path) and not value.exists():
            raise ValueError(f"{name}={str(value)!r} does not exist; give a file")
    return ServeConfig(**{**given, "models": [parse_model(text) for text in flags.models]})


def to_arguments(config: ServeConfig) -> list[str]:
    """The command line that gives this configuration."""
    arguments = []
    for model in config.models:
        version = f"@{model.version}" if model.version else ""
        arguments.append(f"{model.name}{version}={model.path.resolve()}")
    default = ServeConfig()
    for field in dataclasses.fields(ServeConfig):
        name, value = field.name, getattr(config, field.name)
        if name == "models" or value is None or value == getattr(default, name):
            continue
        flag = f"--{name.replace('_', '-')}"
        if isinstance(value, bool):
            arguments.append(flag if value else flag.replace("--", "--no-", 1))
        else:
            value = value.resolve() if isinstance(value, Path) else value
            arguments.append(f"{flag}={value}")
    return arguments
