"""A service from its start to its end: ready when every model is, gone when every request is.

What can be done at the same time is: workers start and models load while the HTTP side is imported.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from core.serve.config import ServeConfig

if TYPE_CHECKING:
    import uvicorn

    from core.kit import Service
    from core.serve.app import App
    from core.serve.engine import Engine
    from core.serve.exchange import Recorder
    from core.serve.metrics import Metrics

    Services = Mapping[str, Service[Any, Any]]

LOG = logging.getLogger(__name__)
BACKLOG = 2048
# Those who pass signals on send one both to a process and to its group.
SAME_S = 0.5


def serve(
    config: ServeConfig,
    services: Services = MappingProxyType({}),
    *,
    control: int | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what runs.

    SIGHUP has the files read again; SIGTTIN and SIGTTOU have one worker more or less.

    Args:
        config: what to serve, and where.
        services: kits' own shapes of requests, by the model's name.
        control: a socket to a parent, by its descriptor: gets a line of JSON when the service is
            ready, or what kept it from that; the service ends when the parent closes it.
    Raises:
        ValueError: a model cannot be served, or the address not be listened on.
        ModuleNotFoundError: an option needs what is not installed; the message names the extra.
    """
    if not config.models:
        raise ValueError("models is empty; name an .onnx file or an .ebundle to serve")
    parent = None if control is None else socket.socket(fileno=control)
    try:
        if config.engine == "ray":
            _serve_on_ray(config, services, parent)
            return
        with contextlib.closing(_listen(config)) as listener:
            try:
                import uvloop
            except ModuleNotFoundError as error:
                raise ModuleNotFoundError(f"{error}; pip install 'deepkits[serve]'") from None
            run = _Run(config, services, listener, parent)
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(run.run())
    except (ValueError, OSError, ModuleNotFoundError) as error:
        _tell(parent, {"error": str(error)})
        raise
    finally:
        if parent is not None:
            parent.close()


def _serve_on_ray(config: ServeConfig, services: Services, parent: socket.socket | None) -> None:
    from core.serve.ray_engine import serve_on_ray

    # Ray's proxy listens itself; here it is found out whether it can, and where.
    with contextlib.closing(_listen(config)) as listener:
        port = listener.getsockname()[1]

    def announce(url: str, names: list[str]) -> None:
        print(f"{', '.join(names)} ready on {url} after {_age_s():.2f} s", flush=True)
        _tell(parent, {"url": url, "models": names})

    serve_on_ray(replace(config, port=port), services, on_ready=announce, parent=parent)


def _listen(config: ServeConfig) -> socket.socket:
    """The address, taken before anything else is done."""
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(
            f"host={config.host!r} port={config.port} cannot be listened on: {reason}; give a "
            "free --port, or 0 for any"
        ) from None
    return listener


def _tell(parent: socket.socket | None, message: Mapping[str, Any]) -> None:
    if parent is not None:
        # A parent that is gone is told nothing.
        with contextlib.suppress(OSError):
            parent.sendall(json.dumps(message).encode() + b"\n")


