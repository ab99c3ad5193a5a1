import contextlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from kits.defect.line.ledger import Entry, Ledger, count_states, read, verify

ROOT = Path(__file__).parents[4]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.sqlite"


def wait(waiting):
    return waiting.future.result(timeout=10)


def fill(ledger, *numbers, state="OK"):
    for number in numbers:
        wait(ledger.append(Entry(number, "a", "PENDING")))
        wait(ledger.append(Entry(number, "a", state)))


def test_each_trigger_has_one_row_with_its_times_and_reason(path):
    with contextlib.closing(Ledger(path)) as ledger:
        wait(ledger.append(Entry(1, "left", "PENDING", at_ns=10)))
        wait(ledger.append(Entry(1, "left", "NG", "scratch", {"tiles": 3}, at_ns=30)))
        wait(ledger.append(Entry(2, "right", "PENDING", at_ns=20)))
        with contextlib.closing(read(path)) as connection:
            rows = connection.execute("SELECT * FROM parts ORDER BY trigger").fetchall()
    assert rows == [
        (1, "left", "NG", 10, 30, "scratch", '{"tiles":3}'),
        (2, "right", "PENDING", 20, None, "", "{}"),
    ]
    assert verify(path) == 3


def test_entries_cannot_be_changed_or_removed(path):
    with contextlib.closing(Ledger(path)) as ledger:
        fill(ledger, 1)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        for statement in ("UPDATE entries SET state = 'NG'", "DELETE FROM entries"):
            with pytest.raises(sqlite3.IntegrityError, match="only added to"):
                connection.execute(statement)


def test_a_change_behind_its_back_shows_in_the_chain(path):
    with contextlib.closing(Ledger(path)) as ledger:
        fill(ledger, 1, 2)
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TRIGGER no_change")
        connection.execute("UPDATE entries SET state = 'NG' WHERE sequence = 2")
        connection.commit()
    with pytest.raises(ValueError, match="entry 2 is not what follows"):
        verify(path)


def test_a_trigger_has_no_second_verdict(path):
    with contextlib.closing(Ledger(path)) as ledger:
        fill(ledger, 1)
        second = ledger.append(Entry(1, "a", "NG"))
        fill(ledger, 2)
        assert wait(second).state == "NOTE"
        assert "UNIQUE" in wait(second).reason
    assert count_states(path) == {"OK": 2}


def test_what_was_pending_is_closed_when_the_line_starts_again(path):
    script = (
        "import os, sys, pathlib\n"
        "from kits.defect.line.ledger import Entry, Ledger\n"
        "ledger = Ledger(pathlib.Path(sys.argv[1]))\n"
        "for n in (1, 2, 3):\n"
        "    ledger.append(Entry(n, 'a', 'PENDING')).future.result()\n"
        "ledger.append(Entry(2, 'a', 'OK')).future.result()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, check=False, timeout=60
    )
    assert done.returncode == -signal.SIGKILL
    with contextlib.closing(Ledger(path)) as ledger:
        assert ledger.last_trigger == 3
        assert [entry.trigger for entry in ledger.recovered] == [1, 3]
    assert count_states(path) == {"OK": 1, "UNINSPECTED": 2}
    with contextlib.closing(read(path)) as connection:
        reason = connection.execute("SELECT reason FROM parts WHERE trigger = 3").fetchone()[0]
    assert reason == "the line ended before its verdict"
    verify(path)


def test_one_process_writes_it(path):
    with (
        contextlib.closing(Ledger(path)),
        pytest.raises(ValueError, match="in use by another line"),
    ):
        Ledger(path)
    Ledger(path).close()


def test_what_is_no_ledger_is_refused(path):
    path.write_bytes(b"x" * 5000)
    with pytest.raises(ValueError, match="cannot be used as a ledger"):
        Ledger(path)


@contextlib.contextmanager
def full_disk(num_bytes):
    """Files cannot grow beyond this: the same errors as of a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_on_a_full_disk_verdicts_become_uninspected_and_are_written_when_there_is_room(path):
    troubles = []
    with contextlib.closing(Ledger(path, reserve_bytes=0, on_trouble=troubles.append)) as ledger:
        fill(ledger, 1)
        size = path.with_name(path.name + "-wal").stat().st_size
        with full_disk(size):
            wait(ledger.append(Entry(2, "a", "PENDING")))
            told = wait(ledger.append(Entry(2, "a", "NG", "scratch")))
            assert told.state == "UNINSPECTED"
            assert "it would have been NG (scratch)" in told.reason
            assert "cannot be written" in ledger.trouble
        until(lambda: troubles[-1:] == [""])
        assert "cannot be written" in troubles[0]
        fill(ledger, 3)
    assert count_states(path) == {"OK": 2, "UNINSPECTED": 1}
    assert verify(path) == 6


def test_the_reserve_keeps_the_ledger_written_on_a_full_disk(path, monkeypatch):
    ledger = Ledger(path, reserve_bytes=1 << 16)
    reserve = path.with_name(f".{path.name}.reserve")
    assert reserve.stat().st_size == 1 << 16
    write, failed = ledger._write, []

    def write_once_full(entries):
        if not failed:
            failed.append(True)
            raise sqlite3.OperationalError("database or disk is full")
        assert not reserve.exists()
        write(entries)

    monkeypatch.setattr(ledger, "_write", write_once_full)
    # No room for a new reserve until the test says so.
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result([1, 1, 0, 0, 0, 0, 0, 0, 0, 0]))
    wait(ledger.append(Entry(1, "a", "PENDING")))
    assert wait(ledger.append(Entry(1, "a", "OK"))).state == "UNINSPECTED"
    assert count_states(path) == {"UNINSPECTED": 1}
    assert ledger.trouble
    monkeypatch.undo()
    until(lambda: not ledger.trouble)
    assert reserve.exists()
    fill(ledger, 2)
    ledger.close()
    assert not reserve.exists()
    assert count_states(path) == {"OK": 1, "UNINSPECTED": 1}


def test_a_verdict_that_took_too_long_is_written_as_it_was_told(path, monkeypatch):
    ledger = Ledger(path)
    write, may_go_on = ledger._write, threading.Event()
    monkeypatch.setattr(ledger, "_write", lambda entries: (may_go_on.wait(10), write(entries)))
    first = ledger.append(Entry(1, "a", "PENDING"))
    until(lambda: first.is_being_written)
    second = ledger.append(Entry(1, "a", "OK"))
    told = ledger.give_up(second)
    assert told.state == "UNINSPECTED"
    may_go_on.set()
    assert wait(second).state == "UNINSPECTED"
    ledger.close()
    assert count_states(path) == {"UNINSPECTED": 1}


def test_a_verdict_given_up_while_it_is_written_counts_as_it_was_told(path, monkeypatch):
    ledger = Ledger(path)
    wait(ledger.append(Entry(1, "a", "PENDING")))
    write, may_go_on = ledger._write, threading.Event()
    monkeypatch.setattr(ledger, "_write", lambda entries: (may_go_on.wait(10), write(entries)))
    waiting = ledger.append(Entry(1, "a", "OK"))
    until(lambda: waiting.is_being_written)
    assert ledger.give_up(waiting).state == "UNINSPECTED"
    may_go_on.set()
    ledger.close()
    with contextlib.closing(read(path)) as connection:
        rows = connection.execute("SELECT state, reason FROM entries WHERE trigger = 1").fetchall()
    assert [state for state, _ in rows] == ["PENDING", "OK", "LATE"]
    assert "told as UNINSPECTED" in rows[2][1]
    assert count_states(path) == {"UNINSPECTED": 1}


def until(condition, seconds=10.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
