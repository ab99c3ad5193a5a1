import asyncio
import json
import subprocess
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import numpy as np
import onnx
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
from google.protobuf.descriptor import FieldDescriptor
from onnx import TensorProto, helper
from tritonclient.grpc import model_config_pb2, service_pb2
from tritonclient.utils import InferenceServerException

from core.serve.config import ModelFile, ServeConfig
from core.serve.engine import Answer, Served
from core.serve.errors import BadRequest, DeadlineExceeded, NotFound, NotReady, Overloaded
from core.serve.exchange import Recorder
from core.serve.grpc_server import start_grpc
from core.serve.local_engine import LocalEngine
from core.serve.metadata import Statistics
from core.serve.metrics import Metrics
from core.serve.protocol.messages import DATA_TYPES, HEALTH, INFERENCE, SERVICE, message_classes
from edge.manifest import Tensor

RUNNER = asyncio.Runner()
DTYPES = "bool int8 int16 int32 int64 uint8 uint16 uint32 uint64 float16 float32 float64".split()


def echo(dtype):
    tensor = Tensor("x", dtype, ("batch", 3))
    output = Tensor("y", dtype, ("batch", 3))
    return Served(f"echo_{dtype}", "1", "onnx", (tensor,), (output,), 8, "ready")


@dataclass
class Engine:
    """Gives back what it is given; the model's name says what else happens."""

    state: str = "ready"
    calls: list = field(default_factory=list)
    cancelled: list = field(default_factory=list)
    running: int = 0
    most_running: int = 0
    reloaded: list = field(default_factory=list)
    models: tuple = tuple(echo(dtype) for dtype in DTYPES)

    def catalogue(self):
        return self.models

    def find(self, name, version=""):
        for model in self.models:
            if model.name == name and version in ("", model.version):
                return model
        raise NotFound(f"model {name!r} is not served")

    async def reload(self, name):
        self.reloaded.append(name)
        return self.find(name)

    async def infer(self, call):
        self.calls.append(call)
        self.running += 1
        self.most_running = max(self.running, self.most_running)
        try:
            return await self.answer(call)
        except asyncio.CancelledError:
            self.cancelled.append(call.id)
            raise
        finally:
            self.running -= 1

    async def answer(self, call):
        if call.model == "slow":
            await asyncio.sleep(60)
        if call.model == "full":
            raise Overloaded("the queue is full", retry_after_s=1.5)
        if call.model == "late":
            raise DeadlineExceeded("too late")
        if call.model == "loading":
            raise NotReady("not yet")
        if call.model == "broken":
            raise RuntimeError("secret words")
        if call.inputs["x"].shape[-1] != 3:
            raise BadRequest("input 'x' has another shape")
        await asyncio.sleep(0.01)
        self.find(call.model, call.version)
        return Answer({"y": call.inputs["x"]}, call.model, "1", 0.0, 0.0)


class Counted(Metrics):
    def __init__(self):
        self.requests = []

    def request(self, model, version, protocol, code, seconds):
        assert seconds >= 0
        self.requests.append((model, version, protocol, code))


@asynccontextmanager
async def serving(engine, **settings):
    metrics = Counted()
    config = ServeConfig(**{"grpc_port": 0, "max_workers": 1, "access_log": False} | settings)
    recorder = Recorder(config, metrics, Statistics(), engine.catalogue)
    server = await start_grpc(engine, config, recorder)
    try:
        yield f"127.0.0.1:{server.port}", metrics
    finally:
        await server.stop(0)
        recorder.close()


def request_input(array, datatype, name="x"):
    tensor = tritonclient.grpc.InferInput(name, array.shape, datatype)
    return tensor.set_data_from_numpy(array)


def floats(rows=1):
    return request_input(np.ones((rows, 3), np.float32), "FP32")


@pytest.fixture(scope="module", autouse=True)
def runner():
    # gRPC keeps one thread for all event loops and still calls those that are closed.
    with RUNNER:
        yield


def run(coroutine):
    return RUNNER.run(asyncio.wait_for(coroutine, 60))


async def client_error(url, model, *inputs, **settings):
    async with tritonclient.grpc.aio.InferenceServerClient(url) as client:
        with pytest.raises(InferenceServerException) as error:
            await client.infer(model, list(inputs) or [floats()], **settings)
    return error.value.status(), error.value.message()


