"""Open Inference Protocol v2 over gRPC, on the same engine as the REST side."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from core.serve.config import ServeConfig
from core.serve.engine import Engine
from core.serve.errors import Cancelled, ServeError
from core.serve.exchange import Exchange, Recorder
from core.serve.security import Guard

if TYPE_CHECKING:
    from core.serve.protocol.service import Caller

    Method = Callable[[Any, Caller], Awaitable[Any]]

# Requests of one stream that are worked on at a time.
STREAM_DEPTH = 32
MIB = 2**20
# HTTP status -> gRPC's. Too large is no RESOURCE_EXHAUSTED: clients would try again.
STATUS = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    413: "INVALID_ARGUMENT",
    429: "RESOURCE_EXHAUSTED",
    499: "CANCELLED",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
RECORDED = frozenset({"traceparent", "tracestate", "x-request-id"})
log = logging.getLogger(__name__)


class GrpcServer:
    """A running gRPC server; `start_grpc` makes it."""

    def __init__(self, server: Any, port: int) -> None:
        self._server = server
        self.port = port

    async def stop(self, grace: float) -> None:
        """Take no new call; those that still run after `grace` seconds are cancelled."""
        await self._server.stop(grace)


async def start_grpc(engine: Engine, config: ServeConfig, recorder: Recorder) -> GrpcServer:
    """Serve an engine on `config.grpc_port`, with the same tokens and TLS as REST.

    Raises:
        ValueError: the port is taken, or a TLS file is none.
        ModuleNotFoundError: gRPC is not installed; the message names the extra.
    """
    try:
        import grpc.aio
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; pip install 'deepkits[grpc]'") from None
    options = [
        ("grpc.max_receive_message_length", int(config.max_body_mib * MIB)),
        ("grpc.max_send_message_length", -1),
        # A port that another process listens on is an error, not something to share.
        ("grpc.so_reuseport", 0),
    ]
    server = grpc.aio.server(options=options, maximum_concurrent_rpcs=2 * config.max_queue)
    server.add_generic_rpc_handlers(_Handlers(grpc, engine, config, recorder).all())
    host = f"[{config.host}]" if ":" in config.host else config.host
    address = f"{host}:{config.grpc_port}"
    try:
        if config.tls_certificate:
            port = server.add_secure_port(address, _credentials(grpc, config))
        else:
            port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ValueError(f"grpc_port={config.grpc_port} cannot be listened on: {error}") from None
    await server.start()
    return GrpcServer(server, port)


def _credentials(grpc: Any, config: ServeConfig) -> Any:
    assert config.tls_certificate
    assert config.tls_key
    pair = (config.tls_key.read_bytes(), config.tls_certificate.read_bytes())
    ca = config.tls_client_ca.read_bytes() if config.tls_client_ca else None
    return grpc.ssl_server_credentials([pair], ca, require_client_auth=ca is not None)


def _headers(context: Any) -> dict[bytes, bytes]:
    """What the records need of the call's metadata, as HTTP has it."""
    metadata = context.invocation_metadata() or ()
    return {key.encode(): value.encode() for key, value in metadata if key in RECORDED}


