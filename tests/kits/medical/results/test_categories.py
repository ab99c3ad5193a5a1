"""The rule sets at, below and above each of their limits; every line says why."""

from dataclasses import replace

import pytest

from kits.medical.results.categories import Facts, categorise, facts_of, rounded, summarise
from kits.medical.results.rules import FACTS, load, names, parse
from kits.medical.results.study import Growth, Measures, Person, SolidCore
from kits.medical.results.wording import LANGUAGES, wording

PERSON = Person()


def sphere(diameter):
    return 0.5236 * diameter**3


def facts(texture, diameter, history="baseline", core=None, **more):
    more = {"count": 1.0} | more
    if history == "followed":
        more = {
            "volume_growth": "stable", "increase_mm": 0.0, "core_increase_mm": 0.0,
            "core_is_new": False, "interval_days": 365.0, "prior_texture": texture,
            "prior_diameter_mm": diameter, "prior_core_mm": core or 0.0,
        } | more  # fmt: skip
    if texture == "part_solid":
        more = {"core_mm": core, "core_volume_mm3": sphere(core)} | more
    return Facts(texture, history, diameter, sphere(diameter), **more)


LUNG_RADS = [
    # solid, first scan
    (("solid", 3.0), "2"), (("solid", 5.9), "2"), (("solid", 6.0), "3"), (("solid", 7.9), "3"),
    (("solid", 8.0), "4A"), (("solid", 9.2), "4A"), (("solid", 14.9), "4A"),
    (("solid", 15.0), "4B"), (("solid", 40.0), "4B"),
    # solid, new
    (("solid", 3.9, "new"), "2"), (("solid", 4.0, "new"), "3"), (("solid", 5.9, "new"), "3"),
    (("solid", 6.0, "new"), "4A"), (("solid", 7.9, "new"), "4A"), (("solid", 8.0, "new"), "4B"),
    # part-solid, first scan: total and core
    (("part_solid", 5.9, "baseline", 3.0), "2"), (("part_solid", 6.0, "baseline", 0.0), "3"),
    (("part_solid", 25.0, "baseline", 5.9), "3"), (("part_solid", 8.0, "baseline", 6.0), "4A"),
    (("part_solid", 12.0, "baseline", 7.9), "4A"), (("part_solid", 12.0, "baseline", 8.0), "4B"),
    # part-solid, new
    (("part_solid", 5.9, "new", 3.9), "3"), (("part_solid", 6.0, "new", 3.9), "4A"),
    (("part_solid", 6.0, "new", 4.0), "4B"), (("part_solid", 5.9, "new", 4.0), "4B"),
    # non-solid
    (("non_solid", 5.0), "2"), (("non_solid", 29.9), "2"), (("non_solid", 30.0), "3"),
    (("non_solid", 29.9, "new"), "2"), (("non_solid", 30.0, "new"), "3"),
    (("non_solid", 30.0, "followed"), "2"), (("non_solid", 29.9, "followed"), "2"),
]  # fmt: skip

