"""Which images are training, validation and test, so that like images stay together."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from core.kit import Split
from kits.defect.data.config import OwnData

NUM_FOLDS = 10
# NEU-DET: neighbouring numbers of a class may come from one strip, so each split is one block.
NEU_LAST_TRAIN, NEU_LAST_VALIDATION = 168, 192


def fold_of(group: str) -> int:
    """0 to 9: sha1 of the group's name, as a number, modulo 10."""
    return int(hashlib.sha1(group.encode(), usedforsecurity=False).hexdigest(), 16) % NUM_FOLDS


def group_of(name: str, characters: int) -> str:
    """The board, strip or part that an image shows."""
    return name[:characters] if characters else name


def split_by_fold(name: str, cfg: OwnData) -> Split:
    """The split of an image that names none: the same on every machine, and in later releases."""
    fold = fold_of(group_of(name, cfg.group_characters))
    if fold in cfg.test_folds:
        return "test"
    return "validation" if fold in cfg.validation_folds else "train"


def complete(stated: Mapping[str, Split | None], cfg: OwnData) -> dict[str, Split]:
    """The split of every image, where a source states some or none of them.

    What is stated stands. Without a stated test split the stated validation split takes its place,
    since nothing else was kept apart; a missing validation split comes out of the training images.

    Args:
        stated: image -> what the source says, None where it says nothing.
        cfg: which folds are which.
    """
    said = set(stated.values()) - {None}
    if not said:
        return {name: split_by_fold(name, cfg) for name in stated}
    splits: dict[str, Split] = {}
    for name, split in stated.items():
        if split is None:
            splits[name] = split_by_fold(name, cfg)
        elif split == "validation" and "test" not in said:
            splits[name] = "test"
        elif split == "train" and not {"validation", "test"} <= said:
            fold = fold_of(group_of(name, cfg.group_characters))
            splits[name] = "validation" if fold in cfg.validation_folds else "train"
        else:
            splits[name] = split
    return splits


def neu_split(number: int) -> Split:
    """The split of an image of NEU-DET by its number in its class, from 1 to 300."""
    if number <= NEU_LAST_TRAIN:
        return "train"
    return "validation" if number <= NEU_LAST_VALIDATION else "test"
