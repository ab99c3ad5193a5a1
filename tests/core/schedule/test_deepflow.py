from math import inf

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from core.schedule.costs import CostTable
from core.schedule.deepflow import DeepFlow
from core.schedule.job import Device, Job, Model


def table(costs):
    """Costs from model, kind -> seconds of one row, or rows -> seconds."""
    known = CostTable("a test")
    for (model, kind), seconds in costs.items():
        known.measure(model, kind, seconds if isinstance(seconds, dict) else {1: seconds})
    return known


class Played(DeepFlow):
    """Remembers what runs."""

    def __init__(self, costs, **settings):
        super().__init__(costs, **settings)
        self.running = {}


def flow(costs, devices, models, **settings):
    scheduler = Played(table(costs), **settings)
    for model in models:
        scheduler.set_model(model, 0.0)
    for device in devices:
        scheduler.add_device(device, 0.0)
    scheduler.expire(0.0)  # plans
    return scheduler


def submit(scheduler, *names, model="m", now=0.0, **settings):
    jobs = [Job(model, now, payload=name, **settings) for name in names]
    for job in jobs:
        assert scheduler.submit(job, now) is None
    return jobs


def started_batches(scheduler, now):
    batches = list(scheduler.dispatch(now))
    scheduler.running.update({batch.device: batch for batch in batches})
    return batches


def started(scheduler, now):
    """(device, names of the jobs) of what starts now."""
    return [
        (batch.device, "".join(job.payload for job in batch.jobs))
        for batch in started_batches(scheduler, now)
    ]


def finish(scheduler, device, now):
    scheduler.finish(scheduler.running.pop(device), now)
    return started(scheduler, now)


A, B = Device("a", "cpu"), Device("b", "cpu")
FAST, SLOW = Device("fast", "gpu"), Device("slow", "cpu")
ONE = {("m", "cpu"): 0.010}


def test_a_job_runs_at_once_on_an_idle_device():
    scheduler = flow(ONE, [A], [Model("m")])
    submit(scheduler, "x")
    assert started(scheduler, 0.0) == [("a", "x")]
    assert scheduler.queue_delay_s(0.0) == 0.0


def test_of_one_model_the_earliest_deadline_goes_first():
    scheduler = flow(ONE, [A], [Model("m")])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    for name, deadline in zip("bca", (5.0, 9.0, 3.0), strict=True):
        submit(scheduler, name, deadline_s=deadline)
    assert [finish(scheduler, "a", now) for now in (1.0, 1.1, 1.2)] == [
        [("a", "a")],
        [("a", "b")],
        [("a", "c")],
    ]


def test_a_larger_priority_goes_before_an_earlier_deadline():
    scheduler = flow(ONE, [A], [Model("m")])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    submit(scheduler, "a", deadline_s=2.0)
    submit(scheduler, "b", deadline_s=9.0, priority=1)
    assert finish(scheduler, "a", 0.01) == [("a", "b")]


def test_what_should_be_answered_sooner_goes_first_among_models_too():
    costs = {("m", "cpu"): 0.010, ("n", "cpu"): 0.010}
    scheduler = flow(costs, [A], [Model("m", slo_s=1.0), Model("n", slo_s=0.1)])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    submit(scheduler, "m", model="m")
    submit(scheduler, "n", model="n")
    assert finish(scheduler, "a", 0.01) == [("a", "n")]


def test_jobs_that_waited_go_together_as_far_as_the_model_can():
    scheduler = flow({("m", "cpu"): {1: 0.010, 4: 0.016}}, [A], [Model("m", max_batch=3)])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    submit(scheduler, *"abcd")
    assert finish(scheduler, "a", 0.01) == [("a", "abc")]


def test_no_batch_where_it_saves_nothing():
    scheduler = flow({("m", "cpu"): {1: 0.010, 4: 0.040}}, [A], [Model("m", max_batch=4)])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    submit(scheduler, *"ab")
    assert finish(scheduler, "a", 0.01) == [("a", "a")]


def test_a_batch_grows_only_as_far_as_its_first_job_has_time():
    costs = {("m", "cpu"): {1: 0.010, 8: 0.024}}
    scheduler = flow(costs, [A], [Model("m", max_batch=8)])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    submit(scheduler, "a", deadline_s=0.0251)  # 3 rows take 14 ms, 4 take 16
    submit(scheduler, *"bcdef")
    assert finish(scheduler, "a", 0.011) == [("a", "abc")]