GROWN = {"volume_growth": "growing", "increase_mm": 1.6}
LUNG_RADS_FOLLOWED = [
    # growing by more than 1.5 mm
    ("solid", 7.9, None, {**GROWN, "prior_diameter_mm": 6.3}, "4A"),
    ("solid", 5.0, None, {**GROWN, "prior_diameter_mm": 3.4}, "4A"),
    ("solid", 8.0, None, {**GROWN, "prior_diameter_mm": 6.4}, "4B"),
    ("solid", 7.9, None, {"increase_mm": 1.5, "prior_diameter_mm": 6.4}, "2"),
    ("solid", 5.9, None, {"increase_mm": 1.5, "prior_diameter_mm": 4.4}, "2"),
    # what crosses a limit is classified anew, grown or not
    ("solid", 8.3, None, {"increase_mm": 0.5, "prior_diameter_mm": 7.8}, "4A"),
    ("solid", 6.1, None, {"increase_mm": 0.3, "prior_diameter_mm": 5.8}, "3"),
    # stepped management
    ("solid", 7.0, None, {}, "2"),
    ("solid", 7.0, None, {"interval_days": 165.0}, "3"),
    ("solid", 7.0, None, {"interval_days": 166.0}, "2"),
    ("solid", 9.0, None, {"interval_days": 75.0}, "4A"),
    ("solid", 9.0, None, {"interval_days": 76.0}, "3"),
    ("solid", 9.0, None, {"prior_codes": {"Lung-RADS": "3"}}, "2"),
    ("solid", 7.0, None, {"prior_codes": {"Lung-RADS": "2"}, "interval_days": 30.0}, "2"),
    ("solid", 9.0, None, {"volume_growth": "growing"}, "4A"),
    ("solid", 15.0, None, {}, "4B"),
    ("part_solid", 9.0, 5.0, {}, "2"),
    ("part_solid", 9.0, 7.0, {}, "3"),
    ("part_solid", 9.0, 7.0, {"interval_days": 60.0}, "4A"),
    ("part_solid", 9.0, 8.0, {}, "4B"),
    # the core decides
    ("part_solid", 9.0, 3.9, {"core_increase_mm": 1.6, "prior_core_mm": 2.3}, "4A"),
    ("part_solid", 9.0, 4.0, {"core_increase_mm": 1.6, "prior_core_mm": 2.4}, "4B"),
    ("part_solid", 9.0, 3.0, {"core_is_new": True, "prior_texture": "non_solid"}, "4A"),
    ("part_solid", 9.0, 4.0, {"core_is_new": True, "prior_texture": "non_solid"}, "4B"),
    ("part_solid", 5.0, 3.0, {"core_is_new": True, "prior_texture": "non_solid"}, "4A"),
    # ground glass that grows
    ("non_solid", 30.0, None, {**GROWN, "prior_diameter_mm": 28.4}, "3"),
    ("non_solid", 29.9, None, {**GROWN, "prior_diameter_mm": 28.3}, "2"),
]

C_LUNG_RADS = [
    (("solid", 5.9), "1"), (("solid", 6.0), "2"), (("solid", 9.9), "2"), (("solid", 10.0), "3"),
    (("solid", 17.9), "3"), (("solid", 18.0), "4"),
    (("part_solid", 5.9, "baseline", 5.0), "1"), (("part_solid", 6.0, "baseline", 5.9), "2"),
    (("part_solid", 8.0, "baseline", 6.0), "3"), (("part_solid", 15.0, "baseline", 9.9), "3"),
    (("part_solid", 15.0, "baseline", 10.0), "4"),
    (("non_solid", 5.9), "1"), (("non_solid", 6.0), "2"), (("non_solid", 19.9), "2"),
    (("non_solid", 20.0), "3"), (("non_solid", 20.0, "new"), "3"),
    (("solid", 6.0, "followed"), "2"),
]  # fmt: skip

LOW, HIGH = {"risk": "low"}, {"risk": "high"}
MANY = {"count": 2.0}
FLEISCHNER = [
    # rounded to whole millimetres: 5.4 is below 6, 5.5 is 6, 8.4 is 8, 8.5 is above 8
    ("solid", 5.4, None, LOW, "none"), ("solid", 5.4, None, HIGH, "optional-12"),
    ("solid", 5.4, None, {}, "none-or-12"), ("solid", 5.5, None, LOW, "6-12"),
    ("solid", 8.4, None, HIGH, "6-12"), ("solid", 8.5, None, LOW, "3-or-tissue"),
    ("solid", 5.4, None, MANY | LOW, "none"), ("solid", 5.5, None, MANY, "3-6-multiple"),
    ("solid", 12.0, None, MANY, "3-6-multiple"),
    ("part_solid", 5.4, 3.0, {}, "none"), ("part_solid", 5.5, 3.0, {}, "3-6-part-solid"),
    ("part_solid", 9.0, 5.4, {}, "3-6-part-solid"), ("part_solid", 9.0, 5.5, {}, "3-6-suspicious"),
    ("part_solid", 5.4, 3.0, MANY, "3-6-small"), ("part_solid", 9.0, 3.0, MANY, "3-6-subsolid"),
    ("non_solid", 5.4, None, {}, "none"), ("non_solid", 5.5, None, {}, "6-12-persist"),
    ("non_solid", 5.4, None, MANY, "3-6-small"), ("non_solid", 5.5, None, MANY, "3-6-subsolid"),
    # not made for these
    ("solid", 9.0, None, {"age_years": 34.9}, "n/a"), ("solid", 9.0, None, {"cancer": True}, "n/a"),
    ("solid", 9.0, None, {"immunosuppressed": True}, "n/a"),
    ("solid", 9.0, None, {"setting": "screening"}, "n/a"),
    ("solid", 9.0, None, {"age_years": 35.0, "cancer": False}, "3-or-tissue"),
]  # fmt: skip