def shape_of(message):
    return {
        field.name: (
            field.number,
            # An enumeration is a number on the wire.
            FieldDescriptor.TYPE_INT32 if field.type == FieldDescriptor.TYPE_ENUM else field.type,
            field.is_repeated,
            field.message_type and field.message_type.full_name,
            field.containing_oneof and field.containing_oneof.name,
            field.message_type and field.message_type.GetOptions().map_entry,
        )
        for field in message.fields
    }


def inner_shapes(message):
    return {inner.name: shape_of(inner) for inner in message.nested_types}


def nested(descriptor, name):
    first, _, rest = name.partition(".")
    found = descriptor.message_types_by_name[first]
    return found.nested_types_by_name[rest] if rest else found


# Only some of their fields are told.
PARTIAL = ("ModelConfig", "ModelInput", "ModelOutput", "ModelStatistics", "InferStatistics")


@pytest.mark.parametrize("name", list(INFERENCE))
def test_messages_are_those_of_the_published_client(name):
    ours = message_classes("inference", INFERENCE)[name].DESCRIPTOR
    is_config = name in ("ModelConfig", "ModelInput", "ModelOutput")
    theirs = nested((model_config_pb2 if is_config else service_pb2).DESCRIPTOR, name)
    assert ours.full_name == theirs.full_name
    if name in PARTIAL:
        assert shape_of(ours).items() <= shape_of(theirs).items()
    else:
        assert shape_of(ours) == shape_of(theirs)
        assert inner_shapes(ours) == inner_shapes(theirs)


def test_numbers_of_types_are_those_of_the_published_client():
    ours = {f"TYPE_{name}": number for number, name in enumerate(DATA_TYPES, 1)}
    assert ours | {"TYPE_INVALID": 0} == dict(model_config_pb2.DataType.items())


def test_a_client_asks_for_health_and_metadata():
    async def ask():
        engine = Engine()
        async with (
            serving(engine) as (url, _),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            assert await client.is_server_live()
            assert await client.is_server_ready()
            assert await client.is_model_ready("echo_int8")
            assert await client.is_model_ready("echo_int8", "1")
            assert not await client.is_model_ready("echo_int8", "7")
            assert (await client.get_server_metadata()).name == "deepkits"
            model = await client.get_model_metadata("echo_float32", as_json=True)
            assert model["versions"] == ["1"]
            assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
            index = await client.get_model_repository_index()
            assert [entry.state for entry in index.models] == ["READY"] * len(DTYPES)
            await client.load_model("echo_int8")
            assert engine.reloaded == ["echo_int8"]
            engine.state = "draining"
            assert not await client.is_server_ready()

    run(ask())


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_datatype_comes_back_as_it_went(dtype):
    async def ask():
        array = np.array([[0, 1, 0], [1, 1, 0]], dtype)
        name = tritonclient.utils.np_to_triton_dtype(np.dtype(dtype))
        async with (
            serving(Engine()) as (url, metrics),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            result = await client.infer(
                f"echo_{dtype}", [request_input(array, name)], request_id="a"
            )
            answer = result.as_numpy("y")
            assert (answer.dtype, answer.tolist()) == (array.dtype, array.tolist())
            assert result.get_response().id == "a"
            assert metrics.requests == [(f"echo_{dtype}", "1", "grpc", "ok")]

    run(ask())


CONTENTS = [
    ("bool", "BOOL", "bool_contents", [True, False, True]),
    ("int8", "INT8", "int_contents", [-128, 0, 127]),
    ("int64", "INT64", "int64_contents", [-(2**63), 0, 2**63 - 1]),
    ("uint16", "UINT16", "uint_contents", [0, 1, 65535]),
    ("uint64", "UINT64", "uint64_contents", [0, 1, 2**64 - 1]),
    ("float32", "FP32", "fp32_contents", [0.5, -0.0, 2.0]),
    ("float64", "FP64", "fp64_contents", [0.1, -0.0, 2.0]),
]


def typed_request(model, datatype, contents, values, shape=(1, 3)):
    request = service_pb2.ModelInferRequest(model_name=model)
    tensor = request.inputs.add(name="x", datatype=datatype, shape=shape)
    getattr(tensor.contents, contents).extend(values)
    return request


def call(channel, method, request, response):
    return channel.unary_unary(
        f"/{SERVICE}/{method}",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=response.FromString,
    )(request)


async def infer_raw(url, request):
    async with grpc.aio.insecure_channel(url) as channel:
        return await call(channel, "ModelInfer", request, service_pb2.ModelInferResponse)


@pytest.mark.parametrize(("dtype", "datatype", "contents", "values"), CONTENTS)
def test_typed_contents_are_read(dtype, datatype, contents, values):
    async def ask():
        request = typed_request(f"echo_{dtype}", datatype, contents, values)
        async with serving(Engine()) as (url, _):
            response = await infer_raw(url, request)
        assert response.outputs[0].datatype == datatype
        assert np.frombuffer(response.raw_output_contents[0], dtype).tolist() == values

    run(ask())


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        (typed_request("m", "INT8", "int_contents", [1, 2, 300]), "INT8 cannot hold them"),
        (typed_request("m", "INT8", "int_contents", [1, 2]), "2 values in contents.int_contents"),
        (typed_request("m", "INT8", "fp32_contents", [1, 2, 3]), "0 values"),
        (typed_request("m", "FP16", "fp32_contents", [1, 2, 3]), "only as raw_input_contents"),
        (typed_request("m", "FP33", "fp32_contents", [1, 2, 3]), "one of BOOL, UINT8"),
        (typed_request("m", "FP32", "fp32_contents", [1, 2, 3], (-1, 3)), "shape=(-1, 3)"),
        (typed_request("m", "FP32", "fp32_contents", [], (0, 2**60)), "0 to 2^31"),
    ],
)
def test_wrong_contents_are_refused_with_the_inputs_name(request_, words):
    async def ask():
        async with serving(Engine()) as (url, _):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await infer_raw(url, request_)
        assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "input 'x'" in error.value.details()
        assert words in error.value.details()

    run(ask())


