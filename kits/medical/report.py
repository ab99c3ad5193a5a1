"""From a folder of DICOM to what a radiologist reads: `python -m kits.medical.report scan=<dir>`.

Writes SEG, SR, key images, PDFs and `findings.json`. Exit status 2: a mistake on the command line;
3: the scan is refused, with the code of the reason.
"""

from __future__ import annotations

from core.launch import launch
from kits.medical.config import ReportConfig
from kits.medical.kit import KIT


def report(cfg: ReportConfig) -> None:
    """Read, find, measure, write; all of it or nothing."""
    from kits.medical.reporting import report_scan

    report_scan(cfg)


if __name__ == "__main__":
    launch(report, KIT, "report")
