"""The same service on Ray Serve, for more than one machine.

Each replica is a process that hosts the ASGI application of this package on an engine of its own;
Ray starts replicas where there is room, passes requests on, and replaces what dies. Where
RAY_ADDRESS is set, that is the cluster; this package, the models and the file of tokens have to be
on its machines, at the same paths. Otherwise a cluster of this machine alone is started, without a
dashboard, on loopback, with a token of its own; it ends with the service.

Ray's own processes talk to each other in pickles, as they do for every program on it, and whoever
is let in by its ports can run code on its machines: keep a cluster in a network of its own. What
comes in a request stays bytes on its way from Ray's proxy to the application; none is unpickled.
A new version of a model is rolled out by starting the service anew, not by writing to its file.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import select
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.schedule.model_file import hash_model
from core.serve.config import ServeConfig

if TYPE_CHECKING:
    from core.kit import Service

    Services = Mapping[str, Service[Any, Any]]

APPLICATION = "deepkits"
# Below it, a request could delete a cluster's jobs without any right to (CVE-2026-27482).
OLDEST_RAY = (2, 54)
# It would report its use to its makers.
ENVIRONMENT = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
# Of a cluster of this machine: "no cluster" is how Ray says that all its ports are loopback's.
OWN_ENVIRONMENT = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_enable_metrics_collection": "0",
}
# The least that Ray takes; requests and answers go past it.
OBJECT_STORE_BYTES = 80 * 2**20
# A replica that does not answer, or says that it is not ready, is replaced.
HEALTH_PERIOD_S, HEALTH_TIMEOUT_S = 2.0, 10.0
# How many requests a replica may have before there should be another one, for each that it can
# compute at once; and how soon that is seen.
ONGOING, LOOK_S, LOOK_BACK_S, UPSCALE_S, DOWNSCALE_S = 2.0, 0.5, 2.0, 0.5, 60.0


class _Stopped(BaseException):
    """A signal asked for the end."""


def serve_on_ray(
    config: ServeConfig,
    services: Services,
    *,
    on_ready: Callable[[str, list[str]], None],
    parent: socket.socket | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, or until a parent closes its socket; then finish what runs.

    Args:
        config: what to serve, and where.
        services: kits' own shapes of requests, by the model's name.
        on_ready: is told the URL and the models' names.
        parent: nothing comes from it but its end.
    Raises:
        ValueError: an option has no counterpart on Ray, the port is taken, or a model is refused.
        ModuleNotFoundError: Ray is not installed; the message names the extra.
    """
    _check(config)
    hashes = _hash_models(config)
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    try:
        with (
            contextlib.suppress(_Stopped),
            _cluster() as serve,
            _application(serve, config, hashes, services),
        ):
            for number in numbers:
                signal.signal(number, _stop)
            on_ready(_url(config), sorted({model.name for model in config.models}))
            select.select([parent] if parent else [], [], [])
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


def _stop(number: int, frame: object) -> None:  # noqa: ARG001
    for other in (signal.SIGTERM, signal.SIGINT):
        signal.signal(other, signal.SIG_IGN)
    raise _Stopped


def _check(config: ServeConfig) -> None:
    for name in ("grpc_port", "tls_client_ca"):
        if getattr(config, name) is not None:
            raise ValueError(
                f"{name}={getattr(config, name)} is not offered by engine='ray'; leave it out, or "
                "use engine='local' behind a load balancer"
            )


def _hash_models(config: ServeConfig) -> dict[Path, str]:
    hashes = {}
    for model in config.models:
        try:
            hashes[model.path.resolve()] = hash_model(model.path)
        except (OSError, ValueError) as error:
            raise ValueError(f"{model.path} cannot be served: {error}") from error
    return hashes


