"""Small things done to ONNX graphs: walk, strip, rename, convert, run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import onnx
import onnx.version_converter

from core.convert.source import Arrays
from edge.runtimes import import_runtime


def strip(model: onnx.ModelProto) -> None:
    """Drop doc strings, stack traces and noted shapes: paths of this machine, and stale sizes."""
    del model.metadata_props[:]
    model.doc_string = ""
    for graph in graphs_of(model.graph):
        graph.doc_string = ""
        del graph.metadata_props[:]
        del graph.value_info[:]
        for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
            part.doc_string = ""
            del part.metadata_props[:]
    for function in model.functions:
        function.doc_string = ""
        del function.metadata_props[:]
        del function.value_info[:]
        for node in function.node:
            node.doc_string = ""
            del node.metadata_props[:]


def at_opset(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """The model at an opset, converted when it is at another one."""
    current = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if current == opset:
        return model
    return onnx.version_converter.convert_version(model, opset)


def rename_ends(model: onnx.ModelProto, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Name a model's inputs and outputs; inner values of these names get others."""
    given = {tensor.name for tensor in model.graph.initializer}
    ends = [value.name for value in model.graph.input if value.name not in given]
    ends += [value.name for value in model.graph.output]
    wanted = dict(zip(ends, (*inputs, *outputs), strict=True))
    taken = {name for name in wanted.values() if name not in wanted}
    names = {**{name: f"{name}_inner" for name in taken}, **wanted}
    for graph in graphs_of(model.graph):
        _rename_values(graph, names)


def _rename_values(graph: onnx.GraphProto, names: Mapping[str, str]) -> None:
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        value.name = names.get(value.name, value.name)


def run_model(model: onnx.ModelProto, inputs: Arrays) -> Arrays:
    """Outputs by name, by ONNX Runtime on the CPU."""
    onnxruntime: Any = import_runtime("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, inputs), strict=True))


def graphs_of(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """A graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else attribute.graphs
            for part in inner:
                yield from graphs_of(part)
