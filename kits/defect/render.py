"""Write rendered parts to a folder: `python -m kits.defect.render output=good data.clean=1`."""

from __future__ import annotations

from core.launch import launch
from kits.defect.data.config import RenderConfig
from kits.defect.kit import KIT


def render(cfg: RenderConfig) -> None:
    """Render a split and write it as COCO."""
    from pathlib import Path

    from kits.defect.data.image_set import names_of
    from kits.defect.data.load import open_images
    from kits.defect.data.save import save_coco

    images = open_images(cfg.data)
    names = names_of(images, cfg.split)  # type: ignore[arg-type]
    try:
        save_coco(images, names, Path(cfg.output))
    except (ValueError, OSError) as error:
        raise SystemExit(f"error: {error}") from error
    print(f"{len(names)} images in {cfg.output}, their boxes in {cfg.output}/labels.json")


if __name__ == "__main__":
    launch(render, KIT, "render")
