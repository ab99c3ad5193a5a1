"""A facade of a few lines: names of the product's brief, re-exported; it holds no logic."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.convert.converter import ModelConverter
    from core.serve.service import ServiceDeployer

__all__ = ["ModelConverter", "ServiceDeployer"]


def __getattr__(name: str) -> Any:
    """Load a name when it is asked for: torch takes seconds."""
    if name == "ModelConverter":
        from core.convert.converter import ModelConverter

        return ModelConverter
    if name == "ServiceDeployer":
        from core.serve.service import ServiceDeployer

        return ServiceDeployer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
