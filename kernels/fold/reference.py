"""The fold in plain Python: the definition that the native code equals bit for bit.

What each feature means stands in `features`, how it is computed here and in `reference_entity`.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from kernels.fold.features import feature_names
from kernels.fold.reference_entity import (
    DAY_S,
    FRAUD,
    MIN_HABIT,
    NAN,
    UNKNOWN,
    Entity,
    Event,
    age,
    ratio,
)
from kernels.fold.rows import (
    HISTORY,
    NEIGHBOURS,
    Labels,
    Progress,
    Rows,
    check_roles,
    neighbour_roles,
    shared_roles,
)


class Pair(NamedTuple):
    """An account at an entity."""

    num_events: int = 0
    last_s: int | None = None


class ReferenceFold:
    """As `Fold`, in plain Python."""

    def __init__(self, roles: Sequence[str], kinds: Sequence[str]) -> None:
        check_roles(roles, kinds)
        self.roles, self.kinds = tuple(roles), tuple(kinds)
        self.feature_names = feature_names(roles, kinds)
        self.neighbour_role = neighbour_roles(kinds)
        self._progress = Progress(len(roles))
        self._events: list[Event] = []
        self._entities: dict[tuple[int, int], Entity] = {}  # by role, token
        self._pairs: dict[tuple[int, int, int], Pair] = {}  # by role, account, token
        self._account_frauds: Counter[int] = Counter()
        self._history: dict[int, deque[Event]] = defaultdict(lambda: deque(maxlen=HISTORY))
        self._around: dict[tuple[str, int], deque[Event]] = defaultdict(
            lambda: deque(maxlen=NEIGHBOURS)
        )  # by kind, token

    def run(
        self,
        time_s: np.ndarray,
        tokens: np.ndarray,
        amount: np.ndarray,
        labels: Labels,
        out: Rows | None = None,
    ) -> int:
        """As `Fold.run`."""
        batch = self._progress.check(time_s, tokens, amount, labels)
        if out is not None:
            out.check(len(batch.time_s), len(self.feature_names))
        schedule = [
            (int(visible_s), int(event), int(value))
            for visible_s, event, value in zip(*_columns(batch.labels), strict=True)
        ]
        used = 0
        for i, now_s in enumerate(batch.time_s.tolist()):
            while used < len(schedule) and self._is_visible(*schedule[used][:2], now_s):
                self._learn(*schedule[used])
                used += 1
            entities, value = batch.tokens[i].tolist(), float(batch.amount[i])
            if out is not None:
                self._write(out, i, now_s, entities, value)
            self._add(now_s, entities, value)
        self._progress.move(batch, used)
        return used

    def _is_visible(self, visible_s: int, event: int, now_s: int) -> bool:
        return visible_s <= now_s and event < len(self._events)

    def _learn(self, now_s: int, number: int, fraud: int) -> None:
        event = self._events[number]
        event.status = fraud
        self._account_frauds[event.account] += fraud
        for entity, habit in event.touched:
            entity.learn(now_s, event, habit, fraud)

    def _add(self, time_s: int, tokens: list[int], amount: float) -> None:
        account = self._entities.get((0, tokens[0])) or Entity(time_s)
        has_habit = account.habit.count >= MIN_HABIT
        account_ratio = ratio(amount, account.habit.mean) if has_habit else NAN
        event = Event(len(self._events), time_s, tokens[0], account_ratio)
        places = {}
        for role, token in enumerate(tokens):
            if _is_empty(role, token):
                continue
            entity = self._entities.setdefault((role, token), Entity(time_s))
            event.touched.append((entity, entity.add(time_s, amount, account_ratio)))
            # Two roles of one kind may name the same entity: it holds the event once.
            places[self.kinds[role], token] = event
            pair = self._pairs.get((role, tokens[0], token), Pair())
            self._pairs[role, tokens[0], token] = Pair(pair.num_events + 1, time_s)
        for place in places:
            self._around[place].append(event)
        self._history[tokens[0]].append(event)
        self._events.append(event)

    # ---- rows ----

    def _write(self, out: Rows, i: int, time_s: int, tokens: list[int], amount: float) -> None:
        values = [amount, float(time_s % DAY_S), float((time_s // DAY_S + 4) % 7)]
        for role, token in enumerate(tokens):
            values += self._role_features(role, token, tokens[0], time_s, amount)
        with np.errstate(over="ignore", under="ignore"):
            # One NaN for all: inf - inf has another sign on another processor.
            out.features[i] = [NAN if math.isnan(value) else value for value in values]
        past = list(self._history[tokens[0]])[1 - HISTORY :]
        padding = [-1] * (HISTORY - 1 - len(past))
        out.history[i] = [*padding, *(event.number for event in past), len(self._events)]
        out.history_status[i] = [*padding, *(event.status for event in past), UNKNOWN]
        shared = shared_roles(self.kinds)
        out.neighbours[i] = out.neighbour_status[i] = -1
        for number, role in enumerate(shared):
            share = NEIGHBOURS // len(shared)
            others = [e for e in self._newest(role, tokens[role]) if e.account != tokens[0]][:share]
            columns = slice(number * share, number * share + len(others))
            out.neighbours[i, columns] = [event.number for event in others]
            out.neighbour_status[i, columns] = [event.status for event in others]

    def _role_features(
        self, role: int, token: int, account: int, time_s: int, amount: float
    ) -> Iterable[float]:
        entity = self._entities.get((role, token)) or Entity(time_s)
        yield from entity.activity(time_s)
        yield from entity.amounts(time_s, amount)
        yield from entity.labels(time_s)
        if role == 0:
            yield from _history_features(list(reversed(self._history[account])), time_s)
        else:
            pair = self._pairs.get((role, account, token), Pair())
            yield float(pair.num_events)
            yield age(time_s, pair.last_s)
        if role in shared_roles(self.kinds):
            yield from self._around_features(self._newest(role, token)[:HISTORY], account, time_s)

    def _newest(self, role: int, token: int) -> list[Event]:
        """Events at an entity, newest first."""
        if _is_empty(role, token):
            return []
        return list(reversed(self._around[self.kinds[role], token]))

    def _around_features(self, events: list[Event], account: int, time_s: int) -> Iterable[float]:
        accounts = {event.account for event in events}
        yield float(len(events))
        yield float(len(accounts))
        yield float(sum(event.account != account for event in events))
        yield float(sum(each != account and self._account_frauds[each] > 0 for each in accounts))
        yield float(sum(event.status == FRAUD for event in events))
        yield float(sum(event.status == UNKNOWN for event in events))
        yield float(sum(event.loud for event in events))
        yield age(time_s, events[-1].time_s if events else None)


def _history_features(newest: list[Event], time_s: int) -> Iterable[float]:
    """Of the account's last events, newest first."""
    unlabelled = [event for event in newest if event.status == UNKNOWN]
    # Among equals the newest comes first; a NaN is no ratio.
    ranked = sorted(
        (event for event in unlabelled if event.ratio > 0.0), key=lambda event: -event.ratio
    )
    yield float(len(unlabelled))
    yield float(sum(event.loud for event in unlabelled))
    yield ranked[0].ratio if ranked else 0.0
    yield ranked[1].ratio if len(ranked) > 1 else 0.0
    yield age(time_s, ranked[0].time_s if ranked else None)
    yield float(sum(event.status == FRAUD for event in newest))
    for back in range(3):
        yield newest[back].ratio if back < len(newest) else NAN
    yield age(time_s, newest[1].time_s if len(newest) > 1 else None)


def _is_empty(role: int, token: int) -> bool:
    return role > 0 and token == 0


def _columns(labels: Labels) -> tuple[list[int], list[int], list[int]]:
    return labels.time_s.tolist(), labels.event.tolist(), labels.value.tolist()