def test_bfloat16_is_read_as_float32():
    async def ask():
        request = typed_request("echo_float32", "BF16", "fp32_contents", [])
        request.raw_input_contents.append(b"\x80\x3f\x00\x40\x40\xc0")
        async with serving(Engine()) as (url, _):
            response = await infer_raw(url, request)
        assert np.frombuffer(response.raw_output_contents[0], "f4").tolist() == [1.0, 2.0, -3.0]

    run(ask())


def test_wrong_raw_contents_are_refused():
    async def ask():
        request = typed_request("m", "FP32", "fp32_contents", [])
        request.raw_input_contents.append(b"123")
        twice = typed_request("m", "FP32", "fp32_contents", [1.0, 2.0, 3.0])
        twice.inputs.append(twice.inputs[0])
        many = typed_request("m", "FP32", "fp32_contents", [])
        many.raw_input_contents.extend([b"", b""])
        async with serving(Engine()) as (url, _):
            for wrong, words in (
                (request, "3 bytes, shape=(1, 3) of FP32 takes 12"),
                (twice, "there twice"),
                (many, "2 entries for 1 inputs"),
            ):
                with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT") as error:
                    await infer_raw(url, wrong)
                assert words in error.value.details()

    run(ask())


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [
        ("nobody", "StatusCode.NOT_FOUND", "model 'nobody' is not served"),
        ("full", "StatusCode.RESOURCE_EXHAUSTED", "the queue is full"),
        ("late", "StatusCode.DEADLINE_EXCEEDED", "too late"),
        ("loading", "StatusCode.UNAVAILABLE", "not yet"),
        ("broken", "StatusCode.INTERNAL", "the service failed; its log says why"),
    ],
)
def test_errors_have_their_status(model, status, words):
    async def ask():
        async with serving(Engine()) as (url, metrics):
            assert await client_error(url, model) == (status, words)
        assert [entry[3] for entry in metrics.requests] != ["ok"]

    run(ask())


def test_an_overloaded_service_says_when_to_come_back():
    async def ask():
        request = typed_request("full", "FP32", "fp32_contents", [1, 2, 3])
        async with serving(Engine()) as (url, _):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await infer_raw(url, request)
        trailers = dict(error.value.trailing_metadata())
        assert trailers["grpc-retry-pushback-ms"] == "1500"
        # google.rpc.RetryInfo in the status: field 1, a duration of 1 s and 500,000,000 ns.
        assert trailers["grpc-status-details-bin"].endswith(
            b"RetryInfo\x12\x0a\x0a\x08\x08\x01\x10\x80\xca\xb5\xee\x01"
        )

    run(ask())