class _Handlers:
    """Methods of the service as gRPC calls them: with tokens, deadlines, statuses and records."""

    def __init__(self, grpc: Any, engine: Engine, config: ServeConfig, recorder: Recorder) -> None:
        # They need protobuf, which a service without gRPC has not.
        from core.serve.protocol import messages, service

        self._grpc, self._engine, self._recorder = grpc, engine, recorder
        self._service, self._caller = (
            service.OipService(engine, recorder.statistics),
            service.Caller,
        )
        # Anybody may ask these, as orchestrators do.
        self._open = (self._service.server_live, self._service.server_ready)
        self._guard, self._timeout_s = Guard.of(config), config.timeout_s
        self._names = (messages.SERVICE, messages.HEALTH_SERVICE)
        self._infer_path = f"/{messages.SERVICE}/ModelInfer"
        self._health = messages.message_classes("grpc.health.v1", messages.HEALTH)
        self._status = messages.message_classes("google.rpc", messages.STATUS)

    def all(self) -> tuple[Any, ...]:
        """One generic handler for each service."""
        service, oip = self._service, self._service.messages
        methods = {
            "ServerLive": service.server_live,
            "ServerReady": service.server_ready,
            "ModelReady": service.model_ready,
            "ServerMetadata": service.server_metadata,
            "ModelMetadata": service.model_metadata,
            "ModelInfer": service.model_infer,
            "ModelConfig": service.model_config,
            "ModelStatistics": service.model_statistics,
            "RepositoryIndex": service.repository_index,
            "RepositoryModelLoad": service.repository_model_load,
            "RepositoryModelUnload": service.repository_model_unload,
        }
        handlers = {
            name: self._grpc.unary_unary_rpc_method_handler(
                self._unary(method),
                request_deserializer=oip[f"{name}Request"].FromString,
                response_serializer=oip[f"{name}Response"].SerializeToString,
            )
            for name, method in methods.items()
        }
        handlers["ModelStreamInfer"] = self._grpc.stream_stream_rpc_method_handler(
            self._stream,
            request_deserializer=oip["ModelInferRequest"].FromString,
            response_serializer=oip["ModelStreamInferResponse"].SerializeToString,
        )
        check = self._grpc.unary_unary_rpc_method_handler(
            self._check,
            request_deserializer=self._health["HealthCheckRequest"].FromString,
            response_serializer=self._health["HealthCheckResponse"].SerializeToString,
        )
        handler = self._grpc.method_handlers_generic_handler
        return handler(self._names[0], handlers), handler(self._names[1], {"Check": check})

    def _unary(self, method: Method) -> Callable[[Any, Any], Awaitable[Any]]:
        async def answer(request: Any, context: Any) -> Any:
            try:
                return await self._answer(method, request, context)
            except ServeError as error:
                await self._abort(context, error)

        return answer

    async def _answer(self, method: Method, request: Any, context: Any) -> Any:
        """Call a method; inferences are recorded, and what nobody expected is told to nobody."""
        start, status, code, caller = time.perf_counter(), 200, "ok", self._caller()
        try:
            if method not in self._open:
                self._admit(context, caller)
            return await method(request, caller)
        except asyncio.CancelledError:
            status, code = Cancelled.status, Cancelled.code
            raise
        except ServeError as error:
            status, code = error.status, error.code
            raise
        except Exception:
            status, code = ServeError.status, ServeError.code
            log.exception("a gRPC call failed")
            raise ServeError("the service failed; its log says why") from None
        finally:
            if method == self._service.model_infer:
                self._recorder.finish(
                    Exchange(
                        path=self._infer_path,
                        headers=_headers(context),
                        model=request.model_name,
                        version=request.model_version,
                        protocol="grpc",
                        started_s=start,
                        tenant=caller.tenant,
                        id=request.id,
                        answer=caller.answer,
                        computed_s=caller.computed_s,
                        status=status,
                        code=code,
                    )
                )

    def _admit(self, context: Any, caller: Caller) -> None:
        """Find out who calls, by its token, and until when it waits.

        Raises:
            Unauthorized, Overloaded.
        """
        given = dict(context.invocation_metadata() or ()).get("authorization", "")
        # No browser speaks gRPC, so that there is no other site's page to keep out.
        headers = {b"authorization": given.encode(), b"host": b"localhost"}
        caller.tenant = self._guard.admit(headers)
        left_s = context.time_remaining()
        caller.timeout_s = None if left_s is None else min(left_s, self._timeout_s)

    async def _abort(self, context: Any, error: ServeError) -> None:
        code = getattr(self._grpc.StatusCode, STATUS.get(error.status, "INTERNAL"))
        await context.abort(code, str(error), self._trailers(code, error))

    def _trailers(self, code: Any, error: ServeError) -> tuple[tuple[str, str | bytes], ...]:
        """When to come back, as gRPC's own retry policy reads it, and as a google.rpc.RetryInfo."""
        if error.retry_after_s is None:
            return ()
        delay_ms = max(1, round(error.retry_after_s * 1e3))
        seconds, rest_ms = divmod(delay_ms, 1000)
        delay = self._status["Duration"](seconds=seconds, nanos=rest_ms * 1_000_000)
        detail = self._status["Any"](
            type_url="type.googleapis.com/google.rpc.RetryInfo",
            value=self._status["RetryInfo"](retry_delay=delay).SerializeToString(),
        )
        status = self._status["Status"](code=code.value[0], message=str(error), details=[detail])
        return (
            ("grpc-retry-pushback-ms", str(delay_ms)),
            ("grpc-status-details-bin", status.SerializeToString()),
        )

    async def _stream(self, requests: Any, context: Any) -> None:
        """Answer in the order of the requests, several of which are computed at a time."""
        slots, last = asyncio.Semaphore(STREAM_DEPTH), None
        async with asyncio.TaskGroup() as group:
            async for request in requests:
                await slots.acquire()
                last = group.create_task(self._streamed(request, context, last, slots))

    async def _streamed(
        self,
        request: Any,
        context: Any,
        before: asyncio.Task[None] | None,
        slots: asyncio.Semaphore,
    ) -> None:
        response = self._service.messages["ModelStreamInferResponse"]
        try:
            # Each request is admitted by itself: rates count requests, not streams.
            infer = await self._answer(self._service.model_infer, request, context)
            answer = response(infer_response=infer)
        except ServeError as error:
            answer = response(error_message=str(error), infer_response={"id": request.id})
        if before:
            await before
        await context.write(answer)
        slots.release()

    async def _check(self, request: Any, context: Any) -> Any:
        """The standard health check of gRPC: 1 serving, 2 not."""
        if request.service not in ("", self._names[0]):
            await context.abort(self._grpc.StatusCode.NOT_FOUND, "no such service")
        is_ready = self._engine.state == "ready"
        return self._health["HealthCheckResponse"](status=1 if is_ready else 2)
