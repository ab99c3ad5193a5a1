"""A column mapping: which column of the user's file plays which part; YAML, checked key by key."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

READY = Path(__file__).with_name("mappings")
UNIT_S = {
    "milliseconds": 0.001,
    "seconds": 1.0,
    "minutes": 60.0,
    "hours": 3600.0,
    "days": 86400.0,
    "weeks": 604800.0,
    "events": 86.4,
}
NEGATIVE = ("reject", "absolute")
TOP_KEYS = (
    *("files", "clock", "tx_id", "time", "account", "counterparty", "entities", "amount"),
    *("label", "label_time", "categorical", "numeric"),
)


@dataclass(frozen=True)
class JoinedFile:
    """A further file beside the main one; at most one of its rows joins each main row."""

    file: str
    key: str
    main_key: str
    is_first_of_many: bool = False


@dataclass(frozen=True)
class Files:
    """The main file and how to read it; without `main`, data.path names the file itself."""

    main: str = ""
    delimiter: str = ""
    names: tuple[str, ...] = ()
    joins: tuple[JoinedFile, ...] = ()


@dataclass(frozen=True)
class Time:
    """When: columns joined by blanks, read by `format`, as ISO text, or as a number of units."""

    columns: tuple[str, ...]
    format: str = ""
    unit_s: float = 0.0
    origin_s: float = 0.0


@dataclass(frozen=True)
class Entity:
    """Who or what: several columns together make one identity."""

    role: str
    columns: tuple[str, ...]
    kind: str
    is_optional: bool


@dataclass(frozen=True)
class Number:
    """A number, after the characters of `strip` are taken out of the text."""

    name: str
    column: str
    strip: str = ""
    is_absolute: bool = False


@dataclass(frozen=True)
class Label:
    """Which texts of a column mean fraud, legitimate and not known."""

    column: str
    fraud: tuple[str, ...]
    legitimate: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class ColumnMapping:
    """The whole mapping; None where the file has no such column."""

    files: Files
    clock: str
    tx_id: str | None
    time: Time
    entities: tuple[Entity, ...]  # counterparty first; account is `account`
    account: Entity | None
    amount: Number | None
    label: Label | None
    label_time: Time | None
    categorical: tuple[tuple[str, str], ...]  # (name, column)
    numeric: tuple[Number, ...]


def ready_mappings() -> list[str]:
    """Return the names of the mappings that come with the kit."""
    return sorted(path.stem for path in READY.glob("*.yaml"))


def find_mapping(mapping: str) -> Path:
    """Return the file of a mapping given by path or by the name of a ready one.

    Raises:
        ValueError: there is no such file or name.
    """
    if mapping in ready_mappings():
        return READY / f"{mapping}.yaml"
    path = Path(mapping).expanduser()
    if not path.is_file():
        raise ValueError(
            f"data.mapping={mapping!r} is neither a YAML file nor one of "
            f"{', '.join(ready_mappings())}; set data.mapping"
        )
    return path


def read_mapping(path: Path) -> ColumnMapping:
    """Read and check a mapping.

    Raises:
        ValueError: not YAML, a key or value that mappings do not have, or a part that is missing.
    """
    try:
        # Every scalar stays text, so that Yes, 0 and 1e3 mean what the data file says.
        document = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"mapping {path} is not YAML: {error}") from error
    top = _keys("mapping", document, TOP_KEYS)
    if "time" not in top:
        raise ValueError("mapping.time is missing; name the column that says when")
    clock = top.get("clock", "seconds")
    _one_of("mapping.clock", clock, ("seconds", "events"))
    account = _entity("account", top["account"]) if "account" in top else None
    entities = [_entity("counterparty", top.get("counterparty"))]
    further = top.get("entities") or {}
    if not isinstance(further, Mapping):
        raise ValueError("mapping.entities is not a list of role: column; write it so")
    for role, value in further.items():
        if role in ("account", "counterparty"):
            raise ValueError(f"mapping.entities.{role} is a key of its own; write mapping.{role}")
        entities.append(_entity(role, value))
    amount = _numbers("mapping.amount", {"amount": top["amount"]})[0] if "amount" in top else None
    return ColumnMapping(
        files=_files(top.get("files")),
        clock=clock,
        tx_id=_text("mapping.tx_id", top["tx_id"]) if "tx_id" in top else None,
        time=_time("mapping.time", top["time"]),
        entities=tuple(entities),
        account=account,
        amount=amount,
        label=_label(top["label"]) if "label" in top else None,
        label_time=_time("mapping.label_time", top["label_time"]) if "label_time" in top else None,
        categorical=tuple(
            (number.name, number.column)
            for number in _numbers("mapping.categorical", _named(top.get("categorical")))
        ),
        numeric=_numbers("mapping.numeric", _named(top.get("numeric"))),
    )


def expand_range(text: str) -> list[str]:
    """Return the names that `V1..V28` or `id_01..id_11` stands for; other text is one name."""
    match = re.fullmatch(r"(.*?)(\d+)\.\.(.*?)(\d+)", text)
    if not match or match[1] != match[3]:
        return [text]
    width = len(match[2]) if match[2].startswith("0") else 0
    return [f"{match[1]}{i:0{width}d}" for i in range(int(match[2]), int(match[4]) + 1)]


def nearest(word: str, words: Iterable[str]) -> str:
    """Return `; nearest: 'x'` for the closest of the words, or nothing."""
    matches = get_close_matches(word, list(words), n=1, cutoff=0.5)
    return f"; nearest: {matches[0]!r}" if matches else ""


def _keys(where: str, value: Any, legal: tuple[str, ...]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}={value!r} is not a group of keys; use {', '.join(legal)}")
    for key in value:
        if key not in legal:
            raise ValueError(
                f"{where}.{key} is not one of the keys {', '.join(legal)}{nearest(key, legal)}"
            )
    return value


def _one_of(where: str, value: str, legal: Iterable[str]) -> None:
    if value not in legal:
        raise ValueError(f"{where}={value!r} is not one of {', '.join(legal)}; change it")


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError(f"{where}={value!r} is not the name of a column; give one")
    return value


def _scalar(where: str, keys: Mapping[str, Any], name: str, default: str = "") -> str:
    value = keys.get(name, default)
    if not isinstance(value, str):
        raise ValueError(f"{where}.{name}={value!r} is not one value; give one")
    return value


def _texts(where: str, value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(name for item in values for name in expand_range(_text(where, item)))


def _files(value: Any) -> Files:
    if value is None:
        return Files()
    keys = _keys("mapping.files", value, ("main", "delimiter", "names", "join"))
    joins = []
    for item in keys.get("join", []):
        join = _keys("mapping.files.join", item, ("file", "key", "main_key", "many"))
        many = join.get("many", "refuse")
        _one_of("mapping.files.join.many", many, ("refuse", "first"))
        key = _text("mapping.files.join.key", join.get("key"))
        file = _text("mapping.files.join.file", join.get("file"))
        main_key = _scalar("mapping.files.join", join, "main_key", key)
        joins.append(JoinedFile(file, key, main_key, many == "first"))
    names = _texts("mapping.files.names", keys["names"]) if "names" in keys else ()
    main = _scalar("mapping.files", keys, "main")
    return Files(main, _scalar("mapping.files", keys, "delimiter"), names, tuple(joins))


def _time(where: str, value: Any) -> Time:
    if isinstance(value, str):
        return Time((value,))
    keys = _keys(where, value, ("column", "columns", "format", "unit", "origin"))
    columns = _texts(f"{where}.column", keys.get("columns", keys.get("column")))
    if "unit" not in keys:
        if "origin" in keys:
            raise ValueError(f"{where}.origin needs a unit; add {where}.unit")
        return Time(columns, _scalar(where, keys, "format"))
    if "format" in keys:
        raise ValueError(f"{where} has format and unit; keep one of them")
    try:
        unit = _scalar(where, keys, "unit")
        unit_s = UNIT_S.get(unit) or float(unit)
        origin = datetime.fromisoformat(_scalar(where, keys, "origin", "1970-01-01"))
    except ValueError as error:
        raise ValueError(
            f"{where}: {error}; unit is one of {', '.join(UNIT_S)} or a number of seconds, "
            "origin a date such as 2020-01-31"
        ) from error
    if origin.tzinfo is None:
        origin = origin.replace(tzinfo=UTC)
    return Time(columns, "", unit_s, origin.timestamp())


def _entity(role: str, value: Any) -> Entity:
    """Check one entity; None is an entity the file does not have."""
    if value is None:
        return Entity(role, (), role, is_optional=True)
    if isinstance(value, str | list):
        value = {"columns": value}
    keys = _keys(f"mapping.{role}", value, ("column", "columns", "kind", "optional"))
    # Accounts and counterparties identify an event; a device may well be missing.
    default = "no" if role in ("account", "counterparty") else "yes"
    optional = keys.get("optional", default)
    _one_of(f"mapping.{role}.optional", optional, ("yes", "no", "true", "false"))
    columns = _texts(f"mapping.{role}.columns", keys.get("columns", keys.get("column")))
    kind = _scalar(f"mapping.{role}", keys, "kind", role)
    return Entity(role, columns, kind, optional in ("yes", "true"))


def _label(value: Any) -> Label:
    keys = _keys("mapping.label", value, ("column", "fraud", "legitimate", "unknown"))
    column = _text("mapping.label.column", keys.get("column"))
    values = {}
    for name in ("fraud", "legitimate", "unknown"):
        given = keys.get(name, [])
        values[name] = tuple(given) if isinstance(given, list) else (given,)
    if not values["fraud"] or not values["legitimate"]:
        raise ValueError("mapping.label needs both fraud and legitimate; list their values")
    return Label(column, **values)


def _named(value: Any) -> dict[str, Any]:
    """Turn `[A, V1..V3]` or `{name: column}` into names with columns."""
    if value is None:
        return {}
    if isinstance(value, Mapping):
        return dict(value)
    return {name: name for name in _texts("mapping", value)}


def _numbers(where: str, columns: Mapping[str, Any]) -> tuple[Number, ...]:
    numbers = []
    for name, value in columns.items():
        given = {"column": value} if isinstance(value, str) else value
        keys = _keys(where, given, ("column", "strip", "negative"))
        negative = keys.get("negative", "reject")
        _one_of(f"{where}.negative", negative, NEGATIVE)
        column = _text(f"{where}.column", keys.get("column"))
        numbers.append(Number(name, column, _scalar(where, keys, "strip"), negative == "absolute"))
    return tuple(numbers)
