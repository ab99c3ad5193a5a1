"""Settings of a camera above a part; plain dataclasses that need neither numpy nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Range = tuple[float, float]


def check_ranges(prefix: str, cfg: Any, rules: dict[str, Range]) -> None:
    """Refuse values of a config outside of their range, ends included.

    Raises:
        ValueError: a value is outside; the text names the key.
    """
    for name, (low, high) in rules.items():
        value = getattr(cfg, name)
        if value is not None and not low <= value <= high:
            raise ValueError(
                f"{prefix}{name}={value} is not from {low:g} to {high:g}; set {prefix}{name}"
            )


@dataclass
class OpticsConfig:
    """Lens, sensor and exposure; the defaults are a 4K machine-vision camera of a usual kind."""

    # Width of the field of view on the part.
    fov_mm: float = 300.0
    # Columns and rows of the sensor.
    sensor_width_px: int = 3840
    sensor_height_px: int = 2160
    # Distance between the centres of two pixels on the sensor.
    pixel_um: float = 3.45
    f_number: float = 5.6
    wavelength_nm: float = 550.0
    # Distance of the surface from the plane of best focus.
    defocus_mm: float = 5.0
    # The part moves so fast while the shutter is open.
    speed_mm_per_s: float = 200.0
    exposure_us: float = 100.0
    # Root mean square of vibration in the plane, on the part.
    vibration_um: float = 10.0
    # Electrons of a pixel at its brightest, and read noise.
    full_well_e: float = 10500.0
    read_noise_e: float = 2.5
    # Mean brightness of the part as a share of the full well.
    level: float = 0.45

    def __post_init__(self) -> None:
        """Check ranges."""
        check_ranges(
            self.prefix,
            self,
            {
                "fov_mm": (0.1, 100_000),
                "sensor_width_px": (16, 65_536),
                "sensor_height_px": (16, 65_536),
                "pixel_um": (0.5, 50),
                "f_number": (0.7, 64),
                "wavelength_nm": (200, 2000),
                "defocus_mm": (0, 10_000),
                "speed_mm_per_s": (0, 100_000),
                "exposure_us": (0, 1_000_000),
                "vibration_um": (0, 10_000),
                "full_well_e": (100, 10_000_000),
                "read_noise_e": (0, 1000),
                "level": (0.02, 0.95),
            },
        )

    @property
    def prefix(self) -> str:
        """What stands before the keys on the command line."""
        return "data.optics."

    @property
    def mm_per_px(self) -> float:
        """Size of a pixel on the part."""
        return self.fov_mm / self.sensor_width_px


@dataclass
class OpticsPlanConfig(OpticsConfig):
    """`python -m kits.defect.optics`: exit status 3 if the set-up cannot meet the defect."""

    # Width of the smallest defect that has to be found, and its length where it is a line.
    defect_mm: float = 0.2
    length_mm: float = 2.0
    # How much darker or brighter the defect is than the surface around it, as a share.
    contrast: float = 0.2
    # Root mean square of the surface's own texture between pixels, as a share.
    texture: float = 0.05
    # Share of such defects that must be found, at so many false rejects per frame.
    detection: float = 0.992
    false_rejects: float = 0.01
    # A line narrower than this is refused whatever its length and contrast.
    least_px: float = 2.0
    # What a trained detector reaches of the ideal observer's d'.
    efficiency: float = 0.5

    def __post_init__(self) -> None:
        """Check ranges."""
        super().__post_init__()
        check_ranges(
            self.prefix,
            self,
            {
                "defect_mm": (1e-4, 1000),
                "length_mm": (1e-4, 100_000),
                "contrast": (0.001, 10),
                "texture": (0, 1),
                "detection": (0.5, 0.99999),
                "false_rejects": (1e-9, 0.5),
                "least_px": (0.5, 100),
                "efficiency": (0.01, 1),
            },
        )
        if self.length_mm < self.defect_mm:
            raise ValueError(
                f"length_mm={self.length_mm} is below defect_mm={self.defect_mm}, its width; "
                "set length_mm"
            )

    @property
    def prefix(self) -> str:
        """Nothing: these are the verb's own keys."""
        return ""
