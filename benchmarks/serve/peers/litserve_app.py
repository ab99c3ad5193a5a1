"""LitServe around the session: as its first example has it, or with what it offers for load.

`python -m ... MODEL PORT default|fast|batching`. fast: ZeroMQ between its processes (`fast_queue`,
"for more than 100 requests per second"); batching: that, and batches of up to 32.
"""

from __future__ import annotations

import sys
from typing import Any

import litserve
import numpy as np

from benchmarks.serve.peers.session import open_session

MAX_BATCH = 32
# Longer waits for a batch cost latency and gained nothing here.
BATCH_TIMEOUT_S = 0.001


class SessionAPI(litserve.LitAPI):
    """One row in, one row out."""

    def __init__(self, path: str, **settings: Any) -> None:
        super().__init__(**settings)
        self.path = path

    def setup(self, _: str) -> None:
        """In the worker's process."""
        self.session = open_session(self.path)
        self.given = self.session.get_inputs()[0].name
        self.wanted = self.session.get_outputs()[0].name

    # Its type must stay open: the server reads it.
    def decode_request(self, request):
        """The rows of one request."""
        return np.array(request[self.given], np.float32)

    def predict(self, x: np.ndarray) -> np.ndarray:
        """Rows in, rows out."""
        return self.session.run(None, {self.given: x})[0]

    def encode_response(self, output: np.ndarray) -> dict[str, Any]:
        """Lists for JSON."""
        return {self.wanted: output.tolist()}


class BatchedSessionAPI(SessionAPI):
    """Rows of several requests in one run."""

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """One row of each request, below each other."""
        return np.concatenate(inputs)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """An answer for each request."""
        return list(output[:, None])


if __name__ == "__main__":
    model, port, form = sys.argv[1:]
    if form == "batching":
        api = BatchedSessionAPI(model, max_batch_size=MAX_BATCH, batch_timeout=BATCH_TIMEOUT_S)
    else:
        api = SessionAPI(model)
    server = litserve.LitServer(
        api, accelerator="cpu", devices=1, workers_per_device=1, fast_queue=form != "default"
    )
    server.run(
        host="127.0.0.1", port=int(port), num_api_servers=1, log_level="warning",
        generate_client_file=False, access_log=False,
    )  # fmt: skip
