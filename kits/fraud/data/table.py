"""The user's own CSV or Parquet file as events, by way of a column mapping (see README.md).

DuckDB reads, checks and sorts on disk where memory does not reach; the sorted rows stream in
chunks into memory-mapped columns, so that a file may be larger than memory.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from kits.fraud.data.cache import cache_folder, cached_events
from kits.fraud.data.config import TableData
from kits.fraud.data.events import Events
from kits.fraud.data.mapping import ColumnMapping, find_mapping, read_mapping
from kits.fraud.data.progress import progress_bar, say
from kits.fraud.data.table_check import check_rows
from kits.fraud.data.table_read import TextTable, check_join, connect, one_row, read_table
from kits.fraud.data.table_rejects import report_rejects
from kits.fraud.data.tokens import token_array

# Raise this when the same file begins to give other events.
VERSION = 1
MAX_ROWS = 2**31 - 1


def load(cfg: TableData) -> Events:
    """Return the events of a file, converted on first use and then read from the cache.

    Args:
        cfg: the file, its mapping, and what may be rejected.

    Raises:
        ValueError: the mapping is wrong, a column is missing, or too many rows are rejected.
    """
    mapping_path = find_mapping(cfg.mapping)
    mapping = read_mapping(mapping_path)
    paths = _paths(cfg, mapping)
    key = {
        "name": cfg.name,
        "version": VERSION,
        "mapping": hashlib.sha256(mapping_path.read_bytes()).hexdigest(),
        "max_reject_share": cfg.max_reject_share,
        "files": [_identity(path) for path in paths],
    }
    folder = cache_folder(cfg.cache_path(), key)
    rejects = folder.with_name(folder.name + "-rejects") / "rejects.parquet"
    if cfg.rejects_path:
        rejects = Path(cfg.rejects_path).expanduser()
    is_built = False

    def build(place: Path) -> dict[str, Any]:
        nonlocal is_built
        is_built = True
        return _build(cfg, mapping, paths, rejects, place)

    events = cached_events(cfg.cache_path(), key, build)
    if not is_built and rejects.is_file():
        say(f"{paths[0].name}: read before; the rows rejected then are in {rejects}")
    return events


def _paths(cfg: TableData, mapping: ColumnMapping) -> list[Path]:
    path = Path(cfg.path).expanduser().resolve()
    if not mapping.files.main:
        paths = [path]
    elif path.is_dir():
        joined = (join.file for join in mapping.files.joins)
        paths = [path / name for name in (mapping.files.main, *joined)]
    else:
        raise ValueError(
            f"data.path={cfg.path!r} is not a folder, but data.mapping={cfg.mapping!r} needs the "
            f"folder of {mapping.files.main}; set data.path"
        )
    for file in paths:
        if not file.is_file():
            raise ValueError(f"data.path={cfg.path!r}: there is no file {file}; set data.path")
    return paths


def _identity(path: Path) -> list[str | int]:
    state = path.stat()
    return [str(path), state.st_size, state.st_mtime_ns]


def _build(
    cfg: TableData, mapping: ColumnMapping, paths: Sequence[Path], rejects: Path, folder: Path
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="work-", dir=folder) as work:
        con = connect(Path(work), cfg.memory_limit_mib)
        try:
            tables = [
                read_table(con, f"file{i}", path, mapping, is_main=i == 0)
                for i, path in enumerate(paths)
            ]
            joins = [
                check_join(con, tables[0], table, join)
                for table, join in zip(tables[1:], mapping.files.joins, strict=True)
            ]
            check_rows(con, tables, joins, mapping)
            report_rejects(con, tables[0], rejects, cfg.max_reject_share)
            _say_unread_numbers(con, mapping)
            for table in tables:
                con.execute(f"DROP TABLE {table.name}")
            _write(con, mapping, tables[0], folder, cfg.chunk_rows)
        finally:
            con.close()
    roles = ["account", *(entity.role for entity in mapping.entities)]
    kinds = [mapping.account.kind if mapping.account else "account"]
    return {
        "entity_roles": roles,
        "entity_kinds": kinds + [entity.kind for entity in mapping.entities],
        "categorical_names": [name for name, _ in mapping.categorical],
        "numeric_names": [number.name for number in mapping.numeric],
        "pattern_names": ["none"],
        "clock": mapping.clock,
        "name": cfg.name,
    }


def _say_unread_numbers(con: duckdb.DuckDBPyConnection, mapping: ColumnMapping) -> None:
    """Say which numeric columns hold texts that are not numbers; such a value is missing."""
    if not mapping.numeric:
        return
    counts = ", ".join(f"count(*) FILTER (is_bad_m{i})" for i in range(len(mapping.numeric)))
    row = one_row(con, f"SELECT {counts} FROM checked WHERE reason IS NULL")
    for number, count in zip(mapping.numeric, row, strict=True):
        if count:
            say(f"  numeric column {number.name}: {count:,} texts that are not numbers are missing")


def _write(
    con: duckdb.DuckDBPyConnection,
    mapping: ColumnMapping,
    table: TextTable,
    folder: Path,
    chunk_rows: int,
) -> None:
    """Stream the good rows, sorted by time and row, into the columns' files."""
    (num_rows,) = one_row(con, "SELECT count(*) FROM checked WHERE reason IS NULL")
    if num_rows > MAX_ROWS:
        raise ValueError(f"{table.path.name} has {num_rows:,} rows, over {MAX_ROWS:,}; split it")
    id_type = _id_type(con, mapping)
    shapes = {
        "tx_id": (id_type, ()),
        "time_s": (np.dtype(np.int64), ()),
        "entities": (np.dtype(np.uint64), (1 + len(mapping.entities),)),
        "amount": (np.dtype(np.float64), ()),
        "categorical": (np.dtype(np.uint64), (len(mapping.categorical),)),
        "numeric": (np.dtype(np.float32), (len(mapping.numeric),)),
        "label": (np.dtype(np.int8), ()),
        "label_time_s": (np.dtype(np.int64), ()),
        "pattern": (np.dtype(np.int8), ()),
    }
    columns = {
        name: _new_column(folder / f"{name}.npy", dtype, (num_rows, *tail))
        for name, (dtype, tail) in shapes.items()
    }
    positions = _positions(con, folder, num_rows, chunk_rows)
    good_rows = con.sql("SELECT * EXCLUDE (reason, unreadable) FROM checked WHERE reason IS NULL")
    with progress_bar("converting", num_rows) as advance:
        for batch in good_rows.to_arrow_reader(chunk_rows):
            _convert(batch, mapping, positions[batch["row"].to_numpy()], columns)
            advance(batch.num_rows)
    for column in columns.values():
        if isinstance(column, np.memmap):
            column.flush()


