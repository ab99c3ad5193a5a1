"""Files as text tables inside DuckDB: every row numbered, also those that cannot be read.

Columns of a file get names of our own (c0, c1, ...) in SQL: what a file says never becomes SQL.
"""

from __future__ import annotations

import csv
import gzip
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from kits.fraud.data.mapping import ColumnMapping, JoinedFile, nearest
from kits.fraud.data.progress import progress_bar

DELIMITERS = (",", ";", "\t", "|")
POLL_S = 0.1


@dataclass(frozen=True)
class TextTable:
    """A loaded file: table `name` has the columns row, unreadable, c0, c1, ..."""

    name: str
    path: Path
    columns: tuple[str, ...]  # the file's own names of c0, c1, ...


def connect(folder: Path, memory_limit_mib: int) -> duckdb.DuckDBPyConnection:
    """Open a database that works in a folder, spills there, and reaches nothing else."""
    con = duckdb.connect(str(folder / "work.duckdb"))
    con.execute(f"SET memory_limit = '{int(memory_limit_mib)}MiB'")
    # Each thread needs room of its own for sorting.
    con.execute(f"SET threads = {min(os.cpu_count() or 1, max(1, memory_limit_mib // 256))}")
    con.execute(f"SET temp_directory = {literal(str(folder / 'spill'))}")
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_progress_bar = true")
    con.execute("SET enable_progress_bar_print = false")
    con.execute("SET autoinstall_known_extensions = false")
    return con


def literal(text: str) -> str:
    """Return a text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """Return a name as a quoted SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def one_row(con: duckdb.DuckDBPyConnection, sql: str) -> tuple[Any, ...]:
    """Return the one row of a query."""
    return con.execute(sql).fetchall()[0]


def run_with_progress(con: duckdb.DuckDBPyConnection, title: str, sql: str) -> None:
    """Run one statement while a bar shows how far it is."""
    errors: list[BaseException] = []

    def work() -> None:
        try:
            con.execute(sql)
        except BaseException as error:  # noqa: BLE001 - raised again below, in the caller's thread
            errors.append(error)

    with progress_bar(title, 100) as advance:
        worker = threading.Thread(target=work)
        worker.start()
        shown = 0
        try:
            while worker.is_alive():
                worker.join(POLL_S)
                done = int(max(0.0, con.query_progress())) if worker.is_alive() else 100
                advance(max(0, done - shown))
                shown = max(shown, done)
        except BaseException:
            # Ctrl-C reaches this thread alone; the statement must not go on without it.
            con.interrupt()
            worker.join()
            raise
    if errors:
        raise errors[0]


def read_table(
    con: duckdb.DuckDBPyConnection, name: str, path: Path, mapping: ColumnMapping, *, is_main: bool
) -> TextTable:
    """Load a CSV or Parquet file as text.

    Raises:
        ValueError: there is no such file, or it has no columns.
    """
    if not path.is_file():
        raise ValueError(f"data.path: {path} is not a file; set data.path")
    if path.suffix == ".parquet":
        return _read_parquet(con, name, path)
    names = mapping.files.names if is_main else ()
    return _read_csv(con, name, path, mapping.files.delimiter, names)


def column_of(tables: Sequence[TextTable], column: str, where: str) -> str:
    """Return the SQL text of a file's column, blanks cut off, empty as NULL.

    Raises:
        ValueError: no file has the column; names the columns there are and the nearest one.
    """
    for table in tables:
        if column in table.columns:
            return f"nullif(trim({table.name}.c{table.columns.index(column)}), '')"
    known = [name for table in tables for name in table.columns]
    shown = ", ".join(known[:60]) + (", ..." if len(known) > 60 else "")
    files = ", ".join(table.path.name for table in tables)
    raise ValueError(
        f"mapping.{where} names the column {column!r}, which {files} does not have"
        f"{nearest(column, known)}; its columns: {shown}"
    )


