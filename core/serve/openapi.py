"""OpenAPI of a service, from its models' signatures, and the page that shows it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import orjson

from core.kit import Service
from core.serve import predict
from core.serve.engine import Served
from core.serve.metadata import NAME
from core.serve.oip import datatype
from edge.manifest import RUNTIME

Services = Mapping[str, Service[Any, Any]]
# Marks schemas made of a model's inputs, for which the page can make tensors of files.
FROM_SIGNATURE = "x-from-signature"
_ERROR = {"$ref": "#/components/responses/Error"}
_FAILURES = {str(status): _ERROR for status in (400, 401, 404, 413, 429, 503, 504)}
# Paths without a model in them: method, path, what it is for.
_FIXED = (
    ("get", "/v2", "The service: name, version, extensions of the protocol"),
    ("get", "/v2/health/live", "Whether the process answers (also /live)"),
    ("get", "/v2/health/ready", "Whether all models are warm and tested (also /ready)"),
    ("get", "/startup", "Whether it has started"),
    ("get", "/v2/models/stats", "Requests and their time, of every version"),
    ("post", "/v2/repository/index", "Every version of every model and its state"),
    ("get", "/metrics", "Metrics for Prometheus"),
)


def openapi(catalogue: Sequence[Served], services: Services) -> dict[str, Any]:
    """The OpenAPI 3.1 document: every path, typed for each model that is ready."""
    paths: dict[str, Any] = {
        path: {method: _operation(summary)} for method, path, summary in _FIXED
    }
    newest = {served.name: served for served in catalogue if served.state == "ready"}
    for served in newest.values():
        paths |= _paths(served, services.get(served.name), "")
    for served in catalogue:
        if served.state == "ready":
            paths |= _paths(served, services.get(served.name), served.version)
    return {
        "openapi": "3.1.0",
        "info": {"title": NAME, "version": RUNTIME},
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                "Error": {
                    "description": "What is wrong, and what to do",
                    "content": _json(
                        {
                            "type": "object",
                            "required": ["error"],
                            "properties": {"error": {"type": "string"}},
                        }
                    ),
                }
            },
        },
        "security": [{}, {"token": []}],
    }


def _paths(served: Served, service: Service[Any, Any] | None, version: str) -> dict[str, Any]:
    """Of one model; version "" is the newest."""
    at = f"/versions/{version}" if version else ""
    if service is None:
        takes = {**predict.request_schema(served), FROM_SIGNATURE: True}
        gives = predict.response_schema(served)
    else:
        takes, gives = dict(service.request_schema), dict(service.response_schema)
    which = f"{served.name}, version {version}" if version else served.name
    return {
        f"/models/{served.name}{at}/predict": {
            "post": _operation(f"Predict with {which}: typed JSON", takes, gives, served)
        },
        f"/models/{served.name}/example": {
            "get": _operation(f"A request that {served.name} takes, to begin with")
        },
        f"/v2/models/{served.name}{at}/infer": {
            "post": _operation(
                f"Infer with {which}: Open Inference Protocol, JSON or binary tensors",
                _infer_request(served),
                _infer_response(),
                served,
            )
        },
        f"/v2/models/{served.name}{at}": {"get": _operation(f"Inputs and outputs of {which}")},
        f"/v2/models/{served.name}{at}/ready": {"get": _operation(f"Whether {which} is ready")},
    }


def _operation(
    summary: str,
    takes: Mapping[str, Any] | None = None,
    gives: Mapping[str, Any] | None = None,
    served: Served | None = None,
) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "The answer"}
    if gives is not None:
        answer["content"] = _json(gives)
    operation: dict[str, Any] = {"summary": summary, "responses": {"200": answer, **_FAILURES}}
    if takes is not None:
        operation["requestBody"] = {"required": True, "content": _json(takes)}
    if served is not None and served.description:
        operation["description"] = served.description
    return operation


def _json(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}


def _infer_request(served: Served) -> dict[str, Any]:
    example = predict.example(served)
    schema: dict[str, Any] = {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": "string"},
            "parameters": {
                "type": "object",
                "properties": {
                    "timeout": {"type": "integer", "description": "microseconds", "minimum": 0},
                    "priority": {"type": "integer", "description": "the larger goes first"},
                    "binary_data_output": {"type": "boolean"},
                },
            },
            "inputs": {"type": "array", "items": _infer_tensor("data")},
            "outputs": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name"],
                    "properties": {
                        "name": {"enum": [tensor.name for tensor in served.outputs]},
                        "parameters": {
                            "type": "object",
                            "properties": {"binary_data": {"type": "boolean"}},
                        },
                    },
                },
            },
        },
    }
    inputs = []
    for tensor in served.inputs:
        shape = [size if isinstance(size, int) else predict.EXAMPLE_SIZE for size in tensor.shape]
        inputs.append(
            {
                "name": tensor.name,
                "datatype": datatype(tensor.dtype),
                "shape": shape,
                "data": example[tensor.name],
            }
        )
    if len(orjson.dumps(inputs)) <= 4 * predict.MAX_EXAMPLE:
        schema["examples"] = [{"inputs": inputs}]
    return schema


def _infer_response() -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {
            "model_name": {"type": "string"},
            "model_version": {"type": "string"},
            "id": {"type": "string"},
            "outputs": {"type": "array", "items": _infer_tensor("data")},
        },
    }


def _infer_tensor(values: str) -> dict[str, Any]:
    return {
        "type": "object",
        "required": ["name", "datatype", "shape"],
        "properties": {
            "name": {"type": "string"},
            "datatype": {"type": "string"},
            "shape": {"type": "array", "items": {"type": "integer", "minimum": 0}},
            values: {"type": "array", "description": "flat, or nested as the shape"},
        },
    }


def docs_page(document: Mapping[str, Any], base: str) -> str:
    """The document for people: endpoints, schemas, a curl line to `base` for each; no script."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<title>API</title><link rel="icon" href="/icon.svg">'
        '<link rel="stylesheet" href="/page.css"></head><body class="docs"><header class="top">'
        '<a class="brand" href="/"><img src="/icon.svg" alt="" width="24" height="24">deepkits</a>'
        '<nav aria-label="Pages"><a href="/">Try a model</a><a href="/docs" aria-current="page">'
        'API</a><a href="/metrics">Metrics</a></nav></header><main><h1>API</h1><p class="lead">'
        "Where the service asks for a token, send "
        "<code>Authorization: Bearer &lt;token&gt;</code>. "
        "Every path of a model also exists for one version, as "
        "<code>/v2/models/{name}/versions/{version}/infer</code>. "
        'The same as a document for tools: <a href="/openapi.json">openapi.json</a>.</p>'
    ]
    for path, methods in document["paths"].items():
        if "/versions/" in path:
            continue
        for method, operation in methods.items():
            parts.append(_section(base + path, path, method, operation))
    parts.append("</main></body></html>")
    return "".join(parts)


