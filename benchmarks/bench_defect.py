"""The defect kit's line beside others: eight cameras, one region, recall and cost, streams.

    pytest benchmarks/bench_defect.py -s           all items, about an hour
    python -m benchmarks.defect cameras            one of them, with its table
    python -m benchmarks.defect cameras --quick    does it work? its numbers are noise

The detector is the newest exported run's; `python -m kits.defect.train` and `kits.defect.export`
make one. Frames are rendered, so that what is on them is known.
"""

import pytest

from benchmarks.defect.__main__ import ITEMS, run_item
from benchmarks.defect.page import write_page
from benchmarks.defect.study import RESULTS, Study

pytestmark = pytest.mark.timeout(0)


@pytest.mark.parametrize("name", ITEMS)
def test_item(name):
    """What must hold whatever the machine does; the other numbers are there to be read."""
    found = run_item(name, Study(), None, RESULTS)
    write_page(RESULTS)
    if name in ("cameras", "region"):
        assert not any(row["unaccounted"] for row in found["runs"].values())
    if name == "recall" and found["is_trained"]:
        assert found["line"]["states"].get("UNINSPECTED", 0) == 0
