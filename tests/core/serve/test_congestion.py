from core.serve.congestion import HOLD_S, STANDING_S, Congestion

SLO_S = 0.1


def watched(delays, step_s=0.05):
    """After looks at the queue, one each step; gives the time too."""
    found, now = Congestion(SLO_S), 0.0
    for delay in delays:
        now += step_s
        found.observe(now, delay)
    return found, now


def test_a_burst_may_wait():
    found, now = watched([0.9, 0.9, 0.0, 0.9, 0.9, 0.0])
    assert not found.is_standing(now)


def test_a_few_callers_that_wait_for_their_answers_are_no_overload():
    found, now = watched([0.4] * 100)
    assert not found.is_standing(now)


def test_a_queue_that_stays_too_old_stands():
    found, now = watched([0.9] * (int(STANDING_S / 0.05) + 2))
    assert found.is_standing(now)
    assert found.bound_s < SLO_S


def test_it_stands_until_nothing_was_refused_for_a_while():
    found, now = watched([0.9] * 10)
    for _ in range(50):
        now += 0.05
        found.observe(now, 0.02)
        found.refused(now)
    assert found.is_standing(now)
    assert not found.is_standing(now + HOLD_S)


def test_a_slow_model_is_not_refused_altogether():
    found = Congestion(SLO_S)
    for _ in range(100):
        found.computed(2, 1.0)
    assert found.bound_s > 1.4
    # What waits for two runs of such a model is not late.
    for step in range(100):
        found.observe(step * 0.1, 1.0)
    assert not found.is_standing(10.0)
