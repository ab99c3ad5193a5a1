import builtins
import subprocess
import sys
import threading

import pytest

from core.serve.traces import Traces

export = pytest.importorskip("opentelemetry.sdk.trace.export", reason="pip install '.[otel]'")

REQUEST = {
    "name": "POST /v2/models/{model}/infer",
    "seconds": 0.010,
    "ended_ns": 1_000_000_000_000,
    "attributes": {"http.request.method": "POST", "model": "fraud"},
}
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture
def spans():
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    return InMemorySpanExporter()


def finished(traces, spans):
    traces.close()
    return {span.name: span for span in spans.get_finished_spans()}


def test_a_request_holds_its_queue_and_its_compute(spans):
    traces = Traces(spans)
    trace = traces.request(**REQUEST, status=200, queue_s=0.002, compute_s=0.005, encode_s=0.001)
    parts = finished(traces, spans)
    request, queue, compute = (parts[name] for name in (REQUEST["name"], "queue", "compute"))
    assert len(parts) == 3
    assert trace == f"{request.context.trace_id:032x}"
    assert request.parent is None
    assert queue.parent.span_id == compute.parent.span_id == request.context.span_id
    end = REQUEST["ended_ns"]
    assert (request.start_time, request.end_time) == (end - 10_000_000, end)
    assert (queue.start_time, queue.end_time) == (end - 8_000_000, end - 6_000_000)
    assert (compute.start_time, compute.end_time) == (end - 6_000_000, end - 1_000_000)
    assert request.attributes["model"] == "fraud"
    assert request.status.is_ok or request.status.is_unset
    assert request.resource.attributes["service.name"] == "deepkits"


def test_the_trace_of_the_caller_is_continued(spans):
    traces = Traces(spans)
    trace = traces.request(**REQUEST, traceparent=f"00-{TRACE}-{PARENT}-01", tracestate="a=1")
    (span,) = finished(traces, spans).values()
    assert trace == TRACE
    assert f"{span.parent.span_id:016x}" == PARENT
    assert span.context.trace_state.get("a") == "1"


def test_what_the_caller_does_not_keep_is_not_kept_here(spans):
    traces = Traces(spans)
    trace = traces.request(**REQUEST, traceparent=f"00-{TRACE}-{PARENT}-00", queue_s=0.0)
    assert trace == TRACE
    assert finished(traces, spans) == {}


@pytest.mark.parametrize("traceparent", ["", "nonsense", f"00-{'0' * 32}-{PARENT}-01", "\x00"])
def test_without_a_valid_parent_a_trace_begins(spans, traceparent):
    traces = Traces(spans)
    trace = traces.request(**REQUEST, traceparent=traceparent)
    (span,) = finished(traces, spans).values()
    assert span.parent is None
    assert int(trace, 16) not in (0, int(TRACE, 16))


@pytest.mark.parametrize(
    ("status", "code", "is_error"), [(429, "overloaded", False), (504, "deadline", True)]
)
def test_a_failure_says_which(spans, status, code, is_error):
    from opentelemetry.trace import StatusCode

    traces = Traces(spans)
    traces.request(**REQUEST, status=status, code=code)
    (span,) = finished(traces, spans).values()
    assert span.attributes["error.type"] == code
    assert (span.status.status_code is StatusCode.ERROR) == is_error


def test_the_usual_variables_name_the_service_and_the_sampler(spans, monkeypatch):
    monkeypatch.setenv("OTEL_SERVICE_NAME", "scoring")
    traces = Traces(spans)
    traces.request(**REQUEST)
    (span,) = finished(traces, spans).values()
    assert span.resource.attributes["service.name"] == "scoring"
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    spans.clear()
    traces = Traces(spans)
    traces.request(**REQUEST)
    assert finished(traces, spans) == {}


def test_the_usual_variables_name_the_exporter(monkeypatch, capfd):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    Traces().close()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "zipkin")
    with pytest.raises(ValueError, match="'zipkin' is not one of otlp, console, none"):
        Traces()
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    with pytest.raises(ValueError, match="'grpc' is not what is installed; take http/protobuf"):
        Traces()


def test_spans_are_sent_to_a_collector(monkeypatch):
    from http.server import BaseHTTPRequestHandler, HTTPServer

    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    bodies = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self):
            bodies.append((self.path, self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *words):
            pass

    server = HTTPServer(("127.0.0.1", 0), Collector)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        traces = Traces()
        traces.request(**REQUEST, queue_s=0.001, compute_s=0.001)
        traces.close()
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    ((path, body),) = bodies
    assert path == "/v1/traces"
    (of_service,) = ExportTraceServiceRequest.FromString(body).resource_spans
    assert [span.name for span in of_service.scope_spans[0].spans] == [
        "queue",
        "compute",
        REQUEST["name"],
    ]


def test_a_collector_that_does_not_answer_does_not_hold_the_end_up(monkeypatch):
    from opentelemetry.sdk.trace.export import SpanExporter

    asked, over = threading.Event(), threading.Event()

    class Hung(SpanExporter):
        def export(self, spans):
            asked.set()
            over.wait(60)

    monkeypatch.setattr("core.serve.traces.CLOSE_S", 0.1)
    traces = Traces(Hung())
    traces.request(**REQUEST)
    traces.close()
    assert asked.wait(60)
    over.set()


def test_without_the_package_the_error_names_the_extra(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("opentelemetry"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match=r"pip install '\.\[otel\]'"):
        Traces()


def test_the_module_alone_loads_no_opentelemetry():
    program = "import sys, core.serve.traces; sys.exit('opentelemetry' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
