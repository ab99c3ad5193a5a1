"""What a bundle says of one device: which runtime, which precision, and how far that was tried."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

# verified: ran on this kind of device with matching outputs; emulated: ran under an emulator of it;
# built: the engine was built for real but never ran; contract-only: only the recipe exists.
State = Literal["verified", "emulated", "built", "contract-only"]
STATES: tuple[str, ...] = get_args(State)
# In a contract-only or built target no latency may be stated: nobody has seen one.
STATES_WITH_LATENCY = ("verified",)


@dataclass(frozen=True)
class Tolerance:
    """How far an output may lie from the source model's: |a - b| <= absolute + relative * |b|."""

    absolute: float
    relative: float
    reason: str


@dataclass(frozen=True)
class Target:
    """One way to run a bundle's model; `targets/<id>.json` inside the bundle."""

    id: str  # as x86_64-openvino-cpu-bf16
    arch: str  # platform.machine() of the device: x86_64, aarch64
    backend: str  # a module of edge/backends: onnxruntime, openvino, ...
    accelerator: str  # cpu, or the device as its vendor names it
    precision: str  # float32, bfloat16, float16, int8: asserted after loading
    model: str  # path inside the bundle of what the backend loads
    state: State
    tolerance: Tolerance
    runtime: str = ""  # versions of the runtime that may load it, as ">=1.24.4"
    options: Mapping[str, Any] = field(default_factory=dict)  # for the backend
    recipe: Mapping[str, Any] | None = None  # how the device builds the engine: argv lists

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Target:
        """Read a target; unknown keys are refused.

        Raises:
            ValueError: a key is missing or unknown, or the state is none of STATES.
        """
        try:
            tolerance = Tolerance(**content["tolerance"])
            target = cls(**{**content, "tolerance": tolerance})
        except (KeyError, TypeError) as error:
            raise ValueError(f"target {content.get('id')!r} is not a target: {error}") from None
        if target.state not in STATES:
            raise ValueError(
                f"target {target.id!r} has state {target.state!r}, not one of {', '.join(STATES)}"
            )
        return target

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the order of the fields."""
        return asdict(self)


def machine() -> str:
    """This machine's architecture, as targets name it."""
    return {"AMD64": "x86_64", "arm64": "aarch64"}.get(platform.machine(), platform.machine())