@dataclass
class _Run:
    """One life of a service, in its event loop."""

    config: ServeConfig
    services: Services
    listener: socket.socket
    parent: socket.socket | None
    _stop: asyncio.Event = field(default_factory=asyncio.Event)
    _ended_s: float = 0.0  # when the first signal to end came

    async def run(self) -> None:
        from core.serve.metrics import Metrics

        metrics = Metrics()
        engine = _make_engine(self.config, metrics)
        with self._signals(engine):
            starting = asyncio.create_task(engine.start())
            app: App | None = None
            server: uvicorn.Server | None = None
            listening: asyncio.Task[None] | None = None
            try:
                # In a thread, while workers are spoken to here.
                await asyncio.to_thread(_import_http)
                app = _make_app(engine, self.config, metrics, self.services)
                server = _make_server(app, self.config)
                listening = asyncio.create_task(server.serve(sockets=[self.listener]))
                listening.add_done_callback(lambda _: self._stop.set())
                await self._until_ready(starting)
                if not self._stop.is_set():
                    await self._until_stopped(engine, app.recorder)
            finally:
                starting.cancel()
                end = time.monotonic() + self.config.drain_s
                await engine.stop(self.config.drain_s)
                if server is not None and listening is not None:
                    # Answers on their way out have what is left of the time.
                    left_s = max(1, round(end - time.monotonic()))
                    server.config.timeout_graceful_shutdown = left_s
                    server.should_exit = True
                    await listening
                await asyncio.gather(starting, return_exceptions=True)
                if app is not None:
                    # In a thread: whoever reads the log or takes the traces may be slow.
                    await asyncio.to_thread(app.close)

    async def _until_ready(self, starting: asyncio.Task[None]) -> None:
        stopped = asyncio.create_task(self._stop.wait())
        await asyncio.wait({starting, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if starting.done():
            starting.result()

    async def _until_stopped(self, engine: Engine, recorder: Recorder) -> None:
        grpc = None
        if self.config.grpc_port is not None:
            from core.serve.grpc_server import start_grpc

            grpc = await start_grpc(engine, self.config, recorder)
        # What is there now stays: the collector need not look at it again and again.
        gc.collect()
        gc.freeze()
        self._announce(engine, grpc.port if grpc else None)
        await self._stop.wait()
        if grpc is not None:
            drained = asyncio.create_task(engine.stop(self.config.drain_s))
            await grpc.stop(self.config.drain_s)
            await drained

    def _announce(self, engine: Engine, grpc_port: int | None) -> None:
        host, port = self.listener.getsockname()[:2]
        host = f"[{host}]" if ":" in host else host
        scheme = "https" if self.config.tls_certificate else "http"
        url = f"{scheme}://{host}:{port}"
        names = [f"{one.name}@{one.version}" for one in engine.catalogue()]
        grpc = f" and grpc://{host}:{grpc_port}" if grpc_port else ""
        lines = [f"{', '.join(names)} ready on {url}{grpc} after {_age_s():.2f} s"]
        if engine.catalogue():
            lines += _to_try(url, engine.catalogue()[0].name)
        print("\n".join(lines), flush=True)
        _tell(self.parent, {"url": url, "models": names})

    @contextlib.contextmanager
    def _signals(self, engine: Engine) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._on_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload, engine)
        scale = getattr(engine, "scale", None)
        if scale is not None:
            # As other servers have it: one worker more, one less.
            loop.add_signal_handler(signal.SIGTTIN, scale, 1)
            loop.add_signal_handler(signal.SIGTTOU, scale, -1)
        if self.parent is not None:
            self.parent.settimeout(0)
            loop.add_reader(self.parent, self._on_parent)
        try:
            yield
        finally:
            if self.parent is not None:
                loop.remove_reader(self.parent)
                self.parent.settimeout(None)

    def _on_end(self, number: int) -> None:
        """The first signal drains, a second one ends."""
        now = time.monotonic()
        if self._stop.is_set() and now - self._ended_s < SAME_S:
            return
        if self._stop.is_set():
            LOG.warning("%s again: the requests that run are given up", signal.Signals(number).name)
            # The workers see the end of their connection.
            os._exit(1)
        self._ended_s = now
        self._stop.set()

    def _on_parent(self) -> None:
        """It has nothing to say; its end is ours."""
        assert self.parent is not None
        with contextlib.suppress(BlockingIOError):
            if not self.parent.recv(4096):
                asyncio.get_running_loop().remove_reader(self.parent)
                self._stop.set()

    def _reload(self, engine: Engine) -> None:
        async def reload() -> None:
            for name in dict.fromkeys(file.name for file in self.config.models):
                try:
                    await engine.reload(name)
                except Exception as error:  # noqa: BLE001 - told, and the service goes on
                    LOG.warning("SIGHUP: %s", error)

        self._reloading = asyncio.create_task(reload())


def _to_try(url: str, name: str) -> list[str]:
    """Commands that work as they are where no token is asked for."""
    send = "-H 'content-type: application/json' -d @-"
    return [
        f"  curl -s {url}/v2/health/ready",
        f"  curl -s {url}/v2/models/{name}",
        f"  curl -s {url}/models/{name}/example | curl -s {send} {url}/models/{name}/predict",
    ]


def _make_engine(config: ServeConfig, metrics: Metrics) -> Engine:
    from core.serve.local_engine import LocalEngine

    return LocalEngine(config, metrics)


def _import_http() -> None:
    for module in ("core.serve.connection", "core.serve.app"):
        importlib.import_module(module)


def _make_app(engine: Engine, config: ServeConfig, metrics: Metrics, services: Services) -> App:
    from core.serve.app import build_app

    return build_app(engine, config, metrics, services)


def _make_server(app: App, config: ServeConfig) -> uvicorn.Server:
    import ssl

    import uvicorn

    from core.serve.connection import server_settings

    class Server(uvicorn.Server):
        """Signals are the service's business: it finishes its requests first."""

        @contextlib.contextmanager
        def capture_signals(self) -> Generator[None, None, None]:
            yield

    settings = uvicorn.Config(
        app,
        **server_settings(),
        lifespan="off",
        interface="asgi3",
        log_config=None,
        backlog=BACKLOG,
        ssl_certfile=config.tls_certificate,
        ssl_keyfile=config.tls_key,
        ssl_ca_certs=str(config.tls_client_ca) if config.tls_client_ca else None,
        ssl_cert_reqs=ssl.CERT_REQUIRED if config.tls_client_ca else ssl.CERT_NONE,
    )
    try:
        settings.load()
    except ssl.SSLError as error:
        raise ValueError(f"tls_certificate or tls_key is not usable: {error}") from None
    return Server(settings)


def _age_s() -> float:
    """Since this process began; the kernel counts in hundredths."""
    fields = Path("/proc/self/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    started_s = int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.clock_gettime(time.CLOCK_BOOTTIME) - started_s