def test_rows_of_jobs_count():
    scheduler = flow({("m", "cpu"): {1: 0.010, 4: 0.016}}, [A], [Model("m", max_batch=4)])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    submit(scheduler, "a", size=3)
    submit(scheduler, "b", size=2)
    submit(scheduler, "c", size=1)
    assert finish(scheduler, "a", 0.01) == [("a", "a")]
    with pytest.raises(ValueError, match="has 5 rows, the model takes 1 to 4 at once"):
        scheduler.submit(Job("m", 0.0, size=5), 0.0)


def test_each_device_gets_what_it_is_comparatively_best_at():
    # Both models are faster on the gpu, n by far.
    costs = {("m", "gpu"): 0.004, ("m", "cpu"): 0.005, ("n", "gpu"): 0.004, ("n", "cpu"): 0.040}
    models = [Model("m", slo_s=0.1), Model("n", slo_s=0.1)]
    scheduler = flow(costs, [FAST, SLOW], models)
    for name in "uvwxyz":
        submit(scheduler, name, model="m")
        submit(scheduler, *(3 * name.upper()), model="n")
    scheduler.replan(0.0)
    started(scheduler, 0.0)
    assert finish(scheduler, "fast", 0.004)[0][1].isupper()
    assert finish(scheduler, "slow", 0.005)[0][1].islower()
    assert finish(scheduler, "fast", 0.008)[0][1].isupper()
    assert finish(scheduler, "slow", 0.010)[0][1].islower()


def test_a_slow_device_takes_no_job_that_a_fast_one_would_finish_sooner():
    costs = {("m", "gpu"): 0.010, ("m", "cpu"): 0.100}
    scheduler = flow(costs, [FAST, SLOW], [Model("m")])
    submit(scheduler, *"ab")
    assert started(scheduler, 0.0) == [("fast", "a")]
    assert finish(scheduler, "fast", 0.01) == [("fast", "b")]


def test_a_slow_device_helps_when_the_queue_is_long():
    costs = {("m", "gpu"): 0.010, ("m", "cpu"): 0.030}
    scheduler = flow(costs, [FAST, SLOW], [Model("m")])
    submit(scheduler, *"abcdefghij")
    assert {device for device, _ in started(scheduler, 0.0)} == {"fast", "slow"}


def test_a_long_run_is_kept_off_the_device_of_a_model_in_a_hurry():
    costs = {("m", "gpu"): 0.002, ("m", "cpu"): 0.050, ("n", "gpu"): 0.030, ("n", "cpu"): 0.040}
    models = [Model("m", slo_s=0.02), Model("n", slo_s=1.0)]
    scheduler = flow(costs, [FAST, SLOW], models)
    submit(scheduler, *"mmmmmmmmmm", model="m", deadline_s=0.003)
    scheduler.expire(0.01)  # all gone; but that they came is remembered
    submit(scheduler, *"abcd", model="n", now=0.01)
    scheduler.replan(0.01)
    # The gpu would be 30 ms in a run that cannot be interrupted.
    assert started(scheduler, 0.01) == [("slow", "a")]


def test_a_job_only_a_fast_device_can_do_in_time_is_left_to_it():
    costs = {("m", "gpu"): 0.010, ("m", "cpu"): 0.030}
    scheduler = flow(costs, [FAST, SLOW], [Model("m")])
    submit(scheduler, *"abcdef", deadline_s=0.2)
    submit(scheduler, "!", deadline_s=0.025)
    starts = dict(started(scheduler, 0.0))
    assert starts["fast"] == "!"
    assert starts.get("slow", "a") in "abcdef"


def test_a_hopeless_job_is_refused_when_it_comes():
    scheduler = flow(ONE, [A], [Model("m")])
    refusal = scheduler.submit(Job("m", 0.0, deadline_s=0.005), 0.0)
    assert refusal.reason == "late"
    assert refusal.retry_after_s > 0


def test_a_job_that_the_queue_makes_late_is_refused_with_the_time_it_lacks():
    scheduler = flow(ONE, [A], [Model("m")])
    submit(scheduler, *"abcd", deadline_s=1.0)
    started(scheduler, 0.0)
    # One runs, three wait: done at 50 ms.
    refusal = scheduler.submit(Job("m", 0.0, deadline_s=0.045), 0.0)
    assert refusal is None  # it goes before them
    refusal = scheduler.submit(Job("m", 0.0, deadline_s=0.015), 0.0)
    assert refusal.reason == "late"
    assert refusal.retry_after_s == pytest.approx(0.005)


