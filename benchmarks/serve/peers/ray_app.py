"""Ray Serve around the session, one replica, without dashboard and report of use.

`python -m ... MODEL PORT`; what it is tuned with are the documented variables, set by the caller.
"""

from __future__ import annotations

import signal
import sys
import time

import numpy as np
import orjson
import ray
from ray import serve
from starlette.requests import Request
from starlette.responses import Response

from benchmarks.serve.peers.session import open_session

# One of its processes may hold so many requests; the default of 5 is for slow models.
MAX_ONGOING = 256


@serve.deployment(
    num_replicas=1, max_ongoing_requests=MAX_ONGOING, ray_actor_options={"num_cpus": 1}
)
class Model:
    """Computes in its event loop, reads and writes with orjson."""

    def __init__(self, path: str) -> None:
        self.session = open_session(path)
        self.given = self.session.get_inputs()[0].name
        self.wanted = self.session.get_outputs()[0].name

    async def __call__(self, request: Request) -> Response:
        """One request; a GET asks whether it is there."""
        if request.method == "GET":
            return Response(b"ok")
        rows = np.array(orjson.loads(await request.body())[self.given], np.float32)
        found = self.session.run(None, {self.given: rows})[0]
        answer = orjson.dumps({self.wanted: found}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(answer, media_type="application/json")


def main() -> None:
    """Serve until told to end."""
    model, port = sys.argv[1], int(sys.argv[2])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    ray.init(
        num_cpus=2, include_dashboard=False, configure_logging=False, log_to_driver=False,
        object_store_memory=200 * 2**20, _node_ip_address="127.0.0.1",
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": port, "access_log": False})
    serve.run(Model.bind(model), name="model", route_prefix="/")
    while True:
        time.sleep(1)


if __name__ == "__main__":
    main()
