"""What a set-up can see: `python -m kits.defect.optics fov_mm=300 defect_mm=0.2`.

Exit status 2: a mistake on the command line; 3: the set-up cannot meet its smallest defect.
"""

from __future__ import annotations

import sys

from core.launch import launch
from kits.defect.kit import KIT
from kits.defect.optics_config import OpticsPlanConfig

REFUSED = 3


def optics(cfg: OpticsPlanConfig) -> None:
    """Print the plan.

    Raises:
        SystemExit: with status 3 if the set-up does not do.
    """
    from kits.defect.optics_plan import plan_optics

    report = plan_optics(cfg)
    rows = (
        ("pixel on the part", f"{report.mm_per_px:.4f} mm"),
        ("smallest defect", f"{report.defect_px:.2f} px across, {report.length_px:.1f} px long"),
        ("lens passes", f"{report.cutoff:.2f} cycles/px (the sensor 0.5)"),
        ("MTF at the defect's width", f"{report.mtf:.2f}"),
        ("contrast seen", f"{report.contrast_seen:.3f} of {cfg.contrast:g}"),
        ("contrast-to-noise of a pixel", f"{report.contrast_to_noise:.1f}"),
        ("d' of the ideal observer", f"{report.d_prime:.1f}, taken: {cfg.efficiency:g} of it"),
        (
            "probability of detection",
            f"{report.detection:.4f} at {cfg.false_rejects:g} false rejects per frame",
        ),
        (
            "field of view, largest",
            f"{report.largest_fov_mm:.0f} mm; {report.rule_fov_mm:.0f} mm for 3 px, "
            f"{report.comfort_fov_mm:.0f} mm for 5 px",
        ),
    )
    for name, value in rows:
        print(f"{name:30} {value}")
    for warning in report.warnings:
        print(f"note: {warning}")
    if report.refusals:
        for refusal in report.refusals:
            print(f"refused: {refusal}", file=sys.stderr)
        raise SystemExit(REFUSED)


if __name__ == "__main__":
    launch(optics, KIT, "optics")
