import math
import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.serve.errors import ServeError
from core.serve.metrics import EXPECTED, KEPT_S, REFUSED, UNKNOWN, Metrics

FRAUD = {"model": "fraud", "version": "1"}


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def metrics(clock):
    metrics = Metrics(clock)
    metrics.model("fraud", "1", "loading")
    metrics.model("fraud", "1", "ready")
    return metrics


def page(metrics):
    return metrics.render()[0].decode()


def samples(metrics, name):
    families = text_string_to_metric_families(page(metrics))
    found = [sample for family in families for sample in family.samples if sample.name == name]
    return [(sample.labels, sample.value) for sample in found]


def value(metrics, name, **labels):
    found = [v for each, v in samples(metrics, name) if labels.items() <= each.items()]
    assert len(found) == 1, (name, labels, found)
    return found[0]


def test_a_request_is_counted_and_timed(metrics):
    metrics.request("fraud", "1", "rest", "ok", 0.0004)
    metrics.request("fraud", "1", "rest", "ok", 0.3)
    metrics.request("fraud", "1", "grpc", "ok", 0.3)
    labels = {**FRAUD, "protocol": "rest"}
    assert value(metrics, "deepkits_requests_total", code="ok", **labels) == 2
    name = "deepkits_request_duration_seconds"
    assert value(metrics, f"{name}_count", **labels) == 2
    assert value(metrics, f"{name}_sum", **labels) == pytest.approx(0.3004)
    buckets = {
        each["le"]: v
        for each, v in samples(metrics, f"{name}_bucket")
        if labels.items() <= each.items()
    }
    assert (buckets["0.0002"], buckets["0.0005"], buckets["0.2"], buckets["0.5"]) == (0, 1, 1, 2)
    assert buckets["+Inf"] == 2
    assert list(buckets.values()) == sorted(buckets.values())


def test_a_bound_belongs_to_its_bucket(metrics):
    metrics.request("fraud", "1", "rest", "ok", 0.5)
    assert value(metrics, "deepkits_request_duration_seconds_bucket", le="0.5") == 1
    assert value(metrics, "deepkits_request_duration_seconds_bucket", le="0.2") == 0


def test_errors_stand_at_zero_before_the_first(metrics):
    metrics.request("fraud", "1", "rest", "ok", 0.01)
    for code in EXPECTED[1:]:
        assert value(metrics, "deepkits_requests_total", code=code) == 0
    assert value(metrics, "deepkits_reloads_total", model="fraud", result="rolled_back") == 0
    assert value(metrics, "deepkits_worker_deaths_total") == 0


def test_codes_are_those_of_the_service():
    codes = {each.code for each in ServeError.__subclasses__()} | {ServeError.code, "ok"}
    assert codes >= {*REFUSED, *EXPECTED}


@pytest.mark.parametrize("code", sorted(REFUSED))
def test_a_refusal_is_counted_but_not_timed(metrics, code):
    metrics.request("fraud", "1", "rest", code, 0.0001)
    assert value(metrics, "deepkits_requests_total", code=code) == 1
    assert samples(metrics, "deepkits_request_duration_seconds_count") == []
    assert math.isnan(value(metrics, "deepseek_request_latency"))


@pytest.mark.parametrize("code", ["deadline", "internal", "worker_lost", "cancelled"])
def test_a_failure_is_timed(metrics, code):
    metrics.request("fraud", "1", "rest", code, 30.0)
    assert value(metrics, "deepseek_request_latency", model="fraud") == pytest.approx(
        30_000, rel=0.01
    )


def test_the_latency_gauge_is_the_last_minutes_99th_percentile_in_milliseconds(metrics, clock):
    def latency():
        return value(metrics, "deepseek_request_latency", model="fraud")

    assert math.isnan(latency())
    for index in range(1000):
        metrics.request("fraud", "1", "rest", "ok", 0.6 if index % 50 == 0 else 0.01)
    assert latency() == pytest.approx(600, rel=0.01)
    clock.now += 30
    for _ in range(900):
        metrics.request("fraud", "1", "binary", "ok", 0.02)
    assert latency() == pytest.approx(600, rel=0.01)  # 20 of 1900
    clock.now += 31
    assert latency() == pytest.approx(20, rel=0.01)
    clock.now += 61
    assert math.isnan(latency())  # no alert burns on for traffic that is over
    assert "last 60 s" in page(metrics)


def test_each_model_has_its_own_latency(metrics):
    metrics.model("slow", "1", "ready")
    metrics.request("fraud", "1", "rest", "ok", 0.01)
    metrics.request("slow", "1", "rest", "ok", 2.0)
    assert value(metrics, "deepseek_request_latency", model="fraud") == pytest.approx(10, rel=0.01)
    assert value(metrics, "deepseek_request_latency", model="slow") == pytest.approx(2000, rel=0.01)


def test_what_callers_invent_never_becomes_a_label(metrics):
    size = len(page(metrics))
    for index in range(1000):
        metrics.request(f"invented{index}", "7", "rest", "not_found", 0.0001)
        metrics.request("fraud", f"invented{index}", "rest", "not_found", 0.0001)
        metrics.request("", "", "rest", "unauthorized", 0.0001)
        metrics.reload(f"invented{index}", "ok")
    assert "invented" not in page(metrics)
    assert len(page(metrics)) < size + 2000
    assert value(metrics, "deepkits_requests_total", model=UNKNOWN, code="not_found") == 1000
    assert value(metrics, "deepkits_requests_total", model="fraud", code="not_found") == 1000
    assert len(metrics._hot) < 10


