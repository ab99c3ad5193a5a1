"""What clients of the fraud service send and get: payments in JSON, each with its past; no torch.

B payments, K history, N neighbours, F features, C categorical columns.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from edge.arrays import read_npz
from edge.bundle import Bundle
from edge.selftest import VECTORS

LABELS = {"unknown": -1, "legitimate": 0, "fraud": 1}
MAX_PAYMENTS = 256
NUMBERS = frozenset((int, float, type(None)))
# The bundle's inputs of an event, by what the two lists of a payment are called.
PREFIXES = {"history": "history", "neighbours": "neighbour"}


@dataclass(frozen=True)
class FraudService:
    """Payments as clients know them, and the arrays that the bundle's model takes."""

    shapes: Mapping[str, tuple[int | str, ...]]  # of the bundle's inputs
    feature_names: tuple[str, ...]
    neighbour_role: tuple[int, ...]  # (N,) by which entity the neighbour in a column is connected
    example: Mapping[str, Any]  # a request: one payment that nobody made

    @classmethod
    def open(cls, path: Path) -> FraudService:
        """Read what a verified bundle says of its inputs.

        Raises:
            ValueError: the bundle is not trusted, or not one of this kit.
        """
        bundle = Bundle.open(path)
        content = json.loads(bundle.read("provenance.json"))
        facts = content["predicate"]["buildDefinition"].get("internalParameters", {})
        if missing := [name for name in ("features", "neighbour_role") if name not in facts]:
            raise ValueError(
                f"{path} does not say {', '.join(missing)}: it is no bundle of this kit, or an "
                "earlier version wrote it; export the run again"
            )
        shapes = {tensor.name: tensor.shape for tensor in bundle.manifest.inputs}
        names, roles = tuple(facts["features"]), tuple(facts["neighbour_role"])
        vectors = read_npz(bundle.read(VECTORS))
        inputs = {name: vectors[f"input/{name}"][0] for name in shapes}
        return cls(shapes, names, roles, _as_request(inputs, names, roles))

    @property
    def request_schema(self) -> dict[str, Any]:
        """JSON schema of `decode`'s argument."""
        label = {"enum": list(LABELS), "default": "unknown", "description": "as known by now"}
        event = {
            "features": {
                "description": "by name, missing ones left out; or all in order, null if missing: "
                + ", ".join(self.feature_names),
                "anyOf": [
                    {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
                    {"type": "array", "items": {"type": ["number", "null"]}},
                ],
            },
            "age_s": {"type": "number", "minimum": 0, "description": "before the payment"},
            "label": label,
        }
        if "c_history" in self.shapes:
            event["codes"] = {"type": "array", "items": {"type": "integer", "minimum": 0}}
        role = {"enum": sorted(set(self.neighbour_role))}
        lists: dict[str, Any] = {"history": _list_of(event, self._length("history"), at_least=1)}
        if self.neighbour_role:
            neighbour = {**event, "role": role}
            lists["neighbours"] = _list_of(neighbour, self._length("neighbours"), at_least=0)
        payment = {
            "type": "object",
            "required": ["history"],
            "properties": lists,
            "additionalProperties": False,
        }
        return {
            "type": "object",
            "required": ["payments"],
            "properties": {
                "payments": {
                    "type": "array",
                    "minItems": 1,
                    "maxItems": MAX_PAYMENTS,
                    "items": payment,
                }
            },
            "additionalProperties": False,
            "examples": [self.example],
        }

    @property
    def response_schema(self) -> dict[str, Any]:
        """JSON schema of what `encode` gives."""
        score = {
            "type": "object",
            "properties": {
                "probability": {"type": "number", "description": "of fraud, calibrated"},
                "alert": {"type": "boolean", "description": "at the threshold of the run"},
                "logit": {"type": "number", "description": "finer than the probability, to rank"},
            },
        }
        return {"type": "object", "properties": {"payments": {"type": "array", "items": score}}}

    def decode(self, request: Any) -> dict[str, np.ndarray]:
        """Arrays of some payments; what is not given is padding, which the model does not see.

        Args:
            request: `{"payments": [{"history": [event, ...], "neighbours": [event, ...]}, ...]}`,
                of a history the payment itself last.
        Raises:
            ValueError: something is missing, unknown or too much; the message names where.
        """
        payments = _members(request, "request", ("payments",))["payments"]
        if not isinstance(payments, list) or not 1 <= len(payments) <= MAX_PAYMENTS:
            raise ValueError(f"payments is not a list of 1 to {MAX_PAYMENTS} payments")
        arrays = self._padding(len(payments))
        known = [name for name in PREFIXES if f"x_{name}" in self.shapes]
        for row, payment in enumerate(payments):
            where = f"payments[{row}]"
            lists = _members(payment, where, known, required=("history",))
            for name, events in lists.items():
                self._fill(arrays, row, name, events, where)
        return arrays

    def encode(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        """`{"payments": [{"probability": .., "alert": .., "logit": ..}, ...]}`, in their order."""
        names = ("probability", "alert", "logit")
        rows = zip(*(outputs[name].tolist() for name in names), strict=True)
        return {"payments": [dict(zip(names, row, strict=True)) for row in rows]}

    def _length(self, name: str) -> int:
        return int(self.shapes[f"x_{name}"][1])

    def _padding(self, B: int) -> dict[str, np.ndarray]:
        dtypes = {"x": np.float32, "c": np.int64, "gap": np.float32, "mask": bool, "status": int}
        found = {}
        for name, shape in self.shapes.items():
            kind = name[0] if name[:2] in ("x_", "c_") else name.rpartition("_")[2]
            fill = -1 if kind == "status" else 0
            found[name] = np.full((B, *map(int, shape[1:])), fill, dtypes[kind])
        return found

    def _fill(
        self, arrays: dict[str, np.ndarray], row: int, name: str, events: Any, where: str
    ) -> None:
        where, size = f"{where}.{name}", self._length(name)
        if not isinstance(events, list) or len(events) > size:
            raise ValueError(f"{where} is not a list of at most {size} events")
        if name == "history" and not events:
            raise ValueError(f"{where} is empty; the payment itself is its last event")
        allowed, required = ["features", "age_s", "label"], ["features"]
        if f"c_{name}" in arrays:
            allowed, required = [*allowed, "codes"], [*required, "codes"]
        columns: Sequence[int] = range(size - len(events), size)
        if name == "neighbours":
            allowed, columns = [*allowed, "role"], self._columns(events, where)
        for at, (column, event) in enumerate(zip(columns, events, strict=True)):
            place, prefix = f"{where}[{at}]", PREFIXES[name]
            _members(event, place, allowed, required)
            arrays[f"x_{name}"][row, column] = self._features(event["features"], place)
            arrays[f"{prefix}_gap"][row, column] = _age(event.get("age_s", 0), place)
            arrays[f"{prefix}_status"][row, column] = _label(event.get("label", "unknown"), place)
            arrays[f"{prefix}_mask"][row, column] = True
            if "codes" in required:
                codes = arrays[f"c_{name}"]
                codes[row, column] = _codes(event["codes"], codes.shape[-1], place)

    def _columns(self, events: Sequence[Any], where: str) -> list[int]:
        """Where the neighbours of each role belong."""
        free: dict[int, list[int]] = {role: [] for role in self.neighbour_role}
        for column, role in enumerate(self.neighbour_role):
            free[role].append(column)
        found = []
        for at, event in enumerate(events):
            role = event.get("role", self.neighbour_role[0]) if isinstance(event, dict) else None
            if isinstance(role, bool) or not isinstance(role, int) or role not in free:
                raise ValueError(f"{where}[{at}].role={role!r} is not one of {sorted(free)}")
            if not free[role]:
                raise ValueError(
                    f"{where}[{at}].role={role} has more than its "
                    f"{self.neighbour_role.count(role)} neighbours; send the newest"
                )
            found.append(free[role].pop(0))
        return found

    def _features(self, given: Any, where: str) -> np.ndarray:
        if isinstance(given, dict):
            if unknown := sorted(set(given) - set(self.feature_names)):
                raise ValueError(f"{where}.features has {unknown[0]!r}, which the model lacks")
            given = list(map(given.get, self.feature_names))
        if not isinstance(given, list) or len(given) != len(self.feature_names):
            raise ValueError(f"{where}.features is not {len(self.feature_names)} numbers")
        # Names are looked for only when something is wrong: a payment has thousands of numbers.
        if not NUMBERS.issuperset(map(type, given)):
            wrong = next(at for at, value in enumerate(given) if type(value) not in NUMBERS)
            name, value = self.feature_names[wrong], given[wrong]
            raise ValueError(f"{where}.features: {name}={value!r} is neither number nor null")
        with np.errstate(over="ignore"):
            try:
                values = np.array(given, np.float32)  # None becomes NaN
            except OverflowError:
                raise ValueError(f"{where}.features has a number beyond any float") from None
        if np.isinf(values).any():
            name = self.feature_names[int(np.isinf(values).argmax())]
            raise ValueError(f"{where}.features: {name} is beyond float32; send null if unknown")
        return values


def _as_request(
    inputs: Mapping[str, np.ndarray], names: Sequence[str], roles: Sequence[int]
) -> dict[str, Any]:
    """One payment's arrays as a client would send them."""
    payment: dict[str, Any] = {}
    words = {number: word for word, number in LABELS.items()}
    for name, prefix in PREFIXES.items():
        if f"x_{name}" not in inputs:
            continue
        payment[name] = []
        for column in np.flatnonzero(inputs[f"{prefix}_mask"]):
            row = inputs[f"x_{name}"][column].tolist()
            event: dict[str, Any] = {
                "features": {n: v for n, v in zip(names, row, strict=True) if v == v},
                "age_s": float(inputs[f"{prefix}_gap"][column]),
                "label": words[int(inputs[f"{prefix}_status"][column])],
            }
            if f"c_{name}" in inputs:
                event["codes"] = inputs[f"c_{name}"][column].tolist()
            if name == "neighbours":
                event["role"] = roles[column]
            payment[name].append(event)
    return {"payments": [payment]}


def _list_of(event: Mapping[str, Any], size: int, *, at_least: int) -> dict[str, Any]:
    item = {
        "type": "object",
        "required": ["features"],
        "properties": event,
        "additionalProperties": False,
    }
    return {"type": "array", "minItems": at_least, "maxItems": size, "items": item}


def _members(
    value: Any, where: str, allowed: Sequence[str], required: Sequence[str] | None = None
) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is a {type(value).__name__}, not an object")
    for name in allowed if required is None else required:
        if name not in value:
            raise ValueError(f"{where} lacks {name!r}")
    if unknown := sorted(set(value) - set(allowed)):
        raise ValueError(f"{where} has {unknown[0]!r}, not one of {', '.join(allowed)}")
    return value


def _age(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < np.inf:
        raise ValueError(f"{where}.age_s={value!r} is not a number of seconds, 0 or more")
    return float(value)


def _label(value: Any, where: str) -> int:
    if not isinstance(value, str) or value not in LABELS:
        raise ValueError(f"{where}.label={value!r} is not one of {', '.join(LABELS)}")
    return LABELS[value]


def _codes(value: Any, number: int, where: str) -> list[int]:
    if not isinstance(value, list) or len(value) != number:
        raise ValueError(f"{where}.codes is not {number} whole numbers")
    if not all(
        isinstance(code, int) and not isinstance(code, bool) and code >= 0 for code in value
    ):
        raise ValueError(f"{where}.codes={value!r} has one that is not a whole number, 0 or more")
    return value
