"""Servers as processes: started on their core, watched, and ended with all their children."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

SERVER_CORES = (0,)
# Every process of a server carries it, also those that left its group.
MARK = "DEEPKITS_BENCHMARK_SERVER"
POLL_S = 0.005
STOP_S = 10.0
ROOT = Path(__file__).parents[2]
# One thread a session; none of the peers' report of use.
QUIET = {
    "OMP_NUM_THREADS": "1",
    "ORT_DISABLE_TELEMETRY": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "DO_NOT_TRACK": "1",
    "PYTHONUNBUFFERED": "1",
}


def free_port() -> int:
    """A port that nothing listens on at this moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@dataclass
class Running:
    """A server that answers."""

    port: int
    process: subprocess.Popen[bytes]
    mark: str
    ready_s: float  # from the start of its command to its first good answer
    log: IO[bytes]

    def pids(self) -> list[int]:
        """All its processes."""
        return marked(self.mark)

    def rss_mib(self) -> dict[int, float]:
        """Resident memory of each of its processes."""
        return {pid: rss for pid in self.pids() if (rss := rss_mib(pid)) is not None}

    def tail(self, size: int = 4000) -> str:
        """The end of what it printed."""
        return log_tail(self.log, size)


def log_tail(log: IO[bytes], size: int = 4000) -> str:
    """The end of a server's output."""
    log.seek(max(0, log.seek(0, os.SEEK_END) - size))
    return log.read().decode(errors="replace")


def marked(mark: str) -> list[int]:
    """Processes that carry a mark in their environment."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes()
            except OSError:
                continue  # it ended meanwhile, or is another user's
            if wanted in variables.split(b"\0"):
                found.append(int(entry.name))
    return sorted(found)


def rss_mib(pid: int) -> float | None:
    """Resident memory of a process; None if it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return None
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def get(port: int, path: str, timeout_s: float = 5.0) -> tuple[int, bytes]:
    """Status and body of a GET."""
    return ask(port, f"GET {path}", timeout_s=timeout_s)


def ask(
    port: int,
    what: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 30.0,
) -> tuple[int, bytes]:
    """Status and body of one request of its own connection; `what` as "POST /path"."""
    method, path = what.split(" ", 1)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    try:
        connection.request(method, path, body, dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def wait_ready(process: subprocess.Popen[bytes], port: int, path: str, limit_s: float) -> bool:
    """Until `path` answers 200; False: it ended, or took too long."""
    end = time.perf_counter() + limit_s
    while time.perf_counter() < end and process.poll() is None:
        try:
            if get(port, path)[0] == 200:
                return True
        except (OSError, http.client.HTTPException):
            pass  # not yet
        time.sleep(POLL_S)
    return False


@contextmanager
def running(
    command: Sequence[str],
    *,
    port: int,
    ready: str,
    environment: Mapping[str, str] | None = None,
    cores: Sequence[int] = SERVER_CORES,
    limit_s: float = 60.0,
) -> Iterator[Running]:
    """A server from its first good answer on; all its processes are gone afterwards.

    Raises:
        RuntimeError: it did not answer within `limit_s`; the end of its output follows.
    """
    mark = uuid.uuid4().hex
    variables = {**os.environ, **QUIET, **(environment or {}), MARK: mark}
    with tempfile.TemporaryFile() as log, tempfile.TemporaryDirectory() as folder:
        # Its modules stay compiled, as those of an installed package are.
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        # What a server leaves behind goes with the folder.
        variables |= {"TMPDIR": folder, "RAY_TMPDIR": folder}
        allowed = os.sched_getaffinity(0)
        # Children inherit it; a function run between fork and exec is not safe beside threads.
        os.sched_setaffinity(0, set(cores) & allowed or allowed)
        try:
            started = time.perf_counter()
            process = subprocess.Popen(
                command, cwd=ROOT, env=variables, stdin=subprocess.DEVNULL, stdout=log,
                stderr=log, start_new_session=True,
            )  # fmt: skip
        finally:
            os.sched_setaffinity(0, allowed)
        try:
            if not wait_ready(process, port, ready, limit_s):
                raise RuntimeError(
                    f"{' '.join(command)}: {ready} did not answer 200 within {limit_s} s "
                    f"(status {process.poll()}):\n{log_tail(log)}"
                )
            yield Running(port, process, mark, time.perf_counter() - started, log)
        finally:
            end_all(process, mark)


def end_all(process: subprocess.Popen[bytes], mark: str) -> None:
    """SIGTERM to the first process, SIGKILL to whatever is left of its kind after a while."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            print(f"process {process.pid} did not end in {STOP_S} s: killed", file=sys.stderr)
    while left := marked(mark):
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if process.poll() is None:
            process.wait(STOP_S)
        time.sleep(0.05)
