"""Serve a bundle of this kit: `python -m kits.defect.serve bundle=<file> port=8080`."""

from __future__ import annotations

from core.launch import launch
from kits.defect.config import DefectServeConfig
from kits.defect.kit import KIT


def serve(cfg: DefectServeConfig) -> None:
    """Answer until told to stop."""
    from core.serve.lifecycle import serve as serve_models

    try:
        serve_models(cfg.server, services={KIT.name: KIT.build_service(cfg)})
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error


if __name__ == "__main__":
    launch(serve, KIT, "serve")