def test_a_batch_is_counted(metrics):
    metrics.batch("fraud@1", 3, [0.001, 0.002, 0.004], 0.01, "w0")
    metrics.batch("fraud@1", 1, [0.0], 0.02, "w0")
    assert value(metrics, "deepkits_batch_rows_sum", **FRAUD) == 4
    assert value(metrics, "deepkits_batch_rows_count", **FRAUD) == 2
    assert value(metrics, "deepkits_queue_delay_seconds_count", **FRAUD) == 4
    assert value(metrics, "deepkits_queue_delay_seconds_sum", **FRAUD) == pytest.approx(0.007)
    assert value(metrics, "deepkits_batch_duration_seconds_sum", **FRAUD) == pytest.approx(0.03)
    assert value(metrics, "deepkits_worker_busy_seconds_total", worker="w0") == pytest.approx(0.03)


def test_gauges_show_the_present(metrics):
    metrics.waiting(7)
    metrics.workers(2, 3)
    metrics.worker_death()
    metrics.reload("fraud", "rolled_back")
    metrics.log_dropped(5)
    assert value(metrics, "deepkits_waiting_requests") == 7
    assert value(metrics, "deepkits_workers") == 2
    assert value(metrics, "deepkits_workers_wanted") == 3
    assert value(metrics, "deepkits_worker_deaths_total") == 1
    assert value(metrics, "deepkits_reloads_total", result="rolled_back") == 1
    assert value(metrics, "deepkits_access_log_dropped_total") == 5
    assert value(metrics, "deepkits_build_info") == 1
    assert value(metrics, "process_resident_memory_bytes") > 1e6


def test_states_of_versions(metrics):
    metrics.model("fraud", "2", "loading")
    assert value(metrics, "deepkits_models_ready") == 1
    states = {
        (each["version"], each["state"]): v for each, v in samples(metrics, "deepkits_model_state")
    }
    assert states["1", "ready"] == states["2", "loading"] == 1
    assert sum(states.values()) == 2
    metrics.model("fraud", "1", "draining")
    assert value(metrics, "deepkits_models_ready") == 0
    metrics.model("fraud", "2", "ready")
    metrics.model("fraud", "1", "gone")
    metrics.model("fraud", "1", "gone")
    assert value(metrics, "deepkits_models_ready") == 1
    with pytest.raises(ValueError, match="state='up' is not one of loading, ready"):
        metrics.model("fraud", "1", "up")


def test_rows_of_a_version_that_is_gone_go_after_some_scrapes(metrics, clock):
    metrics.model("fraud", "2", "ready")
    for version in "12":
        metrics.request("fraud", version, "rest", "ok", 0.01)
        metrics.batch(f"fraud@{version}", 1, [0.0], 0.01, f"w{version}")
    metrics.model("fraud", "1", "gone")
    clock.now += KEPT_S - 1
    metrics.batch("fraud@2", 1, [0.0], 0.01, "w2")
    assert 'version="1"' in page(metrics)
    clock.now += 2
    assert 'version="1"' not in page(metrics)
    assert 'worker="w1"' not in page(metrics)
    assert value(metrics, "deepkits_requests_total", version="2", code="ok") == 1
    metrics.request("fraud", "1", "rest", "not_found", 0.01)
    assert 'version="1"' not in page(metrics)
    metrics.model("fraud", "2", "gone")
    clock.now += KEPT_S + 1
    assert "fraud" not in page(metrics)
    metrics.model("fraud", "3", "ready")
    metrics.request("fraud", "3", "rest", "ok", 0.01)
    assert value(metrics, "deepkits_requests_total", code="ok") == 1


def test_what_never_was_cannot_go(metrics, clock):
    metrics.model("ghost", "1", "gone")
    clock.now += KEPT_S + 1
    assert "ghost" not in page(metrics)


def test_memory_does_not_grow_with_versions(metrics, clock):
    metrics.model("fraud", "1", "gone")
    for index in range(200):
        metrics.model("fraud", str(index), "ready")
        metrics.request("fraud", str(index), "rest", "ok", 0.01)
        metrics.model("fraud", str(index), "gone")
        clock.now += 100
        page(metrics)
    assert len(samples(metrics, "deepkits_request_duration_seconds_count")) <= 5
    assert len(metrics._hot) <= 5


def test_a_name_cannot_break_the_page():
    metrics = Metrics()
    metrics.model('a"b\\c\nd', "1", "ready")
    metrics.request('a"b\\c\nd', "1", "rest", "ok", 0.01)
    assert value(metrics, "deepkits_requests_total", model='a"b\\c\nd', code="ok") == 1


def test_dropped_lines_may_be_told_by_any_thread(metrics):
    threads = [
        threading.Thread(target=lambda: [metrics.log_dropped(1) for _ in range(1000)])
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert value(metrics, "deepkits_access_log_dropped_total") == 4000


def test_the_page_says_what_it_is(metrics):
    body, kind = metrics.render()
    assert kind == "text/plain; version=0.0.4; charset=utf-8"
    assert body.endswith(b"\n")
