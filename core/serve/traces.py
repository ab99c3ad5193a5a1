"""OpenTelemetry traces of a service: request, and in it queue and compute."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter

INSTALL = "traces=true needs OpenTelemetry; pip install '.[otel]', or leave traces out"
CLOSE_S = 5.0


class Traces:
    """Spans of answered requests, sent off by a thread of the SDK.

    A request's spans are made when it is over: nothing has to travel through the scheduler, and
    the answer does not wait for them. They take some 80 us of the server's time all the same;
    OTEL_TRACES_SAMPLER=traceidratio with OTEL_TRACES_SAMPLER_ARG=0.01 keeps one in a hundred.
    OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_SERVICE_NAME and the others mean what they mean everywhere.

    Args:
        exporter: instead of the one OTEL_TRACES_EXPORTER names (otlp, console, none).
    Raises:
        ValueError: the packages are missing, or the variable names something else.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        try:
            from opentelemetry.sdk.resources import Resource
            from opentelemetry.sdk.trace import TracerProvider
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
            from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
            from opentelemetry.trace.propagation.tracecontext import (
                TraceContextTextMapPropagator,
            )
        except ImportError as error:
            raise ValueError(INSTALL) from error
        name = os.environ.get("OTEL_SERVICE_NAME", "deepkits")
        # Closed by the service, which knows when its last request is over; not at exit.
        self._provider = TracerProvider(
            resource=Resource.create({"service.name": name}), shutdown_on_exit=False
        )
        exporter = exporter or _exporter()
        if exporter:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("core.serve")
        self._extract = TraceContextTextMapPropagator().extract
        self._inside = set_span_in_context
        self._server, self._failed = SpanKind.SERVER, Status(StatusCode.ERROR)

    def request(
        self,
        *,
        name: str,
        seconds: float,
        ended_ns: int,
        attributes: Mapping[str, str | int | float],
        code: str = "ok",
        status: int = 200,
        queue_s: float | None = None,
        compute_s: float = 0.0,
        encode_s: float = 0.0,
        traceparent: str = "",
        tracestate: str = "",
    ) -> str:
        """A request was answered at `ended_ns` (time.time_ns()); gives the trace id in hex.

        `queue_s` is None where it was refused before it could wait; `encode_s` lies between the
        end of computing and that of the request. `traceparent` and `tracestate` are the caller's
        headers: its trace is continued, and its decision what to keep holds.
        """
        span = self._tracer.start_span(
            name,
            context=self._extract({"traceparent": traceparent, "tracestate": tracestate}),
            kind=self._server,
            start_time=ended_ns - int(seconds * 1e9),
            attributes=dict(attributes),
        )
        if status >= 500:
            span.set_status(self._failed)
        if code != "ok":
            span.set_attribute("error.type", code)
        if queue_s is not None and span.is_recording():
            inside = self._inside(span)
            computed_ns = ended_ns - int(encode_s * 1e9)
            started_ns = computed_ns - int(compute_s * 1e9)
            queued_ns = started_ns - int(queue_s * 1e9)
            for part, since, until in (
                ("queue", queued_ns, started_ns),
                ("compute", started_ns, computed_ns),
            ):
                self._tracer.start_span(part, inside, start_time=since).end(until)
        span.end(ended_ns)
        return f"{span.get_span_context().trace_id:032x}"

    def close(self) -> None:
        """Send what is left, within some seconds; what nobody takes by then is lost."""
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)


def _exporter() -> SpanExporter | None:
    name = os.environ.get("OTEL_TRACES_EXPORTER", "otlp")
    if name == "none":
        return None
    if name == "console":
        from opentelemetry.sdk.trace.export import ConsoleSpanExporter

        return ConsoleSpanExporter()
    if name != "otlp":
        raise ValueError(f"OTEL_TRACES_EXPORTER={name!r} is not one of otlp, console, none")
    protocol = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or os.environ.get(
        "OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"
    )
    if protocol != "http/protobuf":
        raise ValueError(
            f"OTEL_EXPORTER_OTLP_PROTOCOL={protocol!r} is not what is installed; take http/protobuf"
        )
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    except ImportError as error:
        raise ValueError(INSTALL) from error
    return OTLPSpanExporter()
