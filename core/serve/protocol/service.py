"""The methods of the protocol's gRPC service: a message in, a message out; knows no gRPC."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from core.serve import metadata
from core.serve.engine import Answer, Call, Engine
from core.serve.errors import BadRequest, NotFound, NotReady
from core.serve.metadata import Statistics
from core.serve.protocol.messages import DATA_TYPES, INFERENCE, message_classes
from core.serve.protocol.tensors import read_inputs, write_outputs

MAX_PRIORITY = 2**31 - 1


@dataclass
class Caller:
    """Who calls, until when; and what answered, for the records."""

    tenant: str = ""
    timeout_s: float | None = None
    answer: Answer | None = None
    computed_s: float = 0.0  # when the answer was there


class OipService:
    """Each method is the standard's of that name; a `ServeError` says why there is no answer."""

    def __init__(self, engine: Engine, statistics: Statistics) -> None:
        self._engine, self._statistics = engine, statistics
        self.messages = message_classes("inference", INFERENCE)

    def _make(self, message: str, /, **fields: Any) -> Any:
        return self.messages[message](**fields)

    async def server_live(self, _request: Any, _: Caller) -> Any:
        """It answers, so it lives."""
        return self._make("ServerLiveResponse", live=True)

    async def server_ready(self, _request: Any, _: Caller) -> Any:
        """Every model is warm."""
        return self._make("ServerReadyResponse", ready=self._engine.state == "ready")

    async def model_ready(self, request: Any, _: Caller) -> Any:
        """A version, or the model's newest, takes requests; an unknown one does not."""
        try:
            is_ready = self._engine.find(request.name, request.version).state == "ready"
        except (NotFound, NotReady):
            is_ready = False
        return self._make("ModelReadyResponse", ready=is_ready)

    async def server_metadata(self, _request: Any, _: Caller) -> Any:
        """Name, version, extensions."""
        return self._make("ServerMetadataResponse", **metadata.server())

    async def model_metadata(self, request: Any, _: Caller) -> Any:
        """Inputs and outputs; -1 is an axis of any size."""
        served = self._engine.find(request.name, request.version)
        versions = [
            other.version for other in self._engine.catalogue() if other.name == served.name
        ]
        told = metadata.model(served, versions)
        # The message has no field for them.
        del told["parameters"]
        return self._make("ModelMetadataResponse", **told)

    async def model_config(self, request: Any, _: Caller) -> Any:
        """What clients of other servers look for there: the types and the axes."""
        told = metadata.configuration(self._engine.find(request.name, request.version))
        tensors = {
            side: [
                {
                    "name": tensor["name"],
                    "data_type": 1 + DATA_TYPES.index(tensor["data_type"].removeprefix("TYPE_")),
                    "dims": tensor["dims"],
                }
                for tensor in told[side]
            ]
            for side in ("input", "output")
        }
        kept = {name: told[name] for name in ("name", "platform", "max_batch_size")}
        return self._make("ModelConfigResponse", config=kept | tensors)

    async def model_statistics(self, request: Any, _: Caller) -> Any:
        """Of a version, of all of a model, or of all models."""
        found = self._engine.catalogue()
        if request.name:
            self._engine.find(request.name, request.version)
            found = [
                served
                for served in found
                if served.name == request.name and request.version in ("", served.version)
            ]
        return self._make("ModelStatisticsResponse", **self._statistics.tell(found))

    async def model_infer(self, request: Any, caller: Caller) -> Any:
        """One prediction; outputs are raw contents."""
        parameters = request.parameters
        if "sequence_id" in parameters:
            raise BadRequest("sequence_id: sequences are not offered; send the whole input")
        timeouts = [] if caller.timeout_s is None else [caller.timeout_s]
        if "timeout" in parameters:
            timeouts.append(parameters["timeout"].int64_param / 1e6)
        # The client's method takes it unsigned; other clients may not.
        given = parameters.get("priority")
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
        caller.answer, caller.computed_s = answer, time.perf_counter()
        response = self._make(
            "ModelInferResponse",
            model_name=answer.model,
            model_version=answer.version,
            id=request.id,
        )
        write_outputs(response, answer.outputs, wanted)
        return response

    async def repository_index(self, request: Any, _: Caller) -> Any:
        """All versions of all models."""
        found = metadata.index(self._engine.catalogue(), ready_only=request.ready)
        return self._make("RepositoryIndexResponse", models=found)

    async def repository_model_load(self, request: Any, _: Caller) -> Any:
        """Look at the model's own file again; no other file is ever opened."""
        if request.parameters:
            names = ", ".join(sorted(request.parameters))
            raise BadRequest(
                f"parameters {names}: only the file named at the start is loaded; leave them out"
            )
        await self._engine.reload(request.model_name)
        return self._make("RepositoryModelLoadResponse")

    async def repository_model_unload(self, request: Any, _: Caller) -> Any:
        """Refused: what is served is the command line's to say."""
        raise BadRequest(
            f"model {request.model_name!r} is not unloaded by a request; "
            "start the service without it"
        )


def _plain_output(output: Any) -> str:
    for name in ("classification", "shared_memory_region"):
        if name in output.parameters:
            raise BadRequest(f"output {output.name!r} asks for {name}, which is not offered")
    return str(output.name)
