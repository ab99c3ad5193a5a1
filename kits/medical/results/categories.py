"""What the rule sets say about a nodule and a scan, and why, line by line."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from kits.medical.results.rules import PRIOR, VOLUME_OF, Condition, Rule, RuleSet
from kits.medical.results.study import Category, Growth, Measures, Person, Texts
from kits.medical.results.wording import LANGUAGES, Wording, wording

DAYS_A_YEAR = 365.0
SIGNS = {"at_least": "≥", "above": ">", "below": "<", "at_most": "≤"}
NOT_CLASSIFIED = "?"


@dataclass(frozen=True)
class Facts:
    """What the rules may ask about one nodule; None is not known."""

    texture: str
    history: str  # baseline, new, followed
    diameter_mm: float
    volume_mm3: float
    count: float  # nodules of the same kind: solid, or not
    core_mm: float | None = None
    core_volume_mm3: float | None = None
    volume_growth: str | None = None
    increase_mm: float | None = None  # within 12 months
    core_increase_mm: float | None = None
    core_is_new: bool | None = None
    interval_days: float | None = None
    prior_diameter_mm: float | None = None
    prior_core_mm: float | None = None
    prior_texture: str | None = None
    prior_codes: Mapping[str, str] | None = None  # rule set -> code of the earlier report
    malignancy: float | None = None
    setting: str = "unknown"
    risk: str = "unknown"
    cancer: bool | None = None
    immunosuppressed: bool | None = None
    age_years: float | None = None


def facts_of(
    measures: Measures,
    texture: str,
    growth: Growth | None,
    *,
    count: int,
    person: Person,
    prior: tuple[str, Mapping[str, str]] | None = None,
) -> Facts:
    """Collect the facts of a nodule.

    Args:
        measures: its sizes.
        texture: one of TEXTURES.
        growth: against a prior; None where none was given.
        count: nodules of the same kind in the scan.
        person: what is known of the patient.
        prior: texture and codes of the matched nodule on the prior.
    """
    core = measures.core
    is_part_solid = texture == "part_solid"
    core_mm = core.mean_diameter_mm if core else 0.0
    known: dict[str, Any] = {}
    history = "baseline"
    if growth is not None and growth.state == "new":
        history = "new"
    elif growth is not None and growth.prior_mean_diameter_mm is not None:
        history = "followed"
        days = growth.interval_days or DAYS_A_YEAR
        # What is asked is growth within 12 months: longer intervals are scaled down to them.
        share = min(1.0, DAYS_A_YEAR / days)
        grown_mm = measures.mean_diameter_mm - growth.prior_mean_diameter_mm
        before = growth.prior_core_diameter_mm or 0.0
        known = {
            "volume_growth": growth.state,
            "interval_days": growth.interval_days,
            "increase_mm": round(share * grown_mm, 2),
            "core_increase_mm": round(share * (core_mm - before), 2) if is_part_solid else 0.0,
            "core_is_new": is_part_solid and core_mm > 0 and before == 0,
            "prior_diameter_mm": growth.prior_mean_diameter_mm,
            "prior_core_mm": before,
            "prior_texture": prior[0] if prior else texture,
            "prior_codes": dict(prior[1]) if prior else None,
        }
    return Facts(
        texture=texture,
        history=history,
        diameter_mm=measures.mean_diameter_mm,
        volume_mm3=measures.volume_mm3,
        count=float(count),
        core_mm=core_mm if is_part_solid else None,
        core_volume_mm3=(core.volume_mm3 if core else 0.0) if is_part_solid else None,
        setting=person.setting,
        risk=person.risk,
        cancer=person.cancer,
        immunosuppressed=person.immunosuppressed,
        age_years=person.age_years,
        **known,
    )


def categorise(rules: RuleSet, facts: Facts) -> Category:
    """Apply one rule set to one nodule, with the reasons."""
    view = _View(rules, facts)
    rule = view.first()
    code = rule.category if rule else NOT_CLASSIFIED
    lines = {language: _lines(rules, view, rule, wording(language)) for language in LANGUAGES}
    return _category(rules, code, lines)


def summarise(rules: RuleSet, categories: Sequence[Category]) -> Category:
    """The category of the whole scan: that of its most severe nodule.

    Args:
        rules: the rule set.
        categories: of the nodules, in their order, by this rule set.
    """
    ranks = [_rank(rules, category.code) for category in categories]
    lines: dict[str, tuple[str, ...]] = {}
    code = categories[ranks.index(max(ranks))].code if categories else rules.no_nodule
    for language in LANGUAGES:
        say = wording(language)
        if categories:
            number = ranks.index(max(ranks)) + 1
            first = say("rules.highest", count=len(categories), number=number, code=code)
        else:
            first = say("rules.no_nodule", code=code)
        lines[language] = (first, rules.not_judged[language])
    return _category(rules, code, lines)


def _rank(rules: RuleSet, code: str) -> int:
    """Severity; what could not be classified comes first, for somebody must look at it."""
    return (
        rules.codes[code].rank
        if code in rules.codes
        else 1 + max(entry.rank for entry in rules.codes.values())
    )


def _category(rules: RuleSet, code: str, lines: Mapping[str, tuple[str, ...]]) -> Category:
    entry = rules.codes.get(code)
    unknown: Texts = {language: wording(language)("rules.unclassified") for language in LANGUAGES}
    return Category(
        rule_set=rules.name,
        version=rules.version,
        code=code,
        meaning=entry.meaning if entry else unknown,
        rationale=lines,
        action=entry.action if entry else unknown,
        source=rules.source,
    )


class _View:
    """Facts as one rule set sees them: rounded, with its derived facts and its own codes."""

    def __init__(self, rules: RuleSet, facts: Facts, *, by_volume: bool = False) -> None:
        self._rules = rules
        self.facts = facts
        self.by_volume = by_volume
        self.values: dict[str, Any] = {
            field.name: getattr(facts, field.name) for field in fields(facts)
        }
        for name in ("diameter_mm", "core_mm"):
            self.values[name] = rounded(self.values[name], rules.round_mm)
        if facts.history == "followed":
            self.values |= _history(rules, facts)
        else:
            self.values[PRIOR] = None
        for name, alternatives in rules.derived.items():
            self.values[name] = _any(self._all(each) for each in alternatives)

    def first(self) -> Rule | None:
        """The first rule that holds."""
        return next((rule for rule in self._rules.rules if self._all(rule.conditions)), None)

    def holds(self, conditions: Sequence[Condition]) -> bool:
        """Whether all conditions are known to hold."""
        return self._all(conditions) is True

    def _all(self, conditions: Sequence[Condition]) -> bool | None:
        answers = [self._holds(condition) for condition in conditions]
        if False in answers:
            return False
        return None if None in answers else True

    def _holds(self, condition: Condition) -> bool | None:
        value = self.values.get(condition.fact)
        if value is None:
            return None
        if condition.one_of:
            return value in condition.one_of
        limits = condition.limits
        if self.by_volume and condition.fact in VOLUME_OF:
            value = self.values[VOLUME_OF[condition.fact]]
            limits = tuple((sign, self._rules.volumes_mm3[mm]) for sign, mm in limits)
        return all(_compare(value, sign, limit) for sign, limit in limits)

    def can_use_volume(self) -> bool:
        """Whether the rule set gives a volume for each of its diameters."""
        return bool(self._rules.volumes_mm3) and all(
            mm in self._rules.volumes_mm3
            for rule in self._rules.rules
            for condition in rule.conditions
            if condition.fact in VOLUME_OF
            for _, mm in condition.limits
        )


def _history(rules: RuleSet, facts: Facts) -> dict[str, Any]:
    """The nodule's class of size then and now, and its category then."""
    if facts.prior_diameter_mm is None or facts.prior_texture is None:
        return {PRIOR: None, "size_class_rose": None}
    then = Facts(
        texture=facts.prior_texture,
        history="baseline",
        diameter_mm=facts.prior_diameter_mm,
        volume_mm3=0.0,
        count=facts.count,
        core_mm=facts.prior_core_mm if facts.prior_texture == "part_solid" else None,
        setting=facts.setting,
        risk=facts.risk,
    )
    now = Facts(
        texture=facts.texture,
        history="baseline",
        diameter_mm=facts.diameter_mm,
        volume_mm3=0.0,
        count=facts.count,
        core_mm=facts.core_mm,
        setting=facts.setting,
        risk=facts.risk,
    )
    codes = [
        rule.category if (rule := _View(rules, each).first()) else NOT_CLASSIFIED
        for each in (then, now)
    ]
    known = (facts.prior_codes or {}).get(rules.name)
    return {
        PRIOR: known if known in rules.codes else codes[0],
        "size_class_rose": _rank(rules, codes[1]) > _rank(rules, codes[0]),
    }


