from dataclasses import replace

import numpy as np
import pytest
import torch

from core.convert.pack import Contents, describe_inputs, describe_outputs, golden_vectors, pack
from core.convert.source import Axis, Source


class Sums(torch.nn.Module):
    def forward(self, x, mask):
        return x.sum(2), mask.float().mean((0, 1))


BATCH = Axis("batch", 1, 8)
SOURCE = Source(
    name="sums",
    origin="test",
    module=Sums(),
    example={"x": torch.zeros(1, 4, 3), "mask": torch.zeros(1, 4, dtype=torch.bool)},
    output_names=("y", "share"),
    axes={"x": {0: BATCH, 1: Axis("time", 2, 6)}, "mask": {0: BATCH, 1: Axis("time", 2, 6)}},
)
FIXED = Source("fixed", "test", Sums(), SOURCE.example, SOURCE.output_names)


def contents(tmp_path, **changed):
    model = tmp_path / "model.onnx"
    model.write_bytes(b"model")
    made = Contents(
        name="sums", version="1", channel="stable", created=0, expires=None, rollback_index=0,
        license="Apache-2.0", intended_use="tests", source=only_y(SOURCE), onnx=model, artifacts=(),
        golden=golden_vectors(only_y(SOURCE), 8, 0),
    )  # fmt: skip
    return replace(made, **changed)


def test_inputs_and_outputs_have_names_where_sizes_are_free():
    assert describe_inputs(SOURCE) == [
        {"name": "x", "dtype": "float32", "shape": ["batch", "time", 3]},
        {"name": "mask", "dtype": "bool", "shape": ["batch", "time"]},
    ]
    post = [{"op": "threshold", "input": "y", "output": "alert", "at": 0.5}]
    found = {entry["name"]: entry for entry in describe_outputs(SOURCE, post)}
    assert found["y"]["shape"] == ["batch", "time"]
    assert found["alert"] == {"name": "alert", "dtype": "bool", "shape": ["batch", "time"]}


def test_golden_rows_are_stacked_when_the_batch_is_small_or_fixed():
    for source in (only_y(SOURCE), only_y(FIXED)):
        vectors = golden_vectors(source, 20, 0)
        assert {name: len(value) for name, value in vectors.items()} == {
            "input/x": 20, "input/mask": 20, "output/y": 20
        }  # fmt: skip
        assert np.allclose(vectors["output/y"], vectors["input/x"].sum(2), atol=1e-6)


class FirstOnly(torch.nn.Module):
    def forward(self, x, mask):
        return x.sum(2)


def only_y(source):
    return replace(source, output_names=("y",), module=FirstOnly())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"pre": [{"op": "cast", "dtype": "float32"}]}, r"inputs=\(\) says nothing of"),
        ({"golden": {"input/x": np.zeros((7, 1))}}, "golden has 7 rows, a self-test needs 8"),
    ],
)
def test_what_a_device_could_not_use_is_refused(tmp_path, changed, message):
    with pytest.raises(ValueError, match=message):
        pack(tmp_path / "x.ebundle", contents(tmp_path, **changed), [], engines=False)
    assert not (tmp_path / "x.ebundle").exists()


def test_a_bundle_that_nobody_signs_is_refused(tmp_path):
    with pytest.raises(ValueError, match="sign has 0 keys"):
        pack(tmp_path / "x.ebundle", contents(tmp_path), [], engines=False)
