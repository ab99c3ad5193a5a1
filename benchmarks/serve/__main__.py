"""`python -m benchmarks.serve ITEM...`: one question each, a table, and its part of the results.

Every item says beforehand how long it takes, ends what it started whatever happens, and gives up
after twice the time it announced.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.serve.page import write_page
from benchmarks.serve.study import NAMES, RESULTS, Study, item, write_part


class TooLong(Exception):
    """The time bound of an item is over."""


def _stop(*_: object) -> None:
    raise TooLong("it took more than twice the time announced")


def run_item(name: str, study: Study, results: Path = RESULTS) -> dict[str, Any]:
    """Run one, write its part of the results, show it.

    Raises:
        TooLong: it took more than twice the time it announced.
    """
    chosen = item(name)
    seconds = chosen.seconds(study)
    print(f"{name}: about {seconds / 60:.1f} minutes", file=sys.stderr, flush=True)
    signal.signal(signal.SIGALRM, _stop)
    signal.alarm(int(2 * seconds) + 60)
    try:
        found = chosen.run(study)
    finally:
        signal.alarm(0)
    write_part(name, found, results)
    chosen.show(found)
    return found


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__)
    parser.add_argument("items", nargs="*", choices=(*NAMES, []), help="all if none is named")
    parser.add_argument("--quick", action="store_true", help="does it work? its numbers are noise")
    parser.add_argument("--only", nargs="+", default=(), metavar="SERVER", help="of the item")
    parser.add_argument("--rounds", type=int, default=0, help="each server, instead of the item's")
    parser.add_argument("--results", type=Path, help="where to write; quick: a temporary file")
    args = parser.parse_args()
    # Ending this process ends its servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    results = args.results or RESULTS
    if args.quick and not args.results:
        results = Path(tempfile.gettempdir()) / "serve-quick.json"
    study = Study(quick=args.quick, only=tuple(args.only), rounds=args.rounds)
    for name in args.items or NAMES:
        run_item(name, study, results)
    print(f"written to {results} and {write_page(results)}", file=sys.stderr)


if __name__ == "__main__":
    main()
