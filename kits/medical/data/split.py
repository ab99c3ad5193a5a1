"""Which patients are test, validation and training: decided by the patient's name alone.

So the same patient falls into the same split in every source, on every machine and in every later
release of a data set.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from core.kit import Split
from kits.medical.data.config import FolderData

NUM_FOLDS = 10


def fold_of(patient: str) -> int:
    """0 to 9: sha1 of the patient's name, as a number, modulo 10."""
    return int(hashlib.sha1(patient.encode(), usedforsecurity=False).hexdigest(), 16) % NUM_FOLDS


def split_of(patient: str, cfg: FolderData) -> Split:
    """The split that a patient belongs to."""
    fold = fold_of(patient)
    if fold in cfg.test_folds:
        return "test"
    return "validation" if fold in cfg.validation_folds else "train"


def names_of(split: Split, patients: Mapping[str, str], cfg: FolderData) -> list[str]:
    """The cases of a split, sorted.

    Args:
        split: train, validation or test.
        patients: case -> patient.
        cfg: which folds are which.
    """
    check_folds(cfg)
    return sorted(name for name, patient in patients.items() if split_of(patient, cfg) == split)


def check_folds(cfg: FolderData) -> None:
    """Refuse folds that do not exist or that are in two splits."""
    test, validation = set(cfg.test_folds), set(cfg.validation_folds)
    if not test | validation <= set(range(NUM_FOLDS)):
        raise ValueError(
            f"data.test_folds={list(cfg.test_folds)}, data.validation_folds="
            f"{list(cfg.validation_folds)} are not all 0 to {NUM_FOLDS - 1}; set them"
        )
    if test & validation:
        raise ValueError(
            f"data.test_folds and data.validation_folds share {sorted(test & validation)}; "
            "a patient belongs to one split"
        )