def rounded(value: float | None, step: float) -> float | None:
    """A length to the rule set's step, halves up as people round."""
    if value is None:
        return None
    return round(math.floor(value / step + 0.5 + 1e-9) * step, 6)


def _any(answers: Any) -> bool | None:
    answers = list(answers)
    if True in answers:
        return True
    return None if None in answers else False


def _compare(value: float, sign: str, limit: float) -> bool:
    return {
        "at_least": value >= limit,
        "above": value > limit,
        "below": value < limit,
        "at_most": value <= limit,
    }[sign]


def _lines(rules: RuleSet, view: _View, rule: Rule | None, say: Wording) -> tuple[str, ...]:
    """History, the rule that decided, what the volume says, and cautions."""
    facts = view.facts
    if facts.history == "followed":
        lines = [
            say(
                "rules.followed",
                increase=f"{facts.increase_mm:+.1f}",
                days=round(facts.interval_days or 0),
                growth=say(f"growth.state.{facts.volume_growth}"),
                prior=view.values[PRIOR] or NOT_CLASSIFIED,
            )
        ]
    else:
        lines = [say(f"rules.{facts.history}")]
    lines.append(_reason(view, rule, say))
    if rule is not None and _has_size(rule) and view.can_use_volume():
        other = _View(rules, facts, by_volume=True).first()
        if other is not None:
            key = "rules.same_volume" if other.category == rule.category else "rules.other_volume"
            lines.append(say(key, volume=f"{facts.volume_mm3:.0f}", code=other.category))
    lines += [item.text[say.language] for item in rules.cautions if view.holds(item.conditions)]
    return tuple(lines)


def _has_size(rule: Rule) -> bool:
    return any(condition.fact in VOLUME_OF for condition in rule.conditions)


def _reason(view: _View, rule: Rule | None, say: Wording) -> str:
    if rule is None:
        return say("rules.no_rule")
    parts = [_condition(view, condition, say) for condition in rule.conditions]
    return f"{say('rules.comma').join(part for part in parts if part)} -> {rule.category}"


def _condition(view: _View, condition: Condition, say: Wording) -> str:
    """A condition with the value that met it."""
    value = view.values[condition.fact]
    if condition.fact == PRIOR:
        return say("fact.prior_category", value=value)
    if condition.one_of:
        text = str(value).lower() if isinstance(value, bool) else value
        return say(f"fact.{condition.fact}.{text}")
    limits = say("rules.and").join(f"{SIGNS[sign]} {limit:g}" for sign, limit in condition.limits)
    return say(
        "rules.limits", what=say(f"fact.{condition.fact}", value=f"{value:g}"), limits=limits
    )
