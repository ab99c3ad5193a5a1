import contextlib
import json
import math
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

from core.serve.metrics import Metrics
from core.serve.ops import monitor

OPS = Path(monitor.__file__).parent
RULES = yaml.safe_load((OPS / "rules.yml").read_text(encoding="utf-8"))
ALL_RULES = [rule for group in RULES["groups"] for rule in group["rules"]]
ALERTS = [rule for rule in ALL_RULES if "alert" in rule]
DASHBOARD = json.loads((OPS / "dashboard.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
WAIT_S = 60

needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="no Prometheus on this machine; make system",
)


def promtool(*arguments):
    return subprocess.run(
        ["promtool", *map(str, arguments)], capture_output=True, text=True, check=False, timeout=60
    )


def changed(change):
    """The rules, with each alert as `change` makes it."""
    groups = [
        {
            "name": group["name"],
            "rules": [change(rule) if "alert" in rule else rule for rule in group["rules"]],
        }
        for group in RULES["groups"]
    ]
    return {"groups": groups}


def always(expression):
    """The same, but true for each series that is compared at all."""
    return re.sub(r"(?<=[^<>=!~])(==|[<>]=?)(?=[^=~])", r"\1 bool", expression)


# --- rules ---


@needs_prometheus
def test_the_packaged_configuration_and_its_rules_are_valid():
    result = promtool("check", "config", OPS / "prometheus.yml")
    assert result.returncode == 0, result.stderr
    assert f"{len(ALL_RULES)} rules found" in result.stdout


@needs_prometheus
def test_each_alert_fires_and_stays_silent_as_the_rule_tests_say():
    result = promtool("test", "rules", OPS / "rules_test.yml")
    assert result.returncode == 0, result.stderr


@needs_prometheus
@pytest.mark.parametrize("change", [lambda _: "vector(0) > 1", lambda rule: f"{always(rule)} >= 0"])
def test_the_rule_tests_notice_alerts_that_never_or_always_fire(tmp_path, change):
    rules = changed(lambda rule: rule | {"expr": change(rule["expr"])})
    (tmp_path / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")
    shutil.copy(OPS / "rules_test.yml", tmp_path)
    assert promtool("check", "rules", tmp_path / "rules.yml").returncode == 0
    result = promtool("test", "rules", tmp_path / "rules_test.yml")
    assert result.returncode != 0
    failed = set(re.findall(r"alertname: (\w+), time: ", result.stdout + result.stderr))
    assert failed == {rule["alert"] for rule in ALERTS}


def test_the_briefs_rule_stands_there_as_written():
    (rule,) = [rule for rule in ALERTS if rule["expr"] == "deepseek_request_latency > 500"]
    assert rule["for"] == "5m"


def test_rules_and_dashboard_ask_for_bounds_and_metrics_that_exist():
    metrics = Metrics()
    metrics.model("m", "1", "ready")
    metrics.request("m", "1", "rest", "ok", 0.1)
    metrics.batch("m@1", 1, [0.0], 0.1, "w")
    page = metrics.render()[0].decode()
    recorded = {rule["record"] for rule in ALL_RULES if "record" in rule}
    asked = " ".join(rule["expr"] for rule in ALL_RULES) + json.dumps(DASHBOARD)
    for name in set(re.findall(r"\b(?:deepkits|deepseek|process)_[a-z_]+", asked)) - {"deepkits_"}:
        assert re.search(rf"^{name}(\{{| )", page, re.MULTILINE), name
    assert set(re.findall(r"deepkits:[a-z_:0-9]+", asked)) == recorded
    assert re.findall(r'le=\\?"([0-9.]+)', asked)
    assert all(f'le="{bound}"' in page for bound in re.findall(r'le=\\?"([0-9.]+)', asked))


# --- dashboard ---


def test_the_dashboard_is_well_formed():
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in PANELS:
        assert panel["title"]
        assert panel["type"] in {"stat", "timeseries", "heatmap", "table"}
        assert panel["fieldConfig"]["defaults"].get("unit") or panel["type"] in {"table", "heatmap"}
        references = [target["refId"] for target in panel["targets"]]
        assert len(set(references)) == len(references)
        for target in panel["targets"]:
            assert target["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            assert target["expr"]


def test_panels_fill_their_rows_and_do_not_overlap():
    taken = {}
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert (x, y) not in taken, (panel["title"], taken[x, y])
                taken[x, y] = panel["title"]
    bottom = max(y for _, y in taken) + 1
    assert len(taken) == 24 * bottom  # no holes


# --- a real Prometheus ---


def tiny_model(path):
    from onnx import TensorProto, helper, save

    shape = ["batch", 4]
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    opset = [helper.make_opsetid("", 17)]
    save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def post(url, content):
    request = urllib.request.Request(url, json.dumps(content).encode())
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """The real service on a free port, with a worker, and traffic."""
    folder = tmp_path_factory.mktemp("service")
    tiny_model(folder / "tiny.onnx")
    command = [sys.executable, "-m", "core.serve", str(folder / "tiny.onnx"), "--port=0"]
    command += ["--isolation=process", "--no-access-log", "--watch-s=0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    line = process.stdout.readline()
    stop = threading.Event()

    def ask():
        rows = [[1.0, -2.0, 3.0, 4.0]]
        x = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": rows[0]}
        while not stop.wait(0.02):
            statuses.append(post(f"{url}/v2/models/tiny/infer", {"inputs": [x]}))
            post(f"{url}/models/tiny/predict", {"x": rows})
            post(f"{url}/v2/models/tiny/infer", {"inputs": []})
            post(f"{url}/v2/models/absent/infer", {"inputs": [x]})

    statuses = []
    try:
        url = re.search(r"http://\S+", line).group()
        with ThreadPoolExecutor(2) as threads:
            asking = [threads.submit(ask) for _ in range(2)]
            try:
                yield url, process
            finally:
                stop.set()
            for each in asking:
                each.result()
        assert set(statuses) == {200}
    finally:
        process.terminate()
        process.communicate(timeout=WAIT_S)


class Slow:
    """Stands for a service that is slow; what it shows is made by the real Metrics."""

    def __init__(self):
        self.now = 0.0
        self.metrics = Metrics(lambda: self.now)
        self.metrics.model("slow", "1", "ready")
        self.is_asked = True
        outer = self

        class Page(BaseHTTPRequestHandler):
            def do_GET(self):
                outer.now += 10  # between two scrapes
                if outer.is_asked:
                    outer.metrics.request("slow", "1", "rest", "ok", 0.8)
                body, kind = outer.metrics.render()
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                with contextlib.suppress(ConnectionError):  # Prometheus ended first
                    self.wfile.write(body)

            def log_message(self, *words):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Page)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture(scope="module")
def slow():
    slow = Slow()
    yield slow
    slow.close()


@pytest.fixture(scope="module")
def prometheus(service, slow, tmp_path_factory):
    """Prometheus with the packaged rules, in a hurry."""
    folder = tmp_path_factory.mktemp("prometheus")
    rules = changed(lambda rule: rule | {"for": "1s"} if "for" in rule else rule)
    (folder / "rules.yml").write_text(json.dumps(rules), encoding="utf-8")
    config = monitor.write_config(
        folder,
        urllib.parse.urlsplit(service[0]).netloc,
        rules=folder / "rules.yml",
        interval="250ms",
    )
    content = yaml.safe_load(config.read_text(encoding="utf-8"))
    content["scrape_configs"].append(
        {
            "job_name": "slow",
            "static_configs": [{"targets": [f"127.0.0.1:{slow.server.server_port}"]}],
        }
    )
    config.write_text(json.dumps(content), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = monitor.start_prometheus(config, folder / "data", port)
    try:
        yield Prometheus(f"http://127.0.0.1:{port}/api/v1")
    finally:
        process.terminate()
        process.wait(WAIT_S)


class Prometheus:
    def __init__(self, api):
        self.api = api

    def get(self, path, **query):
        url = f"{self.api}/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as response:
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{query}: {error.read().decode()}") from None

    def values(self, expression):
        result = self.get("query", query=expression)["result"]
        return [float(each["value"][1]) for each in result]

    def without_data(self, expressions):
        """Those of the expressions that give no number within some time."""
        until = time.monotonic() + WAIT_S
        missing = list(expressions)
        while missing and time.monotonic() < until:
            missing = [each for each in missing if not any(map(math.isfinite, self.values(each)))]
            time.sleep(0.2)
        return missing


def substituted(query):
    query = query.replace("$__rate_interval", "5s").replace("$__interval", "5s")
    query = re.sub(r"\$(job|instance|model)\b", ".*", query)
    assert "$" not in query
    return query


@needs_prometheus
def test_every_query_of_the_dashboard_gives_data(prometheus, service):
    assert prometheus.without_data(["deepkits_reloads_total"]) == []
    service[1].send_signal(signal.SIGHUP)  # files are read again: a reload for its panel
    queries = [target["expr"] for panel in PANELS for target in panel["targets"]]
    queries += [each["expr"] for each in DASHBOARD["annotations"]["list"] if "expr" in each]
    assert len(queries) > 30
    assert prometheus.without_data(map(substituted, queries)) == []


@needs_prometheus
def test_every_variable_of_the_dashboard_has_values(prometheus):
    assert prometheus.without_data(["deepkits_model_state"]) == []
    variables = [each for each in DASHBOARD["templating"]["list"] if each["type"] == "query"]
    assert [each["name"] for each in variables] == ["job", "instance", "model"]
    for variable in variables:
        selector, label = re.fullmatch(
            r"label_values\((.+), (\w+)\)", variable["query"]["query"]
        ).groups()
        assert prometheus.get(f"label/{label}/values", **{"match[]": substituted(selector)})


@needs_prometheus
def test_every_rule_runs_and_finds_its_series(prometheus):
    expressions = [always(rule["expr"]) if "alert" in rule else rule["expr"] for rule in ALL_RULES]
    assert prometheus.without_data(expressions) == []
    rules = [rule for group in prometheus.get("rules")["groups"] for rule in group["rules"]]
    assert len(rules) == len(ALL_RULES)
    assert {(rule["health"], rule.get("lastError", "")) for rule in rules} == {("ok", "")}


@needs_prometheus
def test_the_latency_alert_fires_while_it_is_slow_and_ends_with_the_traffic(prometheus, slow):
    def until(condition):
        end = time.monotonic() + WAIT_S
        while not condition(firing()):
            assert time.monotonic() < end, firing()
            time.sleep(0.1)

    def firing():
        alerts = prometheus.get("alerts")["alerts"]
        return {
            (each["labels"]["alertname"], each["labels"].get("model"))
            for each in alerts
            if each["state"] == "firing"
        }

    alert = "DeepseekRequestLatency"
    until(lambda found: (alert, "slow") in found)
    assert (alert, "tiny") not in firing()
    slow.is_asked = False
    until(lambda found: (alert, "slow") not in found)
    (value,) = prometheus.values('deepseek_request_latency{model="slow"}')
    assert math.isnan(value)


# --- make monitor ---


@needs_prometheus
def test_monitor_shows_its_pages_until_it_is_interrupted(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "core.serve.ops.monitor", f"--port={port}"],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        start_new_session=True,
    )
    lines = [process.stdout.readline() for _ in range(5)]
    assert lines[0].startswith("Prometheus scrapes http://127.0.0.1:8080/metrics")
    pages = [re.search(r"http://\S+", line).group() for line in lines[1:4]]
    for page, words in zip(pages, ("alerts", "rules", "graph"), strict=True):
        with urllib.request.urlopen(page, timeout=30) as response:
            assert words in response.url
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/rules", timeout=30) as response:
        assert b"DeepseekRequestLatency" in response.read()
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    assert list(tmp_path.iterdir()) == []  # its data goes with it


def test_monitor_says_what_is_missing(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert monitor.main([]) == 2
    assert capsys.readouterr().err.startswith("error: prometheus is not installed; make system")


@needs_prometheus
def test_monitor_refuses_a_port_that_is_taken(capsys):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert monitor.main([f"--port={taken.getsockname()[1]}"]) == 2
    assert "is taken (Address already in use); give --port" in capsys.readouterr().err
