"""The service over HTTP: Open Inference Protocol, typed endpoints, health, metrics, pages.

Inference is a plain ASGI endpoint in front of everything else: at a thousand requests a second a
router, its middleware and a validation library would cost more than the model.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import MappingProxyType
from typing import Any

import orjson

from core.kit import Service
from core.serve import oip, predict
from core.serve.config import ServeConfig
from core.serve.engine import Answer, Arrays, Call, Engine
from core.serve.errors import BadRequest, ServeError
from core.serve.exchange import Exchange, Recorder
from core.serve.limits import (
    Budget,
    Receive,
    check_length,
    check_size,
    read_body,
    until_disconnect,
)
from core.serve.metadata import Statistics
from core.serve.metrics import Metrics
from core.serve.routes import HEALTH, PAGES, make_routes
from core.serve.security import Guard

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Services = Mapping[str, Service[Any, Any]]
HeaderList = list[tuple[bytes, bytes]]

JSON = (b"content-type", b"application/json")
BYTES = (b"content-type", b"application/octet-stream")
TIMEOUT_HEADER = b"x-request-timeout-ms"
# Of the largest size, until they are answered; smaller ones may be as many more.
HELD_BODIES = 16
# Nobody is left to read it, but logs and metrics have it.
GONE = 499
# In a scope: an `Exchange` that was begun already.
BEGUN = "deepkits.begun"
log = logging.getLogger(__name__)


def build_app(
    engine: Engine,
    config: ServeConfig,
    metrics: Metrics,
    services: Services = MappingProxyType({}),
) -> App:
    """The service as an ASGI application.

    Args:
        engine: started by the caller; requests are answered with 503 until it is ready.
        config: of the service.
        metrics: gets each inference, and is what GET /metrics shows.
        services: kits' own shapes of POST /models/{name}/predict, by the model's name.
    Raises:
        ValueError: the file of tokens is not what it must be, or traces need what is not installed.
    """
    return App(engine, config, metrics, services)


class App:
    """ASGI application; one for each service."""

    def __init__(
        self, engine: Engine, config: ServeConfig, metrics: Metrics, services: Services
    ) -> None:
        self._engine = engine
        self._services = services
        self._guard = Guard.of(config)
        self._max_bytes = int(config.max_body_mib * 2**20)
        self._budget = Budget(HELD_BODIES * self._max_bytes)
        self._timeout_s = config.timeout_s
        statistics = Statistics()
        self._recorder = Recorder(config, metrics, statistics, engine.catalogue)
        # Not every engine can.
        self._infer_now: Callable[[Call], Answer | None] | None = getattr(engine, "infer_now", None)
        self._routes = make_routes(engine, metrics, services, statistics)

    @property
    def recorder(self) -> Recorder:
        """Where other protocols tell of their requests as well."""
        return self._recorder

    def close(self) -> None:
        """Write and send what log and traces still hold; after the last request."""
        self._recorder.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http":
            if scope["method"] == "POST":
                target, protocol = _target(scope["path"])
                if protocol:
                    await self._compute(scope, receive, send, target, protocol)
                    return
            await self._route(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _compute(
        self, scope: Scope, receive: Receive, send: Send, target: str, protocol: str
    ) -> None:
        at = scope.get(BEGUN) or _begin(scope["path"], scope["headers"], target, protocol)
        try:
            if at.call is None:
                at.tenant = self._guard.admit(at.headers)
                body = await read_body(receive, at.headers, self._max_bytes, self._budget)
                at.held_bytes = len(body)
                self._decode(at, body)
            assert at.call is not None
            answer = await until_disconnect(self._engine.infer(at.call), receive)
            content, extra = self._encode(at, answer)
        except asyncio.CancelledError:
            at.status, at.code = GONE, "cancelled"
            self._recorder.finish(at)
            raise
        except Exception as error:  # noqa: BLE001 - logged; the caller is told that it failed
            content, extra = _fail(at, error)
        finally:
            self._budget.give(at.held_bytes)
        if at.status != GONE:
            at.sent_bytes = len(content)
            extra.append((b"content-length", b"%d" % len(content)))
            await send({"type": "http.response.start", "status": at.status, "headers": extra})
            await send({"type": "http.response.body", "body": content})
        self._recorder.finish(at)

    def answer_now(
        self, path: str, headers: HeaderList, body: bytes
    ) -> Exchange | tuple[int, bytes, HeaderList] | None:
        """Answer a POST request at once, if nothing has to be waited for.

        Args:
            path: of the request, without its query.
            headers: lower-case names.
            body: all of it.
        Returns:
            Status, content and headers of the answer; or what is known of the request so far, for
            `__call__` to go on with (as `BEGUN` in its scope); None: it is not even an inference.
        """
        target, protocol = _target(path)
        if not protocol or self._infer_now is None:
            return None
        at = _begin(path, headers, target, protocol)
        try:
            at.tenant = self._guard.admit(at.headers)
            check_length(at.headers, self._max_bytes)
            check_size(body, self._max_bytes)
            self._decode(at, body)
            assert at.call is not None
            answer = self._infer_now(at.call)
            if answer is None:
                self._budget.take(len(body))
                at.held_bytes = len(body)
                return at
            content, extra = self._encode(at, answer)
        except Exception as error:  # noqa: BLE001 - logged; the caller is told that it failed
            content, extra = _fail(at, error)
        at.sent_bytes = len(content)
        extra.append((b"content-length", b"%d" % len(content)))
        self._recorder.finish(at)
        return at.status, content, extra

    def _decode(self, at: Exchange, body: bytes) -> None:
        """The body as a call to the engine."""
        at.received_bytes = len(body)
        timeout_s, priority = None, 0
        if at.protocol == "predict":
            inputs = self._decode_typed(at, body)
        else:
            request = at.request = self._decode_request(at, body)
            at.id, timeout_s, priority = request.id, request.timeout_s, request.priority
            inputs = request.inputs
        if given := at.headers.get(TIMEOUT_HEADER):
            header_s = _timeout(given)
            timeout_s = header_s if timeout_s is None else min(timeout_s, header_s)
        if timeout_s is not None:
            timeout_s = min(timeout_s, self._timeout_s)
        at.call = Call(at.model, inputs, at.version, timeout_s, priority, at.tenant, at.id)

    def _decode_request(self, at: Exchange, body: bytes) -> oip.Request:
        header_size = at.headers.get(b"inference-header-content-length")
        if header_size is None:
            return oip.decode(body)
        at.protocol = "binary"
        if not header_size.isdigit() or len(header_size) > 18:
            raise BadRequest(
                f"Inference-Header-Content-Length={oip.shown(header_size)} is not a size"
            )
        return oip.decode(body, int(header_size))

    def _decode_typed(self, at: Exchange, body: bytes) -> Arrays:
        content = oip.parse_json(body)
        service = self._services.get(at.model)
        if service is None:
            return predict.decode(content, self._engine.find(at.model, at.version).inputs)
        try:
            return service.decode(content)
        except ValueError as error:
            raise BadRequest(str(error)) from None

    def _encode(self, at: Exchange, answer: Answer) -> tuple[bytes, HeaderList]:
        """The answer as a body and its headers."""
        at.answer = answer
        at.computed_s = time.perf_counter()
        if at.request is None:
            service = self._services.get(at.model)
            outputs = answer.outputs
            encoded = predict.encode(outputs) if service is None else service.encode(outputs)
            return orjson.dumps(encoded, option=orjson.OPT_SERIALIZE_NUMPY), [JSON]
        content, size = oip.encode(answer.outputs, at.request, answer.model, answer.version)
        if size is None:
            return content, [JSON]
        return content, [BYTES, (b"inference-header-content-length", b"%d" % size)]

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in HEALTH:
            await self._admit(scope, receive, send, is_open=True)
            return
        started_s, status, tenant = time.perf_counter(), 500, ""

        async def watch(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            tenant = await self._admit(scope, receive, watch, is_open=False)
        finally:
            self._recorder.finish_other(scope["method"], path, status, started_s, tenant)

    async def _admit(self, scope: Scope, receive: Receive, send: Send, *, is_open: bool) -> str:
        """Route a request that may pass; gives the name of its token."""
        headers = dict(scope["headers"])
        tenant = ""
        try:
            if is_open:
                self._guard.check_site(headers)
            else:
                tenant = self._guard.admit(headers, basic=scope["method"] in ("GET", "HEAD"))
        except ServeError as error:
            # A browser asks its person for a token where it opens a page, not where a page asks.
            scheme = b"Basic" if scope["path"] in PAGES else b"Bearer"
            content, extra = _refusal(error, scheme)
            extra.append((b"content-length", b"%d" % len(content)))
            await send({"type": "http.response.start", "status": error.status, "headers": extra})
            await send({"type": "http.response.body", "body": content})
        else:
            await self._routes(scope, receive, send)
        return tenant


def _target(path: str) -> tuple[str, str]:
    """Which model a path asks, and how; no protocol: it is not an inference."""
    if path.endswith("/infer") and path.startswith("/v2/models/"):
        return path[11:-6], "rest"
    if path.endswith("/predict") and path.startswith("/models/"):
        return path[8:-8], "predict"
    return "", ""


def _begin(path: str, headers: HeaderList, target: str, protocol: str) -> Exchange:
    model, _, version = target.partition("/versions/")
    return Exchange(path, dict(headers), model, version, protocol, time.perf_counter())


def _fail(at: Exchange, error: Exception) -> tuple[bytes, HeaderList]:
    """An answer without a result."""
    if isinstance(error, ServeError):
        at.status, at.code = error.status, error.code
        return _refusal(error)
    log.error("a request for model %r failed", at.model, exc_info=error)
    at.status, at.code = 500, "internal"
    return _refusal(ServeError("the service failed; its log says why"))


def _refusal(error: ServeError, scheme: bytes = b"Bearer") -> tuple[bytes, HeaderList]:
    headers = [JSON]
    if error.status in (429, 503):
        headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s or 0))))
    elif error.status == 401:
        headers.append((b"www-authenticate", scheme + b' realm="deepkits"'))
    return orjson.dumps({"error": str(error)}), headers


def _timeout(given: bytes) -> float:
    if not given.isdigit() or len(given) > 12 or not int(given):
        raise BadRequest(
            f"X-Request-Timeout-Ms={oip.shown(given)} is not a whole number of milliseconds above 0"
        )
    return int(given) / 1e3


async def _live(receive: Receive, send: Send) -> None:
    """The engine starts and stops by its owner's hand; here is nothing to do."""
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
