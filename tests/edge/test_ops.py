import json

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional

from edge.ops import FUNCTIONS, check_steps, run_steps

RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(3, 7)).astype(np.float32)


def one(op, array, **parameters):
    outputs = {"top_k": ["result", "index"], "rename": "result"}.get(op, "result")
    step = {"op": op, "input": "x", "output": outputs, **parameters}
    (step,) = json.loads(json.dumps([step]))
    found = run_steps([step], {"x": array})
    return found["result"] if op != "top_k" else (found["result"], found["index"])


def images(torch_array):
    return np.ascontiguousarray(torch_array.numpy().transpose(0, 2, 3, 1))


@pytest.mark.parametrize(("height", "width"), [(7, 5), (20, 31), (9, 13), (1, 1), (3, 40)])
def test_resize_is_torch_interpolate(height, width):
    source = torch.randn(2, 3, 9, 13, generator=torch.Generator().manual_seed(0))
    expected = functional.interpolate(source, (height, width), mode="bilinear", align_corners=False)
    found = one("resize", images(source), height_px=height, width_px=width)
    # torch computes the places between pixels in float32, off by 1e-6 of a pixel at 30 pixels.
    np.testing.assert_allclose(found, images(expected), atol=2e-5)
    assert found.dtype == np.float32


def test_resize_of_bytes_rounds_to_the_nearest():
    source = RNG.integers(0, 256, (1, 6, 8, 3), dtype=np.uint8)
    tensor = torch.from_numpy(source.transpose(0, 3, 1, 2).astype(np.float32))
    expected = functional.interpolate(tensor, (5, 11), mode="bilinear", align_corners=False)
    found = one("resize", source, height_px=5, width_px=11)
    assert found.dtype == np.uint8
    # Half a grey level, and what float32 may move a value that lies in the middle.
    assert np.abs(found - images(expected)).max() <= 0.5 + 1e-4


@pytest.mark.parametrize("size", [(5, 5), (4, 7), (9, 12)])
def test_centre_crop_is_torchvision(size):
    source = torch.randn(1, 2, 9, 12)
    expected = torchvision.transforms.functional.center_crop(source, list(size))
    found = one("centre_crop", images(source), height_px=size[0], width_px=size[1])
    assert np.array_equal(found, images(expected))


def test_pad_is_torch():
    source = torch.randn(1, 2, 3, 4)
    expected = functional.pad(source, (3, 4, 1, 2), value=0.5)
    found = one("pad", images(source), amounts_px=[1, 2, 3, 4], value=0.5)
    assert np.array_equal(found, images(expected))


def test_normalise_is_torchvision():
    source = torch.rand(2, 3, 4, 5)
    mean, std = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    expected = torchvision.transforms.functional.normalize(source, mean, std)
    found = one("normalise", images(source), mean=mean, std=std)
    np.testing.assert_allclose(found, images(expected), atol=1e-6)
    assert one("normalise", VALUES, mean=[1], std=[2]).dtype == np.float32


def test_channels_come_first():
    source = torch.randn(2, 3, 4, 5)
    found = one("to_channels_first", images(source))
    assert np.array_equal(found, source.numpy())
    assert found.flags.c_contiguous


def test_sigmoid_softmax_argmax_are_torch():
    wide = np.concatenate([VALUES * 40, [[-1e4, 1e4, 0, -0.0, 88, -88, 1]]]).astype(np.float32)
    tensor = torch.from_numpy(wide)
    np.testing.assert_allclose(one("sigmoid", wide), tensor.sigmoid(), rtol=3e-7, atol=1e-38)
    np.testing.assert_allclose(one("softmax", wide), tensor.softmax(-1), rtol=1e-6, atol=1e-38)
    np.testing.assert_allclose(one("softmax", wide, axis=0), tensor.softmax(0), atol=1e-7)
    assert np.array_equal(one("argmax", wide, axis=1), tensor.argmax(1))
    assert one("argmax", VALUES).dtype == np.int64


def test_top_k_is_torch_and_takes_the_first_of_equals():
    values, index = one("top_k", VALUES, k=3)
    expected = torch.from_numpy(VALUES).topk(3)
    assert np.array_equal(values, expected.values)
    assert np.array_equal(index, expected.indices)
    assert one("top_k", np.array([[1, 2, 2, 1]], np.uint8), k=3)[1].tolist() == [[1, 2, 0]]


def test_interpolate_reads_a_calibration_table():
    x, y = [-1.0, 0.0, 0.0, 2.0], [0.0, 0.2, 0.4, 0.9]
    values = np.array([[-5, -0.5], [1, 7]], np.float32)
    assert one("interpolate", values, x=x, y=y) == pytest.approx(
        np.array([[0, 0.1], [0.65, 0.9]]), abs=1e-12
    )
    assert np.isnan(one("interpolate", np.array([np.nan]), x=x, y=y)).all()


def test_small_ops():
    assert one("threshold", VALUES, at=0.5).dtype == bool
    assert np.array_equal(one("threshold", VALUES, at=0.5), VALUES >= 0.5)
    assert np.array_equal(one("clip", VALUES, low=-0.5), np.maximum(VALUES, np.float32(-0.5)))
    assert np.array_equal(one("clip", VALUES, low=-1, high=1), VALUES.clip(-1, 1))
    assert np.array_equal(one("select", VALUES, index=2, axis=1), VALUES[:, 2])
    assert one("cast", VALUES, dtype="float64").dtype == np.float64
    assert one("cast", np.array([1.9, 200]), dtype="uint8").tolist() == [1, 200]


