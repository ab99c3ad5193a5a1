"""The checked table: every row typed by the mapping, with the reason why it cannot be used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import duckdb

from kits.fraud.data.mapping import ColumnMapping, Entity, Label, Number, Time
from kits.fraud.data.table_read import TextTable, column_of, identifier, literal, run_with_progress

# Between the parts of an identity of several columns.
PART_SEPARATOR = "\x1f"
Column = Callable[[str, str], str]  # (column, where) -> SQL text


def check_rows(
    con: duckdb.DuckDBPyConnection,
    tables: Sequence[TextTable],
    joins: Sequence[str],
    mapping: ColumnMapping,
) -> None:
    """Create the table `checked`: row, reason, and the columns of an event.

    Columns: id, time, label_time (seconds), amount, label, e0.. entities, c0.. categorical,
    m0.. numeric; reason is NULL for a good row.

    Raises:
        ValueError: the mapping names a column that the files do not have.
    """

    def column(name: str, where: str) -> str:
        return column_of(tables, name, where)

    main = tables[0].name
    entities = ([mapping.account] if mapping.account else []) + [
        entity for entity in mapping.entities if entity.columns
    ]
    selected = {
        "id": column(mapping.tx_id, "tx_id") if mapping.tx_id else "NULL::VARCHAR",
        "time": _time(mapping.time, "time", column),
        "amount": _number(mapping.amount, "amount", column) if mapping.amount else "0.0::DOUBLE",
        "label": _label(mapping.label, column) if mapping.label else "-1::TINYINT",
    }
    selected["label_time"] = (
        _time(mapping.label_time, "label_time", column) if mapping.label_time else selected["time"]
    )
    for entity in entities:
        selected[f"entity_{entity.role}"] = _entity(entity, column)
    for i, (_, name) in enumerate(mapping.categorical):
        selected[f"c{i}"] = column(name, "categorical")
    for i, number in enumerate(mapping.numeric):
        selected[f"m{i}"] = _number(number, "numeric", column)
        selected[f"is_bad_m{i}"] = (
            f"{selected[f'm{i}']} IS NULL AND {column(number.column, 'numeric')} IS NOT NULL"
        )
    typed = ", ".join(f"{sql} AS {identifier(name)}" for name, sql in selected.items())
    reasons = " ".join(
        f"WHEN {rule} THEN {literal(reason)}" for rule, reason in _rules(mapping, entities)
    )
    run_with_progress(
        con,
        "checking",
        f"CREATE TABLE checked AS SELECT *, CASE {reasons} END AS reason FROM (SELECT {main}.row, "
        f"{main}.unreadable, {typed} FROM {main} {' '.join(joins)})",
    )
    if mapping.tx_id:
        # Among rows that are good otherwise, the first in the file keeps its id.
        run_with_progress(
            con,
            "checking ids",
            "UPDATE checked SET reason = 'id was used by an earlier row' FROM (SELECT id, "
            "min(row) AS first_row FROM checked WHERE reason IS NULL GROUP BY id "
            "HAVING count(*) > 1) AS twice WHERE checked.id = twice.id "
            "AND checked.row > twice.first_row AND checked.reason IS NULL",
        )


def _rules(mapping: ColumnMapping, entities: Sequence[Entity]) -> list[tuple[str, str]]:
    """Return SQL conditions with the reasons they stand for, first match first."""
    rules = [
        ("unreadable IS NOT NULL", "line cannot be read"),
        ("time IS NULL OR NOT isfinite(time)", "time cannot be read"),
        ("time < 0 OR time >= 1e11", "time is not between 1970 and 5138"),
        ("amount IS NULL", "amount is not a number"),
        ("NOT isfinite(amount)", "amount is not finite"),
        ("amount < 0", "amount is negative"),
    ]
    if mapping.tx_id:
        rules.append(("id IS NULL", "id is missing"))
    rules += [
        (f"{identifier(f'entity_{entity.role}')} IS NULL", f"{entity.role} is missing")
        for entity in entities
        if not entity.is_optional
    ]
    rules.append(("label IS NULL", "label is outside the set"))
    if mapping.label_time:
        rules += [
            ("label_time IS NULL OR NOT isfinite(label_time)", "label time cannot be read"),
            ("label_time < 0 OR label_time >= 1e11", "label time is not between 1970 and 5138"),
        ]
    return rules


def _time(time: Time, where: str, column: Column) -> str:
    parts = [column(name, where) for name in time.columns]
    text = " || ' ' || ".join(parts)
    if time.format:
        return f"epoch(try_strptime({text}, {literal(time.format)}))"
    if time.unit_s:
        return f"({time.origin_s!r}::DOUBLE + try_cast({text} AS DOUBLE) * {time.unit_s!r})"
    stamp = f"try_cast({text} AS TIMESTAMPTZ)"
    return f"(CASE WHEN isfinite({stamp}) THEN epoch({stamp}) END)"


def _entity(entity: Entity, column: Column) -> str:
    parts = [column(name, entity.role) for name in entity.columns]
    if len(parts) == 1:
        return parts[0]
    whole = ", ".join(f"coalesce({part}, '')" for part in parts)
    separator = literal(PART_SEPARATOR)
    return f"(CASE WHEN {parts[0]} IS NOT NULL THEN concat_ws({separator}, {whole}) END)"


def _number(number: Number, where: str, column: Column) -> str:
    text = column(number.column, where)
    if number.strip:
        text = f"translate({text}, {literal(number.strip)}, '')"
    value = f"try_cast({text} AS DOUBLE)"
    return f"abs({value})" if number.is_absolute else value


def _label(label: Label, column: Column) -> str:
    text = column(label.column, "label")
    cases = [
        f"WHEN {_is_one_of(text, values)} THEN {value}"
        for values, value in ((label.fraud, 1), (label.legitimate, 0), (label.unknown, -1))
        if values
    ]
    return f"CAST(CASE {' '.join(cases)} END AS TINYINT)"


def _is_one_of(text: str, values: Sequence[str]) -> str:
    """Compare as text, and as numbers where a value is one: 1, 1.0 and 01 are the same label."""
    alternatives = []
    if "" in values:
        alternatives.append(f"{text} IS NULL")
    alternatives.append(f"{text} IN ({', '.join(literal(value) for value in values)})")
    numbers = [number for value in values if (number := _as_number(value)) is not None]
    if numbers:
        listed = ", ".join(f"{number!r}::DOUBLE" for number in numbers)
        alternatives.append(f"try_cast({text} AS DOUBLE) IN ({listed})")
    return "(" + " OR ".join(alternatives) + ")"


def _as_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if abs(number) < 1e300 else None
