"""`python -m benchmarks.defect ITEM...`: a table for each, and its part of the results.

cameras   8 x 4K mono8 from memory, at 4 and at 10 frames per second each
region    one triggered region of 640 px: from trigger to verdict
recall    what the line finds of what every tile shows; what each costs; SAHI
streams   what ultralytics' loader drops of eight paced streams
scratches 0.2 mm at a field of view of 300 mm, end to end on whole 4K parts
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.defect.line import run_cameras, run_region, show_cameras, show_region
from benchmarks.defect.page import write_page
from benchmarks.defect.peers import run_recall, run_streams, show_recall, show_streams
from benchmarks.defect.scratches import run_scratches, show_scratches
from benchmarks.defect.study import RESULTS, Study, write_part
from benchmarks.defect.subject import Subject, subject

Found = dict[str, Any]
ITEMS: dict[str, tuple[Callable[[Study, Subject], Found], Callable[[Found], None]]] = {
    "cameras": (run_cameras, show_cameras),
    "region": (run_region, show_region),
    "recall": (run_recall, show_recall),
    "streams": (run_streams, show_streams),
}
# These have products of their own and take the detector alone.
OWN_PARTS: dict[str, tuple[Callable[[Study, Path | None], Found], Callable[[Found], None]]] = {
    "scratches": (run_scratches, show_scratches)
}


def run_item(name: str, study: Study, detector: Path | None, results: Path) -> Found:
    """Run one, write its part of the results, show it."""
    if name in OWN_PARTS:
        run_alone, show = OWN_PARTS[name]
        found = run_alone(study, detector)
    else:
        run, show = ITEMS[name]
        found = run(study, subject(detector, quick=study.quick))
    write_part(name, found, results, quick=study.quick)
    show(found)
    return found


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.defect",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "items", nargs="*", choices=(*ITEMS, *OWN_PARTS, []), help="all if none is named"
    )
    parser.add_argument("--quick", action="store_true", help="does it work? its numbers are noise")
    parser.add_argument("--seconds", type=float, default=0.0, help="of each run of the line")
    parser.add_argument("--detector", type=Path, help="a bundle or an ONNX file; the newest run's")
    parser.add_argument("--results", type=Path, help="where to write; quick: a temporary file")
    args = parser.parse_args()
    results = args.results or RESULTS
    if args.quick and not args.results:
        results = Path(tempfile.gettempdir()) / "defect-quick.json"
    study = Study(quick=args.quick, seconds=args.seconds)
    for name in args.items or (*ITEMS, *OWN_PARTS):
        run_item(name, study, args.detector, results)
    print(f"written to {results} and {write_page(results)}", file=sys.stderr)


if __name__ == "__main__":
    main()
