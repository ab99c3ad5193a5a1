"""From a data config to events."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from kits.fraud.data.config import DataConfig
from kits.fraud.data.events import Events

GENERATED = ("handbook", "rings")
SOURCES = (*GENERATED, "s_ffsd", "table")


def load_events(cfg: DataConfig, *, smoke: bool = False) -> Events:
    """Load, or generate once and then reuse, the events of one source.

    Args:
        cfg: one of HandbookData, RingsData, SFfsdData, TableData.
        smoke: a small world from the generators; files are read as they are.
    Returns:
        the events, sorted by time.
    Raises:
        ValueError: the source is unknown, or its file breaks the rules of its mapping.
    """
    if cfg.name not in SOURCES:
        raise ValueError(f"data.name={cfg.name!r} is not one of {', '.join(SOURCES)}; set data=...")
    load: Callable[..., Events] = _loader(cfg.name)
    return load(cfg, smoke=smoke) if cfg.name in GENERATED else load(cfg)


def _loader(name: str) -> Any:
    # Each source imports what it alone needs (DuckDB for files).
    return import_module(f"kits.fraud.data.{name}").load
