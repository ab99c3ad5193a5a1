"""`python -m benchmarks.deepflow costs|real|replayed|simulated|page [--quick]`.

costs      model x kind of worker x batch, on one core (2 minutes; quick: 40 s)
real       worker processes, one per core (25 minutes; quick: 3)
replayed   workers that sleep recorded times behind real sockets (8 minutes; quick: 1)
simulated  the same rules without a process, 10^5 jobs, 10 seeds (6 minutes; quick: 1)
page       benchmarks/results/deepflow.html from what the others left
"""

from __future__ import annotations

import argparse
import sys

from rich.console import Console

CONSOLE = Console(stderr=True)


def costs(*, quick: bool) -> None:
    """Measure every model on every kind of worker and print the table."""
    from benchmarks.deepflow import costs as measured
    from benchmarks.deepflow import models
    from benchmarks.deepflow.results import record

    with CONSOLE.status("models ..."):
        for name in models.MODELS:
            models.bundle(name)
    with CONSOLE.status("costs ...") as status:
        for found in measured.measure(0.15 if quick else 0.8, core=1):
            status.update(f"costs: {len(found.seconds)} cells ...")
    found.save()
    record("costs", {"threads": 1, "rows": found.table()})
    for row in found.table():
        if row["batch"] in (1, 8):
            print(f"{row['model']:10} {row['kind']:14} batch {row['batch']} {row['ms']:>7} ms")


def real(*, quick: bool) -> None:
    """Tier (a)."""
    from benchmarks.deepflow.real import real as run

    run(CONSOLE, quick=quick)


def replayed(*, quick: bool) -> None:
    """Tier (b)."""
    from benchmarks.deepflow.replayed import replayed as run

    run(CONSOLE, quick=quick)


def simulated(*, quick: bool) -> None:
    """Tier (c)."""
    from benchmarks.deepflow.simulated import simulated as run

    run(CONSOLE, quick=quick)


def page(*, quick: bool) -> None:  # noqa: ARG001 (all commands take it)
    """Write the page."""
    from benchmarks.deepflow.page import write_page

    print(write_page())


COMMANDS = {
    "costs": costs,
    "real": real,
    "replayed": replayed,
    "simulated": simulated,
    "page": page,
}


def main() -> int:
    """Run one tier."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deepflow", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("what", choices=list(COMMANDS))
    parser.add_argument("--quick", action="store_true", help="short runs, for trying out")
    args = parser.parse_args()
    COMMANDS[args.what](quick=args.quick)
    return 0


if __name__ == "__main__":
    sys.exit(main())
