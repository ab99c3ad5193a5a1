"""Texts for people, by language: `texts/en.yaml` and `texts/zh.yaml` hold every one of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from kits.medical.results.study import Texts

TEXTS = Path(__file__).parent / "texts"
LANGUAGES = ("en", "zh")
# The C one is ten times faster, and not in every build of the library.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Wording:
    """The texts of one language."""

    def __init__(self, language: str, texts: Mapping[str, str]) -> None:
        self.language = language
        self._texts = texts

    def __call__(self, key: str, **values: object) -> str:
        """One text with its values filled in.

        Raises:
            KeyError: there is no such text, or it needs a value that is not given.
        """
        return self._texts[key].format(**values)

    def __contains__(self, key: str) -> bool:
        return key in self._texts


@lru_cache(maxsize=len(LANGUAGES))
def wording(language: str) -> Wording:
    """The texts of a language.

    Raises:
        ValueError: there are none in it.
    """
    if language not in LANGUAGES:
        legal = ", ".join(LANGUAGES)
        raise ValueError(f"language={language!r} is not one of {legal}; set languages")
    return Wording(language, flat(TEXTS / f"{language}.yaml"))


def note(key: str, **values: object) -> Texts:
    """One text in every language."""
    return {language: wording(language)(key, **values) for language in LANGUAGES}


def flat(path: Path) -> dict[str, str]:
    """A file's nested keys as dotted ones."""
    found: dict[str, str] = {}

    def walk(node: Any, prefix: str) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{prefix}.{key}" if prefix else str(key))
        else:
            found[prefix] = str(node)

    walk(yaml.load(path.read_text(encoding="utf-8"), Loader), "")
    return found
