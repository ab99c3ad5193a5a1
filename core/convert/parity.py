"""Proof that a converted model computes what its source computes, at every shape it may meet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch

from core.convert.output_parity import OutputParity, compare_output
from core.convert.source import Arrays, Axis, Source
from core.convert.target import Options, Runner
from edge.target import Tolerance

# At the fewest so many comparisons; where there are fewer sizes, with other inputs of the same.
NUM_CASES = 5
TOLERANCES = {
    "float32": Tolerance(1e-4, 1e-4, "the same operations in another order of summation"),
    "bfloat16": Tolerance(
        5e-2,
        5e-2,
        "bfloat16 keeps 8 bits: each operation rounds by up to 2^-9 = 0.2 %, and adds up",
    ),
}


@dataclass(frozen=True)
class Case:
    """One comparison: the size of every axis, and the seed of the inputs."""

    sizes: Mapping[str, int]
    seed: int

    def __str__(self) -> str:
        words = [f"{name}={size}" for name, size in self.sizes.items()]
        return ", ".join(words) or f"the one shape, inputs {self.seed}"


@dataclass(frozen=True)
class CaseParity:
    """All outputs at one shape."""

    case: Case
    outputs: tuple[OutputParity, ...]
    problem: str = ""  # what the converted model raised, or which outputs it lacks

    @property
    def passed(self) -> bool:
        """It ran, and every output is right."""
        return not self.problem and all(output.passed for output in self.outputs)


@dataclass(frozen=True)
class Parity:
    """The whole comparison of one converted model with its source."""

    model: str
    origin: str
    tolerance: Tolerance
    facts: Mapping[str, str]  # backend, runtime, provider, precision as the runtime reports them
    cases: tuple[CaseParity, ...]
    axes: Mapping[str, str] = field(default_factory=dict)  # name -> "1 to 8, multiples of 2"

    @property
    def passed(self) -> bool:
        """Every output is right at every shape."""
        return bool(self.cases) and all(case.passed for case in self.cases)

    @property
    def problems(self) -> list[str]:
        """What is wrong, each with its shape."""
        found = []
        for case in self.cases:
            found += [f"at {case.case}: {case.problem}"] if case.problem else []
            found += [
                f"at {case.case}: output {output.name!r}: {output.problem}"
                for output in case.outputs
                if output.problem
            ]
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values; numbers with 6 digits, None for what is not finite."""
        cases = [
            {
                "sizes": dict(case.case.sizes),
                "seed": case.case.seed,
                "passed": case.passed,
                "problem": case.problem,
                "outputs": [output.to_json() for output in case.outputs],
            }
            for case in self.cases
        ]
        return {
            "model": self.model,
            "origin": self.origin,
            "passed": self.passed,
            "tolerance": asdict(self.tolerance),
            "facts": dict(self.facts),
            "axes": dict(self.axes),
            "cases": cases,
        }


