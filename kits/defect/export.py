"""Make a signed bundle of a finished run: `python -m kits.defect.export run=<dir>`.

With `compress=int8` the convolutions that say where boxes are stay in float.
"""

from __future__ import annotations

from core.convert.config import ExportConfig
from core.launch import launch
from kits.defect.kit import KIT


def export(cfg: ExportConfig) -> None:
    """Convert the run's model for each target, prove each by its verdicts, pack and sign."""
    from kits.defect.exporting import export_checked

    try:
        export_checked(cfg)
    except (ValueError, ModuleNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    launch(export, KIT, "export")
