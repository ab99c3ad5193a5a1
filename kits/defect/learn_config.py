"""Settings of the learn verb; a plain dataclass that needs neither numpy nor torch."""

from __future__ import annotations

from dataclasses import dataclass

TARGETS = ("dots", "checker")


@dataclass
class LearnConfig:
    """`python -m kits.defect.learn`: exit status 2 after a mistake, 3 if the optics do not do."""

    # Folder of images of good parts, all of one camera; 20 are a good number.
    images: str = "???"
    # The recipe; it must not exist yet.
    output: str = "product.recipe"
    product: str = "product"
    # Size of a pixel on the part; null: measured on target.
    mm_per_px: float | None = None
    # An image of a calibration target on the part's surface: a grid of dots, or a checkerboard.
    target: str | None = None
    target_kind: str = "dots"
    # Between the centres of two dots, or the side of a square.
    target_pitch_mm: float | None = None
    # The smallest defect that has to be found: its width, and its length (null: ten times that).
    smallest_defect_mm: float = 0.2
    smallest_length_mm: float | None = None
    # Share of the cells of good parts that may be flagged; the detector looks at those.
    flagged_share: float = 0.002
    # From trigger to verdict.
    deadline_ms: float = 500.0
    # What the detector looks at, how far its tiles overlap, and how many cells it sees unflagged.
    tile_px: int = 320
    halo_px: int = 64
    audit_share: float = 0.01
    # The detector, if the line must refuse any other: a bundle or an ONNX file.
    detector: str | None = None

    def __post_init__(self) -> None:
        """Check single values and pairs."""
        if (self.mm_per_px is None) == (self.target is None):
            raise ValueError(
                f"mm_per_px={self.mm_per_px} and target={self.target}: one of them says how large "
                "a pixel is; set mm_per_px, or target with target_pitch_mm"
            )
        if self.target is not None and self.target_pitch_mm is None:
            raise ValueError("target_pitch_mm=None is not known; set target_pitch_mm")
        if self.target_kind not in TARGETS:
            raise ValueError(
                f"target_kind={self.target_kind!r} is not one of {', '.join(TARGETS)}; "
                "set target_kind"
            )
        for name in ("mm_per_px", "target_pitch_mm", "smallest_defect_mm", "smallest_length_mm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1e6:
                raise ValueError(f"{name}={value} is not a length in mm; set {name}")
        if not 0.0005 <= self.flagged_share <= 0.5:
            raise ValueError(
                f"flagged_share={self.flagged_share} is not from 0.0005 to 0.5; set flagged_share"
            )
