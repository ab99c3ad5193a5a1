"""From a data config to an image set."""

from __future__ import annotations

from importlib import import_module

from kits.defect.data.config import SOURCES, DataConfig
from kits.defect.data.image_set import ImageSet

# Source -> (module, class); each module imports what it alone needs.
CLASSES = {
    "rendered": ("render.rendered", "RenderedImages"),
    "coco": ("coco", "CocoImages"),
    "voc": ("voc", "VocImages"),
    "yolo": ("yolo", "YoloImages"),
    "labelme": ("labelme", "LabelmeImages"),
    "deeppcb": ("deeppcb", "DeepPcbImages"),
    "neu": ("neu", "NeuImages"),
}


def open_images(cfg: DataConfig) -> ImageSet:
    """Open one source of labelled images.

    Args:
        cfg: one of the dataclasses of kits/defect/data/config.py.
    Returns:
        its images; files are looked through now, and read when an image is loaded.
    Raises:
        ValueError: the source is unknown, or its files break a rule; every one is named.
    """
    if cfg.name not in CLASSES:
        raise ValueError(f"data.name={cfg.name!r} is not one of {', '.join(SOURCES)}; set data=...")
    module, name = CLASSES[cfg.name]
    images: ImageSet = getattr(import_module(f"kits.defect.data.{module}"), name)(cfg)
    return images
