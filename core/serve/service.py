"""A service from a few lines of Python: it runs in a process of its own beside the caller's."""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from core.serve.command import to_arguments
from core.serve.config import ServeConfig
from core.serve.model import parse_model

ROOT = Path(__file__).parents[2]
READY_S = 120.0
# Beyond the time that the service gives its requests.
GRACE_S = 10.0


class Deployment:
    """A running service; `stop` ends it, and so does the end of a `with` block."""

    def __init__(
        self, process: subprocess.Popen[bytes], control: socket.socket, ready: Mapping[str, Any]
    ) -> None:
        self.url: str = ready["url"]
        self.models: tuple[str, ...] = tuple(ready["models"])  # name@version
        self._process = process
        # While this end is open, the service runs; it ends with this process, however that ends.
        self._control = control

    @property
    def pid(self) -> int:
        """Of the service's process."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def stop(self, timeout_s: float = 60.0) -> int:
        """Let requests finish, then end it; its exit code.

        Raises:
            TimeoutError: it did not end in time, and was killed.
        """
        if self.is_running:
            self._process.send_signal(signal.SIGTERM)
        try:
            return self.wait(timeout_s)
        except TimeoutError:
            self._process.kill()
            self.wait()
            raise

    def wait(self, timeout_s: float | None = None) -> int:
        """Until it ends; its exit code.

        Raises:
            TimeoutError: it did not end within `timeout_s`.
        """
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(
                f"the service at {self.url} still runs after {timeout_s} s"
            ) from None
        self._control.close()
        return code

    def __enter__(self) -> Deployment:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _serve_on(self) -> None:
        """At the end of a script: go on in the foreground, SIGINT and SIGTERM end it."""

        def pass_on(number: int, _: FrameType | None) -> None:
            if self.is_running:
                self._process.send_signal(number)

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, pass_on)
        self.wait()


class ServiceDeployer:
    """Serves a model file: `ServiceDeployer(model_path="m.onnx", port=8080).deploy()`."""

    def __init__(
        self, model_path: str | Path, port: int = 8080, *, name: str = "", **settings: Any
    ) -> None:
        """Check what is to be served; nothing is started yet.

        Args:
            model_path: an .onnx file or an .ebundle.
            port: of HTTP; 0 takes a free one.
            name: of the model in URLs; "": the file's.
            settings: other fields of `core.serve.config.ServeConfig` by name.
        Raises:
            ValueError: there is no such file, or a setting is wrong.
        """
        model = parse_model(f"{name}={model_path}" if name else str(model_path))
        self._settings = {**settings, "models": [model], "port": port}
        ServeConfig(**self._settings)
        self.deployment: Deployment | None = None

    def deploy(self, auto_scale: bool = False, *, block: bool | None = None) -> Deployment:
        """Start the service and wait until it is ready.

        Args:
            auto_scale: change the number of workers with the load.
            block: True: serve until SIGINT or SIGTERM before returning. False: the service ends
                with this program. None: a script that reaches its end serves on from there, as one
                that only deploys should; one that fails, and an interactive session, ends it.
        Raises:
            ValueError: it could not be started; in the service's own words.
            RuntimeError: it runs already.
        """
        if self.deployment is not None and self.deployment.is_running:
            raise RuntimeError(f"the service runs already at {self.deployment.url}; stop it first")
        config = ServeConfig(**{**self._settings, "auto_scale": auto_scale})
        deployment = self.deployment = _start(config)
        if block:
            deployment._serve_on()
        else:
            atexit.register(_at_exit, deployment, serve_on=block is None)
        return deployment


def _start(config: ServeConfig) -> Deployment:
    ours, theirs = socket.socketpair()
    environment = dict(os.environ)
    # This project's code and no other of that name; -P keeps the working folder out.
    paths = [str(ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    command = [sys.executable, "-P", "-m", "core.serve", f"--control={theirs.fileno()}"]
    try:
        with theirs:
            # A group of its own: Ctrl+C comes through us, once.
            process = subprocess.Popen(
                [*command, *to_arguments(config)],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                process_group=0,
            )
    except BaseException:
        ours.close()
        raise
    try:
        ready = _read_ready(ours)
        if "url" not in ready:
            code = process.wait()
            raise ValueError(ready.get("error") or f"the service ended with code {code}")
    except BaseException:
        ours.close()
        process.kill()
        process.wait()
        raise
    return Deployment(process, ours, ready)


def _read_ready(control: socket.socket) -> dict[str, Any]:
    """The line of a service that is ready or failed; {} of one that ended without a word."""
    control.settimeout(READY_S)
    line = b""
    try:
        while not line.endswith(b"\n"):
            if not (part := control.recv(65536)):
                return {}
            line += part
    except ConnectionResetError:
        return {}
    except TimeoutError:
        raise ValueError(f"the service was not ready within {READY_S:g} s; see its log") from None
    ready: dict[str, Any] = json.loads(line)
    return ready


def _at_exit(deployment: Deployment, *, serve_on: bool) -> None:
    if not deployment.is_running:
        return
    # A program that failed sets the first; sessions have the others.
    has_failed = hasattr(sys, "last_value")
    is_interactive = (
        hasattr(sys, "ps1") or bool(sys.flags.interactive) or "ipykernel" in sys.modules
    )
    if serve_on and not has_failed and not is_interactive:
        deployment._serve_on()
    else:
        with contextlib.suppress(TimeoutError):
            deployment.stop()
