"""A recipe from good parts: `python -m kits.defect.learn images=<dir> mm_per_px=0.05`.

Exit status 2: a mistake on the command line, or images that do not do; 3: the set-up cannot see its
smallest defect.
"""

from __future__ import annotations

import sys

from core.launch import launch
from kits.defect.kit import KIT
from kits.defect.learn_config import LearnConfig

MISTAKE = 2


def learn(cfg: LearnConfig) -> None:
    """Learn, write, and say what the recipe cannot promise."""
    from kits.defect.learning_files import learn_from_files

    try:
        status = learn_from_files(cfg)
    except (ValueError, OSError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(MISTAKE) from error
    if status:
        raise SystemExit(status)


if __name__ == "__main__":
    launch(learn, KIT, "learn")