def test_a_full_queue_takes_no_more():
    scheduler = flow(ONE, [A], [Model("m")], max_queue=2)
    submit(scheduler, "x")
    started(scheduler, 0.0)
    submit(scheduler, *"ab")
    assert scheduler.submit(Job("m", 0.0), 0.0).reason == "full"
    with pytest.raises(ValueError, match="max_queue=0"):
        DeepFlow(CostTable(), max_queue=0)


def test_an_unknown_model_is_refused_and_one_without_device_waits():
    scheduler = flow(ONE, [], [Model("m")])
    assert scheduler.submit(Job("other", 0.0), 0.0).reason == "unknown"
    submit(scheduler, "x")
    assert started(scheduler, 0.0) == []
    scheduler.add_device(A, 1.0)
    assert scheduler.queue_delay_s(1.0) == 1.0
    assert started(scheduler, 1.0) == [("a", "x")]


def test_a_tenant_beyond_its_share_is_refused_while_others_wait_who_are_not():
    scheduler = flow(ONE, [A], [Model("m")], max_queue=16)
    submit(scheduler, "x", tenant="big")
    started(scheduler, 0.0)
    submit(scheduler, *"0123456789abcdef", tenant="big")
    assert scheduler.submit(Job("m", 0.0, tenant="big"), 0.0).reason == "full"
    # The newcomer gets in above the limit, so that nobody can lock it out.
    submit(scheduler, "s", tenant="small")
    assert scheduler.submit(Job("m", 0.0, tenant="big"), 0.0).reason in ("tenant", "full")
    for now in (0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07):
        finish(scheduler, "a", now)
    # Room again, but the big one still has more than half of the queue.
    submit(scheduler, "t", tenant="small", now=0.07)
    assert scheduler.submit(Job("m", 0.07, tenant="big"), 0.07).reason == "tenant"


def test_tenants_take_turns():
    scheduler = flow(ONE, [A], [Model("m")])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    submit(scheduler, *"abcd", tenant="big")
    submit(scheduler, *"12", tenant="small")
    order = "".join(finish(scheduler, "a", now / 100)[0][1] for now in range(1, 7))
    assert order in ("a1b2cd", "1a2bcd")


def test_a_batch_too_is_shared_between_tenants():
    scheduler = flow({("m", "cpu"): {1: 0.010, 4: 0.016}}, [A], [Model("m", max_batch=4)])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    submit(scheduler, *"abcdef", tenant="big")
    submit(scheduler, *"12", tenant="small")
    ((_, names),) = finish(scheduler, "a", 0.01)
    assert sorted(names) == ["1", "2", "a", "b"]


def test_a_late_job_is_taken_out_when_no_device_can_make_it_any_more():
    scheduler = flow(ONE, [A], [Model("m")])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    (job,) = submit(scheduler, "a", deadline_s=0.025)
    assert scheduler.next_event(0.0) <= 0.015
    assert scheduler.expire(0.014) == []
    assert scheduler.expire(0.0151) == [job]
    assert finish(scheduler, "a", 0.016) == []


def test_a_cancelled_job_does_not_run():
    scheduler = flow(ONE, [A], [Model("m")])
    (running,) = submit(scheduler, "x")
    started(scheduler, 0.0)
    first, _ = submit(scheduler, *"ab")
    assert scheduler.cancel(first, 0.0)
    assert not scheduler.cancel(first, 0.0)
    assert not scheduler.cancel(running, 0.0)
    assert finish(scheduler, "a", 0.01) == [("a", "b")]


def test_work_of_a_dead_device_is_done_by_another_once():
    scheduler = flow(ONE, [A, B], [Model("m")])
    (job,) = submit(scheduler, "x")
    ((first, _),) = started(scheduler, 0.0)
    assert scheduler.drop_device(first, 0.001) == []
    ((second, name),) = started(scheduler, 0.001)
    assert {first, second} == {"a", "b"}
    assert name == "x"
    assert scheduler.drop_device(second, 0.002) == [job]
    assert job.num_deaths == 2


def test_a_retired_device_finishes_and_gets_no_more():
    scheduler = flow(ONE, [A], [Model("m")])
    submit(scheduler, *"xy")
    started(scheduler, 0.0)
    scheduler.retire_device("a", 0.001)
    assert finish(scheduler, "a", 0.01) == []
    scheduler.add_device(A, 0.02)
    assert started(scheduler, 0.02) == [("a", "y")]


