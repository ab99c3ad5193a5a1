import json
import re
import shutil

from benchmarks.serve.page import write_page
from benchmarks.serve.study import RESULTS

HEADINGS = {
    "latency": "requests per second",
    "throughput": "Latency against rate",
    "overload": "times more than can be computed",
    "startup": "Seconds from the command to ready",
    "resnet": "ResNet-50",
    "chaos": "Chaos",
    "memory": "Memory of the server",
}


def test_the_page_shows_every_part_that_was_measured(tmp_path):
    results = tmp_path / "serve.json"
    shutil.copy(RESULTS, results)
    headings = re.findall("<h2>(.*?)</h2>", write_page(results).read_text())
    measured = [name for name in HEADINGS if name in json.loads(results.read_text())]
    assert len(headings) == len(measured) > 0
    for heading, name in zip(headings, measured, strict=True):
        assert HEADINGS[name] in heading