def test_a_client_that_goes_away_cancels_its_request():
    async def ask():
        engine = Engine()
        async with serving(engine) as (url, metrics), grpc.aio.insecure_channel(url) as channel:
            request = typed_request("slow", "FP32", "fp32_contents", [1, 2, 3])
            request.id = "gone"
            waiting = call(channel, "ModelInfer", request, service_pb2.ModelInferResponse)
            while not engine.running:
                await asyncio.sleep(0.005)
            waiting.cancel()
            while not engine.cancelled:
                await asyncio.sleep(0.005)
            assert engine.cancelled == ["gone"]
            assert metrics.requests == [("slow", "", "grpc", "cancelled")]

    run(ask())


def test_the_clients_deadline_is_the_requests():
    async def ask():
        engine = Engine()
        async with serving(engine) as (url, _):
            status, _ = await client_error(url, "slow", client_timeout=0.3)
            assert status == "StatusCode.DEADLINE_EXCEEDED"
            while not engine.cancelled:
                await asyncio.sleep(0.005)
            # Rounded up on its way.
            assert 0 < engine.calls[0].timeout_s <= 0.4
            async with tritonclient.grpc.aio.InferenceServerClient(url) as client:
                await client.infer("echo_float32", [floats()], timeout=50_000, priority=3)
                await client.infer("echo_float32", [floats()])
            assert engine.calls[1].timeout_s == 0.05
            assert [call.priority for call in engine.calls[1:]] == [3, 0]
            assert engine.calls[2].timeout_s is None

    run(ask())


@pytest.fixture
def tokens(tmp_path):
    file = tmp_path / "tokens"
    file.write_text("anna 0123456789abcdef\nben fedcba9876543210\n")
    return file