def test_a_dropped_model_gives_back_its_queue_and_its_running_batch_may_finish():
    scheduler = flow(ONE, [A], [Model("m")])
    submit(scheduler, "x")
    started(scheduler, 0.0)
    waiting = submit(scheduler, *"ab")
    assert scheduler.drop_model("m", 0.0) == waiting
    assert finish(scheduler, "a", 0.01) == []
    assert scheduler.submit(Job("m", 0.0), 0.0).reason == "unknown"


def test_an_unknown_cost_is_probed_with_one_row_and_then_known():
    scheduler = flow({("m", "gpu"): 0.010}, [FAST, SLOW], [Model("m", max_batch=4)])
    submit(scheduler, *"abcde")
    starts = dict(started(scheduler, 0.0))
    assert len(starts["slow"]) == 1
    finish(scheduler, "slow", 0.020)
    assert scheduler.costs.seconds("m", "cpu") == pytest.approx(0.020)


def test_batches_grow_into_sizes_that_were_never_tried():
    scheduler = flow({}, [A], [Model("m", max_batch=8)])
    submit(scheduler, *"abcdefghijklmnopqrst")
    sizes, now = [], 0.0
    started(scheduler, now)
    while scheduler.running:
        (batch,) = scheduler.running.values()
        sizes.append(batch.size)
        now += 0.010 + 0.001 * batch.size
        finish(scheduler, "a", now)
        scheduler.replan(now)
    assert sizes[0] == 1
    assert max(sizes) > 4
    assert sum(sizes) == 20


def test_a_slowed_device_is_planned_around_and_comes_back():
    scheduler = flow(ONE, [A, B], [Model("m", slo_s=0.5)])
    now = 0.0
    for _ in range(20):  # a takes ten times as long, b as always
        submit(scheduler, "x", "y", now=now)
        for batch in started_batches(scheduler, now):
            scheduler.finish(batch, now + (0.100 if batch.device == "a" else 0.010))
        now += 0.2
        for batch in started_batches(scheduler, now):
            scheduler.finish(batch, now + (0.100 if batch.device == "a" else 0.010))
        now += 0.2
    assert scheduler.costs.factor("a") > 3
    submit(scheduler, "x", now=now)
    assert started(scheduler, now) == [("b", "x")]
    for _ in range(20):  # unseen for long: perhaps it recovered
        now += 2.0
        scheduler.replan(now)
    assert scheduler.costs.factor("a") == pytest.approx(1.0, abs=0.5)


def test_a_device_of_a_taken_name_is_refused():
    scheduler = flow(ONE, [A], [Model("m")])
    with pytest.raises(ValueError, match="device 'a' is there already"):
        scheduler.add_device(A, 0.0)


def test_a_plan_is_due_only_when_something_happened():
    costs = {("m", "gpu"): 0.01, ("n", "gpu"): 0.01, ("m", "cpu"): 0.02, ("n", "cpu"): 0.01}
    scheduler = flow(costs, [FAST, SLOW], [Model("m"), Model("n")], replan_s=0.25)
    assert scheduler.next_event(0.0) == inf
    submit(scheduler, "x")
    assert scheduler.next_event(0.0) == 0.25
    scheduler.expire(0.25)
    assert scheduler.next_event(0.25) == inf
    scheduler.drop_device("slow", 0.3)
    scheduler.add_device(SLOW, 0.3)
    assert scheduler.next_event(0.3) == 0.3


KINDS = ("gpu", "cpu")


