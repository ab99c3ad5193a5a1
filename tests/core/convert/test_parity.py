import json
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import pytest
import torch
from torch import nn

from core.convert.parity import (
    TOLERANCES,
    compare,
    sweep,
    tolerance_of,
)
from core.convert.source import Axis, Source
from core.convert.target import Options
from edge.target import Tolerance

TOLERANCE = Tolerance(1e-3, 1e-2, "literal")
BATCH, TIME = Axis("batch", 1, 8), Axis("time", 4, 16, 4)


class Affine(nn.Module):
    def forward(self, x):
        return {"y": 2 * x + 1, "rank": x.argsort(-1)}


SOURCE = Source(
    "affine",
    "test",
    Affine().eval(),
    {"x": torch.zeros(2, 4)},
    ("y", "rank"),
    {"x": {0: BATCH, 1: TIME}},
)


class Fake:
    """A runtime at the border: the right outputs, changed by `change`."""

    def __init__(self, change=dict):
        self.change = change
        self.facts = {"backend": "fake", "provider": "CPU"}

    def run(self, inputs):
        x = inputs["x"]
        return self.change({"y": 2 * x + 1, "rank": x.argsort(-1, kind="stable")})


def sizes(axes):
    return [tuple(case.sizes.values()) for case in sweep({"x": axes})]


def test_a_sweep_holds_low_odd_high_and_every_axis_alone():
    found = sizes({0: BATCH, 1: TIME})
    assert found == [(1, 4), (5, 8), (8, 16), (1, 8), (8, 8), (5, 4), (5, 16)]
    assert sizes({0: BATCH}) == [(1,), (5,), (8,), (2,), (3,)]


@pytest.mark.parametrize("high", [1, 2, 3, 4, 1000])
def test_a_sweep_has_five_cases_however_few_the_sizes(high):
    cases = sweep({"x": {0: Axis("batch", 1, high)}}, seed=7)
    assert len(cases) == 5
    assert len({case.sizes["batch"] for case in cases}) == min(high, 5)
    assert [case.seed for case in cases] == [7, 8, 9, 10, 11]
    assert [case.sizes for case in sweep({})] == [{}] * 5


def test_inputs_that_share_an_axis_are_swept_together_and_a_clash_is_refused():
    assert len(sweep({"x": {0: BATCH}, "y": {1: BATCH}})) == 5
    with pytest.raises(ValueError, match="'batch' has two ranges"):
        sweep({"x": {0: BATCH}, "y": {0: Axis("batch", 2, 8)}})


def test_equal_outputs_pass_at_every_shape():
    parity = compare(SOURCE, Fake(), TOLERANCE)
    assert parity.passed
    assert parity.problems == []
    assert len(parity.cases) == 7
    assert parity.facts == {"backend": "fake", "provider": "CPU"}
    assert parity.axes == {"batch": "1 to 8", "time": "4 to 16, multiples of 4"}
    content = json.loads(json.dumps(parity.to_json(), allow_nan=False))
    assert content["passed"] is True
    first = content["cases"][0]["outputs"][0]
    assert (first["name"], first["shape"], first["max_absolute"]) == ("y", [1, 4], 0.0)
    assert first["cosine"] == pytest.approx(1)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda o: o | {"y": o["y"] + np.float32(0.5)}, "differ by more than the tolerance"),
        (lambda o: o | {"rank": (o["rank"] + 1) % 4}, "values differ, by"),
        (lambda o: o | {"y": o["y"][:1]}, "has shape"),
        (lambda o: o | {"y": o["y"].astype(np.float64)}, "is float64, the source's is float32"),
        (lambda o: o | {"y": o["y"] * np.float32("nan")}, "is NaN everywhere"),
        (lambda o: {"y": o["y"]}, "lacks output 'rank'"),
        (lambda o: o | {"z": o["y"]}, "has output 'z', which the source lacks"),
    ],
)
def test_a_wrong_output_fails_with_its_shape(change, words):
    parity = compare(SOURCE, Fake(change), TOLERANCE)
    assert not parity.passed
    assert any(words in problem and "batch=8" in problem for problem in parity.problems)
    json.dumps(parity.to_json(), allow_nan=False)


def test_a_frozen_axis_is_a_failure_of_the_shapes_it_cannot_take():
    def refuse(outputs):
        if outputs["y"].shape[0] != 1:
            raise OSError("got 5, expected 1\nsecond line")
        return outputs

    parity = compare(SOURCE, Fake(refuse), TOLERANCE)
    passed = {case.case.sizes["batch"] for case in parity.cases if case.passed}
    assert passed == {1}
    assert "at batch=5, time=8: OSError: got 5, expected 1" in parity.problems


def test_a_source_that_does_not_run_at_its_own_sizes_is_refused():
    narrow = replace(SOURCE, module=nn.Linear(4, 2).eval(), output_names=("y",))
    with pytest.raises(ValueError, match=r"does not run at batch=5, time=8: .*correct its axes"):
        compare(narrow, Fake(), TOLERANCE)


def test_the_source_sums_with_one_thread_and_leaves_the_setting_alone():
    class Count(nn.Module):
        def forward(self, x):
            return torch.full_like(x, torch.get_num_threads())

    class One:
        facts = MappingProxyType({})

        def run(self, inputs):
            return {"y": np.ones_like(inputs["x"])}

    before = torch.get_num_threads()
    torch.set_num_threads(3)
    assert compare(replace(SOURCE, module=Count(), output_names=("y",)), One(), TOLERANCE).passed
    assert torch.get_num_threads() == 3
    torch.set_num_threads(before)


def test_precisions_have_their_tolerance_and_others_are_declared():
    assert tolerance_of(Options()) == TOLERANCES["float32"]
    assert tolerance_of(Options("bfloat16")).absolute > 1e-3
    with pytest.raises(ValueError, match="precision='int8' has no usual tolerance"):
        tolerance_of(Options("int8"))
    given = Tolerance(0.1, 0.02, "quantised to 8 bits")
    assert tolerance_of(Options("int8", values={"tolerance": given})) == given


def test_a_model_may_ask_for_the_tolerance_of_one_precision():
    given = Tolerance(0.3, 0.05, "large logits")
    values = {"tolerances": {"bfloat16": given}}
    assert tolerance_of(Options("bfloat16", values=values)) == given
    assert tolerance_of(Options("float32", values=values)) == TOLERANCES["float32"]