def sweep(axes: Mapping[str, Mapping[int, Axis]], *, seed: int = 0) -> list[Case]:
    """What to compare at: everything lowest, odd and highest, and every axis alone through these.

    Args:
        axes: input -> dimension -> axis, as `Source.axes`.
        seed: of the first case; each case has its own.
    Returns:
        at least 5 cases; without an axis, or with few sizes, cases of equal sizes differ in seed.
    Raises:
        ValueError: one name stands for two different axes.
    """
    named: dict[str, Axis] = {}
    for dimensions in axes.values():
        for axis in dimensions.values():
            if named.setdefault(axis.name, axis) != axis:
                raise ValueError(
                    f"axis={axis.name!r} has two ranges, {named[axis.name]} and {axis}; "
                    f"give one of them another name"
                )
    steps = {name: axis.sizes() for name, axis in named.items()}
    middle = {name: sizes[len(sizes) // 2] for name, sizes in steps.items()}
    wanted = [{name: sizes[0] for name, sizes in steps.items()}, middle]
    wanted += [{name: sizes[-1] for name, sizes in steps.items()}]
    wanted += [middle | {name: size} for name, sizes in steps.items() for size in sizes]
    rows = list({tuple(row.items()): row for row in wanted}.values())
    for place in range(1, NUM_CASES):  # one axis gives three sizes, and some of the lowest
        row = {
            name: min(sizes[0] + place * named[name].multiple_of, sizes[-1])
            for name, sizes in steps.items()
        }
        if len(rows) < NUM_CASES and row not in rows:
            rows.append(row)
    rows += [rows[-1]] * (NUM_CASES - len(rows))
    return [Case(row, seed + place) for place, row in enumerate(rows)]


def compare(source: Source, runner: Runner, tolerance: Tolerance, *, seed: int = 0) -> Parity:
    """Run source and converted model on the same inputs at every shape of the sweep.

    Args:
        source: the reference, computed in float32.
        runner: the converted model, as the device runs it.
        tolerance: what an output may deviate; integers and booleans have to be equal.
        seed: of the inputs.
    Returns:
        errors per shape and output. What the runner raises at a shape is a failure of that shape.
    Raises:
        ValueError: the source itself cannot compute one of its declared shapes.
    """
    cases = []
    for case in sweep(source.axes, seed=seed):
        inputs = source.inputs(case.sizes, case.seed)
        try:
            with _one_thread():
                expected = source.run(inputs)
        except (RuntimeError, ValueError, IndexError) as error:
            raise ValueError(
                f"source {source.name!r} does not run at {case}: {_first_line(error)}; "
                f"correct its axes"
            ) from error
        cases.append(_compare_case(case, expected, runner, inputs, tolerance))
    named = {axis.name: axis for dimensions in source.axes.values() for axis in dimensions.values()}
    return Parity(
        model=source.name,
        origin=source.origin,
        tolerance=tolerance,
        facts=dict(runner.facts),
        cases=tuple(cases),
        axes={name: _range(axis) for name, axis in named.items()},
    )


def tolerance_of(options: Options) -> Tolerance:
    """What a target of the asked precision may deviate: the caller's, or the usual one.

    The caller's is `values["tolerance"]`, or that of this precision in `values["tolerances"]`.

    Raises:
        ValueError: there is no usual one, as for int8: it depends on what was quantised, and how.
    """
    by_precision = options.values.get("tolerances", {})
    given = options.values.get("tolerance", by_precision.get(options.precision))
    if isinstance(given, Tolerance):
        return given
    if options.precision not in TOLERANCES:
        raise ValueError(
            f"precision={options.precision!r} has no usual tolerance, {', '.join(TOLERANCES)} "
            f"have; give Options.values['tolerance'], an edge.target.Tolerance"
        )
    return TOLERANCES[options.precision]


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums in the same order every time, so that equal models give equal reports."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _compare_case(
    case: Case, expected: Arrays, runner: Runner, inputs: Arrays, tolerance: Tolerance
) -> CaseParity:
    try:
        actual = runner.run(inputs)
    except Exception as error:  # noqa: BLE001  # each runtime has types of its own; it is recorded
        return CaseParity(case, (), f"{type(error).__name__}: {_first_line(error)}")
    outputs = tuple(
        compare_output(name, expected[name], np.asarray(actual[name]), tolerance)
        for name in expected
        if name in actual
    )
    missing, further = sorted(expected.keys() - actual), sorted(actual.keys() - expected)
    return CaseParity(case, outputs, _names_problem(missing, further))


def _names_problem(missing: Sequence[str], further: Sequence[str]) -> str:
    words = [f"lacks output {name!r}" for name in missing]
    words += [f"has output {name!r}, which the source lacks" for name in further]
    return "; ".join(words)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else "no message"


def _range(axis: Axis) -> str:
    multiples = f", multiples of {axis.multiple_of}" if axis.multiple_of > 1 else ""
    return f"{axis.low} to {axis.high}{multiples}"
