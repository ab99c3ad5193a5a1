"""Serve models from the command line: `python -m core.serve MODEL_OR_BUNDLE... --port 8080`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from core.serve.command import build_parser, read_config


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        SystemExit: 0 after --help, 2 with one line on stderr after a mistake.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    flags = _parse(given)
    try:
        config = read_config(flags)
        # The rest is imported when there is something to serve.
        from core.serve.lifecycle import serve

        serve(config, control=flags.control)
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def _parse(given: list[str]) -> argparse.Namespace:
    # Comments are read from the source only for those who want to read them.
    return build_parser(with_help=bool({"-h", "--help"} & set(given))).parse_args(given)


if __name__ == "__main__":
    main()
