"""ultralytics' own small network, from nothing, on our splits and by our score: the accuracy peer.

    python -m benchmarks.defect.peer_yolo neu ../shared/data/neu-det-dev --minutes 20 --size-px 224

Its own trainer, augmentation and schedule at their defaults; a process of its own, because it is
imported there without anything of ours beside it but what keeps it silent. Grey images are written
as RGB, as it reads them; template and difference become the other two colours.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image

from kits.defect.data.config import DeepPcbData, NeuData
from kits.defect.data.image_set import SPLITS, ImageSet
from kits.defect.data.load import open_images
from kits.defect.detecting import Found
from kits.defect.metrics.average_precision import best_threshold, hits_of, map_metrics
from kits.defect.metrics.matching import Scored
from kits.defect.planes import planes_of
from kits.defect.yolo.quiet import import_ultralytics

SOURCES = {"deeppcb": DeepPcbData, "neu": NeuData}


def write_folder(images: ImageSet, folder: Path) -> Path:
    """A YOLO folder of an image set; gives its data.yaml."""
    for split in SPLITS:
        for kind in ("images", "labels"):
            (folder / kind / split).mkdir(parents=True)
        for name in images.names(split):
            one = images.load(name)
            planes = planes_of(one.pixels, one.template)
            colours = np.repeat(planes, 3, 0) if len(planes) == 1 else planes
            stem = Path(name).stem
            Image.fromarray(np.ascontiguousarray(colours.transpose(1, 2, 0))).save(
                folder / "images" / split / f"{stem}.png"
            )
            height, width = one.pixels.shape[:2]
            rows = [
                f"{kind} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} "
                f"{(x2 - x1) / width} {(y2 - y1) / height}"
                for kind, (x1, y1, x2, y2) in zip(one.classes, one.boxes_px, strict=True)
            ]
            (folder / "labels" / split / f"{stem}.txt").write_text("\n".join(rows))
    content = {
        "path": str(folder),
        "train": "images/train",
        "val": "images/validation",
        "names": dict(enumerate(images.class_names)),
    }
    path = folder / "data.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def main() -> None:
    """Train for so many minutes, then score the test split."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source", choices=sorted(SOURCES))
    parser.add_argument("path")
    parser.add_argument("--model", default="yolo11n.yaml")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--epochs", type=int, help="instead of minutes")
    parser.add_argument("--size-px", type=int, default=320)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    ultralytics = import_ultralytics()
    images = open_images(SOURCES[options.source](path=options.path))
    with tempfile.TemporaryDirectory() as name:
        data = write_folder(images, Path(name) / "data")
        model = ultralytics.YOLO(options.model)
        begun = time.perf_counter()
        how = {"epochs": options.epochs} if options.epochs else {"time": options.minutes / 60}
        model.train(
            data=str(data), imgsz=options.size_px, device="cpu", workers=0, plots=False,
            project=name, name="run", verbose=False, pretrained=False, **how,
        )  # fmt: skip
        seconds = time.perf_counter() - begun
        hits = []
        for each in images.names("test"):
            file = Path(name) / "data/images/test" / f"{Path(each).stem}.png"
            boxes = model.predict(
                str(file), imgsz=options.size_px, conf=0.001, verbose=False, save=False
            )[0].boxes
            found = Found(
                boxes.xyxy.numpy(), boxes.conf.numpy(), boxes.cls.numpy().astype(np.int64)
            )
            hits.append(hits_of(Scored(images.load(each), found)))
    result = {
        "model": options.model,
        "data": images.name,
        "size_px": options.size_px,
        "train_s": round(seconds),
        "threads": options.threads,
        "num_parameters": sum(p.numel() for p in model.model.parameters()),
        **map_metrics(hits),
        "f_at_iou_0.33_best": best_threshold(hits)[1],
    }
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
