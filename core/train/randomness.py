"""Seeds, and the random state as JSON: python, numpy's global generator, torch and its device."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed python, numpy and torch (every device); call it before the model is built."""
    random.seed(seed)
    # Tasks may draw from numpy's global generator, whatever this code prefers.
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


def random_state(device: torch.device) -> dict[str, Any]:
    """The state of every generator, for ``set_random_state``; numbers and strings only."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    state = {"python": random.getstate(), "numpy": [name, np.asarray(keys).tolist(), *rest]}
    state["torch"] = torch.get_rng_state().numpy().tobytes().hex()
    if device.type != "cpu":
        module = torch.get_device_module(device)
        state["device"] = module.get_rng_state(device).numpy().tobytes().hex()
    return state


def set_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Bring every generator back to a state from ``random_state``, also one read from JSON."""
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))
    np.random.set_state(tuple(state["numpy"]))  # noqa: NPY002
    torch.set_rng_state(_bytes(state["torch"]))
    if device.type != "cpu" and "device" in state:
        torch.get_device_module(device).set_rng_state(_bytes(state["device"]), device)


def _bytes(text: str) -> torch.Tensor:
    return torch.from_numpy(np.frombuffer(bytes.fromhex(text), np.uint8).copy())


@contextmanager
def deterministic_kernels(enabled: bool) -> Iterator[None]:
    """Prefer deterministic kernels; an operation that has none warns instead of failing."""
    before = torch.are_deterministic_algorithms_enabled()
    settings = torch.utils.deterministic
    fill_before = settings.fill_uninitialized_memory  # type: ignore[attr-defined]
    if enabled:
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        # Filling each new tensor with NaN costs time and changes no result.
        settings.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(mode=before)
        settings.fill_uninitialized_memory = fill_before  # type: ignore[attr-defined]
