"""Alarms: told once when they begin and once when they end, and counted in between."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

LOG = logging.getLogger(__name__)

# What can be wrong. uninspected: a part was not looked at, or not in time; process: one died;
# disk: the ledger or the pictures cannot be written; camera: no image, or a bad one;
# recovered: the line ended without a verdict for some parts before.
KINDS = ("uninspected", "process", "disk", "camera", "recovered", "model")


@dataclass(frozen=True)
class Alarm:
    """Something that a person has to know of."""

    kind: str  # one of KINDS
    subject: str  # camera, process or file
    text: str
    is_on: bool = True
    trigger: int | None = None  # the part that showed it


@dataclass
class Alarms:
    """Those that are on; of one event loop."""

    # Called when an alarm begins or ends.
    on_alarm: Callable[[Alarm], None]
    active: dict[tuple[str, str], Alarm] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)  # of all that was told, by kind
    told: list[Alarm] = field(default_factory=list)  # in order, for the report

    def begin(self, kind: str, subject: str, text: str, trigger: int | None = None) -> None:
        """Something is wrong; it may be known already."""
        self.counts[kind] += 1
        if (kind, subject) not in self.active:
            self._tell(Alarm(kind, subject, text, trigger=trigger))

    def end(self, kind: str, subject: str, text: str = "it works again") -> None:
        """It is right again; it may never have been wrong."""
        if (kind, subject) in self.active:
            self._tell(Alarm(kind, subject, text, is_on=False))

    def once(self, kind: str, subject: str, text: str) -> None:
        """Something happened that is over already."""
        self.counts[kind] += 1
        self._tell(Alarm(kind, subject, text))
        del self.active[kind, subject]

    def _tell(self, alarm: Alarm) -> None:
        if alarm.is_on:
            self.active[alarm.kind, alarm.subject] = alarm
            LOG.error("ALARM %s, %s: %s", alarm.kind, alarm.subject, alarm.text)
        else:
            del self.active[alarm.kind, alarm.subject]
            LOG.warning("%s, %s: %s", alarm.kind, alarm.subject, alarm.text)
        self.told.append(alarm)
        self.on_alarm(alarm)