def _positions(
    con: duckdb.DuckDBPyConnection, folder: Path, num_rows: int, chunk_rows: int
) -> np.ndarray:
    """Return where each row of the file goes when sorted by time and then by row.

    Only numbers are sorted: sorting whole rows would need memory for many of them at once.
    """
    (last_row,) = one_row(con, "SELECT max(row) FROM checked")
    # The file has no name any more once it is open here, so that nothing needs to remove it.
    with tempfile.TemporaryFile(dir=folder) as file:
        positions = np.memmap(file, dtype=np.int32, mode="w+", shape=(last_row + 1,))
    by_time = con.sql("SELECT row FROM checked WHERE reason IS NULL ORDER BY time, row")
    start = 0
    with progress_bar("sorting", num_rows) as advance:
        for batch in by_time.to_arrow_reader(chunk_rows):
            stop = start + batch.num_rows
            positions[batch["row"].to_numpy()] = np.arange(start, stop, dtype=np.int32)
            start = stop
            advance(batch.num_rows)
    return positions


def _convert(
    batch: pa.RecordBatch,
    mapping: ColumnMapping,
    position: np.ndarray,
    out: dict[str, np.ndarray],
) -> None:
    """Write one batch of rows to their positions in every column."""
    to_seconds = np.round if mapping.clock == "events" else np.floor
    out["time_s"][position] = to_seconds(batch["time"].to_numpy())
    out["label_time_s"][position] = to_seconds(batch["label_time"].to_numpy())
    out["amount"][position] = batch["amount"].to_numpy()
    out["label"][position] = batch["label"].to_numpy()
    ids = batch["id"] if mapping.tx_id else batch["row"]
    if out["tx_id"].dtype.kind == "S":
        out["tx_id"][position] = [text.encode() for text in ids.to_pylist()]
    else:
        out["tx_id"][position] = ids.cast(pa.int64()).to_numpy()
    if mapping.account:
        out["entities"][position, 0] = _tokens(mapping.account.kind, batch["entity_account"])
    else:
        out["entities"][position, 0] = _tokens("account", batch["row"].cast(pa.string()))
    for i, entity in enumerate(mapping.entities, start=1):
        # A new column is all zeros: no such entity.
        if entity.columns:
            texts = batch[f"entity_{entity.role}"]
            out["entities"][position, i] = _tokens(entity.kind, texts)
    for i, (name, _) in enumerate(mapping.categorical):
        out["categorical"][position, i] = _tokens(name, batch[f"c{i}"])
    if mapping.numeric:
        out["numeric"][position] = np.stack(
            [_numbers(batch[f"m{i}"]) for i in range(len(mapping.numeric))], axis=1
        )


def _numbers(values: pa.Array) -> np.ndarray:
    """Return single precision; NaN for what is missing, infinite or too large."""
    with np.errstate(over="ignore"):
        numbers = values.to_numpy(zero_copy_only=False).astype(np.float32)
    return np.where(np.isfinite(numbers), numbers, np.float32(np.nan))


def _tokens(kind: str, texts: pa.Array) -> np.ndarray:
    """Hash every distinct text once; a missing one becomes 0."""
    encoded = texts.dictionary_encode()
    values = np.append(token_array(kind, encoded.dictionary.to_pylist()), np.uint64(0))
    codes = encoded.indices.fill_null(len(values) - 1).to_numpy()
    return values[codes]


def _id_type(con: duckdb.DuckDBPyConnection, mapping: ColumnMapping) -> np.dtype:
    """Choose int64 where every id is a plain whole number, else bytes of the longest id."""
    if not mapping.tx_id:
        return np.dtype(np.int64)
    are_numbers, longest = one_row(
        con,
        "SELECT bool_and(coalesce(CAST(try_cast(id AS BIGINT) AS VARCHAR) = id, false)), "
        "max(strlen(id)) FROM checked WHERE reason IS NULL",
    )
    return np.dtype(np.int64) if are_numbers else np.dtype(f"S{longest}")


def _new_column(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    if 0 in shape:
        # An array without elements cannot be mapped.
        np.save(path, np.empty(shape, dtype))
        return np.empty(shape, dtype)
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