def test_a_token_is_asked_for_and_names_the_tenant(tokens):
    async def ask():
        engine = Engine()
        async with (
            serving(engine, tokens=tokens) as (url, metrics),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            assert await client.is_server_live()
            assert await client.is_server_ready()
            for headers in ({}, {"authorization": "Bearer 0123456789abcdeX"}):
                with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                    await client.infer("echo_float32", [floats()], headers=headers)
                with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
                    await client.get_model_repository_index(headers=headers)

            async def stream():
                yield {"model_name": "echo_float32", "inputs": [floats()]}

            answers = [error async for _, error in client.stream_infer(stream())]
            assert "no valid token" in str(answers[0])
            assert engine.calls == []
            right = {"authorization": "Bearer fedcba9876543210"}
            await client.infer("echo_float32", [floats()], headers=right)
            assert engine.calls[0].tenant == "ben"
            assert [entry[3] for entry in metrics.requests] == ["unauthorized"] * 3 + ["ok"]

    run(ask())


def test_the_rate_of_a_token_is_limited(tokens):
    async def ask():
        async with (
            serving(Engine(), tokens=tokens, rate_limit=1.0) as (url, _),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            for name in ("0123456789abcdef", "fedcba9876543210"):
                headers = {"authorization": f"Bearer {name}"}
                await client.infer("echo_float32", [floats()], headers=headers)
                many = [
                    client.infer("echo_float32", [floats()], headers=headers) for _ in range(20)
                ]
                answers = await asyncio.gather(*many, return_exceptions=True)
                refused = [
                    error for error in answers if isinstance(error, InferenceServerException)
                ]
                assert {error.status() for error in refused} == {"StatusCode.RESOURCE_EXHAUSTED"}

    run(ask())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """An authority, and certificates of it for the server and for a client."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl(
        *("req", "-x509", *curve, "-subj", "/CN=test authority", "-days", "2"),
        *("-keyout", "ca.key", "-out", "ca.pem"),
    )
    for name in ("server", "client"):
        openssl(
            *("req", "-x509", *curve, "-subj", f"/CN={name}", "-days", "2"),
            *("-CA", "ca.pem", "-CAkey", "ca.key", "-keyout", f"{name}.key", "-out", f"{name}.pem"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE"),
        )
    return folder


@pytest.mark.parametrize("mutual", [False, True])
def test_tls_and_mutual_tls(certificates, mutual):
    settings = {
        "tls_certificate": certificates / "server.pem",
        "tls_key": certificates / "server.key",
    }
    if mutual:
        settings["tls_client_ca"] = certificates / "ca.pem"
    ca, own = str(certificates / "ca.pem"), str(certificates / "client.pem")
    key = str(certificates / "client.key")

    async def answers(url, **files):
        async with tritonclient.grpc.aio.InferenceServerClient(
            url, ssl=True, root_certificates=ca, **files
        ) as client:
            await client.infer("echo_float32", [floats()], client_timeout=10)

    async def ask():
        async with serving(Engine(), **settings) as (url, metrics):
            await answers(url, private_key=key, certificate_chain=own)
            if mutual:
                with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                    await answers(url)
            else:
                await answers(url)
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                async with tritonclient.grpc.aio.InferenceServerClient(url) as plain:
                    await plain.infer("echo_float32", [floats()], client_timeout=10)
            assert {entry[3] for entry in metrics.requests} == {"ok"}

    run(ask())


def test_many_requests_are_worked_on_at_once():
    async def ask():
        engine = Engine()
        async with (
            serving(engine) as (url, metrics),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            results = await asyncio.gather(
                *(client.infer("echo_float32", [floats(rows)]) for rows in range(1, 41))
            )
            assert [len(result.as_numpy("y")) for result in results] == list(range(1, 41))
            assert engine.most_running > 1
            assert len(metrics.requests) == 40

    run(ask())


def test_a_stream_answers_in_order_and_goes_on_after_an_error():
    async def ask():
        engine = Engine()

        async def requests():
            for at, model in enumerate(("echo_float32", "nobody", "echo_float32")):
                yield {"model_name": model, "inputs": [floats(at + 1)], "request_id": str(at)}

        async with (
            serving(engine) as (url, _),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            found = [answer async for answer in client.stream_infer(requests())]
        assert [len(result.as_numpy("y")) for result, error in found if not error] == [1, 3]
        assert "model 'nobody' is not served" in str(found[1][1])

    run(ask())


def test_a_stream_answers_before_the_next_request():
    async def ask():
        answered = asyncio.Event()

        async def requests():
            yield {"model_name": "echo_float32", "inputs": [floats()]}
            await answered.wait()
            yield {"model_name": "echo_float32", "inputs": [floats(2)]}

        async with (
            serving(Engine()) as (url, _),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            sizes = []
            async for result, _ in client.stream_infer(requests()):
                sizes.append(len(result.as_numpy("y")))
                answered.set()
        assert sizes == [1, 2]

    run(ask())


def test_a_stream_that_goes_away_cancels_its_requests():
    async def ask():
        engine = Engine()

        async def requests():
            for at in range(3):
                yield {"model_name": "slow", "inputs": [floats()], "request_id": str(at)}

        async with (
            serving(engine) as (url, _),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            answers = client.stream_infer(requests())
            waiting = asyncio.ensure_future(anext(answers))
            while engine.running < 3:
                await asyncio.sleep(0.005)
            answers.cancel()
            while len(engine.cancelled) < 3:
                await asyncio.sleep(0.005)
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(ask())


def test_a_request_over_the_limit_is_refused():
    async def ask():
        async with serving(Engine(), max_body_mib=0.01) as (url, _):
            status, words = await client_error(url, "echo_float32", floats(2000))
        assert status == "StatusCode.RESOURCE_EXHAUSTED"
        assert "larger than max" in words

    run(ask())


@pytest.mark.parametrize(
    "parameters", [{"sequence_id": 7}, {"outputs": [("y", 3)]}, {"outputs": [("z", 0)]}]
)
def test_what_is_not_offered_is_refused(parameters):
    async def ask():
        settings = dict(parameters)
        if "outputs" in settings:
            settings["outputs"] = [
                tritonclient.grpc.InferRequestedOutput(name, class_count=count)
                for name, count in settings["outputs"]
            ]
        async with serving(Engine()) as (url, _):
            status, words = await client_error(url, "echo_float32", **settings)
        assert status == "StatusCode.INVALID_ARGUMENT"
        assert "not offered" in words or "the outputs are y" in words

    run(ask())


def test_no_file_is_loaded_and_no_model_unloaded_by_request():
    async def ask():
        engine = Engine()
        async with (
            serving(engine) as (url, _),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            with pytest.raises(InferenceServerException, match="only the file named at the start"):
                await client.load_model("echo_int8", files={"file:1/model.onnx": b"x"}, config="{}")
            with pytest.raises(InferenceServerException, match="not unloaded by a request"):
                await client.unload_model("echo_int8")
        assert engine.reloaded == []

    run(ask())


def test_the_standard_health_check_answers():
    async def ask():
        engine, classes = Engine(), message_classes("grpc.health.v1", HEALTH)
        async with serving(engine) as (url, _), grpc.aio.insecure_channel(url) as channel:
            check = channel.unary_unary(
                "/grpc.health.v1.Health/Check",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=classes["HealthCheckResponse"].FromString,
            )
            assert (await check(classes["HealthCheckRequest"]())).status == 1
            engine.state = "draining"
            assert (await check(classes["HealthCheckRequest"](service=SERVICE))).status == 2
            with pytest.raises(grpc.aio.AioRpcError, match="NOT_FOUND"):
                await check(classes["HealthCheckRequest"](service="other"))

    run(ask())


def test_a_real_model_answers_and_says_what_is_wrong(tmp_path):
    file = tmp_path / "double.onnx"
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "x"], ["y"])],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 3])],
    )
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), file)

    async def ask():
        config = ServeConfig([ModelFile("double", file)], isolation="inline", watch_s=0)
        engine = LocalEngine(config, Metrics())
        await engine.start()
        async with (
            serving(engine) as (url, metrics),
            tritonclient.grpc.aio.InferenceServerClient(url) as client,
        ):
            assert await client.is_model_ready("double")
            model = await client.get_model_metadata("double", as_json=True)
            assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
            result = await client.infer("double", [floats(2)])
            assert result.as_numpy("y").tolist() == [[2.0] * 3] * 2
            told = (await client.get_model_config("double")).config
            assert (told.name, told.max_batch_size) == ("double", 0)
            assert [told.input[0].data_type, *told.input[0].dims] == [
                *(model_config_pb2.TYPE_FP32, -1, 3)
            ]
            assert list(told.output[0].dims) == [-1, 3]
            wrong = request_input(np.ones((1, 3), np.int32), "INT32")
            with pytest.raises(InferenceServerException, match="'x' has dtype=int32") as error:
                await client.infer("double", [wrong])
            assert error.value.status() == "StatusCode.INVALID_ARGUMENT"
            with pytest.raises(InferenceServerException, match="NOT_FOUND"):
                await client.infer("double", [floats()], model_version="9")
            counts = (await client.get_inference_statistics("double")).model_stats[0]
            assert (counts.name, counts.version, counts.inference_count) == ("double", "1", 1)
            assert (counts.inference_stats.success.count, counts.inference_stats.fail.count) == (
                1,
                1,
            )
            assert counts.inference_stats.success.ns > 0
            await engine.stop(1)
            with pytest.raises(InferenceServerException, match="UNAVAILABLE"):
                await client.infer("double", [floats()])
            assert [entry[3] for entry in metrics.requests] == [
                *("ok", "bad_request", "not_found", "not_ready")
            ]

    run(ask())


def test_a_taken_port_is_told():
    async def ask():
        async with serving(Engine()) as (url, _):
            port = int(url.rpartition(":")[2])
            with pytest.raises(ValueError, match=f"grpc_port={port} cannot be listened on"):
                async with serving(Engine(), grpc_port=port):
                    pass

    run(ask())


def test_an_inference_is_a_line_of_the_access_log(capfd):
    trace = {
        "x-request-id": "from-a-proxy",
        "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01",
    }

    async def main():
        async with serving(Engine(), access_log=True) as (url, _):
            async with tritonclient.grpc.aio.InferenceServerClient(url) as client:
                await client.infer("echo_float32", [floats()], headers=trace)
            await client_error(url, "full")

    run(main())
    answered, refused = map(json.loads, capfd.readouterr().out.splitlines())
    assert answered["path"] == "/inference.GRPCInferenceService/ModelInfer"
    assert (answered["protocol"], answered["status"], answered["code"]) == ("grpc", 200, "ok")
    assert (answered["model"], answered["version"]) == ("echo_float32", "1")
    assert answered["id"] == "from-a-proxy"
    assert answered["batch"] == 1
    assert (refused["status"], refused["code"], refused["batch"]) == (429, "overloaded", 0)
