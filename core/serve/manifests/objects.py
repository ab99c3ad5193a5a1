"""The objects of a service that Kubernetes itself knows, and KEDA's."""

from __future__ import annotations

from core.serve.manifests.plan import (
    GRPC_PORT,
    HTTP_PORT,
    Object,
    Plan,
    container,
    metadata,
    pod_settings,
    volumes,
)

MODELS_FOLDER = "/models"
# Of the requested processors, over which there should be another pod.
CPU_PERCENT = 70
# A pod more as soon as it is needed; one less after five quiet minutes, half of them at most.
BEHAVIOR = {
    "scaleUp": {
        "stabilizationWindowSeconds": 0,
        "policies": [
            {"type": "Percent", "value": 100, "periodSeconds": 15},
            {"type": "Pods", "value": 2, "periodSeconds": 15},
        ],
        "selectPolicy": "Max",
    },
    "scaleDown": {
        "stabilizationWindowSeconds": 300,
        "policies": [{"type": "Percent", "value": 50, "periodSeconds": 60}],
    },
}
# Requests that may wait in a pod, and the share of the objective that they may wait for, before
# there should be another pod.
WAITING, DELAY_SHARE = 8, 0.25


def deployment(plan: Plan) -> Object:
    """Pods of the service; how many there are is the autoscaler's."""
    inside = container(plan, MODELS_FOLDER)
    inside["volumeMounts"].append({"name": "models", "mountPath": MODELS_FOLDER, "readOnly": True})
    if plan.models_image:
        source: Object = {"image": {"reference": plan.models_image, "pullPolicy": "IfNotPresent"}}
    else:
        claim = plan.models_claim or f"{plan.name}-models"
        source = {"persistentVolumeClaim": {"claimName": claim, "readOnly": True}}
    spread = {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": plan.labels},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata(plan),
        "spec": {
            "selector": {"matchLabels": plan.labels},
            "strategy": {
                "type": "RollingUpdate",
                "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
            },
            "template": {
                "metadata": {"labels": plan.labels},
                "spec": {
                    **pod_settings(plan),
                    "topologySpreadConstraints": [spread],
                    "containers": [inside],
                    "volumes": [*volumes(plan), {"name": "models", **source}],
                },
            },
        },
    }


def service(plan: Plan) -> Object:
    """One name for all pods."""
    ports = [{"name": "http", "port": HTTP_PORT, "targetPort": "http", "appProtocol": "http"}]
    if plan.grpc:
        ports.append(
            {
                "name": "grpc",
                "port": GRPC_PORT,
                "targetPort": "grpc",
                "appProtocol": "kubernetes.io/h2c",
            }
        )
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata(plan),
        "spec": {"type": "ClusterIP", "selector": plan.labels, "ports": ports},
    }


def horizontal_pod_autoscaler(plan: Plan) -> Object:
    """As many pods as their processors are busy."""
    cpu = {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": CPU_PERCENT}}
    return {
        "apiVersion": "autoscaling/v2",
        "kind": "HorizontalPodAutoscaler",
        "metadata": metadata(plan),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name},
            "minReplicas": plan.min_replicas,
            "maxReplicas": plan.max_replicas,
            "metrics": [{"type": "Resource", "resource": cpu}],
            "behavior": BEHAVIOR,
        },
    }


def queries(plan: Plan) -> dict[str, tuple[str, str, str]]:
    """What KEDA asks Prometheus: name -> query, kind of target, target.

    A quiet service gives 0, not NaN. `job` is the plan's name where `pod_monitor` has it scraped.
    """
    of = f'{{job="{plan.name}"}}'
    delay = (
        "histogram_quantile(0.9, sum by (le) "
        f"(rate(deepkits_queue_delay_seconds_bucket{of}[1m]))) > 0 or vector(0)"
    )
    waiting = f"sum(deepkits_waiting_requests{of}) or vector(0)"
    return {
        "queue-delay": (delay, "Value", f"{DELAY_SHARE * plan.slo_ms / 1e3:g}"),
        "waiting": (waiting, "AverageValue", str(WAITING)),
    }


def scaled_object(plan: Plan) -> Object:
    """As many pods as requests wait for, by KEDA."""
    triggers = [
        {
            "type": "prometheus",
            "name": name,
            "metricType": kind,
            "metadata": {"serverAddress": plan.prometheus, "query": query, "threshold": target},
        }
        for name, (query, kind, target) in queries(plan).items()
    ]
    return {
        "apiVersion": "keda.sh/v1alpha1",
        "kind": "ScaledObject",
        "metadata": metadata(plan),
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": plan.name},
            "pollingInterval": 5,
            "minReplicaCount": plan.min_replicas,
            "maxReplicaCount": plan.max_replicas,
            "advanced": {"horizontalPodAutoscalerConfig": {"behavior": BEHAVIOR}},
            "triggers": triggers,
        },
    }


def pod_disruption_budget(plan: Plan, selector: dict[str, str]) -> Object:
    """One pod at a time may be taken for maintenance."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": metadata(plan),
        "spec": {
            "maxUnavailable": 1,
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
            "selector": {"matchLabels": selector},
        },
    }


def network_policy(plan: Plan, selector: dict[str, str]) -> Object:
    """Requests from the same namespace and from monitoring; nothing goes out."""
    ports = [{"protocol": "TCP", "port": HTTP_PORT}]
    if plan.grpc:
        ports.append({"protocol": "TCP", "port": GRPC_PORT})
    monitoring = {"kubernetes.io/metadata.name": plan.monitoring_namespace}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": metadata(plan),
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {
                    "from": [
                        {"podSelector": {}},
                        {"namespaceSelector": {"matchLabels": monitoring}},
                    ],
                    "ports": ports,
                }
            ],
            "egress": [],
        },
    }
