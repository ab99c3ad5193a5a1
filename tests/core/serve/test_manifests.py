import json
import re
import subprocess
import sys
from copy import deepcopy
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from core.serve.command import build_parser
from core.serve.config import LOOPBACK
from core.serve.manifests.__main__ import build, main, read_plan
from core.serve.metrics import Metrics
from core.serve.routes import HEALTH

ROOT = Path(__file__).parents[3]
SCHEMAS = Path(__file__).parent / "schemas"
KUBERNETES = "1.37"
IMAGE = "registry.example/deepkits@sha256:" + "0" * 64
KINDS = {
    ("deployment", "hpa"): "Deployment Service HorizontalPodAutoscaler",
    ("deployment", "keda"): "Deployment Service ScaledObject",
    ("kserve", "hpa"): "ServingRuntime InferenceService",
    ("kserve", "keda"): "ServingRuntime InferenceService",
}
COMMON = "PodDisruptionBudget NetworkPolicy PodMonitor PrometheusRule"


@pytest.fixture
def files(tmp_path):
    (tmp_path / "fraud.onnx").write_bytes(b"")
    (tmp_path / "Images v2.ebundle").write_bytes(b"")
    return tmp_path


def made(files, *models, **given):
    models = [str(files / model) for model in models or ("fraud.onnx",)]
    plan = read_plan({"models": models, "image": IMAGE} | given)
    return {one["kind"]: json.loads(json.dumps(one)) for one in build(plan)}


def check(one):
    """Against the schema of its kind; what is Kubernetes' own inside of others, too."""
    schema = SCHEMAS / f"{one['kind'].lower()}.json"
    if not schema.exists():
        kubernetes_validate.validate(one, KUBERNETES, strict=True)
        return
    content = json.loads(schema.read_text())
    jsonschema.Draft202012Validator.check_schema(content)
    jsonschema.validate(one, content, jsonschema.Draft202012Validator)
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "inside"}}
    if one["kind"] == "ServingRuntime":
        parts = {key: one["spec"][key] for key in ("containers", "volumes")}
        # KServe mounts the models itself.
        kubernetes_validate.validate(pod | {"spec": parts}, KUBERNETES, strict=True)
    elif one["kind"] == "InferenceService":
        predictor = one["spec"]["predictor"]
        names = ("securityContext", "automountServiceAccountToken", "enableServiceLinks")
        parts = {name: predictor[name] for name in names}
        parts["containers"] = [{"name": "a", "resources": predictor["model"]["resources"]}]
        kubernetes_validate.validate(pod | {"spec": parts}, KUBERNETES, strict=True)


@pytest.mark.parametrize(("kind", "autoscaler"), KINDS)
@pytest.mark.parametrize("more", [{}, {"models_image": "registry.example/models:1", "grpc": True}])
def test_every_object_is_valid(files, kind, autoscaler, more):
    found = made(
        files,
        *("fraud.onnx", "Images v2.ebundle"),
        kind=kind,
        autoscaler=autoscaler,
        monitoring=True,
        namespace="models",
        **more,
    )
    assert list(found) == f"{KINDS[kind, autoscaler]} {COMMON}".split()
    for one in found.values():
        check(one)
        assert one["metadata"]["namespace"] == "models"


WRONG = [
    ("deployment", "Deployment", ("spec", "template", "spec", "containers", 0), "imagePullPolice"),
    ("deployment", "Deployment", ("spec",), "replica"),
    ("deployment", "Service", ("spec",), "port"),
    ("deployment", "ScaledObject", ("spec",), "maxReplicas"),
    ("deployment", "ScaledObject", ("spec", "triggers", 0, "metadata"), "treshold"),
    ("deployment", "NetworkPolicy", ("spec",), "outgress"),
    ("deployment", "PodDisruptionBudget", ("spec",), "maxUnavaliable"),
    ("deployment", "PodMonitor", ("spec", "podMetricsEndpoints", 0), "bearer"),
    ("deployment", "PrometheusRule", ("spec", "groups", 0, "rules", 0), "severity"),
    ("kserve", "ServingRuntime", ("spec",), "image"),
    ("kserve", "ServingRuntime", ("spec", "containers", 0), "arg"),
    ("kserve", "InferenceService", ("spec", "predictor"), "replicas"),
    ("kserve", "InferenceService", ("spec", "predictor", "securityContext"), "runAsNobody"),
]


