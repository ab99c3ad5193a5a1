"""The same service as a runtime of KServe, in its Standard mode (no Knative)."""

from __future__ import annotations

from core.serve.manifests.objects import BEHAVIOR, CPU_PERCENT, queries
from core.serve.manifests.plan import (
    HTTP_PORT,
    Object,
    Plan,
    container,
    metadata,
    pod_settings,
    volumes,
)

# Where KServe mounts what `storageUri` names.
MODELS_FOLDER = "/mnt/models"
FORMAT = "deepkits"
# What KServe puts on the pods, with the service's name.
LABEL = "serving.kserve.io/inferenceservice"


def serving_runtime(plan: Plan) -> Object:
    """How KServe runs a pod of the service."""
    inside = container(plan, MODELS_FOLDER)
    # KServe looks for this name.
    inside["name"] = "kserve-container"
    versions = ["v2", "grpc-v2"] if plan.grpc else ["v2"]
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": metadata(plan),
        "spec": {
            "annotations": {
                "prometheus.kserve.io/port": str(HTTP_PORT),
                "prometheus.kserve.io/path": "/metrics",
            },
            "supportedModelFormats": [{"name": FORMAT, "version": "1", "autoSelect": False}],
            "protocolVersions": versions,
            "multiModel": False,
            "containers": [inside],
            "volumes": volumes(plan),
        },
    }


def inference_service(plan: Plan) -> Object:
    """The service in KServe's eyes."""
    uri = f"oci://{plan.models_image}"
    if not plan.models_image:
        uri = f"pvc://{plan.models_claim or f'{plan.name}-models'}"
    size = {"cpu": str(plan.cpu), "memory": plan.memory}
    predictor = {
        **pod_settings(plan),
        "minReplicas": plan.min_replicas,
        "maxReplicas": plan.max_replicas,
        **_scaling(plan),
        "model": {
            "modelFormat": {"name": FORMAT, "version": "1"},
            "runtime": plan.name,
            "protocolVersion": "v2",
            "storageUri": uri,
            "resources": {"requests": size, "limits": dict(size)},
        },
    }
    annotations = {
        "serving.kserve.io/deploymentMode": "Standard",
        "serving.kserve.io/autoscalerClass": plan.autoscaler,
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": metadata(plan, annotations=annotations),
        "spec": {"predictor": predictor},
    }


def _scaling(plan: Plan) -> Object:
    if plan.autoscaler == "hpa":
        return {"scaleMetric": "cpu", "scaleTarget": CPU_PERCENT}
    metrics = [
        {
            "type": "External",
            "external": {
                "metric": {
                    "backend": "prometheus",
                    "serverAddress": plan.prometheus,
                    "query": query,
                },
                "target": {
                    "type": kind,
                    "value" if kind == "Value" else "averageValue": target,
                },
            },
        }
        for query, kind, target in queries(plan).values()
    ]
    return {"autoScaling": {"metrics": metrics, "behavior": BEHAVIOR}}
