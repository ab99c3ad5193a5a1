"""Prometheus metrics of a service."""

from __future__ import annotations

from collections.abc import Sequence


class Metrics:
    """One registry of a service; cheap enough for each request (a few microseconds)."""

    def request(self, model: str, version: str, protocol: str, code: str, seconds: float) -> None:
        """A request was answered: protocol rest, binary, predict or grpc; code ok or an error's."""
        raise NotImplementedError

    def batch(
        self, model: str, rows: int, queue_s: Sequence[float], seconds: float, worker: str
    ) -> None:
        """A batch was computed (signature of Pool.on_batch)."""
        raise NotImplementedError

    def waiting(self, jobs: int) -> None:
        """How many requests wait."""
        raise NotImplementedError

    def workers(self, ready: int, wanted: int) -> None:
        """How many workers there are and should be."""
        raise NotImplementedError

    def worker_death(self) -> None:
        """A worker died and is replaced."""
        raise NotImplementedError

    def model(self, name: str, version: str, state: str) -> None:
        """A version changed its state; "gone" takes it out."""
        raise NotImplementedError

    def reload(self, model: str, result: str) -> None:
        """A hot reload ended: ok, unchanged or rolled_back."""
        raise NotImplementedError

    def render(self) -> tuple[bytes, str]:
        """The page for Prometheus, and its content type."""
        raise NotImplementedError
