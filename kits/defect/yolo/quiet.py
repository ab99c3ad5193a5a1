"""ultralytics, imported so that it tells nobody and leaves the home folder alone.

Its first import looks for the network, writes settings.json into the home folder, and from then on
reports each training and prediction to its makers; callbacks of seven trackers switch themselves on
where their packages are installed; training fetches a font. What its own settings switch off later
is too late.
"""

from __future__ import annotations

import atexit
import importlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from PIL import Image

REPORTS = ("clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
FONTS = ("Arial.ttf", "Arial.Unicode.ttf")
# What it reads when it is imported. Its thread limit would be read by everything started later.
ENVIRONMENT = {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false", "YOLO_VERBOSE": "false"}


def import_ultralytics(name: str = "ultralytics") -> ModuleType:
    """The package or one of its modules, silent.

    Raises:
        ModuleNotFoundError: it is not installed; says what to install.
        RuntimeError: something else imported it before, so that it may have spoken.
    """
    if "ultralytics" not in sys.modules:
        _import_first()
    elif os.environ.get("YOLO_OFFLINE") != "true":
        raise RuntimeError(
            "ultralytics was imported before kits.defect.yolo.quiet, which keeps it silent; "
            "import it through import_ultralytics"
        )
    return importlib.import_module(name)


def _import_first() -> None:
    folder = tempfile.mkdtemp(prefix="deepkits-ultralytics-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _place_fonts(Path(folder) / "Ultralytics")
    threads = os.environ.get("OMP_NUM_THREADS")
    os.environ.update(ENVIRONMENT, YOLO_CONFIG_DIR=folder)
    # An account's key would make it upload.
    os.environ.pop("ULTRALYTICS_API_KEY", None)
    num_threads, printing = torch.get_num_threads(), np.get_printoptions()
    opened, saved = Image.open, torch.save
    try:
        package = importlib.import_module("ultralytics")
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"{error.name} is not installed; pip install '.[defect]'", name=error.name
        ) from error
    finally:
        if threads is None:
            os.environ.pop("OMP_NUM_THREADS", None)
    torch.set_num_threads(num_threads)
    # It replaces functions of other packages for the whole process, and how arrays are printed.
    Image.open, torch.save = opened, saved
    np.set_printoptions(**printing)
    torch.set_printoptions(profile="default")
    package.settings.update({"sync": False, "api_key": "", **dict.fromkeys(REPORTS, False)})


def _place_fonts(folder: Path) -> None:
    """Some font under the names of those that it would fetch before a training."""
    spec = importlib.util.find_spec("matplotlib")
    if spec is None or spec.origin is None:
        return
    folder.mkdir()
    for name in FONTS:
        shutil.copyfile(
            Path(spec.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf", folder / name
        )
