"""Did a nodule grow between two scans? Only if what readers differ by cannot explain it.

The logarithm of a volume has a known standard deviation (uncertainty.py), so the growth rate, in
doublings a year, has a 95 % interval; the volume doubling time is its inverse.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date, datetime

from kits.medical.results.study import Growth, GrowthState, Interval, Texts
from kits.medical.results.uncertainty import Z_95, log_sigma
from kits.medical.results.wording import note

DAYS_A_YEAR = 365.25
# A doubling time beyond this counts as no growth (NELSON; British Thoracic Society 2015).
STABLE_VDT_DAYS = 600.0


@dataclass(frozen=True)
class Earlier:
    """One nodule as an earlier report has it."""

    number: int
    centre_mm: tuple[float, float, float]
    volume_mm3: float
    mean_diameter_mm: float
    texture: str
    core_diameter_mm: float | None = None
    tracking_uid: str = ""
    codes: tuple[tuple[str, str], ...] = ()  # rule set, category


@dataclass(frozen=True)
class Rate:
    """Growth in doublings a year, and its interval."""

    doublings_per_year: float
    interval: Interval

    @property
    def state(self) -> GrowthState:
        """Growing or shrinking if the interval leaves no other reading."""
        low, high = self.interval
        if low > 0:
            return "growing"
        if high < 0:
            return "shrinking"
        return "stable" if high <= DAYS_A_YEAR / STABLE_VDT_DAYS else "undecided"

    @property
    def vdt_days(self) -> float | None:
        """Volume doubling time, where the volume rose."""
        rate = self.doublings_per_year
        return DAYS_A_YEAR / rate if rate > 0 else None

    @property
    def vdt_interval_days(self) -> Interval | None:
        """Its interval; up to infinity where no growth is possible too."""
        low, high = self.interval
        if high <= 0:
            return None
        return DAYS_A_YEAR / high, DAYS_A_YEAR / low if low > 0 else math.inf


def growth_rate(before: tuple[float, str], now: tuple[float, str], interval_days: float) -> Rate:
    """Growth between two measurements.

    Args:
        before: volume in mm3 and texture at the earlier scan.
        now: the same at the later one.
        interval_days: between the two, above 0.

    Raises:
        ValueError: the scans are not in order, or a volume is not positive.
    """
    if not interval_days > 0:
        raise ValueError(
            f"interval_days={interval_days} is not above 0; give the earlier scan as prior"
        )
    sigma = math.hypot(log_sigma(*before), log_sigma(*now)) / math.log(2)
    per_year = DAYS_A_YEAR / interval_days
    rate = math.log2(now[0] / before[0]) * per_year
    margin = Z_95 * sigma * per_year
    return Rate(rate, (rate - margin, rate + margin))


def compare(
    before: Earlier, now: tuple[float, str], prior_date: str, interval_days: float
) -> Growth:
    """What is said about a nodule that was found on the prior too.

    Args:
        before: the nodule on the prior.
        now: its volume in mm3 and its texture at this scan.
        prior_date: YYYYMMDD.
        interval_days: from the prior to this scan.
    """
    rate = growth_rate((before.volume_mm3, before.texture), now, interval_days)
    return Growth(
        state=rate.state,
        prior_date=prior_date,
        interval_days=interval_days,
        prior_volume_mm3=before.volume_mm3,
        prior_mean_diameter_mm=before.mean_diameter_mm,
        prior_core_diameter_mm=before.core_diameter_mm,
        prior_tracking_uid=before.tracking_uid,
        doublings_per_year=rate.doublings_per_year,
        doublings_interval=rate.interval,
        vdt_days=rate.vdt_days,
        vdt_interval_days=rate.vdt_interval_days,
        note=_note(rate),
    )


def days_between(before: str, now: str) -> int:
    """Days from one date to another, both YYYYMMDD.

    Raises:
        ValueError: a date is none, or they are not in order.
    """
    days = (_date(now) - _date(before)).days
    if days <= 0:
        raise ValueError(
            f"prior of {before} is not before the scan of {now}; give an earlier scan as prior"
        )
    return days


def _date(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError as error:
        raise ValueError(
            f"date={text!r} is not YYYYMMDD; growth needs the dates of both scans"
        ) from error


def _note(rate: Rate) -> Texts:
    days = round(STABLE_VDT_DAYS)
    if rate.state == "undecided":
        return note("growth.why.undecided", days=days)
    if rate.state == "stable":
        return note("growth.why.stable", days=days)
    return note(f"growth.why.{rate.state}")
