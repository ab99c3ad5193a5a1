"""What is to run in a cluster, and how a pod of it looks."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any, Literal

from core.serve.config import ModelFile

Object = dict[str, Any]

HTTP_PORT, GRPC_PORT = 8080, 8081
INSTANCE = "app.kubernetes.io/instance"
# A user that images have no files of.
USER = 65532
TOKENS_FOLDER, TRUST_FOLDER = "/etc/deepkits/tokens", "/etc/deepkits/trust"
# Endpoints learn within these that a pod ends, and send it nothing more.
LEAVE_S, MARGIN_S = 5, 10
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_QUANTITY = re.compile(r"[1-9]\d*(Mi|Gi)")


@dataclass(frozen=True)
class Plan:
    """A service in a cluster; every default is a small one that stands a lost node."""

    models: tuple[ModelFile, ...]
    image: str
    name: str
    namespace: str = ""  # "": the one of whoever applies it
    kind: Literal["deployment", "kserve"] = "deployment"
    autoscaler: Literal["hpa", "keda"] = "hpa"
    min_replicas: int = 2
    max_replicas: int = 8
    cpu: int = 2  # cores of a pod
    memory: str = "2Gi"  # of a pod
    threads: int = 1  # of one inference
    slo_ms: float = 100.0
    drain_s: float = 30.0
    grpc: bool = False
    tokens_secret: str = ""  # "": <name>-tokens
    models_claim: str = ""  # "": <name>-models, unless models_image
    models_image: str = ""
    prometheus: str = "http://prometheus-operated.monitoring.svc:9090"
    monitoring: bool = False  # objects of the Prometheus operator as well
    monitoring_namespace: str = "monitoring"

    def __post_init__(self) -> None:
        for field in ("name", "namespace", "tokens_secret", "models_claim"):
            value = getattr(self, field)
            if (value or field == "name") and not _NAME.fullmatch(value):
                raise ValueError(
                    f"{field}={value!r} is not 1 to 40 of a-z 0-9 - beginning with a letter"
                )
        if not 0 < self.min_replicas <= self.max_replicas:
            raise ValueError(
                f"min_replicas={self.min_replicas}, max_replicas={self.max_replicas}: they must be "
                "1 or more, the first not above the second"
            )
        if not _QUANTITY.fullmatch(self.memory):
            raise ValueError(f"memory={self.memory!r} is not a number with Mi or Gi")
        if not 1 <= self.threads <= self.cpu:
            raise ValueError(f"threads={self.threads} is not between 1 and cpu={self.cpu}")
        if self.models_claim and self.models_image:
            raise ValueError("models_claim and models_image are both given; models are in one")
        files = [model.path.name for model in self.models]
        if len(set(files)) < len(files):
            raise ValueError(f"models has a file name twice, in one volume: {', '.join(files)}")

    @property
    def secret(self) -> str:
        """The Secret of tokens."""
        return self.tokens_secret or f"{self.name}-tokens"

    @property
    def grace_s(self) -> int:
        """From the order to end to the kill."""
        return LEAVE_S + math.ceil(self.drain_s) + MARGIN_S

    @property
    def labels(self) -> dict[str, str]:
        """Of every object."""
        return {
            "app.kubernetes.io/name": "deepkits",
            INSTANCE: self.name,
            "app.kubernetes.io/component": "serve",
        }

    def arguments(self, folder: str) -> list[str]:
        """The command line in the container, which finds the models in `folder`."""
        models = []
        for model in self.models:
            version = f"@{model.version}" if model.version else ""
            models.append(f"{model.name}{version}={folder}/{model.path.name}")
        workers = self.cpu // self.threads
        return [
            *models,
            "--host=0.0.0.0",
            f"--port={HTTP_PORT}",
            *([f"--grpc-port={GRPC_PORT}"] if self.grpc else []),
            f"--tokens={TOKENS_FOLDER}/tokens",
            f"--min-workers={workers}",
            f"--max-workers={workers}",
            f"--threads={self.threads}",
            # Other pods compute on the same cores, and see the same ones as free.
            "--no-pin",
            f"--slo-ms={self.slo_ms:g}",
            f"--drain-s={self.drain_s:g}",
        ]

    @property
    def needs_trust(self) -> bool:
        """A bundle is opened only where its signers are trusted."""
        return any(model.path.suffix == ".ebundle" for model in self.models)


def container(plan: Plan, folder: str) -> Object:
    """The one container of a pod, without the mount of the models."""
    ports = [{"name": "http", "containerPort": HTTP_PORT, "protocol": "TCP"}]
    if plan.grpc:
        ports.append({"name": "grpc", "containerPort": GRPC_PORT, "protocol": "TCP"})
    env = [
        # The root is read-only; what runtimes write to their user's folder goes here.
        {"name": "HOME", "value": "/tmp"},
        {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
    ]
    mounts = [
        {"name": "tokens", "mountPath": TOKENS_FOLDER, "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    if plan.needs_trust:
        env.append({"name": "DEEPKITS_HOME", "value": TRUST_FOLDER})
        mounts.append({"name": "trust", "mountPath": TRUST_FOLDER, "readOnly": True})
    size = {"cpu": str(plan.cpu), "memory": plan.memory, "ephemeral-storage": "512Mi"}
    return {
        "name": "serve",
        "image": plan.image,
        "command": ["python", "-m", "core.serve"],
        "args": plan.arguments(folder),
        "ports": ports,
        "env": env,
        "resources": {"requests": size, "limits": dict(size)},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # Five minutes for models to load and warm; from then on the others look.
        "startupProbe": _probe("/startup", periodSeconds=1, failureThreshold=300),
        "readinessProbe": _probe("/ready", periodSeconds=2, failureThreshold=2),
        "livenessProbe": _probe("/live", periodSeconds=10, failureThreshold=3),
        "lifecycle": {"preStop": {"sleep": {"seconds": LEAVE_S}}},
        "volumeMounts": mounts,
    }


def _probe(path: str, **settings: int) -> Object:
    return {"httpGet": {"path": path, "port": "http"}, "timeoutSeconds": 2, **settings}


def volumes(plan: Plan) -> list[Object]:
    """All but that of the models."""
    found: list[Object] = [
        {
            "name": "tokens",
            "secret": {
                "secretName": plan.secret,
                "defaultMode": 0o440,
                "items": [{"key": "tokens", "path": "tokens"}],
            },
        },
        {"name": "tmp", "emptyDir": {"sizeLimit": "256Mi"}},
    ]
    if plan.needs_trust:
        found.append({"name": "trust", "configMap": {"name": f"{plan.name}-trust"}})
    return found


def pod_settings(plan: Plan) -> Object:
    """What is of the pod, not of its container."""
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": plan.grace_s,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER,
            "runAsGroup": USER,
            "fsGroup": USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }


def metadata(plan: Plan, suffix: str = "", **more: Any) -> Object:
    """Of an object named after the plan."""
    found: Object = {"name": f"{plan.name}{suffix}"}
    if plan.namespace:
        found["namespace"] = plan.namespace
    return found | {"labels": plan.labels} | more
