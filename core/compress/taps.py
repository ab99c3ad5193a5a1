"""What happens inside a model while something else calls it: seen through hooks, for a while."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class Call:
    """One forward pass: what went in, what came out, what some modules inside gave."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    output: Any = None
    taps: dict[str, Any] = field(default_factory=dict)  # module name -> what it gave


@contextmanager
def watched(model: nn.Module, names: Collection[str] = ()) -> Iterator[list[Call]]:
    """Every call of a model inside the block, in order; no hook stays behind.

    Args:
        model: watched from its call on; one that `torch.compile` wrapped is, too.
        names: modules whose results are kept, as in `named_modules()`.
    Raises:
        ValueError: a name is none of the model's, or that module runs twice in one pass.
    """
    calls: list[Call] = []
    handles = []

    def begin(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        calls.append(Call(args, kwargs))

    def end(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
        calls[-1].output = output

    def tap(name: str) -> Any:
        def keep(_: nn.Module, __: tuple[Any, ...], output: Any) -> None:
            # Outside of a pass: somebody calls the part by itself.
            if not calls or calls[-1].output is not None:
                return
            if name in calls[-1].taps:
                raise ValueError(f"module={name!r} runs twice in one pass; name one that runs once")
            calls[-1].taps[name] = output

        return keep

    modules = {name: find_module(model, name) for name in names}
    handles.append(model.register_forward_pre_hook(begin, with_kwargs=True))
    for name, module in modules.items():
        handles.append(module.register_forward_hook(tap(name)))
    handles.append(model.register_forward_hook(end))
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def find_module(model: nn.Module, name: str) -> nn.Module:
    """A part of a model by its name.

    Raises:
        ValueError: it has no such part; says which it has.
    """
    parts: dict[str, nn.Module] = dict(original(model).named_modules())
    if name not in parts:
        known = ", ".join(part for part in parts if part)
        raise ValueError(f"module={name!r} is not in {type(model).__name__}; choose from {known}")
    return parts[name]


def original(model: nn.Module) -> nn.Module:
    """The model inside the one that `torch.compile` made of it."""
    inner = getattr(model, "_orig_mod", model)
    assert isinstance(inner, nn.Module)
    return inner


def named_outputs(output: Any) -> dict[str, Tensor]:
    """What a model gave, by name: a mapping's own names, `output`, or `output_0`, `output_1` ...

    Raises:
        ValueError: there is something else than tensors in it, as in a list of found objects.
    """
    if isinstance(output, Tensor):
        return {"output": output}
    if isinstance(output, Mapping):
        named = dict(output)
    elif isinstance(output, list | tuple):
        named = {f"output_{number}": value for number, value in enumerate(output)}
    else:
        named = {"output": output}
    for name, value in named.items():
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{name} of type {type(value).__name__} is no tensor; give distill a `read_...` "
                "that makes tensors of it, or name the module that does (distill.student_outputs, "
                "distill.teacher_outputs)"
            )
    return named


def first_tensor(name: str, output: Any) -> Tensor:
    """What a module gave, its first part where it gave several (an LSTM's sequence).

    Raises:
        ValueError: that is no tensor of floating numbers.
    """
    value = output[0] if isinstance(output, list | tuple) and output else output
    if not isinstance(value, Tensor) or not value.is_floating_point():
        raise ValueError(
            f"module={name!r} gives a {type(value).__name__}, no features; name another module"
        )
    return value
