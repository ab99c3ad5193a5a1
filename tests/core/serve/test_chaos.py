"""The short form; in full it is `python -m benchmarks.serve.chaos`."""

from collections import Counter

from benchmarks.serve.chaos import Plan, run_chaos

PLAN = Plan(requests=12_000, reloads=9, broken=3, kills=6, scalings=6)


def test_no_request_fails_while_models_change_and_workers_die():
    outcome = run_chaos(PLAN)
    assert Counter(outcome.failed) == {}
    # Each answer is that of the version it says it is of.
    assert Counter(outcome.wrong) == {}
    assert outcome.answered >= PLAN.requests
    assert outcome.events == Counter(PLAN.events())
    # One that was the newest for a moment only may have answered none.
    assert len(outcome.by_version) > PLAN.reloads // 2
    assert outcome.exit_code == 0