@contextlib.contextmanager
def _cluster() -> Iterator[Any]:
    """Be in the cluster of RAY_ADDRESS, or have one here; gives `ray.serve`."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "WARNING"}
        environment = dict(ENVIRONMENT)
        if address := os.environ.get("RAY_ADDRESS"):
            settings["address"] = address
        else:
            # The token's file is for this user alone, as the folder is.
            token = Path(folder, "token")
            token.write_text(secrets.token_hex(32), encoding="ascii")
            environment |= OWN_ENVIRONMENT
            environment |= {"RAY_TMPDIR": folder, "RAY_AUTH_TOKEN_PATH": str(token)}
            settings |= {
                "address": "local",
                "include_dashboard": False,
                "num_cpus": len(os.sched_getaffinity(0)),
                "num_gpus": 0,
                "object_store_memory": OBJECT_STORE_BYTES,
                "_node_ip_address": "127.0.0.1",
                # Short: the names of sockets lie in it, and may have 107 characters.
                "_temp_dir": folder,
            }
        # Ray reads it when it is imported.
        os.environ.update(environment)
        ray, serve = _import_ray()
        try:
            ray.init(**settings)
            yield serve
        finally:
            ray.shutdown()


def _import_ray() -> tuple[Any, Any]:
    try:
        import ray
        from ray import serve
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error}; pip install 'deepkits[ray]'") from None
    if tuple(map(int, ray.__version__.split(".")[:2])) < OLDEST_RAY:
        raise ValueError(
            f"ray has version {ray.__version__}, below 2.54 it can be attacked (CVE-2026-27482); "
            "pip install 'deepkits[ray]'"
        )
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    return ray, serve


@contextlib.contextmanager
def _application(
    serve: Any, config: ServeConfig, hashes: Mapping[Path, str], services: Services
) -> Iterator[None]:
    """Have the service in the cluster, with replicas that are ready."""
    options: dict[str, Any] = {
        "host": config.host,
        "port": config.port,
        # On a machine's own loopback one is enough; else balancers may ask any machine.
        "location": "HeadOnly" if config.is_private else "EveryNode",
    }
    if config.tls_certificate and config.tls_key:
        options["ssl_certfile"] = str(config.tls_certificate.resolve())
        options["ssl_keyfile"] = str(config.tls_key.resolve())
    serve.start(http_options=options)
    try:
        try:
            serve.run(
                _deployment(serve, config, hashes, services), name=APPLICATION, route_prefix="/"
            )
        except RuntimeError as error:
            told = serve.status().applications[APPLICATION].deployments.values()
            raise ValueError(_reason("".join(one.message for one in told))) from error
        yield
    finally:
        serve.delete(APPLICATION)


def _deployment(
    serve: Any, config: ServeConfig, hashes: Mapping[Path, str], services: Services
) -> Any:
    """How Ray is to run the replicas."""
    inner = replace(
        config,
        models=[replace(model, path=model.path.resolve()) for model in config.models],
        tokens=config.tokens and config.tokens.resolve(),
        engine="local",
        min_workers=1,
        max_workers=1,
        auto_scale=False,
        pin=False,
        watch_s=0.0,
    )

    class Replica:
        """What Ray makes in a process of its own."""

        async def __init__(self) -> None:  # type: ignore[misc]  # Ray waits for it
            self.hosted = ReplicaApp(inner, hashes, services)
            # Here, not at the lifespan's start, whose errors are not told.
            await self.hosted.start()

        def __serve_build_asgi_app__(self) -> ReplicaApp:
            return self.hosted

        def check_health(self) -> None:
            self.hosted.check_health()

    count: dict[str, Any] = {"num_replicas": max(1, config.min_workers)}
    if config.auto_scale:
        count = {
            "num_replicas": "auto",
            "autoscaling_config": {
                "min_replicas": config.min_workers,
                "initial_replicas": max(1, config.min_workers),
                "max_replicas": config.max_workers,
                "target_ongoing_requests": ONGOING,
                "metrics_interval_s": LOOK_S,
                "look_back_period_s": LOOK_BACK_S,
                "upscale_delay_s": UPSCALE_S,
                "downscale_delay_s": DOWNSCALE_S,
            },
        }
    deployed = serve.deployment(
        name="service",
        ray_actor_options={"num_cpus": config.threads},
        # The application turns away what is too much, with its own words.
        max_ongoing_requests=config.max_queue,
        graceful_shutdown_timeout_s=config.drain_s,
        graceful_shutdown_wait_loop_s=0.1,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        max_constructor_retry_count=2,
        logging_config={"enable_access_log": False, "log_level": "WARNING"},
        **count,
    )(serve.ingress()(Replica))
    return deployed.bind()


class ReplicaApp:
    """The service's ASGI application in a replica, and the engine under it."""

    def __init__(self, config: ServeConfig, hashes: Mapping[Path, str], services: Services) -> None:
        self._config, self._hashes, self._services = config, hashes, services
        self._engine: Any = None
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request, or stop."""
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return
        while True:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await self._engine.stop(self._config.drain_s)
                await asyncio.to_thread(self._app.close)
                await send({"type": "lifespan.shutdown.complete"})
                return
            await send({"type": "lifespan.startup.complete"})

    async def start(self) -> None:
        """Load the models.

        Raises:
            ValueError: a file is not the one meant, or cannot be served.
        """
        from core.serve.app import build_app
        from core.serve.local_engine import LocalEngine
        from core.serve.metrics import Metrics

        for path, sha256 in self._hashes.items():
            found = hash_model(path)
            if found != sha256:
                raise ValueError(
                    f"{path} has sha256 {found[:8]}… on {socket.gethostname()}, where the service "
                    f"was started {sha256[:8]}…; copy it there again"
                )
        _open_no_port()
        metrics = Metrics()
        self._engine = LocalEngine(self._config, metrics)
        self._app = build_app(self._engine, self._config, metrics, self._services)
        await self._engine.start()

    def check_health(self) -> None:
        """Raise what makes Ray replace this replica."""
        if self._engine is None or self._engine.state not in ("ready", "draining"):
            raise RuntimeError("the engine is not ready")


def _open_no_port() -> None:
    """Keep this replica from listening on all interfaces.

    Ray Serve opens a port there for calls between deployments, of which this service has one, and
    unpickles what anybody sends to it. Requests come another way.
    """
    from ray.serve._private import replica

    if not hasattr(replica, "add_port_to_grpc_server"):
        raise RuntimeError(
            "this release of Ray opens its port for calls between deployments in an unknown way; "
            "pip install 'deepkits[ray]'"
        )
    replica.add_port_to_grpc_server = lambda server, address: 0  # noqa: ARG005


def _reason(text: str) -> str:
    """The last error in Ray's account of a start that failed."""
    lines = [line.strip() for line in text.splitlines() if "Error:" in line]
    return (lines or [text.strip()])[-1].partition("Error: ")[2] or text.strip()


def _url(config: ServeConfig) -> str:
    host = f"[{config.host}]" if ":" in config.host else config.host
    return f"{'https' if config.tls_certificate else 'http'}://{host}:{config.port}"
