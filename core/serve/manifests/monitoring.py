"""The objects with which the Prometheus operator watches a service."""

from __future__ import annotations

from importlib import resources

import yaml  # type: ignore[import-untyped]

from core.serve.manifests.plan import Object, Plan, metadata

SCRAPE_S = 5


def pod_monitor(plan: Plan, selector: dict[str, str], job_label: str) -> Object:
    """Have each pod's metrics scraped, with the token `metrics` of the Secret.

    Args:
        plan: of the service.
        selector: labels of its pods.
        job_label: which of them becomes the metrics' label `job`.
    """
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "metadata": metadata(plan),
        "spec": {
            "selector": {"matchLabels": selector},
            "jobLabel": job_label,
            "podMetricsEndpoints": [
                {
                    "port": "http",
                    "path": "/metrics",
                    "interval": f"{SCRAPE_S}s",
                    "authorization": {
                        "type": "Bearer",
                        "credentials": {"name": plan.secret, "key": "metrics"},
                    },
                }
            ],
        },
    }


def prometheus_rule(plan: Plan) -> Object:
    """The alerts of core/serve/ops."""
    rules = resources.files("core.serve.ops").joinpath("rules.yml").read_text(encoding="utf-8")
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata(plan),
        "spec": yaml.safe_load(rules),
    }
