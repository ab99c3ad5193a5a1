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
from core.serve.engine import Answer, Call, Engine
from core.serve.errors import BadRequest, ServeError
from core.serve.exchange import Exchange, Recorder
from core.serve.limits import BODY_TIMEOUT_S, Receive, read_body, until_disconnect
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
# Nobody is left to read it, but logs and metrics have it.
GONE = 499
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
        self._timeout_s = config.timeout_s
        statistics = Statistics()
        self._recorder = Recorder(config, metrics, statistics, engine.catalogue)
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
            path: str = scope["path"]
            if scope["method"] == "POST":
                if path.endswith("/infer") and path.startswith("/v2/models/"):
                    await self._compute(scope, receive, send, path[11:-6], "rest")
                    return
                if path.endswith("/predict") and path.startswith("/models/"):
                    await self._compute(scope, receive, send, path[8:-8], "predict")
                    return
            await self._route(scope, receive, send)
        elif scope["type"] == "lifespan":
            await _live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _compute(
        self, scope: Scope, receive: Receive, send: Send, target: str, protocol: str
    ) -> None:
        model, _, version = target.partition("/versions/")
        headers = dict(scope["headers"])
        at = Exchange(scope["path"], headers, model, version, protocol, time.perf_counter())
        extra: HeaderList
        try:
            at.tenant = self._guard.admit(headers)
            body = await read_body(receive, headers, self._max_bytes, BODY_TIMEOUT_S)
            at.received_bytes = len(body)
            if protocol == "rest":
                content, extra = await self._infer(at, body, receive)
            else:
                content, extra = await self._predict(at, body, receive), [JSON]
        except ServeError as error:
            at.status, at.code = error.status, error.code
            content, extra = _refusal(error)
        except asyncio.CancelledError:
            at.status, at.code = GONE, "cancelled"
            self._recorder.finish(at)
            raise
        except Exception:
            log.exception("a request for model %r failed", at.model)
            at.status, at.code = 500, "internal"
            content, extra = _refusal(ServeError("the service failed; its log says why"))
        if at.status != GONE:
            at.sent_bytes = len(content)
            extra.append((b"content-length", b"%d" % len(content)))
            await send({"type": "http.response.start", "status": at.status, "headers": extra})
            await send({"type": "http.response.body", "body": content})
        self._recorder.finish(at)

    async def _infer(self, at: Exchange, body: bytes, receive: Receive) -> tuple[bytes, HeaderList]:
        header_size = at.headers.get(b"inference-header-content-length")
        if header_size is None:
            request = oip.decode(body)
        else:
            at.protocol = "binary"
            if not header_size.isdigit() or len(header_size) > 18:
                raise BadRequest(
                    f"Inference-Header-Content-Length={oip.shown(header_size)} is not a size"
                )
            request = oip.decode(body, int(header_size))
        at.id = request.id
        answer = await self._ask(at, receive, request.inputs, request.timeout_s, request.priority)
        content, size = oip.encode(answer.outputs, request, answer.model, answer.version)
        if size is None:
            return content, [JSON]
        return content, [BYTES, (b"inference-header-content-length", b"%d" % size)]

    async def _predict(self, at: Exchange, body: bytes, receive: Receive) -> bytes:
        content = oip.parse_json(body)
        service = self._services.get(at.model)
        if service is None:
            inputs = predict.decode(content, self._engine.find(at.model, at.version).inputs)
        else:
            try:
                inputs = service.decode(content)
            except ValueError as error:
                raise BadRequest(str(error)) from None
        outputs = (await self._ask(at, receive, inputs)).outputs
        encoded = predict.encode(outputs) if service is None else service.encode(outputs)
        return orjson.dumps(encoded, option=orjson.OPT_SERIALIZE_NUMPY)

    async def _ask(
        self,
        at: Exchange,
        receive: Receive,
        inputs: Mapping[str, Any],
        timeout_s: float | None = None,
        priority: int = 0,
    ) -> Answer:
        if given := at.headers.get(TIMEOUT_HEADER):
            header_s = _timeout(given)
            timeout_s = header_s if timeout_s is None else min(timeout_s, header_s)
        if timeout_s is not None:
            timeout_s = min(timeout_s, self._timeout_s)
        call = Call(at.model, inputs, at.version, timeout_s, priority, at.tenant, at.id)
        at.answer = await until_disconnect(self._engine.infer(call), receive)
        at.computed_s = time.perf_counter()
        return at.answer

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
