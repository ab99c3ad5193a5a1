"""What a service may be told; every default serves one machine well."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

LOOPBACK = ("127.0.0.1", "::1", "localhost")
# auto: a model whose batch of one takes less than INLINE_S runs in the server's own process, where
# no hop between processes is paid; others run in workers, which may die without harm.
Isolation = Literal["auto", "inline", "process"]
INLINE_S = 100e-6


@dataclass(frozen=True)
class ModelFile:
    """A file to serve under a name."""

    name: str
    path: Path
    version: str = ""  # "": the bundle's own, or 1, 2, ... for ONNX files


@dataclass
class ServeConfig:
    """One service on one machine."""

    # .onnx files and .ebundle files
    models: list[ModelFile] = field(default_factory=list)
    # Where to listen. Anything but loopback needs tokens or mTLS, or insecure=true
    host: str = "127.0.0.1"
    # HTTP port; 0 takes a free one
    port: int = 8080
    # gRPC port of the same protocol; none: no gRPC
    grpc_port: int | None = None
    # Lines of `name token`; with it, every request but health needs `Authorization: Bearer <token>`
    tokens: Path | None = None
    # PEM files of the server
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    # PEM file of those who may sign clients' certificates: mutual TLS
    tls_client_ca: Path | None = None
    # Listen beyond loopback without tokens and mTLS
    insecure: bool = False
    # Which of a bundle's targets to run; auto: the first that fits
    device: str = "auto"
    # Where models run
    isolation: Isolation = "auto"
    # Workers to begin with, and their bounds. max_workers=0: one for each core
    min_workers: int = 1
    max_workers: int = 0
    # Threads of one inference
    threads: int = 1
    # Pin each worker to as many cores as it has threads; not where others compute on them too, as
    # in containers, none of which knows what the others took
    pin: bool = True
    # Change the number of workers with the queue's delay
    auto_scale: bool = False
    # What 99 % of answers should take; batches wait no longer than this allows
    slo_ms: float = 100.0
    # Rows that run together at most
    max_batch: int = 32
    # Requests that wait at most, over all models; beyond it: 429
    max_queue: int = 1024
    # After which a request is given up, unless it says sooner
    timeout_s: float = 30.0
    # Of one request
    max_body_mib: float = 64.0
    # Requests per second of one token; 0: no limit
    rate_limit: float = 0.0
    # How long running requests may take to finish after SIGTERM
    drain_s: float = 30.0
    # Between two looks at the model files for a new version; 0: only when asked
    watch_s: float = 1.0
    # One JSON line a request on stdout
    access_log: bool = True
    # OpenTelemetry traces, to where the usual OTEL_ variables say
    traces: bool = False
    # local: this process and its workers; ray: Ray Serve
    engine: Literal["local", "ray"] = "local"

    def __post_init__(self) -> None:
        names = {f"{model.name}@{model.version}" for model in self.models}
        if len(names) < len(self.models) and all(model.version for model in self.models):
            raise ValueError("models has the same name and version twice; give --name or a version")
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together; give both or neither")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca needs tls_certificate and tls_key; give all three")
        if self.min_workers < 0 or self.max_workers < 0:
            raise ValueError(
                f"min_workers={self.min_workers}, max_workers={self.max_workers}: one is negative; "
                "give 0 or more"
            )
        if self.max_workers == 0:
            self.max_workers = max(self.min_workers, len(os.sched_getaffinity(0)) // self.threads)
        if self.max_workers < max(1, self.min_workers):
            raise ValueError(
                f"max_workers={self.max_workers} is below min_workers={self.min_workers}; raise it"
            )
        for name in ("threads", "max_batch", "max_queue", "slo_ms", "timeout_s", "max_body_mib"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name}={getattr(self, name)} is not positive")
        if not self.is_private and not self.insecure and not (self.tokens or self.tls_client_ca):
            raise ValueError(
                f"host={self.host!r} can be reached by others; give tokens=<file> or "
                "tls_client_ca=<file>, or say insecure=true"
            )

    @property
    def is_private(self) -> bool:
        """Only this machine can reach it."""
        return self.host in LOOPBACK
