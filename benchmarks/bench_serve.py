"""The service beside others: latency, throughput, overload, start, memory, scaling, chaos.

    pytest benchmarks/bench_serve.py -s            all items, about two hours
    python -m benchmarks.serve latency             one of them, with its table
    python -m benchmarks.serve latency --quick     does it work? its numbers are noise

An open-loop generator sends at a constant rate from its own core and counts latency from when a
request was due. Peers serve the same file in the same run, with as many threads on the same core.
"""

import pytest

from benchmarks.serve.__main__ import run_item
from benchmarks.serve.page import write_page
from benchmarks.serve.study import NAMES, RESULTS, Study

pytestmark = pytest.mark.timeout(0)


@pytest.mark.parametrize("name", NAMES)
def test_item(name):
    """What must hold whatever the machine does; the other numbers are there to be read."""
    found = run_item(name, Study())
    write_page(RESULTS)
    if name == "chaos":
        assert not found["failed"], found["failures"]
        assert not found["wrong"], found["failures"]
    if name == "latency":
        ours = {n: row for n, row in found["servers"].items() if n.startswith("deepkits")}
        assert not any(row["failed"] for row in ours.values())
    if name == "memory":
        assert not found["inline"]["failed"]
        assert not found["in a worker"]["failed"]
