"""How training samples are drawn from images; a plain dataclass that needs no numpy."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class SamplingConfig:
    """Samples are crops at native resolution, varied."""

    # Side of a sample, a multiple of 32.
    size_px: int = 320
    # Small: on a processor a sample costs the same in any batch, and more steps learn more.
    batch_size: int = 8
    # Samples of an epoch; null: as many as there are tiles.
    samples_per_epoch: int | None = 3200
    # Flips and quarter turns.
    is_turned: bool = True
    # Share of samples that are scaled, and by how much at most: 0.25 is 0.8 to 1.25 times.
    scaled: float = 0.5
    scale: float = 0.25
    # Share of samples put together from four crops.
    mosaic: float = 0.0
    # Contrast changes by up to this share, brightness by up to this share of white.
    contrast: float = 0.2
    brightness: float = 0.1
    # Standard deviation of added noise, up to, in grey levels.
    noise: float = 4.0
    # The template is moved by up to so many whole pixels against the image.
    template_shift_px: int = 1
    # Share of samples that are drawn around a defect; the others lie anywhere.
    around_defect: float = 0.7
    # Images that the validation split is scored on while training, spread evenly over it.
    max_validation: int = 100

    def __post_init__(self) -> None:
        """Check ranges."""
        if self.size_px < 32 or self.size_px % 32:
            raise ValueError(f"sampling.size_px={self.size_px} is not a multiple of 32; set it")
        for name in ("scaled", "mosaic", "around_defect", "contrast", "brightness"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"sampling.{name}={getattr(self, name)} is not in [0, 1]; set sampling.{name}"
                )
        for name in ("batch_size", "max_validation"):
            if getattr(self, name) < 1:
                raise ValueError(f"sampling.{name}={getattr(self, name)} is below 1; set it")
        for name in ("scale", "noise", "template_shift_px"):
            if getattr(self, name) < 0:
                raise ValueError(f"sampling.{name}={getattr(self, name)} is below 0; set it")
        if self.samples_per_epoch is not None and self.samples_per_epoch < self.batch_size:
            raise ValueError(
                f"sampling.samples_per_epoch={self.samples_per_epoch} is below one batch of "
                f"{self.batch_size}; raise it"
            )
