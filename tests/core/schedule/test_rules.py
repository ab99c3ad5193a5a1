import pytest

from core.schedule.costs import CostTable
from core.schedule.job import Device, Job, Model
from core.schedule.rules import (
    DevicePriority,
    FirstCome,
    MinimumCompletion,
    RoundRobin,
    SingleDevice,
    StrictRoundRobin,
)

GPU, NPU, CPU = (Device(kind, kind) for kind in ("gpu", "npu", "cpu"))
MODELS = (Model("m", max_batch=8), Model("n", max_batch=8))


def ready(rule, *devices, models=MODELS):
    for model in models:
        rule.set_model(model, 0.0)
    for device in devices:
        rule.add_device(device, 0.0)
    return rule


def submit(rule, *names, now=0.0, model="m"):
    """Jobs, one dispatch after each; (job name, device) in the order of their starts."""
    started = []
    for name in names:
        job = Job(model, now, payload=name)
        assert rule.submit(job, now) is None
        started += starts(rule, now)
    return started


def starts(rule, now):
    return [(job.payload, batch.device) for batch in rule.dispatch(now) for job in batch.jobs]


def finish(rule, device, now):
    rule.finish(rule._running[device], now)
    return starts(rule, now)


def test_device_priority_follows_the_written_trace():
    # The list is gpu, npu, cpu, whatever the order in which they came up.
    rule = ready(DevicePriority(["gpu", "npu", "cpu"]), CPU, NPU, GPU)
    # First free device of the list; none free: one queue.
    assert submit(rule, *"abcde") == [("a", "gpu"), ("b", "npu"), ("c", "cpu")]
    # A finished slot takes the oldest, whatever it is good at.
    assert finish(rule, "cpu", 1.0) == [("d", "cpu")]
    assert finish(rule, "gpu", 2.0) == [("e", "gpu")]
    # Nothing waits: both idle ones stay, and the next request takes the first of the list.
    assert finish(rule, "npu", 3.0) == []
    assert finish(rule, "gpu", 3.0) == []
    assert submit(rule, "f", now=4.0) == [("f", "gpu")]
    assert submit(rule, "g", now=4.0) == [("g", "npu")]


def test_device_priority_drops_a_failing_device_and_starts_its_request_anew():
    rule = ready(DevicePriority(["gpu", "npu"]), GPU, NPU)
    assert submit(rule, *"abc") == [("a", "gpu"), ("b", "npu")]
    # Its request goes behind those that wait.
    assert rule.drop_device("gpu", 1.0) == []
    assert starts(rule, 1.0) == []
    assert finish(rule, "npu", 2.0) == [("c", "npu")]
    assert finish(rule, "npu", 3.0) == [("a", "npu")]
    # The second device that dies under it ends it.
    (lost,) = rule.drop_device("npu", 4.0)
    assert (lost.payload, lost.num_deaths) == ("a", 2)


def test_device_priority_runs_one_request_at_a_time_also_where_a_model_can_batch():
    rule = ready(DevicePriority(), GPU)
    assert submit(rule, *"abc") == [("a", "gpu")]
    (batch,) = (rule.finish(rule._running["gpu"], 1.0), rule.dispatch(1.0))[1]
    assert batch.size == 1


def test_round_robin_takes_turns_and_skips_the_busy():
    rule = ready(RoundRobin(), GPU, NPU, CPU)
    assert submit(rule, "a") == [("a", "gpu")]
    assert finish(rule, "gpu", 1.0) == []
    assert submit(rule, "b", now=1.0) == [("b", "npu")]
    assert submit(rule, "c", now=1.0) == [("c", "cpu")]
    assert submit(rule, "d", "e", now=1.0) == [("d", "gpu")]
    assert finish(rule, "npu", 2.0) == [("e", "npu")]


def test_strict_round_robin_waits_for_its_device_though_others_idle():
    rule = ready(StrictRoundRobin(), GPU, NPU)
    assert submit(rule, *"abc") == [("a", "npu"), ("b", "gpu")]
    assert finish(rule, "gpu", 1.0) == []
    assert finish(rule, "npu", 2.0) == [("c", "npu")]


def test_a_single_device_does_all():
    rule = ready(SingleDevice("npu"), GPU, NPU)
    assert submit(rule, *"ab") == [("a", "npu")]
    assert finish(rule, "npu", 1.0) == [("b", "npu")]


def test_minimum_completion_counts_what_is_queued_already():
    costs = CostTable("a test")
    costs.measure("m", "gpu", {1: 1.0})
    costs.measure("m", "cpu", {1: 2.5})
    rule = ready(MinimumCompletion(costs), GPU, CPU)
    # gpu would be done at 1, 2, then 3; cpu at 2.5.
    assert submit(rule, *"abc") == [("a", "gpu"), ("c", "cpu")]
    assert finish(rule, "gpu", 1.0) == [("b", "gpu")]


def test_first_come_with_batches_takes_what_fits_of_the_oldest_model():
    rule = ready(FirstCome(max_batch=3), GPU)
    submit(rule, "a")
    submit(rule, *"bc")
    submit(rule, "x", model="n")
    submit(rule, *"de")
    assert [name for name, _ in finish(rule, "gpu", 1.0)] == ["b", "c", "d"]
    assert [name for name, _ in finish(rule, "gpu", 2.0)] == ["x"]
    assert [name for name, _ in finish(rule, "gpu", 3.0)] == ["e"]


@pytest.mark.parametrize(
    "make",
    [FirstCome, DevicePriority, RoundRobin, StrictRoundRobin, lambda: SingleDevice("gpu")],
)
def test_every_rule_keeps_the_protocol(make):
    rule = ready(make(), GPU, models=[Model("m"), Model("n", kinds=frozenset({"npu"}))])
    assert rule.submit(Job("unheard", 0.0), 0.0).reason == "unknown"
    late = Job("m", 0.0, deadline_s=5.0, payload="late")
    gone = Job("m", 0.0, payload="gone")
    other = Job("n", 0.0, payload="other")
    assert submit(rule, "a") == [("a", "gpu")]
    for job in (late, gone, other):
        assert rule.submit(job, 1.0) is None
    assert list(rule.dispatch(1.0)) == []
    assert rule.cancel(gone, 1.0)
    assert not rule.cancel(gone, 1.0)
    assert rule.queue_delay_s(2.0) == 2.0
    assert rule.next_event(2.0) == 5.0
    assert rule.expire(5.0) == [late]
    assert rule.next_event(5.0) == float("inf")
    assert rule.drop_model("n", 6.0) == [other]
    rule.retire_device("gpu", 6.0)
    assert finish(rule, "gpu", 7.0) == []
    assert rule.submit(Job("m", 7.0, payload="b"), 7.0) is None
    assert list(rule.dispatch(7.0)) == []
    if not isinstance(rule, SingleDevice):
        rule.add_device(CPU, 8.0)
        assert starts(rule, 8.0) == [("b", "cpu")]
