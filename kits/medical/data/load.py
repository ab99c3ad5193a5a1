"""From a data config to cases."""

from __future__ import annotations

from importlib import import_module

from kits.medical.data.case import Cases
from kits.medical.data.config import SOURCES, DataConfig

CLASSES = {"phantom": "PhantomCases", "lidc": "LidcCases", "nodules": "NodulesCases"} | {
    "nifti": "NiftiCases",
    "msd": "MsdCases",
}


def open_cases(cfg: DataConfig) -> Cases:
    """Open one source of scans.

    Args:
        cfg: one of PhantomData, LidcData, NodulesData, NiftiData, MsdData.
    Returns:
        its cases; files are looked through now, and read when a case is loaded.
    Raises:
        ValueError: the source is unknown, or its files break a rule; the error names both.
    """
    if cfg.name not in SOURCES:
        raise ValueError(f"data.name={cfg.name!r} is not one of {', '.join(SOURCES)}; set data=...")
    # Each source imports what it alone needs (pydicom, nibabel, pillow).
    module = import_module(f"kits.medical.data.{cfg.name}")
    cases: Cases = getattr(module, CLASSES[cfg.name])(cfg)
    return cases
