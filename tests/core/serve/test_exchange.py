import json
import re

import pytest

from core.serve.config import ServeConfig
from tests.core.serve.small_engine import app_of, get, post

INFER = "/v2/models/double/infer"
X = {"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}


def lines(app, capfd):
    app.close()
    return [json.loads(line) for line in capfd.readouterr().out.splitlines()]


def test_every_request_but_health_is_one_line_of_the_log(capfd):
    app = app_of(config=ServeConfig())
    post(app, INFER, {"id": "7", "inputs": [X]})
    post(app, "/models/double/predict", {"x": [[1, 2]]}, headers={b"x-request-id": b"r1"})
    post(app, "/v2/models/nothing/infer", {"inputs": [X]})
    get(app, "/ready")
    get(app, "/v2")
    get(app, "/nothing")
    seen = lines(app, capfd)
    names = ("id", "protocol", "model", "version", "status", "code")
    assert [tuple(line[name] for name in names) for line in seen] == [
        ("7", "rest", "double", "2", 200, "ok"),
        ("r1", "predict", "double", "", 400, "bad_request"),
        ("", "rest", "nothing", "", 404, "not_found"),
        ("", "http", "", "", 200, "ok"),
        ("", "http", "", "", 404, "not_found"),
    ]
    assert seen[0]["received_bytes"] > 50
    assert seen[0]["sent_bytes"] > 50
    assert seen[0]["queue_s"] == 0.001


def test_metrics_count_by_what_was_asked(capfd):
    app = app_of()
    post(app, INFER, {"inputs": [X]})
    post(app, "/models/double/predict", {"x": [[1, 2, 3]]})
    post(app, "/v2/models/double/versions/9/infer", {"inputs": [X]})
    for number in range(5):
        post(app, f"/v2/models/guess-{number}/infer", {"inputs": [X]})
    text = get(app, "/metrics").body.decode()
    assert not re.search("guess", text)
    assert re.search(r'code="not_found"} 6', text)


@pytest.mark.parametrize("parent", ["", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
def test_a_traced_request_has_its_trace_in_the_log(capfd, monkeypatch, parent):
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    app = app_of(config=ServeConfig(traces=True))
    headers = {b"traceparent": parent.encode()} if parent else {}
    post(app, INFER, {"inputs": [X]}, headers=headers)
    post(app, INFER, b"no", headers=headers)
    found = [line["trace"] for line in lines(app, capfd)]
    assert all(re.fullmatch("[0-9a-f]{32}", trace) for trace in found)
    if parent:
        assert found == [parent[3:35]] * 2
