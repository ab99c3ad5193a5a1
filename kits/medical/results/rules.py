"""Rule sets as data: read, checked in full, and only then used. Nothing in a file is executed.

A condition compares one fact with a literal (`texture: solid`) or with limits
(`diameter_mm: {at_least: 8, below: 15}`); a rule holds if all its conditions do. A fact that is
not known makes a condition neither true nor false, and a rule with such a condition does not fire.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from kits.medical.findings import TEXTURES
from kits.medical.results.study import Texts
from kits.medical.results.wording import LANGUAGES, Loader

RULES = Path(__file__).parent / "rules"
LIMITS = ("at_least", "above", "below", "at_most")

# Fact -> its legal values; None: a number. What a rule file may ask.
FACTS: Mapping[str, tuple[Any, ...] | None] = {
    "texture": TEXTURES,
    "history": ("baseline", "new", "followed"),
    "volume_growth": ("growing", "shrinking", "stable", "undecided"),
    "risk": ("low", "high", "unknown"),
    "setting": ("screening", "incidental", "unknown"),
    "cancer": (True, False),
    "immunosuppressed": (True, False),
    "core_is_new": (True, False),
    "size_class_rose": (True, False),
    "diameter_mm": None,
    "core_mm": None,
    "increase_mm": None,
    "core_increase_mm": None,
    "interval_days": None,
    "count": None,
    "age_years": None,
    "malignancy": None,
}
PRIOR = "prior_category"  # a fact whose values are the file's own codes
VOLUME_OF = {"diameter_mm": "volume_mm3", "core_mm": "core_volume_mm3"}


@dataclass(frozen=True)
class Condition:
    """One fact and what it must be."""

    fact: str
    one_of: tuple[Any, ...] = ()  # values
    limits: tuple[tuple[str, float], ...] = ()  # comparison, number


@dataclass(frozen=True)
class Rule:
    """Conditions that must all hold, and what follows."""

    category: str
    conditions: tuple[Condition, ...]


@dataclass(frozen=True)
class Caution:
    """What to say beside a category."""

    conditions: tuple[Condition, ...]
    text: Texts


@dataclass(frozen=True)
class Code:
    """One category of a rule set."""

    rank: int  # of severity
    meaning: Texts
    action: Texts


@dataclass(frozen=True)
class RuleSet:
    """One rule file."""

    name: str
    version: str
    source: str
    round_mm: float
    volumes_mm3: Mapping[float, float]
    no_nodule: str
    codes: Mapping[str, Code]
    derived: Mapping[str, tuple[tuple[Condition, ...], ...]]  # fact -> alternatives
    rules: tuple[Rule, ...]
    cautions: tuple[Caution, ...]
    not_judged: Texts


def names() -> tuple[str, ...]:
    """Names of the rule files."""
    return tuple(sorted(path.stem for path in RULES.glob("*.yaml")))


@lru_cache(maxsize=16)
def load(name: str) -> RuleSet:
    """Read one of the shipped rule files.

    Raises:
        ValueError: there is no such file, or it breaks a rule; the message names both.
    """
    if name not in names():
        raise ValueError(f"rules={name!r} is not one of {', '.join(names())}; set rules")
    return parse((RULES / f"{name}.yaml").read_text(encoding="utf-8"), name)


def parse(text: str, name: str) -> RuleSet:
    """Read a rule file's text and check all of it.

    Raises:
        ValueError: naming the place and the rule that it breaks.
    """
    content = yaml.load(text, Loader)
    fields = {
        "name", "version", "source", "round_mm", "volumes_mm3", "no_nodule", "categories",
        "facts", "rules", "cautions", "not_judged",
    }  # fmt: skip
    if not isinstance(content, dict) or set(content) != fields:
        raise ValueError(f"{name}: the keys of a rule file are exactly {', '.join(sorted(fields))}")
    return _Reader(name, content).read()


class _Reader:
    """One file's content on its way to a RuleSet."""

    def __init__(self, name: str, content: Mapping[str, Any]) -> None:
        self._name = name
        self._content = content
        self._codes = {str(code) for code in content["categories"]}
        self._derived: set[str] = set()

    def read(self) -> RuleSet:
        content = self._content
        derived = {}
        for fact, alternatives in content["facts"].items():
            place = f"facts.{fact}"
            derived[fact] = tuple(self._conditions(each, place) for each in alternatives)
            self._derived.add(fact)  # only facts above may be used below
        rules = tuple(self._rule(rule, k) for k, rule in enumerate(content["rules"], start=1))
        if str(content["no_nodule"]) not in self._codes:
            raise self._error("no_nodule", f"{content['no_nodule']!r} is not a category")
        return RuleSet(
            name=str(content["name"]),
            version=str(content["version"]),
            source=str(content["source"]),
            round_mm=float(content["round_mm"]),
            volumes_mm3={float(k): float(v) for k, v in content["volumes_mm3"].items()},
            no_nodule=str(content["no_nodule"]),
            codes={str(code): self._code(str(code)) for code in content["categories"]},
            derived=derived,
            rules=rules,
            cautions=tuple(self._caution(item, k) for k, item in enumerate(content["cautions"])),
            not_judged=self._texts(content["not_judged"], "not_judged"),
        )

    def _error(self, place: str, message: str) -> ValueError:
        return ValueError(f"{self._name}: {place}: {message}; correct the rule file")

    def _code(self, code: str) -> Code:
        entry = self._content["categories"][code]
        place = f"categories.{code}"
        if not isinstance(entry, dict) or set(entry) != {"rank", "meaning", "action"}:
            raise self._error(place, "the keys are exactly rank, meaning, action")
        meaning, action = (self._texts(entry[k], f"{place}.{k}") for k in ("meaning", "action"))
        return Code(int(entry["rank"]), meaning, action)

    def _texts(self, value: Any, place: str) -> Texts:
        if not isinstance(value, dict) or set(value) != set(LANGUAGES) or not all(value.values()):
            raise self._error(place, f"a text for each of {', '.join(LANGUAGES)} is needed")
        return {language: str(value[language]) for language in LANGUAGES}

    def _rule(self, rule: Mapping[str, Any], number: int) -> Rule:
        place = f"rule {number}"
        category = str(rule.get("category"))
        if category not in self._codes:
            raise self._error(place, f"category={category!r} is not in categories")
        return Rule(
            category, self._conditions({k: v for k, v in rule.items() if k != "category"}, place)
        )

    def _caution(self, item: Mapping[str, Any], number: int) -> Caution:
        place = f"caution {number + 1}"
        if set(item) != {"when", "text"}:
            raise self._error(place, "the keys are exactly when, text")
        return Caution(self._conditions(item["when"], place), self._texts(item["text"], place))

    def _conditions(self, entries: Mapping[str, Any], place: str) -> tuple[Condition, ...]:
        if not isinstance(entries, dict) or not entries:
            raise self._error(place, "at least one condition is needed")
        return tuple(self._condition(fact, value, place) for fact, value in entries.items())

    def _condition(self, fact: str, value: Any, place: str) -> Condition:
        values = self._values(fact, place)
        if values is None:
            if not isinstance(value, dict) or not value or not set(value) <= set(LIMITS):
                raise self._error(place, f"{fact} takes one or more of {', '.join(LIMITS)}")
            return Condition(fact, limits=tuple((k, float(v)) for k, v in value.items()))
        given = value.get("one_of", ()) if isinstance(value, dict) else (value,)
        if not given or any(each not in values for each in given):
            legal = ", ".join(map(str, values))
            raise self._error(place, f"{fact}={value!r} is not of {legal}")
        return Condition(fact, one_of=tuple(given))

    def _values(self, fact: str, place: str) -> tuple[Any, ...] | None:
        if fact in self._derived:
            return (True, False)
        if fact == PRIOR:
            return tuple(sorted(self._codes))
        if fact not in FACTS:
            legal = ", ".join([*FACTS, PRIOR, *sorted(self._derived)])
            raise self._error(place, f"{fact} is not a fact; choose from {legal}")
        return FACTS[fact]
