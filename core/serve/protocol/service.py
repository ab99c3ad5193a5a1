"""The methods of the protocol's gRPC service: a message in, a message out; knows no gRPC."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata
from typing import Any

from core.serve.engine import Call, Engine
from core.serve.errors import BadRequest, NotFound, NotReady
from core.serve.protocol.messages import INFERENCE, message_classes
from core.serve.protocol.tensors import NAMES, read_inputs, write_outputs

EXTENSIONS = ("model_repository",)
STATES = {"ready": "READY", "loading": "LOADING", "draining": "UNLOADING", "failed": "UNAVAILABLE"}


MAX_PRIORITY = 2**31 - 1


@dataclass
class Caller:
    """Who calls, until when; and, for the metrics, what came of it."""

    tenant: str = ""
    timeout_s: float | None = None
    model: str = ""
    version: str = ""


class OipService:
    """Each method is the standard's of that name; a `ServeError` says why there is no answer."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.messages = message_classes("inference", INFERENCE)

    def _make(self, message: str, /, **fields: Any) -> Any:
        return self.messages[message](**fields)

    async def server_live(self, request: Any, caller: Caller) -> Any:  # noqa: ARG002
        """It answers, so it lives."""
        return self._make("ServerLiveResponse", live=True)

    async def server_ready(self, request: Any, caller: Caller) -> Any:  # noqa: ARG002
        """Every model is warm."""
        return self._make("ServerReadyResponse", ready=self._engine.state == "ready")

    async def model_ready(self, request: Any, caller: Caller) -> Any:  # noqa: ARG002
        """A version, or the model's newest, takes requests; an unknown one does not."""
        try:
            is_ready = self._engine.find(request.name, request.version).state == "ready"
        except (NotFound, NotReady):
            is_ready = False
        return self._make("ModelReadyResponse", ready=is_ready)

    async def server_metadata(self, request: Any, caller: Caller) -> Any:  # noqa: ARG002
        """Name, version, extensions."""
        return self._make(
            "ServerMetadataResponse",
            name="deepkits",
            version=metadata.version("deepkits"),
            extensions=EXTENSIONS,
        )

    async def model_metadata(self, request: Any, caller: Caller) -> Any:
        """Inputs and outputs; -1 is an axis of any size."""
        caller.model = request.name
        model = self._engine.find(request.name, request.version)
        versions = [other.version for other in self._engine.catalogue() if other.name == model.name]
        return self._make(
            "ModelMetadataResponse",
            name=model.name,
            versions=versions,
            platform=model.platform,
            inputs=_signature(model.inputs),
            outputs=_signature(model.outputs),
        )

    async def model_infer(self, request: Any, caller: Caller) -> Any:
        """One prediction; outputs are raw contents."""
        caller.model, caller.version = request.model_name, request.model_version
        parameters = request.parameters
        if "sequence_id" in parameters:
            raise BadRequest("sequence_id: sequences are not offered; send the whole input")
        timeouts = [] if caller.timeout_s is None else [caller.timeout_s]
        if "timeout" in parameters:
            timeouts.append(parameters["timeout"].int64_param / 1e6)
        # The client's method takes it unsigned; other clients may not.
        given = parameters["priority"] if "priority" in parameters else None
        priority = min(given.uint64_param or given.int64_param, MAX_PRIORITY) if given else 0
        wanted = [_plain_output(output) for output in request.outputs]
        answer = await self._engine.infer(
            Call(
                model=request.model_name,
                version=request.model_version,
                inputs=read_inputs(request),
                timeout_s=min(timeouts, default=None),
                priority=priority,
                tenant=caller.tenant,
                id=request.id,
            )
        )
        caller.version = answer.version
        response = self._make(
            "ModelInferResponse",
            model_name=answer.model,
            model_version=answer.version,
            id=request.id,
        )
        write_outputs(response, answer.outputs, wanted)
        return response

    async def repository_index(self, request: Any, caller: Caller) -> Any:  # noqa: ARG002
        """All versions of all models."""
        found = [
            {
                "name": model.name,
                "version": model.version,
                "state": STATES[model.state],
                "reason": model.reason,
            }
            for model in self._engine.catalogue()
            if model.state == "ready" or not request.ready
        ]
        return self._make("RepositoryIndexResponse", models=found)

    async def repository_model_load(self, request: Any, caller: Caller) -> Any:
        """Look at the model's own file again; no other file is ever opened."""
        caller.model = request.model_name
        if request.parameters:
            names = ", ".join(sorted(request.parameters))
            raise BadRequest(
                f"parameters {names}: only the file named at the start is loaded; leave them out"
            )
        await self._engine.reload(request.model_name)
        return self._make("RepositoryModelLoadResponse")

    async def repository_model_unload(self, request: Any, caller: Caller) -> Any:
        """Refused: what is served is the command line's to say."""
        caller.model = request.model_name
        raise BadRequest(
            f"model {request.model_name!r} is not unloaded by a request; "
            "start the service without it"
        )


def _signature(tensors: Any) -> list[dict[str, Any]]:
    return [
        {
            "name": tensor.name,
            "datatype": NAMES.get(tensor.dtype, tensor.dtype),
            "shape": [axis if isinstance(axis, int) else -1 for axis in tensor.shape],
        }
        for tensor in tensors
    ]


def _plain_output(output: Any) -> str:
    for name in ("classification", "shared_memory_region"):
        if name in output.parameters:
            raise BadRequest(f"output {output.name!r} asks for {name}, which is not offered")
    return str(output.name)
