"""The least a Python server can do: an ASGI function under uvicorn that calls the session.

It checks nothing, answers every path, and computes in the event loop.
`python -m ... MODEL PORT [THREADS]`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import orjson
import uvicorn

from benchmarks.serve.peers.session import open_session


def build_app(path: str, threads: int = 1) -> Any:
    """POST /json takes {input: rows}; POST /binary the bytes of one float32 row."""
    session = open_session(path, threads)
    (given,), (wanted,) = session.get_inputs(), session.get_outputs()
    shape = [1, *given.shape[1:]]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        if scope["path"] == "/json":
            rows = np.array(orjson.loads(body)[given.name], np.float32)
            found = session.run(None, {given.name: rows})[0]
            answer = orjson.dumps({wanted.name: found}, option=orjson.OPT_SERIALIZE_NUMPY)
            kind = b"application/json"
        elif scope["path"] == "/binary":
            rows = np.frombuffer(body, np.float32).reshape(shape)
            answer = session.run(None, {given.name: rows})[0].tobytes()
            kind = b"application/octet-stream"
        else:
            answer, kind = b"ok", b"text/plain"
        headers = [(b"content-type", kind), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    return app


if __name__ == "__main__":
    uvicorn.run(
        build_app(sys.argv[1], *map(int, sys.argv[3:])), port=int(sys.argv[2]), loop="uvloop",
        http="httptools", access_log=False, log_level="warning", lifespan="off",
    )  # fmt: skip