@pytest.mark.parametrize(("given", "code"), LUNG_RADS)
def test_lung_rads_at_its_limits(given, code):
    assert categorise(load("lung_rads_2022"), facts(*given)).code == code


@pytest.mark.parametrize(("texture", "diameter", "core", "change", "code"), LUNG_RADS_FOLLOWED)
def test_lung_rads_in_follow_up(texture, diameter, core, change, code):
    given = facts(texture, diameter, "followed", core, **change)
    assert categorise(load("lung_rads_2022"), given).code == code


@pytest.mark.parametrize(("given", "code"), C_LUNG_RADS)
def test_c_lung_rads_at_its_limits(given, code):
    assert categorise(load("c_lung_rads"), facts(*given)).code == code


def test_c_lung_rads_rises_with_a_probability_of_malignancy():
    given = facts("solid", 6.0)
    assert categorise(load("c_lung_rads"), replace(given, malignancy=0.49)).code == "2"
    assert categorise(load("c_lung_rads"), replace(given, malignancy=0.5)).code == "4"
    assert categorise(load("c_lung_rads"), replace(facts("solid", 5.9), malignancy=0.9)).code == "1"


@pytest.mark.parametrize(("texture", "diameter", "core", "more", "code"), FLEISCHNER)
@pytest.mark.parametrize("history", ["baseline", "new"])
def test_fleischner_at_its_limits(texture, diameter, core, more, code, history):
    given = facts(texture, diameter, history, core, **more)
    assert categorise(load("fleischner_2017"), given).code == code


@pytest.mark.parametrize(("growth", "code"), [("growing", "individual"), ("stable", "follow-up")])
def test_fleischner_does_not_apply_its_table_in_follow_up(growth, code):
    given = facts("solid", 7.0, "followed", volume_growth=growth)
    assert categorise(load("fleischner_2017"), given).code == code


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("history", ["baseline", "new", "followed"])
def test_every_nodule_has_a_category_and_reasons_in_every_language(name, history):
    rules = load(name)
    for texture in FACTS["texture"]:
        for tenths in range(20, 320, 3):
            for core in (0.0, 3.9, 4.0, 6.0, 8.0, 10.0) if texture == "part_solid" else (None,):
                category = categorise(rules, facts(texture, tenths / 10, history, core))
                assert category.code in rules.codes
                assert all(len(category.rationale[language]) >= 2 for language in LANGUAGES)
                assert f"-> {category.code}" in category.rationale["en"][1]


def test_the_reason_names_value_limits_and_category():
    lines = categorise(load("lung_rads_2022"), facts("solid", 9.2)).rationale
    assert lines["en"][1] == "solid, mean diameter 9.2 mm: ≥ 8 and < 15 -> 4A"
    assert lines["zh"][1] == "实性，平均直径 9.2 mm：≥ 8 且 < 15 -> 4A"
    assert lines["en"][2] == "by its volume of 408 mm³ the same: 4A"


def test_a_volume_of_another_category_is_told():
    given = replace(facts("solid", 7.9), volume_mm3=280.0)
    lines = categorise(load("lung_rads_2022"), given).rationale["en"]
    assert "by its volume of 280 mm³ it would be 4A: near a limit" in lines


def test_slow_growth_is_told():
    given = facts("solid", 7.0, "followed", volume_growth="growing", increase_mm=0.8)
    assert any("slow growth" in line for line in given_lines(given))
    given = facts("solid", 7.0, "followed", volume_growth="undecided", increase_mm=1.8)
    assert any("does not exclude no growth" in line for line in given_lines(given))


def given_lines(given):
    return categorise(load("lung_rads_2022"), given).rationale["en"]


def test_the_scan_has_the_category_of_its_most_severe_nodule():
    rules = load("lung_rads_2022")
    nodules = [categorise(rules, facts("solid", size)) for size in (5.0, 9.0, 7.0)]
    scan = summarise(rules, nodules)
    assert scan.code == "4A"
    assert scan.rationale["en"][0] == "most severe of 3 nodules: nodule 2, 4A"
    assert summarise(rules, []).code == "1"
    assert summarise(load("c_lung_rads"), []).code == "0"
    assert summarise(load("fleischner_2017"), []).code == "none"


