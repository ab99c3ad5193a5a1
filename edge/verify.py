"""Check a bundle and say what is in it: `python -m edge.verify FILE`."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from edge.bundle import Bundle
from edge.trust import Trust, utc


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a summary; 1 and one line on stderr when the bundle is refused."""
    parser = argparse.ArgumentParser("python -m edge.verify", description=__doc__)
    parser.add_argument("bundle", type=Path, help="an .ebundle, or a folder with the same files")
    parser.add_argument("--trust", type=Path, help="folder; $DEEPKITS_HOME or ~/.config/deepkits")
    parser.add_argument("--arch", help="of the device it is for; default: this machine's")
    parser.add_argument(
        "--accept", action="store_true", help="take no older bundle of this name from now on"
    )
    options = parser.parse_args(arguments)
    started = time.perf_counter()
    try:
        trust = Trust.load(options.trust)
        bundle = Bundle.open(options.bundle, trust, arch=options.arch)
        seconds = time.perf_counter() - started
        if options.accept:
            trust.accept(bundle.manifest.name, bundle.manifest.rollback_index)
    except (ValueError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    print(summary(bundle, trust, seconds))
    return 0


def summary(bundle: Bundle, trust: Trust, seconds: float) -> str:
    """What a person wants to know of a verified bundle, in a few lines."""
    manifest, root = bundle.manifest, trust.root
    trusted = sorted(set(manifest.signers) & set(root.keys))
    others = sorted(set(manifest.signers) - set(root.keys))
    until = "never expires" if manifest.expires is None else f"expires {utc(manifest.expires)}"
    lines = [
        f"verified  {manifest.name} {manifest.version} ({manifest.channel})",
        f"made      {utc(manifest.created)}, {until}, rollback index {manifest.rollback_index}",
        f"signed    {', '.join(trusted)} ({root.threshold} of {len(root.keys)} needed)",
    ]
    lines += [f"          {id_} (not trusted here, counts for nothing)" for id_ in others]
    width = max(map(len, bundle.targets))
    lines += [
        f"{'' if index else 'targets':8}  {id_:{width}}  {target.state}, {target.precision}"
        for index, (id_, target) in enumerate(bundle.targets.items())
    ]
    size = bundle.num_bytes
    lines.append(
        f"files     {len(bundle.files)}, {size / 1e6:.1f} MB in {seconds * 1e3:.0f} ms "
        f"({size / 1e6 / seconds:.0f} MB/s)"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
