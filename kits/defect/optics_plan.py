"""What a set-up can see of its smallest defect, in pixels and as a probability. No torch.

The model is the ideal observer of a known line on white noise. A line of width w, length l and
contrast c, seen through lens, movement and pixels, has the energy E = l * integral |S(f)|^2 df,
S(f) = c * level * w * sinc(w f) * MTF(f), over all frequencies across the line, which is the mean
over where it falls between pixels. Noise is that of shot, read-out and rounding to 8 bits, and the
surface's texture. d' = sqrt(E) / noise; a trained detector reaches `efficiency` of it. A frame
offers as many places and directions for such a line as pi / 2 * pixels / w^2; at the allowed rate
of false rejects that gives a threshold z, and detection = Phi(efficiency * d' - z).

Texture is not white. On rendered surfaces an observer who knows the texture's spectrum reaches 0.5
(along the brush, textured) to 2.7 (across it) of this d', one who takes it for white 0.2 to 1.0
(tests/kits/defect/test_optics_plan.py): hence an efficiency of 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import special

from kits.defect.mtf import camera_mtf, diffraction_cutoff
from kits.defect.optics_config import OpticsPlanConfig

# Widths of a defect in pixels that people who plan cameras ask for, at least and in comfort.
RULE_PX, COMFORT_PX = 3.0, 5.0
LEVELS = 255
# Width of a line up to which texture is taken for noise of single pixels.
MOST_PX = 40.0


@dataclass(frozen=True)
class OpticsReport:
    """What the set-up sees."""

    mm_per_px: float
    defect_px: float  # across
    length_px: float
    cutoff: float  # cycles per pixel that the lens passes; Nyquist is 0.5
    mtf: float  # at one cycle per two widths of the defect
    contrast_seen: float  # peak across the line, as a share of the surface's brightness
    contrast_to_noise: float  # that peak over the noise of a pixel
    d_prime: float  # of the ideal observer
    detection: float
    largest_fov_mm: float  # that the same camera meets the defect with
    rule_fov_mm: float  # at which the defect is 3 px
    comfort_fov_mm: float  # and 5 px
    refusals: tuple[str, ...]  # why the set-up does not do
    warnings: tuple[str, ...]


def plan_for(
    *, mm_per_px: float, width_px: int, height_px: int, defect_mm: float, length_mm: float = 0.0
) -> OpticsPlanConfig:
    """The question that a recipe asks, where it knows no more than this of its camera.

    Args:
        mm_per_px: size of a pixel on the part.
        width_px: columns of a frame.
        height_px: rows of a frame.
        defect_mm: width of the smallest defect.
        length_mm: its length; 0: ten times its width, as scratches have.
    """
    return OpticsPlanConfig(
        fov_mm=mm_per_px * width_px,
        sensor_width_px=width_px,
        sensor_height_px=height_px,
        defect_mm=defect_mm,
        length_mm=length_mm or 10 * defect_mm,
    )


def check_optics(cfg: OpticsPlanConfig) -> OpticsReport:
    """The report of a set-up that meets its smallest defect.

    Raises:
        ValueError: it does not; the text has the numbers.
    """
    report = plan_optics(cfg)
    if report.refusals:
        raise ValueError("; ".join(report.refusals))
    return report


def plan_optics(cfg: OpticsPlanConfig) -> OpticsReport:
    """What a set-up sees, and whether that is enough."""
    width, length = cfg.defect_mm / cfg.mm_per_px, cfg.length_mm / cfg.mm_per_px
    peak, d_prime, detection = _seen(cfg)
    noise = _noise(cfg)
    largest = _largest_fov(cfg)
    frequency = np.array(0.5 / width)
    report = OpticsReport(
        mm_per_px=cfg.mm_per_px,
        defect_px=width,
        length_px=length,
        cutoff=diffraction_cutoff(cfg),
        mtf=abs(float(camera_mtf(cfg, frequency, np.array(0.0)))),
        contrast_seen=peak / cfg.level,
        contrast_to_noise=peak / noise,
        d_prime=d_prime,
        detection=detection,
        largest_fov_mm=largest,
        rule_fov_mm=cfg.sensor_width_px * cfg.defect_mm / RULE_PX,
        comfort_fov_mm=cfg.sensor_width_px * cfg.defect_mm / COMFORT_PX,
        refusals=(),
        warnings=(),
    )
    return replace(report, refusals=_refusals(cfg, report), warnings=_warnings(cfg, report))


def _seen(cfg: OpticsPlanConfig) -> tuple[float, float, float]:
    """Peak across the line in shares of the full well, d' and the probability of detection."""
    width, length = cfg.defect_mm / cfg.mm_per_px, cfg.length_mm / cfg.mm_per_px
    # Beyond the lens there is nothing; beyond 4 cycles no pixel keeps anything either.
    frequency = np.linspace(0, min(4.0, diffraction_cutoff(cfg)), 2001)
    # Movement is along x: a line along y is hit hardest.
    kept = camera_mtf(cfg, frequency, np.zeros_like(frequency))
    signal = cfg.contrast * cfg.level * width * np.sinc(width * frequency) * kept
    peak = 2 * float(np.trapezoid(signal, frequency))
    energy = 2 * float(np.trapezoid(signal**2, frequency)) * length
    d_prime = math.sqrt(energy) / _noise(cfg)
    area = cfg.sensor_width_px * cfg.sensor_height_px
    places = max(1.0, math.pi / 2 * area / max(width, 1.0) ** 2)
    threshold = -float(special.ndtri(cfg.false_rejects / places))
    return peak, d_prime, float(special.ndtr(cfg.efficiency * d_prime - threshold))


