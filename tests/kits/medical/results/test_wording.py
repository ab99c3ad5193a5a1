"""Both languages say everything, with the same values."""

import re
from string import Formatter

import pytest

from kits.medical.results.rules import load, names
from kits.medical.results.wording import LANGUAGES, TEXTS, flat, note, wording

CHINESE = re.compile(r"[\u4e00-\u9fff]")
# Shown as they are in every language.
SYMBOLS = {"rules.comma", "rules.limits", "location.text", "report.none", "report.nodule.category",
           "report.rules.text"}  # fmt: skip


def test_every_language_has_every_text_with_the_same_values():
    english, chinese = (flat(TEXTS / f"{language}.yaml") for language in LANGUAGES)
    assert english.keys() == chinese.keys()
    for key, text in english.items():
        assert places(text) == places(chinese[key]), key


def places(text):
    return sorted(name for _, name, _, _ in Formatter().parse(text) if name is not None)


def test_chinese_texts_are_chinese_and_english_ones_are_not():
    for key, text in flat(TEXTS / "zh.yaml").items():
        assert CHINESE.search(text) or key in SYMBOLS, key
    for key, text in flat(TEXTS / "en.yaml").items():
        assert not CHINESE.search(text), key


def test_rule_files_speak_every_language():
    for name in names():
        rules = load(name)
        texts = [rules.not_judged, *(caution.text for caution in rules.cautions)]
        texts += [text for code in rules.codes.values() for text in (code.meaning, code.action)]
        for text in texts:
            assert CHINESE.search(text["zh"])
            assert not CHINESE.search(text["en"])


def test_a_note_is_in_every_language():
    assert set(note("growth.why.stable", days=600)) == set(LANGUAGES)


def test_a_language_without_texts_is_refused():
    with pytest.raises(ValueError, match="not one of en, zh"):
        wording("de")