def check_join(
    con: duckdb.DuckDBPyConnection, main: TextTable, table: TextTable, join: JoinedFile
) -> str:
    """Return the LEFT JOIN of a further file that never adds a row.

    Raises:
        ValueError: its key is not unique, a line cannot be read, or a column comes twice.
    """
    twice = set(main.columns) & (set(table.columns) - {join.key})
    if twice:
        raise ValueError(
            f"{table.path.name} has the columns {', '.join(sorted(twice))}, as {main.path.name} "
            "has; rename them in one of the files"
        )
    key = column_of([table], join.key, "files.join.key")
    main_key = column_of([main], join.main_key, "files.join.main_key")
    (line,) = one_row(con, f"SELECT min(row) FROM {table.name} WHERE unreadable IS NOT NULL")
    if line is not None:
        raise ValueError(f"{table.path.name}: row {line} cannot be read; correct the file")
    again = con.execute(
        f"SELECT {key} FROM {table.name} WHERE {key} IS NOT NULL GROUP BY 1 HAVING count(*) > 1"
        " ORDER BY 1 LIMIT 1"
    ).fetchall()
    if again and not join.is_first_of_many:
        raise ValueError(
            f"{table.path.name} has several rows with {join.key}={again[0][0]!r}, but one row can "
            "join; set mapping.files.join.many to first, or correct the file"
        )
    columns = ", ".join(f"arg_min(c{i}, row) AS c{i}" for i in range(len(table.columns)))
    chosen = f"(SELECT {key} AS key, {columns} FROM {table.name} GROUP BY 1)"
    return f"LEFT JOIN {chosen} AS {table.name} ON {table.name}.key = {main_key}"


def _read_parquet(con: duckdb.DuckDBPyConnection, name: str, path: Path) -> TextTable:
    source = f"read_parquet({_path_literal(path)}, file_row_number = true)"
    columns = [row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]
    columns.remove("file_row_number")
    texts = ", ".join(f"CAST({identifier(c)} AS VARCHAR) AS c{i}" for i, c in enumerate(columns))
    run_with_progress(
        con,
        f"reading {path.name}",
        f"CREATE TABLE {name} AS SELECT file_row_number + 1 AS row, NULL::VARCHAR AS unreadable, "
        f"{texts} FROM {source}",
    )
    return TextTable(name, path, tuple(columns))


def _read_csv(
    con: duckdb.DuckDBPyConnection, name: str, path: Path, delimiter: str, names: tuple[str, ...]
) -> TextTable:
    header = _first_line(path)
    delimiter = delimiter or max(DELIMITERS, key=header.count)
    columns = names or tuple(next(csv.reader([header], delimiter=delimiter)))
    if len(set(columns)) < len(columns) or not all(columns):
        raise ValueError(f"{path.name}: its header {header!r} has an empty or repeated column name")
    types = ", ".join(f"'c{i}': 'VARCHAR'" for i in range(len(columns)))
    # One thread: in parallel, DuckDB refuses line breaks inside quotes beside short rows.
    options = (
        "auto_detect = false, parallel = false, null_padding = true, quote = '\"', escape = '\"', "
        f"ignore_errors = true, store_rejects = true, rejects_table = '{name}_errors', "
        f"rejects_scan = '{name}_scans', header = {'false' if names else 'true'}"
    )
    run_with_progress(
        con,
        f"reading {path.name}",
        f"CREATE TABLE {name} AS SELECT row_number() OVER () AS row, NULL::VARCHAR AS unreadable, "
        f"* FROM read_csv({_path_literal(path)}, delim = {literal(delimiter)}, "
        f"columns = {{{types}}}, {options})",
    )
    _put_back_unreadable(con, name, header_lines=0 if names else 1)
    return TextTable(name, path, columns)


def _put_back_unreadable(con: duckdb.DuckDBPyConnection, name: str, *, header_lines: int) -> None:
    """Add the rows that could not be read, and count the others with them."""
    con.execute(
        f"CREATE TABLE {name}_lines AS SELECT line - {header_lines} AS row, "
        f"first(csv_line) AS unreadable, row_number() OVER (ORDER BY line) AS rank "
        f"FROM {name}_errors GROUP BY line"
    )
    # Row numbers alone go through the join: whole rows would need memory for all of them.
    con.execute(
        f"UPDATE {name} SET row = moved.row FROM (SELECT r.row AS old_row, r.row + g.rank AS row "
        f"FROM (SELECT row FROM {name}) r ASOF JOIN (SELECT row - rank AS before, "
        f"max(rank) AS rank FROM {name}_lines GROUP BY 1) g ON r.row > g.before) AS moved "
        f"WHERE {name}.row = moved.old_row"
    )
    con.execute(f"INSERT INTO {name} (row, unreadable) SELECT row, unreadable FROM {name}_lines")


def _first_line(path: Path) -> str:
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        line = file.readline().decode("utf-8-sig", errors="replace").rstrip("\r\n")
    if not line:
        raise ValueError(f"{path} begins with an empty line; a CSV begins with its columns' names")
    return line


def _path_literal(path: Path) -> str:
    # DuckDB reads *, ? and [ in a path as patterns, and knows no way to write them plainly.
    if set("*?[") & set(str(path)):
        raise ValueError(f"data.path: {path} has one of * ? [ in its name; rename it")
    return literal(str(path))
