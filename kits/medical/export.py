"""Make a signed bundle of a finished run: `python -m kits.medical.export run=<dir>`."""

from __future__ import annotations

from core.convert.config import ExportConfig
from core.launch import launch
from kits.medical.kit import KIT


def export(cfg: ExportConfig) -> None:
    """Convert the run's model for each target, prove each, pack and sign."""
    from core.convert.job import export_run

    try:
        export_run(cfg, KIT)
    except (ValueError, ModuleNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    launch(export, KIT, "export")