def _section(url: str, path: str, method: str, operation: Mapping[str, Any]) -> str:
    shown = f"curl -s {url}" if method == "get" else _curl(url, operation)
    body = [f"<pre><code>{escape(shown)}</code></pre>"]
    takes = operation.get("requestBody", {}).get("content")
    for title, content in (
        ("Request", takes),
        ("Answer", operation["responses"]["200"].get("content")),
    ):
        if content:
            schema = {
                key: value
                for key, value in content["application/json"]["schema"].items()
                if key not in ("examples", FROM_SIGNATURE)
            }
            text = orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode()
            body.append(f"<h3>{title}</h3><pre><code>{escape(text)}</code></pre>")
    if told := operation.get("description"):
        body.insert(0, f"<p>{escape(told)}</p>")
    return (
        f'<details class="endpoint"><summary><span class="method {method}">{method.upper()}</span>'
        f"<code>{escape(path)}</code><span>{escape(operation['summary'])}</span></summary>"
        f"{''.join(body)}</details>"
    )


def _curl(url: str, operation: Mapping[str, Any]) -> str:
    schema = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    examples = schema.get("schema", {}).get("examples")
    content = orjson.dumps(examples[0]).decode() if examples else "{}"
    body = shlex.quote(content) if examples and len(content) < 20_000 else "@request.json"
    if not schema:
        body = "'{}'"
    return f"curl -s {url} -d {body}"
