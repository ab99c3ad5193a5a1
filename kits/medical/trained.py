"""A finished run's network, and what the run says about it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from core.train.checkpoint import load_weights
from kits.medical.model import UNet, build_network, fold_batch_norm
from kits.medical.model_config import UNetConfig
from kits.medical.network import Network

FACTS, SAMPLES = "model/model.json", "model/samples.npz"
# What others read of model.json.
NEEDED = ("multiple", "threshold", "mask_threshold", "model", "data")


def read_facts(run: Path) -> dict[str, Any]:
    """What model.json says.

    Raises:
        ValueError: there is none, or it lacks what others read.
    """
    path = run / FACTS
    if not path.is_file():
        raise ValueError(f"run={run} has no {FACTS}; name a finished run's folder")
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if missing := [name for name in NEEDED if name not in facts]:
        raise ValueError(f"run={run} does not say {', '.join(missing)}; train again")
    return facts


def load_module(run: Path) -> UNet:
    """The network of the run's best checkpoint, in evaluation mode.

    Raises:
        ValueError: the run has no checkpoint.
    """
    path = run / "config.yaml"
    if not path.is_file():
        raise ValueError(f"run={run} has no config.yaml; name a run's folder")
    network = build_network(UNetConfig(**yaml.safe_load(path.read_text("utf-8"))["model"]))
    load_weights(best_checkpoint(run), network)
    return network.eval()


def best_checkpoint(run: Path) -> Path:
    """The folder of the checkpoint that was best on the validation split.

    Raises:
        ValueError: there is none.
    """
    folder = run / "checkpoints"
    best = folder / "best"
    found = best.resolve() if best.exists() else max(folder.glob("step-*"), default=None)
    if found is None:
        raise ValueError(f"run={run} has no checkpoint; train again")
    # Under the run as it was named, also where that is a link.
    return folder / found.name


def load_run_network(run: Path, folded: bool = True, is_bf16: bool | None = None) -> Network:
    """The run's network as a function of arrays.

    Args:
        run: the run's folder.
        folded: batch norms go into the convolutions: the same to 1e-5, and faster.
        is_bf16: compute in bfloat16; None: if the run was trained so.
    """
    module = load_module(run)
    if is_bf16 is None:
        config = yaml.safe_load((run / "config.yaml").read_text("utf-8"))
        is_bf16 = config["trainer"]["precision"] == "bf16"
    return Network(fold_batch_norm(module) if folded else module, is_bf16=is_bf16)