def _noise(cfg: OpticsPlanConfig) -> float:
    """Of one pixel, in shares of the full well."""
    shot = cfg.level / cfg.full_well_e
    read = (cfg.read_noise_e / cfg.full_well_e) ** 2
    rounding = 1 / (12 * LEVELS**2)
    return math.sqrt(shot + read + rounding + (cfg.texture * cfg.level) ** 2)


def _is_met(cfg: OpticsPlanConfig) -> bool:
    return cfg.defect_mm / cfg.mm_per_px >= cfg.least_px and _seen(cfg)[2] >= cfg.detection


def _largest_fov(cfg: OpticsPlanConfig) -> float:
    """The largest field of view that does; 0 where none does.

    A small one may fail too, out of focus: so it is looked for from above, then made exact. A line
    of far more pixels is not asked about: the texture would no longer be noise of single pixels.
    """
    top = cfg.sensor_width_px * cfg.defect_mm / cfg.least_px * (1 - 1e-9)
    candidates = [float(fov) for fov in np.geomspace(top, top * cfg.least_px / MOST_PX, 41)]
    met = next((n for n, fov in enumerate(candidates) if _is_met(replace(cfg, fov_mm=fov))), None)
    if met is None:
        return 0.0
    low, high = candidates[met], candidates[max(met - 1, 0)]
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if _is_met(replace(cfg, fov_mm=middle)) else (low, middle)
    return low


def _refusals(cfg: OpticsPlanConfig, report: OpticsReport) -> tuple[str, ...]:
    way_out = (
        f"set fov_mm to {report.largest_fov_mm:.0f} or less"
        if report.largest_fov_mm >= 0.1
        else "no field of view does: raise contrast by light"
    ) + ", take more cameras or pixels, or raise defect_mm"
    found = []
    if report.defect_px < cfg.least_px:
        found.append(
            f"defect_mm={cfg.defect_mm:g} is {report.defect_px:.2f} px across at fov_mm="
            f"{cfg.fov_mm:g}, below least_px={cfg.least_px:g}; {way_out}"
        )
    if report.detection < cfg.detection:
        found.append(
            f"detection={report.detection:.4f} of defects of {cfg.defect_mm:g} x "
            f"{cfg.length_mm:g} mm at contrast={cfg.contrast:g} is below {cfg.detection:g} "
            f"(contrast-to-noise {report.contrast_to_noise:.1f}); {way_out}"
        )
    return tuple(found)


def _warnings(cfg: OpticsPlanConfig, report: OpticsReport) -> tuple[str, ...]:
    found = []
    if cfg.least_px <= report.defect_px < RULE_PX:
        found.append(
            f"{report.defect_px:.1f} px across is below the rule of {RULE_PX:g}: contrast and "
            f"length have to carry it (the rule's field of view is {report.rule_fov_mm:.0f} mm)"
        )
    if report.cutoff < 0.5:
        found.append(
            f"the lens passes {report.cutoff:.2f} cycles per pixel, less than the sensor's 0.5: "
            "a lower f_number would show more"
        )
    return tuple(found)
