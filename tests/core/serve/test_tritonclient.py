import os
import subprocess
import sys
from pathlib import Path

import pytest

from core.serve.config import ServeConfig
from core.serve.connection import server_settings
from tests.core.serve.small_engine import app_of, running

# tritonclient.http patches sockets (gevent); it talks from a process of its own.
CLIENT = r"""
import sys
import ml_dtypes
import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

client = triton.InferenceServerClient(f"127.0.0.1:{sys.argv[1]}")


def refused(status, words, call, *given, **more):
    try:
        call(*given, **more)
    except InferenceServerException as error:
        assert error.status() == str(status), error
        assert words in error.message(), error
        return
    raise AssertionError(f"{call} was not refused")


def tensor(name, array, binary):
    found = triton.InferInput(name, list(array.shape), np_to_triton_dtype(array.dtype))
    found.set_data_from_numpy(array, binary_data=binary)
    return found


# Health and metadata.
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("double") and client.is_model_ready("double", "1")
assert not client.is_model_ready("nothing") and not client.is_model_ready("failed")
server = client.get_server_metadata()
assert server["name"] == "deepkits" and "binary_tensor_data" in server["extensions"]
model = client.get_model_metadata("double")
assert model["versions"] == ["1", "2"]
assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}]
config = client.get_model_config("double", "1")
assert config["input"] == [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 3]}]
index = client.get_model_repository_index()
assert {"name": "failed", "version": "1", "state": "UNAVAILABLE", "reason": "no such file"} in index
assert client.load_model("double") is None
refused(400, "leave them out", client.load_model, "double", config="{}")
refused(400, "cannot be unloaded", client.unload_model, "double")
refused(404, "'nothing'", client.load_model, "nothing")
refused(404, "'nothing'", client.get_model_metadata, "nothing")

# One model, each way in and out.
x = np.array([[1, 2, 3], [4, 5, 6]], np.float32)
for into in (True, False):
    inputs = [tensor("x", x, into)]
    for wanted in (None, [triton.InferRequestedOutput("y", binary_data=True)],
                   [triton.InferRequestedOutput("y", binary_data=False)]):
        result = client.infer("double", inputs, outputs=wanted, request_id="7")
        np.testing.assert_array_equal(result.as_numpy("y"), x * 3)
        assert result.get_response()["id"] == "7"
more = {"model_version": "1", "timeout": 10**6, "priority": 2}
result = client.infer("double", [tensor("x", x, True)], **more)
np.testing.assert_array_equal(result.as_numpy("y"), x * 2)
futures = [client.async_infer("double", [tensor("x", x, True)]) for _ in range(3)]
for future in futures:
    np.testing.assert_array_equal(future.get_result().as_numpy("y"), x * 3)

# Every type.
types = "bool uint8 uint16 uint32 uint64 int8 int16 int32 int64 float16 float32 float64".split()
arrays = {kind: np.array([0, 1], kind) for kind in types}
for into in (True, False):
    # The client itself writes no float16 as JSON.
    ways = {kind: into or kind == "float16" for kind in types}
    inputs = [tensor(f"in_{kind}", array, ways[kind]) for kind, array in arrays.items()]
    for out in (True, False):
        wanted = [triton.InferRequestedOutput(f"out_{kind}", binary_data=out) for kind in types]
        result = client.infer("echo", inputs, outputs=wanted)
        for kind, array in arrays.items():
            found = result.as_numpy(f"out_{kind}")
            assert found.dtype == array.dtype, (kind, found.dtype)
            np.testing.assert_array_equal(found, array)
result = client.infer("echo", [tensor(f"in_{kind}", array, True) for kind, array in arrays.items()])
assert result.as_numpy("out_float16").tolist() == [0, 1]
bf16 = triton.InferInput("x", [2, 3], "BF16")
bf16.set_data_from_numpy(x.astype(ml_dtypes.bfloat16))
np.testing.assert_array_equal(client.infer("double", [bf16]).as_numpy("y"), x * 3)

# Errors.
refused(400, "'x'", client.infer, "double", [tensor("x", x.astype(np.float64), True)])
refused(400, "'x'", client.infer, "double", [tensor("x", x[:, :2], False)])
refused(400, "missing or unknown", client.infer, "double", [tensor("z", x, True)])
refused(400, "'q'", client.infer, "double", [tensor("x", x, True)],
        outputs=[triton.InferRequestedOutput("q")])
refused(404, "'nothing'", client.infer, "nothing", [tensor("x", x, True)])
text = np.array([b"a"], object)
refused(400, "BYTES", client.infer, "double", [tensor("x", text, True)])
refused(415, "Content-Encoding", client.infer, "double", [tensor("x", x, True)],
        request_compression_algorithm="gzip")

counts = client.get_inference_statistics("double", "2")["model_stats"][0]
assert counts["inference_count"] == counts["inference_stats"]["success"]["count"] == 10, counts
assert counts["inference_stats"]["fail"]["count"] > 0
assert len(client.get_inference_statistics()["model_stats"]) == 6
print("all of it")
"""


@pytest.mark.parametrize("token", ["", "t" * 32])
def test_tritonclient_works_unchanged(tmp_path, token):
    config = ServeConfig(access_log=False)
    client = CLIENT
    if token:
        (tmp_path / "tokens").write_text(f"triton {token}\n")
        config = ServeConfig(tokens=tmp_path / "tokens", access_log=False)
        plugin = (
            "from tritonclient.http.auth import BasicAuth\n"
            "class Bearer(BasicAuth):\n"
            "    def __call__(self, request):\n"
            f"        request.headers['authorization'] = 'Bearer {token}'\n"
            "client.register_plugin(Bearer('', ''))\n"
        )
        client = CLIENT.replace("\n# Health", f"\n{plugin}\n# Health", 1)
    with running(app_of(config=config), **server_settings()) as port:
        result = subprocess.run(
            [sys.executable, "-c", client, str(port)],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (result.returncode, result.stdout) == (0, "all of it\n"), result.stderr