@pytest.mark.parametrize("seed", range(4))
def test_nms_is_torchvision(seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(2, 60, 2, generator=generator) * 50
    boxes = torch.cat([corner, corner + torch.rand(2, 60, 2, generator=generator) * 30 + 1], -1)
    scores = torch.rand(2, 60, 3, generator=generator)
    step = {"op": "nms", "input": ["b", "s"], "output": ["boxes", "scores", "classes"]}
    step |= {"iou": 0.4, "score": 0.3, "max_boxes": 200}
    found = run_steps([step], {"b": boxes.numpy(), "s": scores.numpy()})
    for image in range(2):
        place, kind = torch.nonzero(scores[image] >= 0.3, as_tuple=True)
        value = scores[image][place, kind]
        kept = torchvision.ops.batched_nms(boxes[image][place], value, kind, 0.4)
        n = len(kept)
        assert 3 < n < 200
        assert np.array_equal(found["scores"][image, :n], value[kept])
        assert np.array_equal(found["classes"][image, :n], kind[kept])
        assert np.array_equal(found["boxes"][image, :n], boxes[image][place[kept]])
        assert (found["classes"][image, n:] == -1).all()
        assert not found["scores"][image, n:].any()
    few = run_steps([step | {"max_boxes": 2}], {"b": boxes.numpy(), "s": scores.numpy()})
    assert np.array_equal(few["scores"], found["scores"][:, :2])


def test_steps_read_and_write_by_name():
    steps = [
        {"op": "sigmoid", "input": "logit", "output": "score"},
        {"op": "rename", "input": "logit", "output": "raw"},
        {"op": "threshold", "input": "score", "output": "alarm", "at": 0.5},
    ]
    given = {"logit": VALUES, "other": np.arange(3)}
    found = run_steps(check_steps(steps), given)
    assert list(found) == ["other", "score", "raw", "alarm"]
    assert np.array_equal(found["alarm"], VALUES >= 0)
    assert list(given) == ["logit", "other"]


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"op": "exec"}, "step 0: op='exec' is not one of argmax, cast"),
        ({"op": ["clip"]}, "is not one of"),
        ("clip", "op=None is not one of"),
        ({"op": "clip", "lo": 1}, "clip has no parameter 'lo'; it has low, high"),
        ({"op": "argmax", "axis": "1"}, "argmax.axis='1' is not int"),
        ({"op": "argmax", "axis": True}, "argmax.axis=True is not int"),
        ({"op": "normalise", "mean": [1]}, "normalise lacks its parameter 'std'"),
        ({"op": "normalise", "mean": [1], "std": ["a"]}, r"normalise.std=\['a'\] is not Sequence"),
        ({"op": "top_k", "k": 2}, "top_k lacks its output; name 2"),
        ({"op": "rename", "input": "x"}, "rename lacks its output"),
        ({"op": "nms", "iou": 0.5, "input": "x"}, "nms.input='x' is not 2 names"),
        ({"op": "clip", "low": 0, "input": 3}, "clip.input=3 is not 1 names"),
    ],
)
def test_a_wrong_step_is_refused_before_any_sample(step, message):
    with pytest.raises(ValueError, match=message):
        check_steps([step])


def test_steps_are_a_list():
    with pytest.raises(ValueError, match="steps=dict is not a list"):
        check_steps({"op": "clip"})


@pytest.mark.parametrize(
    ("step", "array", "message"),
    [
        ({"op": "cast", "dtype": "object"}, VALUES, "cast.dtype='object' is not one of"),
        ({"op": "cast", "dtype": "uint8"}, VALUES * 300, "cannot hold the values"),
        ({"op": "cast", "dtype": "int64"}, np.array([np.nan]), "cannot hold the values"),
        ({"op": "clip"}, VALUES, "neither low nor high"),
        ({"op": "normalise", "mean": [0], "std": [0]}, VALUES, "not positive"),
        ({"op": "normalise", "mean": [0, 1], "std": [1]}, VALUES, "last axis has 7"),
        ({"op": "interpolate", "x": [1, 0], "y": [1, 2]}, VALUES, "falls somewhere"),
        ({"op": "interpolate", "x": [1], "y": [1, 2]}, VALUES, "1 x and 2 y"),
        ({"op": "resize", "height_px": 2, "width_px": 2}, VALUES, "resize: shape="),
        ({"op": "centre_crop", "height_px": 9, "width_px": 2}, np.ones((1, 4, 4, 1)), "crop to 9"),
        ({"op": "pad", "amounts_px": [1, 2, 3]}, np.ones((1, 4, 4, 1)), "top, bottom, left"),
        ({"op": "select", "index": 7}, VALUES, "not within 7 places"),
        ({"op": "clip", "low": 0, "input": "y"}, VALUES, "input='y' is not one of x"),
    ],
)
def test_a_step_refuses_an_array_it_cannot_take(step, array, message):
    with pytest.raises(ValueError, match=message):
        run_steps([step], {"x": array})


def test_an_unnamed_input_needs_a_single_array():
    assert run_steps([{"op": "clip", "low": 0}], {"x": VALUES})["x"].min() == 0
    with pytest.raises(ValueError, match="no input is named among"):
        run_steps([{"op": "clip", "low": 0}], {"x": VALUES, "y": VALUES})


def test_every_op_is_listed_by_its_name():
    assert all(name == function.__name__ for name, function in FUNCTIONS.items())
    assert all(function.__doc__ for function in FUNCTIONS.values())
