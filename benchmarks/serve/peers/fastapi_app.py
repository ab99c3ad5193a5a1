"""FastAPI around the session: as a user writes it, and tuned. `python -m ... MODEL PORT plain`."""

from __future__ import annotations

import sys

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from pydantic import BaseModel

from benchmarks.serve.peers.session import open_session


class Rows(BaseModel):
    """What comes in."""

    x: list[list[float]]


class Scores(BaseModel):
    """What goes out."""

    probabilities: list[list[float]]


def build_plain(path: str) -> FastAPI:
    """Models of pydantic, a plain function (which FastAPI runs in a thread), lists both ways."""
    session, app = open_session(path), FastAPI()

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    def predict(rows: Rows) -> Scores:
        found = session.run(None, {"x": np.array(rows.x, np.float32)})[0]
        return Scores(probabilities=found.tolist())

    return app


def build_tuned(path: str) -> FastAPI:
    """Computes in the event loop, reads and writes with orjson, no validation."""
    session, app = open_session(path), FastAPI()

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.post("/predict")
    async def predict(request: Request) -> Response:
        rows = np.array(orjson.loads(await request.body())["x"], np.float32)
        found = session.run(None, {"x": rows})[0]
        answer = orjson.dumps({"probabilities": found}, option=orjson.OPT_SERIALIZE_NUMPY)
        return Response(answer, media_type="application/json")

    return app


if __name__ == "__main__":
    model, port, form = sys.argv[1:]
    app = build_plain(model) if form == "plain" else build_tuned(model)
    # Without an access log, as the others; loop and parser are what uvicorn[standard] takes.
    uvicorn.run(
        app, port=int(port), loop="uvloop", http="httptools", access_log=False, log_level="warning"
    )