def measures(diameter, core=None):
    line = ((0.0, 0.0, 0.0), (diameter, 0.0, 0.0))
    solid = core and SolidCore(-300.0, sphere(core), core, core, core, 3)
    volume = sphere(diameter)
    return Measures(
        volume, (volume / 2, volume * 2), volume, diameter, diameter, diameter, diameter, 3,
        line, line, (0.0, 0.0, 0.0), 20.0, solid,
    )  # fmt: skip


def test_facts_scale_growth_down_to_twelve_months_but_never_up():
    def increase(days):
        growth = Growth("growing", "20240101", days, 100.0, 6.0)
        return facts_of(measures(8.0), "solid", growth, count=1, person=PERSON).increase_mm

    assert increase(90.0) == 2.0
    assert increase(365.0) == 2.0
    assert increase(730.0) == 1.0


def test_facts_of_nodules_without_a_partner_are_those_of_a_first_scan():
    growth = Growth("unmatched", "20240101", 365.0)
    assert facts_of(measures(8.0), "solid", growth, count=1, person=PERSON).history == "baseline"
    growth = Growth("new", "20240101", 365.0)
    assert facts_of(measures(8.0), "solid", growth, count=1, person=PERSON).history == "new"


def test_a_core_that_was_not_there_is_new():
    growth = Growth("growing", "20240101", 365.0, 100.0, 6.0, None)
    given = facts_of(
        measures(8.0, 4.0), "part_solid", growth, count=1, person=PERSON,
        prior=("non_solid", {"Lung-RADS": "2"}),
    )  # fmt: skip
    assert given.core_is_new
    assert categorise(load("lung_rads_2022"), given).code == "4B"


@pytest.mark.parametrize(
    ("value", "step", "result"),
    [(8.45, 0.1, 8.5), (8.44, 0.1, 8.4), (5.5, 1, 6.0), (5.4, 1, 5.0), (None, 1, None)],
)
def test_lengths_are_rounded_as_people_do(value, step, result):
    assert rounded(value, step) == result


def test_every_condition_of_every_file_has_its_words():
    for language in LANGUAGES:
        say = wording(language)
        for name in names():
            rules = load(name)
            conditions = [c for rule in rules.rules for c in rule.conditions]
            for condition in conditions:
                if condition.fact == "prior_category":
                    assert say("fact.prior_category", value="3")
                elif condition.limits:
                    assert f"fact.{condition.fact}" in say
                for value in condition.one_of if condition.fact != "prior_category" else ():
                    text = str(value).lower() if isinstance(value, bool) else value
                    assert f"fact.{condition.fact}.{text}" in say


RULES_TEXT = """
name: Toy
version: "1"
source: a test
round_mm: 1
volumes_mm3: {}
no_nodule: a
categories: {a: {rank: 0, meaning: {en: x, zh: y}, action: {en: x, zh: y}}}
facts: {}
rules: [{category: a, texture: solid}]
cautions: []
not_judged: {en: x, zh: y}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("round_mm: 1", "round_mm: 1\nextra: 2", "the keys of a rule file are exactly"),
        ("texture: solid", "texture: firm", "texture='firm' is not of solid"),
        ("texture: solid", "size: 3", "size is not a fact"),
        ("texture: solid", "diameter_mm: 3", "diameter_mm takes one or more of at_least"),
        ("texture: solid", "diameter_mm: {over: 3}", "takes one or more of at_least"),
        ("category: a, texture: solid", "category: b, texture: solid", "is not in categories"),
        ("{category: a, texture: solid}", "{category: a}", "at least one condition"),
        ("no_nodule: a", "no_nodule: c", "'c' is not a category"),
        ("not_judged: {en: x, zh: y}", "not_judged: {en: x}", "a text for each of en, zh"),
        ("rank: 0, ", "", "the keys are exactly rank, meaning, action"),
    ],
)
def test_a_wrong_rule_file_is_refused(old, new, message):
    assert parse(RULES_TEXT, "toy").name == "Toy"
    with pytest.raises(ValueError, match=message):
        parse(RULES_TEXT.replace(old, new), "toy")


def test_an_unknown_rule_set_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="c_lung_rads, fleischner_2017, lung_rads_2022"):
        load("lung_rads_2014")
