"""A finished run's network, and what the run says about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from safetensors.torch import load_file, save_file

from kits.defect.graph import Network, build_network, fused
from kits.defect.model_config import ModelConfig
from kits.defect.network import ArrayNetwork

FACTS, SAMPLES = "model/model.json", "model/samples.npz"
GRAPH, WEIGHTS = "model/model.yaml", "model/weights.safetensors"
# What others read of model.json.
NEEDED = ("multiple", "planes", "class_names", "threshold", "nms", "data")


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


def save_network(folder: Path, network: Network) -> None:
    """The network as YAML and safetensors: neither can hold code."""
    content = {
        "model": asdict(network.cfg), "planes": network.planes, "classes": network.classes
    }  # fmt: skip
    (folder / GRAPH).write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    tensors = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(tensors, folder / WEIGHTS)


def load_module(run: Path) -> Network:
    """The network that training left, in evaluation mode.

    Raises:
        ValueError: there is none, or its weights are of another graph.
    """
    path = run / GRAPH
    if not path.is_file():
        raise ValueError(f"run={run} has no {GRAPH}; name a finished run's folder")
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    network = build_network(
        ModelConfig(**content["model"]), int(content["planes"]), int(content["classes"])
    )
    try:
        network.load_state_dict(load_file(run / WEIGHTS))
    except (RuntimeError, OSError) as error:
        raise ValueError(f"{run / WEIGHTS} does not fit {GRAPH}: {error}; train again") from error
    return network.eval()


def load_run_network(run: Path, *, is_fused: bool = True) -> ArrayNetwork:
    """The run's network as a function of arrays, in float32.

    Args:
        run: the run's folder.
        is_fused: norms and branches go into the convolutions: the same to 1e-5, and faster.
    """
    module = load_module(run)
    return ArrayNetwork(fused(module) if is_fused else module)
