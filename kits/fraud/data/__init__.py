"""Sources of events for the fraud kit, all behind the one schema `Events`.

The names load on first use, so that reading a config imports no numpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kits.fraud.data.events import Events
    from kits.fraud.data.load import load_events
    from kits.fraud.data.tokens import token, token_array

__all__ = ["Events", "load_events", "token", "token_array"]

_HOMES = {
    "Events": "events",
    "load_events": "load",
    "token": "tokens",
    "token_array": "tokens",
}


def __getattr__(name: str) -> Any:
    """Import a public name where it lives."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
