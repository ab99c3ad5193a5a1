"""All requests but inference: metadata, repository, health, metrics, pages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import orjson
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from core.kit import Service
from core.serve import metadata, predict
from core.serve.engine import Engine, Served
from core.serve.errors import BadRequest, NotFound, ServeError
from core.serve.limits import Budget, read_body
from core.serve.metadata import Statistics
from core.serve.metrics import Metrics
from core.serve.oip import parse_json, shown
from core.serve.openapi import docs_page, openapi
from core.serve.page.files import FILES, read_page
from core.serve.security import PAGE_HEADERS

HEALTH = frozenset({"/live", "/ready", "/startup", "/v2/health/live", "/v2/health/ready"})
# What a person's browser opens, and what these pages load.
PAGES = frozenset({"/docs", "/openapi.json", *FILES})
MAX_BYTES = 2**16
BODY_TIMEOUT_S = 10.0

Services = Mapping[str, Service[Any, Any]]
Endpoint = Callable[[Request], Awaitable[Response]]


def make_routes(
    engine: Engine, metrics: Metrics, services: Services, statistics: Statistics
) -> Starlette:
    """The application behind the one of inference; it asks for no token itself."""
    models = Models(engine, statistics)
    routes = [
        *_health(engine),
        Route("/v2", models.server),
        Route("/v2/models/stats", models.statistics),
        Route("/v2/repository/index", models.index, methods=["POST"]),
        Route("/v2/repository/models/{name}/load", models.load, methods=["POST"]),
        Route("/v2/repository/models/{name}/unload", models.unload, methods=["POST"]),
        Route("/models/{name}/example", _example(engine, services)),
        *_pages(engine, metrics, services),
    ]
    for what, endpoint in (
        ("", models.describe),
        ("/ready", models.ready),
        ("/config", models.configuration),
        ("/stats", models.statistics),
    ):
        routes.append(Route("/v2/models/{name}" + what, endpoint))
        routes.append(Route("/v2/models/{name}/versions/{version}" + what, endpoint))
    return Starlette(
        routes=routes,
        # What nobody expected is also raised again, for the server's log.
        exception_handlers={ServeError: _refused, HTTPException: _no_route, Exception: _failed},
    )


def as_json(content: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(content), status, headers, "application/json")


class Models:
    """Endpoints of the Open Inference Protocol that say what there is."""

    def __init__(self, engine: Engine, statistics: Statistics) -> None:
        self._engine = engine
        self._statistics = statistics

    async def server(self, _: Request) -> Response:
        """GET /v2."""
        return as_json(metadata.server())

    async def describe(self, request: Request) -> Response:
        """GET /v2/models/{name}."""
        served = self._find(request)
        versions = [each.version for each in self._all(served.name)]
        return as_json(metadata.model(served, versions))

    async def ready(self, request: Request) -> Response:
        """GET /v2/models/{name}/ready."""
        served = self._find(request)
        return as_json({"name": served.name, "version": served.version, "ready": True})

    async def configuration(self, request: Request) -> Response:
        """GET /v2/models/{name}/config."""
        return as_json(metadata.configuration(self._find(request)))

    async def statistics(self, request: Request) -> Response:
        """GET /v2/models/stats, of all versions, or of those that the path names."""
        name, version = _named(request)
        if not name:
            return as_json(self._statistics.tell(self._engine.catalogue()))
        found = [each for each in self._all(name) if version in ("", each.version)]
        if not found:
            self._engine.find(name, version)
        return as_json(self._statistics.tell(found))

    async def index(self, request: Request) -> Response:
        """POST /v2/repository/index."""
        content = await _content(request)
        ready_only = content.get("ready", False)
        if type(ready_only) is not bool:
            raise BadRequest(f"ready={shown(ready_only)}, it must be true or false")
        return as_json(metadata.index(self._engine.catalogue(), ready_only=ready_only))

    async def load(self, request: Request) -> Response:
        """POST /v2/repository/models/{name}/load: the configured file again, never another."""
        name, _ = _named(request)
        content = await _content(request)
        if parameters := content.get("parameters"):
            raise BadRequest(
                f"parameters={shown(parameters)}: a model is loaded from the file that the service "
                "was started with; leave them out"
            )
        if not self._all(name):
            self._engine.find(name)
        served = await self._engine.reload(name)
        return as_json({"name": served.name, "version": served.version, "state": "READY"})

    async def unload(self, request: Request) -> Response:
        """POST /v2/repository/models/{name}/unload."""
        name, _ = _named(request)
        if not self._all(name):
            self._engine.find(name)
        raise BadRequest(
            f"model {name!r} cannot be unloaded: what is served is what the service was started "
            "with; start it without this model"
        )

    def _find(self, request: Request) -> Served:
        return self._engine.find(*_named(request))

    def _all(self, name: str) -> Sequence[Served]:
        return [each for each in self._engine.catalogue() if each.name == name]


def _health(engine: Engine) -> list[Route]:
    def probe(is_well: Callable[[], bool]) -> Endpoint:
        async def answer(_: Request) -> Response:
            return as_json({"state": engine.state}, 200 if is_well() else 503)

        return answer

    # Whoever answers lives; a service that stops is not to be killed for it.
    live = probe(lambda: True)
    ready = probe(lambda: engine.state == "ready")
    startup = probe(lambda: engine.state != "starting")
    return [
        Route("/live", live),
        Route("/ready", ready),
        Route("/startup", startup),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
    ]


def _example(engine: Engine, services: Services) -> Endpoint:
    async def answer(request: Request) -> Response:
        """GET /models/{name}/example: what its predict takes, to begin with."""
        served = engine.find(*_named(request))
        service = services.get(served.name)
        if service is None:
            return as_json(predict.example(served))
        return as_json(service.request_schema["examples"][0])

    return answer


def _pages(engine: Engine, metrics: Metrics, services: Services) -> list[Route]:
    def page(content: bytes, kind: str) -> Endpoint:
        async def answer(_: Request) -> Response:
            return Response(content, headers=PAGE_HEADERS, media_type=kind)

        return answer

    async def show_metrics(_: Request) -> Response:
        content, kind = metrics.render()
        return Response(content, headers={"content-type": kind, "cache-control": "no-store"})

    async def show_openapi(_: Request) -> Response:
        return as_json(openapi(engine.catalogue(), services))

    async def show_docs(request: Request) -> Response:
        content = docs_page(
            openapi(engine.catalogue(), services), str(request.base_url).rstrip("/")
        )
        return Response(content, headers=PAGE_HEADERS, media_type="text/html")

    # Read once: no request ever leads to a file.
    files = read_page()
    return [
        Route("/metrics", show_metrics),
        Route("/openapi.json", show_openapi),
        Route("/docs", show_docs),
        *(Route(path, page(content, kind)) for path, (content, kind) in files.items()),
    ]


def _named(request: Request) -> tuple[str, str]:
    return request.path_params.get("name", ""), request.path_params.get("version", "")


async def _content(request: Request) -> dict[str, Any]:
    """The JSON object of a request; {} where it has no body."""
    headers = dict(request.scope["headers"])
    body = await read_body(request.receive, headers, MAX_BYTES, Budget(MAX_BYTES), BODY_TIMEOUT_S)
    return parse_json(body) if body else {}


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, ServeError)
    headers = {"retry-after": "1"} if error.status in (429, 503) else None
    return as_json({"error": str(error)}, error.status, headers)


async def _failed(_: Request, _error: Exception) -> Response:
    return as_json({"error": "the service failed; its log says why"}, 500)


async def _no_route(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        error = NotFound(f"there is nothing at {shown(request.url.path)}; GET /docs lists what is")
        return await _refused(request, error)
    return as_json({"error": error.detail}, error.status_code, error.headers)
