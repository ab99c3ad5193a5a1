"""Rows that cannot be used: counted, shown, written down, and a reason to stop when many."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import duckdb

from kits.fraud.data.progress import say
from kits.fraud.data.table_read import TextTable, identifier, literal, one_row

NUM_SHOWN = 20


def report_rejects(
    con: duckdb.DuckDBPyConnection,
    table: TextTable,
    path: Path,
    max_share: float,
) -> None:
    """Write, count and show the rejected rows of `checked`.

    Args:
        con: database with the tables `checked` and `table.name`.
        table: the main file.
        path: where the rejected rows go, as Parquet; an older file there is removed.
        max_share: the most rows that may be rejected, as a share of all.

    Raises:
        ValueError: more than that were rejected, or no row is left.
    """
    path.unlink(missing_ok=True)
    total, rejected = one_row(con, "SELECT count(*), count(reason) FROM checked")
    if rejected:
        path.parent.mkdir(parents=True, exist_ok=True)
        con.execute(f"COPY ({_rejected_rows(table)}) TO {literal(str(path))} (FORMAT parquet)")
        say(f"{table.path.name}: {rejected:,} of {total:,} rows rejected, all of them in {path}")
        _show(con)
    if rejected > max_share * total:
        raise ValueError(
            f"{table.path.name}: {rejected:,} of {total:,} rows rejected, more than "
            f"data.max_reject_share={max_share}; correct the file or the mapping ({path} has the "
            "rows), or raise data.max_reject_share"
        )
    if rejected == total:
        raise ValueError(f"{table.path.name} has no row to use; set data.path to a file with rows")


def _show(con: duckdb.DuckDBPyConnection) -> None:
    counts = con.execute(
        "SELECT reason, count(*) FROM checked WHERE reason IS NOT NULL GROUP BY 1 "
        "ORDER BY 2 DESC, 1"
    )
    for reason, count in counts.fetchall():
        say(f"  {count:>8,}  {reason}")
    first = con.execute(
        f"SELECT row, reason FROM checked WHERE reason IS NOT NULL ORDER BY row LIMIT {NUM_SHOWN}"
    )
    for row, reason in first.fetchall():
        say(f"  row {row}: {reason}")


def _rejected_rows(table: TextTable) -> str:
    """Select the rejected rows: the file's columns as text, then number, reason and raw line."""
    ours = _free_names(("row_number", "reason", "unreadable_line"), table.columns)
    columns = ", ".join(f"t.c{i} AS {identifier(c)}" for i, c in enumerate(table.columns))
    return (
        f"SELECT {columns}, c.row AS {identifier(ours[0])}, c.reason AS {identifier(ours[1])}, "
        f"t.unreadable AS {identifier(ours[2])} FROM checked c JOIN {table.name} t "
        "ON t.row = c.row WHERE c.reason IS NOT NULL ORDER BY c.row"
    )


def _free_names(names: Sequence[str], taken: Sequence[str]) -> list[str]:
    lowered = {name.lower() for name in taken}
    free = []
    for name in names:
        while name.lower() in lowered:
            name += "_"
        free.append(name)
    return free
