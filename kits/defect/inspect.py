"""The line over a source: `python -m kits.defect.inspect source=<dir> recipe=<file> run=<dir>`.

Writes the ledger, verdicts.jsonl, pictures of defects, summary.json and report.html. Exit status 0:
every part was inspected, OK or NG; 2: a mistake on the command line; 3: some are UNINSPECTED.
"""

from __future__ import annotations

from core.launch import launch
from kits.defect.kit import KIT
from kits.defect.line.config import InspectConfig


def inspect(cfg: InspectConfig) -> None:
    """Run until the source ends or a signal comes."""
    import logging

    from kits.defect.line.run import MISTAKE, inspect_source

    logging.basicConfig(format="%(levelname)s %(message)s", level=logging.WARNING)
    try:
        status = inspect_source(cfg)
    except (ValueError, OSError, RuntimeError) as error:
        import sys

        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(MISTAKE) from error
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    launch(inspect, KIT, "inspect")
