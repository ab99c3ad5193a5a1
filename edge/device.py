"""Which target of a bundle this machine can run, and whether it is what then runs."""

from __future__ import annotations

import importlib.util
import pkgutil
import re
from collections.abc import Mapping

from edge import backends
from edge.backends import Facts
from edge.target import Target, machine

BACKENDS = tuple(module.name for module in pkgutil.iter_modules(backends.__path__))


def choose_target(targets: Mapping[str, Target], device: str) -> Target:
    """The target of an id, or the first that this machine can run.

    Raises:
        ValueError: there is none; the message says why, for each.
    """
    if device != "auto":
        if device not in targets:
            raise ValueError(f"device={device!r} is not one of auto, {', '.join(targets)}")
        if reason := _obstacle(targets[device], is_installed=True):
            raise ValueError(f"device={device!r} {reason}; choose another of {', '.join(targets)}")
        return targets[device]
    obstacles = {}
    for target in targets.values():
        is_installed = importlib.util.find_spec(target.backend) is not None
        reason = _obstacle(target, is_installed=is_installed)
        if not reason:
            return target
        obstacles[target.id] = reason
    told = "; ".join(f"{id_} {reason}" for id_, reason in obstacles.items())
    raise ValueError(f"device='auto' finds no target for this machine: {told}")


def _obstacle(target: Target, *, is_installed: bool) -> str:
    if target.state == "contract-only":
        return "is contract-only: the bundle holds its recipe and no engine"
    if target.arch not in ("any", machine()):
        return f"is for {target.arch}, this machine is {machine()}"
    if target.backend not in BACKENDS:
        return f"needs backend {target.backend}, which this version has not"
    return "" if is_installed else f"needs {target.backend}, which is not installed"


def check_facts(facts: Facts, target: Target) -> None:
    """Make sure that what runs is what the target says.

    Raises:
        ValueError: another backend or precision, or a version of the runtime outside its range.
    """
    if (facts.backend, facts.precision) != (target.backend, target.precision):
        raise ValueError(
            f"target {target.id!r} asks for {target.backend} in {target.precision}, loaded is "
            f"{facts.backend} in {facts.precision}; use another target"
        )
    numbers = _version(facts.runtime)
    for bound in filter(None, target.runtime.replace(" ", "").split(",")):
        matched = re.fullmatch(r"(>=|<=|==|!=|<|>)([0-9.]+)", bound)
        if not matched:
            raise ValueError(f"target {target.id!r} has runtime={target.runtime!r}, not as >=1.24")
        limit = _version(matched[2])
        is_in = {
            ">=": numbers >= limit,
            "<=": numbers <= limit,
            "==": numbers == limit,
            "!=": numbers != limit,
            "<": numbers < limit,
            ">": numbers > limit,
        }[matched[1]]
        if not is_in:
            raise ValueError(
                f"target {target.id!r} is for {target.backend} {target.runtime}, installed is "
                f"{facts.runtime}; install a version of that range"
            )


def _version(text: str) -> tuple[int, ...]:
    numbers = [int(part) for part in re.findall(r"\d+", text)[:3]]
    return tuple(numbers + [0] * (3 - len(numbers)))
