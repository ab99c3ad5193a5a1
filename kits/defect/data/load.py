"""From a data config to an image set."""

from __future__ import annotations

from importlib import import_module

from kits.defect.data.config import SOURCES, DataConfig
from kits.defect.data.image_set import ImageSet

# Source -> (module, function); each module imports what it alone needs.
OPENERS = {
    "rendered": ("render.rendered", "RenderedImages"),
    "coco": ("coco", "open_coco"),
    "voc": ("voc", "open_voc"),
    "yolo": ("yolo", "open_yolo"),
    "labelme": ("labelme", "open_labelme"),
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
    if cfg.name not in OPENERS:
        raise ValueError(f"data.name={cfg.name!r} is not one of {', '.join(SOURCES)}; set data=...")
    module, opener = OPENERS[cfg.name]
    images: ImageSet = getattr(import_module(f"kits.defect.data.{module}"), opener)(cfg)
    return images
