"""Every trigger and what became of it: an SQLite file that is only ever added to.

Each trigger has an entry before its image is asked for, and one more with its verdict. Entries are
chained by hashes, so that a changed or missing one shows. A thread writes all that waits in one
transaction; whoever waits for an entry gets what was really written. Where the disk is full, a
reserve is freed to go on writing, and every verdict becomes UNINSPECTED until there is room again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

LOG = logging.getLogger(__name__)
Sync = Literal["normal", "full"]

# States beside those of a verdict: an alarm that begins or ends, and other news of the line.
ALARM, CLEARED, NOTE = "ALARM", "CLEARED", "NOTE"
# Beside a verdict that came too late to be told: the part was told as UNINSPECTED, and is.
LATE = "LATE"
PENDING, UNINSPECTED = "PENDING", "UNINSPECTED"
# Between two tries where nothing could be written.
RETRY_S = 0.1
# Between two moves of what was written into the main file; nobody waits for it.
CHECKPOINT_S = 1.0
BUSY_S = 5.0

SCHEMA = """
CREATE TABLE entries (
    sequence INTEGER PRIMARY KEY,
    trigger INTEGER,            -- of a part; null: of the line
    camera TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN
        ('PENDING', 'OK', 'NG', 'UNINSPECTED', 'LATE', 'ALARM', 'CLEARED', 'NOTE')),
    at_ns INTEGER NOT NULL,     -- since 1970, UTC
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,       -- JSON
    chain BLOB NOT NULL         -- sha256 of the chain before and this entry
);
CREATE UNIQUE INDEX one_trigger ON entries (trigger) WHERE state = 'PENDING';
CREATE UNIQUE INDEX one_verdict ON entries (trigger) WHERE state IN ('OK', 'NG', 'UNINSPECTED');
CREATE TRIGGER no_change BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE TRIGGER no_removal BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger is only added to'); END;
CREATE INDEX late ON entries (trigger) WHERE state = 'LATE';
CREATE VIEW parts AS
    SELECT begun.trigger, begun.camera,
        CASE WHEN late.trigger IS NULL THEN COALESCE(ended.state, 'PENDING')
            ELSE 'UNINSPECTED' END AS state,
        begun.at_ns AS triggered_ns, COALESCE(late.at_ns, ended.at_ns) AS decided_ns,
        COALESCE(late.reason, ended.reason, '') AS reason,
        COALESCE(ended.detail, '{}') AS detail
    FROM entries AS begun
    LEFT JOIN entries AS ended
        ON ended.trigger = begun.trigger AND ended.state IN ('OK', 'NG', 'UNINSPECTED')
    LEFT JOIN entries AS late ON late.trigger = begun.trigger AND late.state = 'LATE'
    WHERE begun.state = 'PENDING';
