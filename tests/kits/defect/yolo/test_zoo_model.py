import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

ROOT = Path(__file__).parents[4]
TRAIN = """
import os, socket, sys, time
# A home that can be looked at, and a network that refuses.
calls = []
def refuse(*arguments, **_):
    calls.append(arguments)
    raise OSError("no network in this test")
socket.getaddrinfo = refuse
socket.socket.connect = refuse
import torch
torch.set_num_threads(1)
from kits.defect.yolo.model import Zoo
model = Zoo(sys.argv[1])
result = model.train(
    data=sys.argv[2], epochs=1, imgsz=64, batch=4, device="cpu", workers=0, plots=False,
    project=sys.argv[3], name="run", mosaic=1.0, verbose=False, nbs=4,
)
found = model.predict(sys.argv[4], imgsz=64, conf=0.001, device="cpu", verbose=False, save=False)
assert len(found) == 1
from ultralytics.utils.events import events
assert not events.enabled
time.sleep(0.5)
assert not calls, calls
links = {os.readlink(f"/proc/self/fd/{fd}") for fd in map(str, range(3, 64))
         if os.path.islink(f"/proc/self/fd/{fd}")}
assert not any(link.startswith("socket:") for link in links), links
assert "OMP_NUM_THREADS" not in os.environ
print("map", result.box.map50)
"""


@pytest.fixture
def folder(tmp_path, rectangles):
    """A YOLO folder, and a YAML file of a small network."""
    images = rectangles(side=64)
    for split in ("train", "validation"):
        for kind in ("images", "labels"):
            (tmp_path / "data" / kind / split).mkdir(parents=True)
        for name in images.names(split):
            one = images.load(name)
            colour = np.repeat(one.pixels[..., None], 3, 2)
            Image.fromarray(colour).save(tmp_path / "data/images" / split / f"{name}.png")
            rows = [
                f"{kind} {(x1 + x2) / 128} {(y1 + y2) / 128} {(x2 - x1) / 64} {(y2 - y1) / 64}"
                for kind, (x1, y1, x2, y2) in zip(one.classes, one.boxes_px, strict=True)
            ]
            (tmp_path / "data/labels" / split / f"{name}.txt").write_text("\n".join(rows))
    (tmp_path / "data.yaml").write_text(
        yaml.safe_dump(
            {
                "path": str(tmp_path / "data"),
                "train": "images/train",
                "val": "images/validation",
                "names": {0: "bright", 1: "dark"},
            }
        )
    )
    (tmp_path / "net.yaml").write_text("graph: yolov7-kit\nwidth: 0.25\nattention: simam\n")
    return tmp_path


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc of Linux")
def test_it_trains_through_ultralytics_and_tells_nobody(folder):
    from kits.defect.trained import load_module

    home = folder / "home"
    home.mkdir()
    # Nothing of the variables by which it knows tests, and keeps quiet there.
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}
    # matplotlib keeps its list of fonts at home, whoever imports it.
    environment |= {"MPLCONFIGDIR": str(folder / "matplotlib")}
    picture = folder / "data/images/validation/validation-0.png"
    arguments = [folder / "net.yaml", folder / "data.yaml", folder / "runs", picture]
    result = subprocess.run(
        [sys.executable, "-c", TRAIN, *map(str, arguments)],
        env=environment, cwd=folder, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert "map" in result.stdout
    assert [path for path in home.rglob("*") if path.is_file()] == []
    network = load_module(folder / "runs/run")
    assert network.cfg.attention == "simam"
    assert network.classes == 2


def test_their_rows_become_ours():
    from kits.defect.yolo.model import targets_of

    batch = {
        "img": torch.zeros(3, 3, 40, 80),
        "batch_idx": torch.tensor([0.0, 2.0, 2.0]),
        "cls": torch.tensor([[1.0], [0.0], [1.0]]),
        "bboxes": torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.1, 0.2], [1, 1, 0.2, 0.2]]),
    }
    found = targets_of(batch)
    assert found["classes"].tolist() == [[1, -1], [-1, -1], [0, 1]]
    assert torch.allclose(found["boxes"][0, 0], torch.tensor([20.0, 10.0, 60.0, 30.0]))
    assert torch.allclose(found["boxes"][2, 0], torch.tensor([16.0, 16.0, 24.0, 24.0]))


def test_their_form_holds_our_boxes():
    from kits.defect.yolo.model import ZooModel

    model = ZooModel({"graph": "yolov7-kit", "width": 0.25}, ch=1, nc=2, verbose=False).eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        rows, maps = model(image)
        ours = model.network(image)
    middle, sides = rows[0, :2].T, rows[0, 2:4].T
    assert torch.allclose(middle - sides / 2, ours["boxes"][0, :, :2], atol=1e-4)
    assert torch.equal(rows[0, 4:].T, ours["scores"][0])
    assert set(maps) == {"lead_4", "lead_8", "lead_16"}


def test_it_leaves_other_packages_as_they_were():
    from kits.defect.yolo.quiet import import_ultralytics

    import_ultralytics()
    for function in (Image.open, torch.save):
        assert "ultralytics" not in function.__module__
    assert np.get_printoptions()["linewidth"] < 100


def test_whoever_imports_it_first_is_told(monkeypatch):
    from kits.defect.yolo.quiet import import_ultralytics

    monkeypatch.delenv("YOLO_OFFLINE", raising=False)
    monkeypatch.setitem(sys.modules, "ultralytics", sys)
    with pytest.raises(RuntimeError, match="was imported before"):
        import_ultralytics()
