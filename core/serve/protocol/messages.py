"""The messages of Open Inference Protocol v2 for gRPC, as classes made when they are imported.

Names and numbers are the standard's (package `inference`, service `GRPCInferenceService`), so that
its clients work unchanged. No generated code: the classes live in a descriptor pool of their own,
because a client library in the same process registers the same names in the common one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICE = "inference.GRPCInferenceService"
HEALTH_SERVICE = "grpc.health.v1.Health"

# Each field as in a .proto file: [repeated] type name = number. `a | b` are one-of.
INFERENCE = {
    "ServerLiveRequest": "",
    "ServerLiveResponse": "bool live = 1",
    "ServerReadyRequest": "",
    "ServerReadyResponse": "bool ready = 1",
    "ModelReadyRequest": "string name = 1, string version = 2",
    "ModelReadyResponse": "bool ready = 1",
    "ServerMetadataRequest": "",
    "ServerMetadataResponse": "string name = 1, string version = 2, repeated string extensions = 3",
    "ModelMetadataRequest": "string name = 1, string version = 2",
    "ModelMetadataResponse": "string name = 1, repeated string versions = 2, string platform = 3,"
    "repeated ModelMetadataResponse.TensorMetadata inputs = 4,"
    "repeated ModelMetadataResponse.TensorMetadata outputs = 5",
    "ModelMetadataResponse.TensorMetadata": "string name = 1, string datatype = 2,"
    "repeated int64 shape = 3",
    "InferParameter": "bool bool_param = 1 | int64 int64_param = 2 | string string_param = 3 |"
    "double double_param = 4 | uint64 uint64_param = 5",
    "InferTensorContents": "repeated bool bool_contents = 1, repeated int32 int_contents = 2,"
    "repeated int64 int64_contents = 3, repeated uint32 uint_contents = 4,"
    "repeated uint64 uint64_contents = 5, repeated float fp32_contents = 6,"
    "repeated double fp64_contents = 7, repeated bytes bytes_contents = 8",
    "ModelInferRequest": "string model_name = 1, string model_version = 2, string id = 3,"
    "map InferParameter parameters = 4, repeated ModelInferRequest.InferInputTensor inputs = 5,"
    "repeated ModelInferRequest.InferRequestedOutputTensor outputs = 6,"
    "repeated bytes raw_input_contents = 7",
    "ModelInferRequest.InferInputTensor": "string name = 1, string datatype = 2,"
    "repeated int64 shape = 3, map InferParameter parameters = 4, InferTensorContents contents = 5",
    "ModelInferRequest.InferRequestedOutputTensor": "string name = 1,"
    "map InferParameter parameters = 2",
    "ModelInferResponse": "string model_name = 1, string model_version = 2, string id = 3,"
    "map InferParameter parameters = 4, repeated ModelInferResponse.InferOutputTensor outputs = 5,"
    "repeated bytes raw_output_contents = 6",
    "ModelInferResponse.InferOutputTensor": "string name = 1, string datatype = 2,"
    "repeated int64 shape = 3, map InferParameter parameters = 4, InferTensorContents contents = 5",
    "ModelStreamInferResponse": "string error_message = 1, ModelInferResponse infer_response = 2",
    "ModelRepositoryParameter": "bool bool_param = 1 | int64 int64_param = 2 |"
    "string string_param = 3 | bytes bytes_param = 4",
    "RepositoryIndexRequest": "string repository_name = 1, bool ready = 2",
    "RepositoryIndexResponse": "repeated RepositoryIndexResponse.ModelIndex models = 1",
    "RepositoryIndexResponse.ModelIndex": "string name = 1, string version = 2, string state = 3,"
    "string reason = 4",
    "RepositoryModelLoadRequest": "string repository_name = 1, string model_name = 2,"
    "map ModelRepositoryParameter parameters = 3",
    "RepositoryModelLoadResponse": "",
    "RepositoryModelUnloadRequest": "string repository_name = 1, string model_name = 2,"
    "map ModelRepositoryParameter parameters = 3",
    "RepositoryModelUnloadResponse": "",
    "ModelStatisticsRequest": "string name = 1, string version = 2",
    "StatisticDuration": "uint64 count = 1, uint64 ns = 2",
    "InferStatistics": "StatisticDuration success = 1, StatisticDuration fail = 2,"
    "StatisticDuration queue = 3, StatisticDuration compute_input = 4,"
    "StatisticDuration compute_infer = 5, StatisticDuration compute_output = 6",
    "ModelStatistics": "string name = 1, string version = 2, uint64 last_inference = 3,"
    "uint64 inference_count = 4, InferStatistics inference_stats = 6",
    "ModelStatisticsResponse": "repeated ModelStatistics model_stats = 1",
    # Of these only what is told; `data_type` is an enumeration there: a number on the wire as well.
    "ModelConfigRequest": "string name = 1, string version = 2",
    "ModelInput": "string name = 1, int32 data_type = 2, repeated int64 dims = 4",
    "ModelOutput": "string name = 1, int32 data_type = 2, repeated int64 dims = 3",
    "ModelConfig": "string name = 1, string platform = 2, int32 max_batch_size = 4,"
    "repeated ModelInput input = 5, repeated ModelOutput output = 6",
    "ModelConfigResponse": "ModelConfig config = 1",
}
# Numbers of `data_type`, from 1.
DATA_TYPES = (
    *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
    *("FP16", "FP32", "FP64", "STRING", "BF16"),
)
# Kubernetes and load balancers ask with these; `status` is an enumeration there: 1 serving, 2 not.
HEALTH = {"HealthCheckRequest": "string service = 1", "HealthCheckResponse": "int32 status = 1"}
# How a status carries more than a sentence: google.rpc.Status, with a RetryInfo in an Any.
STATUS = {
    "Status": "int32 code = 1, string message = 2, repeated Any details = 3",
    "Any": "string type_url = 1, bytes value = 2",
    "RetryInfo": "Duration retry_delay = 1",
    "Duration": "int64 seconds = 1, int32 nanos = 2",
}

Field = descriptor_pb2.FieldDescriptorProto
_FIELD = re.compile(r"(repeated |map )?([\w.]+) (\w+) = (\d+)")


def message_classes(package: str, messages: dict[str, str]) -> dict[str, Any]:
    """Message name, without package -> its class."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"{package}.proto", package=package, syntax="proto3"
    )
    made: dict[str, Any] = {}
    for name, fields in messages.items():
        outer, _, inner = name.rpartition(".")
        made[name] = (made[outer].nested_type if outer else file.message_type).add(name=inner)
        _add_fields(made[name], f".{package}.", name, fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in messages
    }


def _add_fields(message: Any, package: str, owner: str, fields: str) -> None:
    is_choice = "|" in fields
    if is_choice:
        message.oneof_decl.add(name="parameter_choice")
    for label, kind, name, number in _parse(fields):
        field = message.field.add(name=name, number=int(number), label=Field.LABEL_OPTIONAL)
        if is_choice:
            field.oneof_index = 0
        if label:
            field.label = Field.LABEL_REPEATED
        if label == "map ":
            # A map is a repeated message of keys and values by another name.
            entry = f"{name.capitalize()}Entry"
            nested = message.nested_type.add(name=entry)
            nested.options.map_entry = True
            _add_fields(nested, package, f"{owner}.{entry}", f"string key = 1, {kind} value = 2")
            kind = f"{owner}.{entry}"
        if kind[0].islower():
            field.type = Field.Type.Value(f"TYPE_{kind.upper()}")
        else:
            field.type, field.type_name = Field.TYPE_MESSAGE, package + kind


def _parse(fields: str) -> Iterator[tuple[str, str, str, str]]:
    for text in filter(None, map(str.strip, re.split(r"[,|]", fields))):
        match = _FIELD.fullmatch(text)
        assert match, text
        yield match[1] or "", match[2], match[3], match[4]