"""


@dataclass(frozen=True)
class Entry:
    """One line of the ledger."""

    trigger: int | None
    camera: str
    state: str
    reason: str = ""
    detail: Mapping[str, Any] = field(default_factory=dict)
    at_ns: int = field(default_factory=time.time_ns)

    @property
    def is_verdict(self) -> bool:
        """Whether it ends a part."""
        return self.state in ("OK", "NG", UNINSPECTED)


@dataclass(eq=False)
class Waiting:
    """An entry on its way to the disk."""

    entry: Entry
    future: Future[Entry] = field(default_factory=Future)  # what was written, or will be
    is_being_written: bool = False
    is_given_up: bool = False  # UNINSPECTED was told already


class Ledger:
    """The file and the thread that writes it; its methods may be called from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        sync: Sync = "normal",
        reserve_bytes: int = 16 << 20,
        on_trouble: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Open a ledger, or begin one, and close what an earlier process left pending.

        Args:
            path: of the file; its folder must be there.
            sync: full: an entry is on the disk when it is told of, which takes some milliseconds;
                normal: it survives the end of the process, and is on the disk within a second.
            reserve_bytes: kept beside it, to be freed when the disk is full; 0: none.
            on_trouble: called from the thread with why nothing can be written, and with "" when it
                can again.
        Raises:
            ValueError: another process writes it, or it is no ledger.
            OSError: the disk is full already, or the folder cannot be written to.
        """
        self.path = path
        self._on_trouble = on_trouble
        self._trouble = ""
        self._reserve = _Reserve(path.with_name(f".{path.name}.reserve"), reserve_bytes)
        self._lock_file = _lock(path.with_name(f".{path.name}.lock"))
        try:
            self._connection = _connect(path, sync)
        except BaseException:
            os.close(self._lock_file)
            raise
        self._reserve.fill()
        last = self._connection.execute(
            "SELECT sequence, chain FROM entries ORDER BY sequence DESC LIMIT 1"
        ).fetchone()
        self._sequence, self._chain = last or (0, b"")
        found = self._connection.execute("SELECT MAX(trigger) FROM entries").fetchone()[0]
        self.last_trigger: int = found or 0
        self._queue: deque[Waiting] = deque()
        self._changed = threading.Condition()
        self._is_closing = False
        self._next_checkpoint_s = time.monotonic() + CHECKPOINT_S
        self._next_try_s = 0.0
        self.recovered = self._close_pending()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    @property
    def trouble(self) -> str:
        """Why verdicts cannot be relied on to be kept; empty: they can."""
        return self._trouble

    def append(self, entry: Entry) -> Waiting:
        """Have an entry written; its future has what was written, once it is.

        A verdict may come back as UNINSPECTED: the ledger could not be written when it should have
        been. Where nothing can be written at all, the entry stays in memory until it can.
        """
        waiting = Waiting(entry)
        with self._changed:
            self._queue.append(waiting)
            self._changed.notify()
        return waiting

    def give_up(self, waiting: Waiting) -> Entry:
        """Stop waiting for a verdict: what has to be told, and will be written, instead."""
        reason = "the ledger did not answer in time"
        with self._changed:
            waiting.is_given_up = True
            if waiting.is_being_written:
                # It may be on the disk as it was; what was told stands beside it, and counts.
                entry = waiting.entry
                told = f"{reason}: told as {UNINSPECTED}"
                self._queue.append(Waiting(Entry(entry.trigger, entry.camera, LATE, told)))
            return _uninspected(waiting.entry, reason)

    def close(self) -> None:
        """Write what waits, as far as that is possible, and close the file."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        with contextlib.suppress(sqlite3.Error):
            # The last one out moves all into the main file; on a full disk it stays where it is.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()
        self._reserve.remove()
        os.close(self._lock_file)

    def _close_pending(self) -> list[Entry]:
        rows = self._connection.execute(
            "SELECT trigger, camera FROM parts WHERE state = 'PENDING' ORDER BY trigger"
        ).fetchall()
        reason = "the line ended before its verdict"
        entries = [Entry(trigger, camera, UNINSPECTED, reason) for trigger, camera in rows]
        if entries:
            self._write(entries)
        return entries

    # The thread.

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._queue and not self._is_closing:
                    if not self._changed.wait(RETRY_S if self._trouble else CHECKPOINT_S):
                        break
                batch = list(self._queue)
                if not batch and self._is_closing:
                    return
                for waiting in batch:
                    waiting.is_being_written = True
            if batch and not self._write_batch(batch) and not self._wait_for_room():
                return
            self._look_after_disk()

    def _write_batch(self, batch: list[Waiting]) -> bool:
        """Write entries and tell; False: they still wait, and verdicts among them have changed."""
        entries = [self._degraded(waiting) for waiting in batch]
        try:
            self._write(entries)
        except sqlite3.IntegrityError as error:
            if len(batch) > 1:
                return all(self._write_batch([waiting]) for waiting in batch)
            # A second verdict, say: our mistake, which must not hold up the others.
            LOG.exception("an entry does not fit the ledger: %s", entries[0])
            entry, what = entries[0], f"{error}: {entries[0].state} {entries[0].reason}"
            batch[0].entry = Entry(entry.trigger, entry.camera, NOTE, what, entry.detail)
            return self._write_batch(batch)
        except sqlite3.Error as error:
            self._begin_trouble(f"the ledger cannot be written: {error}")
            if self._reserve.free():
                return self._write_batch(batch)
            for waiting in batch:
                waiting.entry = self._degraded(waiting)
                waiting.is_being_written = False
                if not waiting.future.done():
                    waiting.future.set_result(waiting.entry)
            return False
        with self._changed:
            for _ in batch:
                self._queue.popleft()
        for waiting, entry in zip(batch, entries, strict=True):
            if not waiting.future.done():
                waiting.future.set_result(entry)
        return True

    def _degraded(self, waiting: Waiting) -> Entry:
        """An entry as it stands while there is trouble, or after it took too long."""
        entry = waiting.entry
        if not entry.is_verdict or entry.state == UNINSPECTED:
            return entry
        if waiting.is_given_up:
            return _uninspected(entry, "the ledger did not answer in time")
        return _uninspected(entry, self._trouble) if self._trouble else entry

    def _write(self, entries: list[Entry]) -> None:
        sequence, chain = self._sequence, self._chain
        rows = []
        for entry in entries:
            sequence += 1
            detail = json.dumps(entry.detail, separators=(",", ":"), sort_keys=True)
            content = (
                *(sequence, entry.trigger, entry.camera, entry.state),
                *(entry.at_ns, entry.reason, detail),
            )
            chain = _link(chain, content)
            rows.append((*content, chain))
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            connection.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                # Where SQLite has done it by itself.
                connection.execute("ROLLBACK")
            raise
        self._sequence, self._chain = sequence, chain

    def _begin_trouble(self, what: str) -> None:
        if not self._trouble:
            self._trouble = what
            LOG.error("%s", what)
            self._on_trouble(what)

    def _wait_for_room(self) -> bool:
        """Pause before the next try; False: the line ends, and what waits cannot be written."""
        with self._changed:
            if self._is_closing:
                LOG.error("%d entries of %s are lost: %s", len(self._queue), self.path,
                          self._trouble)  # fmt: skip
                return False
        time.sleep(RETRY_S)
        return True

    def _look_after_disk(self) -> None:
        now = time.monotonic()
        if self._trouble and now >= self._next_try_s:
            self._next_try_s = now + RETRY_S
            if not self._queue and self._reserve.fill():
                self._trouble = ""
                self._on_trouble("")
        if now >= self._next_checkpoint_s:
            self._next_checkpoint_s = now + CHECKPOINT_S
            with contextlib.suppress(sqlite3.Error):
                # On a full disk it stays where it is until there is room.
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")


