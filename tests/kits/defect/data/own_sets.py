"""The same few images with the same boxes, written in four forms."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

CLASSES = ("dent", "scratch")
SIZE = (60, 40)  # width, height
# Image -> (class, x1 y1 x2 y2); whole pixels, since VOC knows no others.
BOXES = {
    "images/a.png": [("scratch", (3, 4, 33, 8)), ("dent", (40, 20, 60, 40))],
    "images/b.png": [("dent", (0, 0, 12, 10))],
    "images/c.png": [],
}


def write_images(root, names=BOXES, size=SIZE):
    rng = np.random.default_rng(0)
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, size[::-1], np.uint8)).save(path)


def write_coco(root, boxes=BOXES):
    write_images(root)
    content = {"images": [], "annotations": [], "categories": []}
    for number, name in enumerate(CLASSES):
        content["categories"].append({"id": number + 1, "name": name})
    for number, (image, labels) in enumerate(boxes.items()):
        content["images"].append(
            {"id": number, "file_name": image, "width": SIZE[0], "height": SIZE[1]}
        )
        for kind, (x1, y1, x2, y2) in labels:
            content["annotations"].append(
                {
                    "id": len(content["annotations"]),
                    "image_id": number,
                    "category_id": CLASSES.index(kind) + 1,
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                }
            )
    (root / "labels.json").write_text(json.dumps(content))


def write_voc(root, boxes=BOXES):
    write_images(root)
    (root / "Annotations").mkdir()
    for image, labels in boxes.items():
        objects = "".join(
            f"<object><name>{kind}</name><bndbox><xmin>{x1 + 1}</xmin><ymin>{y1 + 1}</ymin>"
            f"<xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>"
            for kind, (x1, y1, x2, y2) in labels
        )
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>"
        path = root / "Annotations" / f"{Path(image).stem}.xml"
        path.write_text(f"<annotation>{size}{objects}</annotation>")


def write_yolo(root, boxes=BOXES):
    write_images(root)
    (root / "labels").mkdir()
    (root / "data.yaml").write_text("names: [dent, scratch]\n")
    width, height = SIZE
    for image, labels in boxes.items():
        lines = [
            f"{CLASSES.index(kind)} {(x1 + x2) / 2 / width!r} {(y1 + y2) / 2 / height!r} "
            f"{(x2 - x1) / width!r} {(y2 - y1) / height!r}"
            for kind, (x1, y1, x2, y2) in labels
        ]
        (root / "labels" / f"{Path(image).stem}.txt").write_text("\n".join(lines))


def write_labelme(root, boxes=BOXES):
    write_images(root)
    for image, labels in boxes.items():
        shapes = [
            {"label": kind, "shape_type": "rectangle", "points": [[x1, y1], [x2, y2]]}
            for kind, (x1, y1, x2, y2) in labels
        ]
        content = {"imagePath": Path(image).name, "shapes": shapes}
        content |= {"imageWidth": SIZE[0], "imageHeight": SIZE[1]}
        (root / image).with_suffix(".json").write_text(json.dumps(content))


WRITERS = {"coco": write_coco, "voc": write_voc, "yolo": write_yolo, "labelme": write_labelme}