class AnyOrder(RuleBasedStateMachine):
    """Whatever happens, in whatever order: no job is lost, none runs twice, limits hold."""

    def __init__(self):
        super().__init__()
        costs = {("m", "gpu"): {1: 0.01, 8: 0.03}, ("m", "cpu"): {1: 0.05}, ("n", "cpu"): 0.02}
        self.limits = {"m": 8, "n": 1}
        self.scheduler = DeepFlow(table(costs), max_queue=20)
        self.now = 0.0
        self.devices = {}
        self.retired = set()
        self.running = {}
        self.waiting = set()
        self.num = 0
        for key, limit in self.limits.items():
            self.scheduler.set_model(Model(key, max_batch=limit, slo_s=0.2), 0.0)

    def settle(self):
        for batch in self.scheduler.dispatch(self.now):
            assert batch.device in self.devices
            assert batch.device not in self.retired
            assert batch.device not in self.running
            assert batch.size == sum(job.size for job in batch.jobs) <= self.limits[batch.model]
            assert all(job.model == batch.model for job in batch.jobs)
            for job in batch.jobs:
                self.waiting.remove(job)  # once only
            self.running[batch.device] = batch

    @rule(
        model=st.sampled_from(["m", "n"]),
        size=st.integers(1, 3),
        patience=st.sampled_from([0.005, 0.05, 0.3, inf]),
        priority=st.sampled_from([0, 0, 1]),
        tenant=st.sampled_from(["", "t", "u"]),
    )
    def submit(self, model, size, patience, priority, tenant):
        size = min(size, self.limits[model])
        self.num += 1
        job = Job(model, self.now, self.now + patience, size, priority, tenant, payload=self.num)
        foretold = self.scheduler.refuse(job, self.now)
        refusal = self.scheduler.submit(job, self.now)
        assert foretold == refusal
        if refusal is None:
            self.waiting.add(job)
        else:
            assert refusal.reason in ("full", "late", "tenant")
            assert refusal.retry_after_s > 0
            assert refusal.reason != "late" or patience < inf
        self.settle()

    @rule(seconds=st.sampled_from([0.0, 0.001, 0.02, 0.5]))
    def pass_time(self, seconds):
        self.now += seconds
        self.settle()

    @rule()
    def expire(self):
        for job in self.scheduler.expire(self.now):
            self.waiting.remove(job)
            assert job.deadline_s < inf
        self.settle()

    @rule(kind=st.sampled_from(KINDS))
    def appear(self, kind):
        self.num += 1
        device = Device(f"d{self.num}", kind)
        self.devices[device.id] = device
        self.scheduler.add_device(device, self.now)
        self.settle()

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 9), factor=st.sampled_from([0.5, 1.0, 4.0]))
    def finish(self, pick, factor):
        device = sorted(self.running)[pick % len(self.running)]
        batch = self.running.pop(device)
        self.now = max(self.now, batch.started_s + factor * batch.expected_s)
        self.scheduler.finish(batch, self.now)
        if device in self.retired:
            self.retired.remove(device)
            del self.devices[device]
        self.settle()

    @precondition(lambda self: self.devices)
    @rule(pick=st.integers(0, 9))
    def die(self, pick):
        device = sorted(self.devices)[pick % len(self.devices)]
        del self.devices[device]
        self.retired.discard(device)
        batch = self.running.pop(device, None)
        jobs = set(batch.jobs) if batch else set()
        lost = self.scheduler.drop_device(device, self.now)
        assert set(lost) == {job for job in jobs if job.num_deaths > 1}
        self.waiting |= jobs - set(lost)
        if batch is not None:
            self.scheduler.finish(batch, self.now)  # an answer that crossed its death
        self.settle()

    @precondition(lambda self: set(self.devices) - self.retired)
    @rule(pick=st.integers(0, 9))
    def retire(self, pick):
        choices = sorted(set(self.devices) - self.retired)
        device = choices[pick % len(choices)]
        self.scheduler.retire_device(device, self.now)
        if device in self.running:
            self.retired.add(device)
        else:
            del self.devices[device]
        self.settle()

    @precondition(lambda self: self.waiting)
    @rule(pick=st.integers(0, 99))
    def cancel(self, pick):
        job = sorted(self.waiting, key=lambda job: job.payload)[pick % len(self.waiting)]
        assert self.scheduler.cancel(job, self.now)
        self.waiting.remove(job)
        self.settle()

    @rule()
    def forget_a_model(self):
        for job in self.scheduler.drop_model("n", self.now):
            self.waiting.remove(job)
        assert all(job.model == "m" for job in self.waiting)
        self.scheduler.set_model(Model("n", slo_s=0.2), self.now)
        self.settle()

    @invariant()
    def it_knows_all_that_wait(self):
        assert set(self.scheduler._backlog.entries) == self.waiting
        assert (self.scheduler.queue_delay_s(self.now) > 0) <= bool(self.waiting)
        assert self.scheduler.next_event(self.now) >= self.now

    def teardown(self):
        """In the end a healthy device does all that is left."""
        for device in list(self.devices):
            batch = self.running.pop(device, None)
            lost = self.scheduler.drop_device(device, self.now)
            self.waiting |= set(batch.jobs if batch else ()) - set(lost)
        self.devices, self.retired = {}, set()
        for kind in KINDS:
            self.appear(kind)
        for _ in range(500):
            self.expire()
            if not self.running:
                if not self.waiting:
                    break
                self.now = self.scheduler.next_event(self.now)
            for device in list(self.running):
                self.finish(sorted(self.running).index(device), 1.0)
        assert not self.waiting
        assert not self.running


AnyOrder.TestCase.settings = settings(
    max_examples=60,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # of a machine that others use, too
)
TestAnyOrder = AnyOrder.TestCase
