"""The prequential split: when models are trained, on which rows, and which rows they score.

Every score is made by models that saw only labels visible at their training time. The scores of
earlier periods, once their labels are visible, serve as validation data of later ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kits.fraud.config import SplitConfig
from kits.fraud.data.events import Events
from kits.fraud.features import DAY_S
from kits.fraud.metrics import known_compromised

# A book week is preceded by its delay and its training window.
BOOK_WINDOW_DAYS = 7
COMPROMISE_DAYS = 28


@dataclass(frozen=True)
class Refresh:
    """One training of all models."""

    time_s: int  # nothing later is known
    train: np.ndarray  # rows with visible labels
    score: np.ndarray  # rows up to the next refresh


@dataclass(frozen=True)
class TestPeriod:
    """One period whose scores are reported."""

    name: str  # its first day
    validation: np.ndarray  # rows scored earlier, labels visible when the period starts
    test: np.ndarray  # rows with known labels


@dataclass(frozen=True)
class Plan:
    """All trainings in time order and all test periods."""

    refreshes: tuple[Refresh, ...]
    periods: tuple[TestPeriod, ...]


def plan(events: Events, visible_s: np.ndarray, cfg: SplitConfig, *, smoke: bool = False) -> Plan:
    """Lay out trainings and test periods.

    Args:
        events: sorted by time.
        visible_s: (n,) from when on each label may be used.
        cfg: resolved, no open values.
        smoke: one test period only.

    Raises:
        ValueError: the data are too short for the test periods and a validation before them.
    """
    time_s, label = np.asarray(events.time_s), np.asarray(events.label)
    starts, length = _periods(events, cfg, smoke=smoke)
    step = min(round(cfg.refresh_days * DAY_S), length)
    delay = int(np.max(visible_s - time_s)) if len(time_s) else 0
    # Enough earlier trainings that the first test period finds labelled scores.
    lead = -(-(delay + step) // step) * step
    begin = int(time_s[0]) + round(cfg.warmup_days * DAY_S)
    times = [t for start in starts for t in range(start, start + length, step)]
    times = sorted({*range(starts[0] - lead, starts[0], step), *times})
    known = label >= 0
    countable = known & ~_compromised(events, cfg, delay)
    refreshes = []
    for number, now in enumerate(times):
        end = times[number + 1] if number + 1 < len(times) else starts[-1] + length
        oldest = begin
        if cfg.train_days:
            oldest = max(begin, now - delay - round(cfg.train_days * DAY_S))
        train = np.flatnonzero(known & (visible_s <= now) & (time_s >= oldest) & (time_s < now))
        score = np.flatnonzero(countable & (time_s >= now) & (time_s < end))
        if label[train].max(initial=0) == 0:
            raise ValueError(
                f"no known fraud trains the models of {day_name(now)}; "
                "set split.first_test later, or split.warmup_days lower"
            )
        refreshes.append(Refresh(now, train, score))
    scored = np.zeros(len(time_s), bool)
    scored[np.concatenate([refresh.score for refresh in refreshes])] = True
    periods = []
    for start in starts:
        oldest = start - delay - round(cfg.validation_days * DAY_S)
        validation = np.flatnonzero(scored & (visible_s <= start) & (time_s >= oldest))
        test = np.flatnonzero(scored & (time_s >= start) & (time_s < start + length))
        for what, rows in (("validation", validation), ("test", test)):
            if len(np.unique(label[rows])) < 2:
                raise ValueError(
                    f"the {what} rows of {day_name(start)} hold no fraud or nothing else; "
                    "set split.first_test, split.period_days or split.refresh_days"
                )
        periods.append(TestPeriod(day_name(start), validation, test))
    return Plan(tuple(refreshes), tuple(periods))


def detectable(events: Events, visible_s: np.ndarray) -> np.ndarray:
    """Which frauds left a trace that was visible at their time: (n,) bool, for reports only.

    The frauds on a compromised terminal look like everybody's payments; only labels give the
    terminal away. Such a fraud counts as detectable when an earlier one of the same terminal,
    not older than the 28 days a compromise lasts, had a visible label. All others count.
    """
    result = np.asarray(events.label) == 1
    if "compromised_terminal" not in events.pattern_names:
        return result
    pattern = events.pattern_names.index("compromised_terminal")
    rows = np.flatnonzero(np.asarray(events.pattern) == pattern)
    time_s, terminal = np.asarray(events.time_s), np.asarray(events.entities[:, 1])
    earlier: dict[int, list[int]] = {}
    for row in rows:
        before = earlier.setdefault(int(terminal[row]), [])
        result[row] = any(
            visible_s[other] <= time_s[row] <= time_s[other] + COMPROMISE_DAYS * DAY_S
            for other in before
        )
        before.append(int(row))
    return result


def day_name(time_s: int) -> str:
    """The day of a time, as 2018-07-18."""
    return str(np.datetime64(time_s, "s").astype("datetime64[D]"))


def _periods(events: Events, cfg: SplitConfig, *, smoke: bool) -> tuple[list[int], int]:
    """Start times of the test periods, and their common length in seconds."""
    time_s = events.time_s
    end = int(time_s[-1]) + 1
    if cfg.test_share is not None:
        first = int(time_s[int(len(time_s) * (1 - cfg.test_share))])
        return [first], end - first
    length = round(cfg.period_days * DAY_S)
    count = 1 if smoke else cfg.num_periods
    if cfg.first_test is None:
        last_day = -(-end // DAY_S) * DAY_S
        first = last_day - count * length
    else:
        first = int(np.datetime64(cfg.first_test, "s").astype(np.int64))
    if not int(time_s[0]) < first < end:
        raise ValueError(
            f"split.first_test={day_name(first)} is not within the data, "
            f"{day_name(int(time_s[0]))} to {day_name(end - 1)}; set split.first_test"
        )
    return [start for start in range(first, first + count * length, length) if start < end], length


def _compromised(events: Events, cfg: SplitConfig, delay_s: int) -> np.ndarray:
    """Rows of cards known to be compromised on their day, per week, as the book removes them."""
    if not cfg.drop_known_compromised:
        return np.zeros(len(events), bool)
    day = np.asarray(events.time_s) // DAY_S
    delay_days = -(-delay_s // DAY_S)
    length = max(1, round(cfg.period_days))
    anchor = int(np.datetime64(cfg.first_test or day_name(int(events.time_s[-1])), "D").astype(int))
    week = (day - anchor) // length
    account, label = np.asarray(events.entities[:, 0]), np.asarray(events.label)
    result = np.zeros(len(day), bool)
    for number in np.unique(week):
        start = anchor + number * length
        first = start - delay_days - BOOK_WINDOW_DAYS
        low, high = np.searchsorted(day, (first, start + length))
        found = known_compromised(
            account[low:high], day[low:high], label[low:high],
            first_day=first, delay_days=delay_days,
        )  # fmt: skip
        inside = week[low:high] == number
        result[low:high][inside] = found[inside]
    return result
