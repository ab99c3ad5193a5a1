"""Events per second of the fold on the handbook set, beside its reference and beside DuckDB.

One core each. Every side runs several times; the results hold medians and extremes, of wall time
and of the process's CPU time, which other processes disturb less.
"""

import json
import os
import statistics
import time
from pathlib import Path

import duckdb
import numpy as np
import pytest

from core.train.run import environment, write_atomic
from kernels.fold import HISTORY, NEIGHBOURS, Fold, Labels, Rows
from kernels.fold.reference import ReferenceFold
from kernels.native import instruction_set
from kits.fraud.data import load_events
from kits.fraud.data.config import HandbookData

RESULTS = Path(__file__).parent / "results" / "fold.json"
DAY_S = 86_400
CHUNK = 65_536
REFERENCE_EVENTS = 10_000
WINDOW_DAYS = (1, 7, 30)
ROLES = ("account", "counterparty")

pytestmark = pytest.mark.timeout(0)


@pytest.fixture(scope="module")
def stream():
    """Columns of the handbook set and the labels, visible after 7 days."""
    events = load_events(HandbookData())
    visible_s = np.asarray(events.label_time_s) + 7 * DAY_S
    columns = (events.time_s, events.entities, events.amount)
    labels = Labels.schedule(np.asarray(events.label), visible_s)
    return [np.array(column) for column in columns], labels


@pytest.fixture(scope="module")
def results():
    """Filled by the benchmarks, written at the end, printed with -s."""
    found = {
        "data": f"handbook, labels visible after 7 days, chunks of {CHUNK} rows",
        "machine": {k: v for k, v in environment().items() if k not in ("command", "packages")},
        "versions": {"numpy": np.__version__, "duckdb": duckdb.__version__},
        "instruction_set": instruction_set(),
    }
    yield found
    RESULTS.parent.mkdir(exist_ok=True)
    write_atomic(RESULTS, json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))


def fold_all(fold, columns, labels, rows):
    """Fold everything in chunks, into the same rows if there are any."""
    used, n = 0, len(columns[0])
    for start in range(0, n, CHUNK):
        part = slice(start, min(start + CHUNK, n))
        out = rows[: part.stop - start] if rows else None
        used += fold.run(*(column[part] for column in columns), labels[used:], out)


def measure(job, num_events, values_per_event, repeats):
    """Run a job some times; events per second of wall and of CPU time."""
    rates = {"wall": [], "cpu": []}
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        job()
        rates["wall"].append(num_events / (time.perf_counter() - wall))
        rates["cpu"].append(num_events / (time.process_time() - cpu))
    row = {"events": num_events, "values_per_event": values_per_event, "repeats": repeats}
    for clock, values in rates.items():
        spread = (min(values), statistics.median(values), max(values))
        row[f"events_per_{clock}_s"] = dict(
            zip(("min", "median", "max"), map(round, spread), strict=True)
        )
    if values_per_event:
        row["values_per_cpu_s"] = values_per_event * row["events_per_cpu_s"]["median"]
    row["load_average"] = round(os.getloadavg()[0], 1)
    return row


def test_native_with_rows(stream, results):
    columns, labels = stream
    num_features = len(Fold(ROLES, ROLES).feature_names)
    rows = Rows.empty(CHUNK, num_features)
    folds = []

    def job():
        folds[:] = [Fold(ROLES, ROLES)]
        fold_all(folds[0], columns, labels, rows)

    job()  # pages of the rows, the library
    results["native"] = measure(job, len(columns[0]), num_features, 5) | {
        "beside_the_features": f"{HISTORY} past events and {NEIGHBOURS} neighbours, with status",
        "bytes_per_account": folds[0].account_bytes,
        "state_mib": round(folds[0].memory_bytes / 2**20, 1),
    }


def test_native_state_only(stream, results):
    columns, labels = stream
    results["native_state_only"] = measure(
        lambda: fold_all(Fold(ROLES, ROLES), columns, labels, None), len(columns[0]), 0, 5
    )


def test_reference(stream, results):
    """On the first events, where its rows are compared with the native ones."""
    columns, labels = stream
    columns = [column[:REFERENCE_EVENTS] for column in columns]
    labels = labels[: np.searchsorted(labels.time_s, columns[0][-1], "right")]
    made = []

    def job(kind):
        fold = kind(ROLES, ROLES)
        rows = Rows.empty(REFERENCE_EVENTS, len(fold.feature_names))
        fold.run(*columns, labels, rows)
        made[:] = [rows]

    job(Fold)
    expected = [column.tobytes() for column in vars(made[0]).values()]
    results["reference"] = measure(
        lambda: job(ReferenceFold), REFERENCE_EVENTS, results["native"]["values_per_event"], 3
    )
    assert [column.tobytes() for column in vars(made[0]).values()] == expected


def test_duckdb_windows(stream, results):
    """Twelve of the features: count and mean amount of 1, 7 and 30 days, account and terminal.

    Its windows slide by the second and leave out events of the same second, where the fold's move
    in eighths; both see the past alone. No labels, no fading, no rings.
    """
    time_s, tokens, amount = stream[0]
    database = duckdb.connect()
    database.execute("SET threads = 1; SET enable_progress_bar = false")
    table = {"t": time_s, "account": tokens[:, 0].copy(), "terminal": tokens[:, 1].copy()}
    database.register("source", table | {"amount": amount})
    database.execute("CREATE TABLE events AS SELECT row_number() OVER () AS id, * FROM source")
    parts, windows = [], []
    for entity in ("account", "terminal"):
        for days in WINDOW_DAYS:
            name = f"{entity}_{days}d"
            parts.append(f"count(*) OVER {name} AS n_{name}, avg(amount) OVER {name} AS m_{name}")
            windows.append(
                f"{name} AS (PARTITION BY {entity} ORDER BY t "
                f"RANGE BETWEEN {days * DAY_S} PRECEDING AND 1 PRECEDING)"
            )
    query = f"SELECT id, {', '.join(parts)} FROM events WINDOW {', '.join(windows)}"
    told = {}
    results["duckdb_12_windows"] = measure(
        lambda: told.update(database.execute(query).fetchnumpy()), len(time_s), len(parts) * 2, 3
    )
    results["native_over_duckdb_in_values_per_cpu_s"] = round(
        results["native"]["values_per_cpu_s"] / results["duckdb_12_windows"]["values_per_cpu_s"], 1
    )
    counts = np.empty(len(time_s), np.int64)
    counts[told["id"] - 1] = told["n_terminal_30d"]
    for i in range(0, len(time_s), len(time_s) // 20):
        past = (tokens[:, 1] == tokens[i, 1]) & (time_s >= time_s[i] - 30 * DAY_S)
        assert counts[i] == (past & (time_s < time_s[i])).sum()
