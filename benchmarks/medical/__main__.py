"""`python -m benchmarks.medical [ITEM ...] [--run DIR] [--quick]`; without an item all of them.

Items: report, peers, choices, exactness, precision; page writes the page anew. Faults in DICOM have
their own command, `python -m benchmarks.medical.faults`.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.medical.page import write_page
from benchmarks.medical.study import RESULTS, Item, Study, write_part

ITEMS = {
    "report": "report",
    "peers": "peers",
    "choices": "choices",
    "exactness": "exact",
    "precision": "precision",
}


def run_item(name: str, study: Study, results: Path = RESULTS) -> dict[str, Any]:
    """Run one, write its part of the results, show it."""
    item: Item = importlib.import_module(f"benchmarks.medical.{ITEMS[name]}").ITEM
    found = item.run(study)
    write_part(name, found, study, results)
    item.show(found)
    return found


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.medical", description=__doc__)
    parser.add_argument("items", nargs="*", choices=(*ITEMS, "page", []), help="all if none")
    parser.add_argument("--run", type=Path, help="folder of a trained student's run")
    parser.add_argument("--quick", action="store_true", help="does it work? its numbers are noise")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--results", type=Path, help="where to write; quick: a temporary file")
    args = parser.parse_args()
    results = args.results or RESULTS
    if args.quick and not args.results:
        results = Path(tempfile.gettempdir()) / "medical-quick.json"
    rounds = 1 if args.quick else args.rounds
    study = Study(quick=args.quick, run=args.run, rounds=rounds, threads=args.threads)
    for name in args.items or ITEMS:
        if name != "page":
            run_item(name, study, results)
    print(f"written to {results} and {write_page(results)}", file=sys.stderr)


if __name__ == "__main__":
    main()
