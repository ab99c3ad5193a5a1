"""What became of a request, told to metrics, statistics, the access log and traces in one place."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from core.serve.access_log import AccessLog
from core.serve.config import ServeConfig
from core.serve.engine import Answer, Call, Served
from core.serve.metadata import Statistics
from core.serve.metrics import Metrics
from core.serve.oip import Request

if TYPE_CHECKING:
    from core.serve.traces import Traces


@dataclass(slots=True)
class Exchange:
    """One inference request, and what is known of it so far."""

    path: str
    headers: Mapping[bytes, bytes]
    model: str
    version: str
    protocol: str  # rest, binary, predict or grpc
    started_s: float
    tenant: str = ""
    id: str = ""
    call: Call | None = None  # once it is decoded
    request: Request | None = None  # of the Open Inference Protocol: how to encode the answer
    answer: Answer | None = None
    computed_s: float = 0.0  # when the answer was there
    held_bytes: int = 0  # of the budget for bodies
    received_bytes: int = 0
    sent_bytes: int = 0
    status: int = 200
    code: str = "ok"


class Recorder:
    """Hears of every request when it is over."""

    def __init__(
        self,
        config: ServeConfig,
        metrics: Metrics,
        statistics: Statistics,
        catalogue: Callable[[], Sequence[Served]],
    ) -> None:
        self._metrics = metrics
        self._statistics = statistics
        self._catalogue = catalogue
        self._log = AccessLog(on_dropped=metrics.log_dropped) if config.access_log else None
        self._traces = _open_traces() if config.traces else None

    @property
    def statistics(self) -> Statistics:
        """Of all protocols together."""
        return self._statistics

    def close(self) -> None:
        """Write and send what waits."""
        if self._log is not None:
            self._log.close()
        if self._traces is not None:
            self._traces.close()

    def finish(self, at: Exchange) -> None:
        """An inference is over."""
        now_s = time.perf_counter()
        seconds = now_s - at.started_s
        answer, queue_s = at.answer, 0.0
        model, version = (answer.model, answer.version) if answer else (at.model, at.version)
        if answer is not None and at.code == "ok":
            queue_s = answer.queue_s
            self._statistics.succeed((model, version), seconds, queue_s, answer.compute_s)
        else:
            self._statistics.fail(self._catalogue(), model, version, seconds)
        self._metrics.request(model, version, at.protocol, at.code, seconds)
        trace = self._trace(at, seconds, now_s) if self._traces is not None else ""
        if self._log is not None:
            self._log.request(
                method="POST",
                path=at.path,
                protocol=at.protocol,
                status=at.status,
                code=at.code,
                seconds=seconds,
                id=at.id or at.headers.get(b"x-request-id", b"").decode("latin-1"),
                tenant=at.tenant,
                model=model,
                version=version,
                received_bytes=at.received_bytes,
                sent_bytes=at.sent_bytes,
                queue_s=queue_s,
                batch=answer.batch_rows if answer else 0,
                trace=trace,
            )

    def finish_other(
        self, method: str, path: str, status: int, started_s: float, tenant: str
    ) -> None:
        """A request for something else is over."""
        if self._log is not None:
            self._log.request(
                method=method,
                path=path,
                protocol="http",
                status=status,
                code="ok" if status < 400 else _word(status),
                seconds=time.perf_counter() - started_s,
                tenant=tenant,
            )

    def _trace(self, at: Exchange, seconds: float, now_s: float) -> str:
        assert self._traces is not None
        answer = at.answer
        model, version = (answer.model, answer.version) if answer else (at.model, at.version)
        kind = "predict" if at.protocol == "predict" else "infer"
        return self._traces.request(
            name=f"{kind} {model}" if answer else kind,
            seconds=seconds,
            ended_ns=time.time_ns(),
            attributes={
                "http.request.method": "POST",
                "http.response.status_code": at.status,
                "url.path": at.path,
                "deepkits.model": model,
                "deepkits.version": version,
                "deepkits.protocol": at.protocol,
                "deepkits.tenant": at.tenant,
            },
            code=at.code,
            status=at.status,
            queue_s=answer.queue_s if answer else None,
            compute_s=answer.compute_s if answer else 0.0,
            encode_s=now_s - at.computed_s if answer else 0.0,
            traceparent=at.headers.get(b"traceparent", b"").decode("latin-1"),
            tracestate=at.headers.get(b"tracestate", b"").decode("latin-1"),
        )


def _word(status: int) -> str:
    return HTTPStatus(status).phrase.lower().replace(" ", "_")


def _open_traces() -> Traces:
    # OpenTelemetry is an extra.
    from core.serve.traces import Traces

    return Traces()
