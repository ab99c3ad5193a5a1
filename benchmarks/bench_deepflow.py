"""DeepFlow against other rules on real, replayed and simulated devices; 40 minutes.

`python -m benchmarks.deepflow` runs the tiers one by one; DEEPKITS_QUICK=1 their short forms here,
whose numbers are for trying out and are held to nothing.
"""

import os

import pytest
from rich.console import Console

from benchmarks.deepflow.__main__ import costs as measure_costs
from benchmarks.deepflow.page import write_page
from benchmarks.deepflow.real import real
from benchmarks.deepflow.replayed import replayed
from benchmarks.deepflow.results import load
from benchmarks.deepflow.simulated import simulated

QUICK = os.environ.get("DEEPKITS_QUICK") == "1"
CONSOLE = Console(stderr=True)

pytestmark = pytest.mark.timeout(0)
held = pytest.mark.skipif(QUICK, reason="DEEPKITS_QUICK=1: short runs are held to nothing")


@pytest.fixture(scope="module")
def results():
    measure_costs(quick=QUICK)
    for tier in (real, replayed, simulated):
        tier(CONSOLE, quick=QUICK)
    write_page()
    return load()


def test_every_tier_ran(results):
    assert {"costs", "real", "replayed", "simulated"} <= set(results)


@held
def test_goodput_over_the_rule_of_auto(results):
    assert results["real"]["median_gain"] >= 0.28
    assert results["real"]["worst_gain"] >= -0.02


@held
def test_a_killed_worker(results):
    killed = results["real"]["killed_worker"]
    assert killed["lost"] == 0
    assert killed["dropped_ms"] < 1000


@held
def test_share_of_the_bound(results):
    assert min(row["of_bound"] for row in results["replayed"]["fleets"]) >= 0.9
    assert results["simulated"]["least_of_bound"] >= 0.9


@held
def test_nothing_is_lost_where_there_is_nothing_to_win(results):
    assert min(row["over_best"] for row in results["simulated"]["homogeneous"]) >= -0.02


@held
def test_a_decision(results):
    decisions = results["simulated"]["decisions"]
    assert max(row["per_request_us"]["p99"] for row in decisions) < 20