def _uninspected(entry: Entry, reason: str) -> Entry:
    reason = f"{reason}; it would have been {entry.state} ({entry.reason or 'good'})"
    return replace(entry, state=UNINSPECTED, reason=reason)


class _Reserve:
    """Room on the disk that is given back when there is none other."""

    def __init__(self, path: Path, num_bytes: int) -> None:
        self._path = path
        self._num_bytes = num_bytes

    def fill(self) -> bool:
        """Take the room; whether it is there."""
        if not self._num_bytes or self._path.exists():
            return True
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < 2 * self._num_bytes:
            return False
        try:
            descriptor = os.open(self._path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(descriptor, 0, self._num_bytes)
            finally:
                os.close(descriptor)
        except OSError:
            # Not a part of it: that would be room that the ledger needs.
            self.free()
            return False
        return True

    def free(self) -> bool:
        """Give it back; whether there was any."""
        try:
            self._path.unlink()
        except FileNotFoundError:
            return False
        return True

    def remove(self) -> None:
        """At the end."""
        self._path.unlink(missing_ok=True)


def _link(chain: bytes, content: tuple[Any, ...]) -> bytes:
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(chain + text.encode()).digest()


def _lock(path: Path) -> int:
    """Whoever holds it writes the ledger; the system lets go when the process ends."""
    import fcntl

    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"{path.parent} is in use by another line; give another output") from None
    return descriptor


def _connect(path: Path, sync: Sync) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(
            path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
        )
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={sync.upper()}")
        # In a commit it would make those wait who want to know of their entry.
        connection.execute("PRAGMA wal_autocheckpoint=0")
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            connection.executescript(f"BEGIN;{SCHEMA}COMMIT;")
    except sqlite3.DatabaseError as error:
        raise ValueError(f"{path} cannot be used as a ledger: {error}") from error
    return connection


def read(path: Path) -> sqlite3.Connection:
    """A connection that only reads; `parts` has a row for each trigger, `entries` all there is."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)


def count_states(path: Path, *, above: int = 0) -> dict[str, int]:
    """Parts by state; `above`: only triggers with a larger number."""
    with contextlib.closing(read(path)) as connection:
        rows = connection.execute(
            "SELECT state, COUNT(*) FROM parts WHERE trigger > ? GROUP BY state", (above,)
        )
        return dict(rows.fetchall())


def verify(path: Path) -> int:
    """Check the chain; the number of entries.

    Raises:
        ValueError: an entry was changed, removed or put in; its number is named.
    """
    with contextlib.closing(read(path)) as connection:
        chain, sequence = b"", 0
        for *content, found in _rows(connection):
            sequence += 1
            chain = _link(chain, tuple(content))
            if content[0] != sequence or found != chain:
                raise ValueError(
                    f"{path} was changed: entry {sequence} is not what follows the one before"
                )
    return sequence


def _rows(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    return connection.execute("SELECT * FROM entries ORDER BY sequence")