@pytest.mark.parametrize(("kind", "what", "path", "name"), WRONG)
def test_an_unknown_field_is_not_valid(files, kind, what, path, name):
    one = deepcopy(made(files, kind=kind, autoscaler="keda", monitoring=True)[what])
    part = one
    for step in path:
        part = part[step]
    part[name] = "1"
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        check(one)


@pytest.mark.parametrize(
    ("what", "path", "value"),
    [
        ("Deployment", ("spec", "template", "spec", "terminationGracePeriodSeconds"), "45"),
        ("ScaledObject", ("spec", "triggers", 0, "metadata", "threshold"), 8),
        ("ScaledObject", ("spec", "triggers", 0, "metricType"), "Percent"),
        ("PodMonitor", ("spec", "podMetricsEndpoints", 0, "interval"), 5),
        ("PrometheusRule", ("apiVersion",), "monitoring.coreos.com/v2"),
    ],
)
def test_a_value_of_another_type_is_not_valid(files, what, path, value):
    one = deepcopy(made(files, autoscaler="keda", monitoring=True)[what])
    part = one
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    with pytest.raises((kubernetes_validate.ValidationError, jsonschema.ValidationError)):
        check(one)


def pods(found):
    """Container, and settings of its pod, of both kinds."""
    if "Deployment" in found:
        spec = found["Deployment"]["spec"]["template"]["spec"]
        return spec["containers"][0], spec, spec["volumes"]
    runtime = found["ServingRuntime"]["spec"]
    return (
        runtime["containers"][0],
        found["InferenceService"]["spec"]["predictor"],
        runtime["volumes"],
    )


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_a_pod_may_do_nothing_but_serve(files, kind):
    container, pod, _ = pods(found := made(files, kind=kind))
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["resources"]["requests"] == container["resources"]["limits"]
    assert found["NetworkPolicy"]["spec"]["egress"] == []
    mounts = {mount["mountPath"]: mount.get("readOnly") for mount in container["volumeMounts"]}
    assert [path for path, is_read_only in mounts.items() if not is_read_only] == ["/tmp"]


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_the_command_line_is_one_the_service_takes(files, kind):
    container, _, volumes = pods(
        made(files, "fraud.onnx", "Images v2.ebundle", kind=kind, cpu=8, threads=2, grpc=True)
    )
    assert container["command"] == ["python", "-m", "core.serve"]
    flags = build_parser().parse_args(container["args"])
    folder = "/models" if kind == "deployment" else "/mnt/models"
    assert flags.models == [f"fraud={folder}/fraud.onnx", f"Images-v2={folder}/Images v2.ebundle"]
    assert flags.host not in LOOPBACK
    assert (flags.min_workers, flags.max_workers, flags.threads, flags.pin) == (4, 4, 2, False)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": flags.port, "grpc": flags.grpc_port}
    folders = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert folders[str(flags.tokens.parent)] == "tokens"
    assert {"name": "DEEPKITS_HOME", "value": "/etc/deepkits/trust"} in container["env"]
    names = {volume["name"] for volume in volumes}
    assert {name for name in folders.values() if name != "models"} <= names


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_a_pod_has_the_time_to_drain(files, kind):
    container, pod, _ = pods(made(files, kind=kind, drain_s=120.0))
    flags = build_parser().parse_args(container["args"])
    assert flags.drain_s == 120
    leave_s = container["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] > leave_s + flags.drain_s


def test_probes_ask_what_the_service_answers_without_a_token(files):
    container, _, _ = pods(made(files))
    paths = [
        container[f"{what}Probe"]["httpGet"]["path"]
        for what in ("startup", "readiness", "liveness")
    ]
    assert paths == ["/startup", "/ready", "/live"]
    assert set(paths) <= set(HEALTH)


@pytest.mark.parametrize("kind", ["deployment", "kserve"])
def test_every_metric_that_is_asked_for_is_told(files, kind):
    found = made(files, kind=kind, autoscaler="keda")
    text = json.dumps(found.get("ScaledObject") or found["InferenceService"])
    names = set(re.findall(r"deepkits_\w+", text))
    assert len(names) == 2
    metrics = Metrics()
    metrics.model("fraud", "1", "ready")
    metrics.request("fraud", "1", "rest", "ok", 0.001)
    metrics.batch("fraud", 1, [0.001], 0.001, "worker-0")
    page = metrics.render()[0].decode()
    for name in names:
        assert f"\n{name}" in page


def test_a_quiet_service_asks_for_no_pod_and_a_busy_one_does(files, tmp_path):
    delay, waiting = (
        trigger["metadata"]["query"]
        for trigger in made(files, autoscaler="keda")["ScaledObject"]["spec"]["triggers"]
    )
    bucket = 'deepkits_queue_delay_seconds_bucket{job="fraud",le="%s"}'

    def case(early, late, waits, *expected):
        series = [
            {"series": bucket % "0.1", "values": early},
            {"series": bucket % "+Inf", "values": late},
            {"series": 'deepkits_waiting_requests{job="fraud"}', "values": waits},
        ]
        tests = [
            {"expr": query, "eval_time": "5m", "exp_samples": [{"labels": "{}", "value": value}]}
            for query, value in zip((delay, waiting), expected, strict=True)
        ]
        return {"interval": "15s", "input_series": series, "promql_expr_test": tests}

    file = tmp_path / "test.yml"
    nothing = {"interval": "15s", "input_series": [], "promql_expr_test": []}
    nothing["promql_expr_test"] = case("", "", "", 0, 0)["promql_expr_test"]
    cases = [
        nothing,
        case("7x20", "7x20", "0x20", 0, 0),
        # 90 of 100 more waited up to 0.1 s.
        case("0+90x20", "0+100x20", "12x20", 0.1, 12),
    ]
    file.write_text(yaml.safe_dump({"tests": cases}))
    result = subprocess.run(
        ["promtool", "test", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_selectors_find_the_pods(files):
    found = made(files, monitoring=True)
    labels = found["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert found["Service"]["spec"]["selector"].items() <= labels.items()
    for kind, key in (
        ("Deployment", "selector"),
        ("PodDisruptionBudget", "selector"),
        ("PodMonitor", "selector"),
        ("NetworkPolicy", "podSelector"),
    ):
        assert found[kind]["spec"][key]["matchLabels"].items() <= labels.items()
    assert labels[found["PodMonitor"]["spec"]["jobLabel"]] == "fraud"
    target = found["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": "apps/v1", "kind": "Deployment", "name": "fraud"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"name": "Fraud"}, "name='Fraud' is not 1 to 40"),
        ({"min_replicas": 3, "max_replicas": 2}, "min_replicas=3, max_replicas=2"),
        ({"memory": "2"}, "memory='2' is not a number with Mi or Gi"),
        ({"threads": 4}, "threads=4 is not between 1 and cpu=2"),
        ({"models_claim": "a", "models_image": "b"}, "both given"),
    ],
)
def test_a_wrong_value_is_told(files, given, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        made(files, **given)


def test_the_command_writes_the_same_bytes_again(files, capsys):
    arguments = [str(files / "fraud.onnx"), "--image", IMAGE, "--autoscaler", "keda"]
    main(arguments)
    told = capsys.readouterr().out
    again = subprocess.run(
        [sys.executable, "-m", "core.serve.manifests", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert again.stdout == told
    assert "kubectl create secret generic fraud-tokens" in told
    assert "&id" not in told
    kinds = [one["kind"] for one in yaml.safe_load_all(told) if one]
    assert kinds == "Deployment Service ScaledObject PodDisruptionBudget NetworkPolicy".split()
    main([*arguments, "--out", str(files / "out")])
    written = "---\n".join((files / "out" / f"{kind.lower()}.yaml").read_text() for kind in kinds)
    assert told.endswith(written)


def test_a_mistake_is_one_line(files, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([str(files / "nothing.onnx"), "--image", IMAGE])
    assert capsys.readouterr().err.startswith("error: ")
