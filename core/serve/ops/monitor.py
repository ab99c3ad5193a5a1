"""Prometheus with the rules of this folder, beside a local service.

python -m core.serve.ops.monitor --target 127.0.0.1:8080
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent
START_S = 30.0


def write_config(
    folder: Path, target: str, *, rules: Path = HERE / "rules.yml", interval: str = "5s"
) -> Path:
    """`prometheus.yml` of this folder with another target; gives the file's path."""
    text = (HERE / "prometheus.yml").read_text(encoding="utf-8")
    for old, new in (
        ("127.0.0.1:8080", target),
        ("[rules.yml]", json.dumps([str(rules)])),
        ("interval: 5s", f"interval: {interval}"),
    ):
        if old not in text:
            raise ValueError(f"prometheus.yml has no {old!r} to replace; put the file back")
        text = text.replace(old, new)
    file = folder / "prometheus.yml"
    file.write_text(text, encoding="utf-8")
    return file


def start_prometheus(config: Path, data: Path, port: int) -> subprocess.Popen[bytes]:
    """Prometheus on loopback, ready to be asked.

    Raises:
        ValueError: it is not installed, the port is taken, or it ended at once.
    """
    program = shutil.which("prometheus")
    if program is None:
        raise ValueError("prometheus is not installed; make system, or apt-get install prometheus")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise ValueError(f"port={port} is taken ({error.strerror}); give --port") from None
    process = subprocess.Popen(
        [
            program,
            f"--config.file={config}",
            f"--storage.tsdb.path={data}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=warn",
        ],
        stdin=subprocess.DEVNULL,
    )
    until = time.monotonic() + START_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=1):
                return process
        except (urllib.error.URLError, TimeoutError):
            time.sleep(0.05)
    process.kill()
    process.wait()
    raise ValueError(f"prometheus did not start (exit code {process.returncode}); see its words")


def _page(base: str, name: str) -> str:
    """Debian builds Prometheus with the older pages alone, which have a prefix."""
    try:
        with urllib.request.urlopen(f"{base}/{name}", timeout=5):
            return f"{base}/{name}"
    except urllib.error.HTTPError:
        return f"{base}/classic/{name}"


def main(arguments: list[str] | None = None) -> int:
    """Run Prometheus until it is interrupted; its data goes with it."""
    parser = argparse.ArgumentParser("python -m core.serve.ops.monitor", description=__doc__)
    parser.add_argument("--target", default="127.0.0.1:8080", help="the service (%(default)s)")
    # Not 9090: there Debian's package runs one of its own.
    parser.add_argument("--port", type=int, default=9095, help="of its pages (%(default)s)")
    flags = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="deepkits-monitor-") as folder:
        config = write_config(Path(folder), flags.target)
        try:
            process = start_prometheus(config, Path(folder) / "data", flags.port)
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        print(f"Prometheus scrapes http://{flags.target}/metrics; Ctrl-C ends it.")
        base = f"http://127.0.0.1:{flags.port}"
        print(f"  alerts     {_page(base, 'alerts')}\n  rules      {_page(base, 'rules')}")
        print(f"  graph      {_page(base, 'graph')}?g0.expr=deepseek_request_latency&g0.tab=0")
        print(f"  dashboard  {HERE / 'dashboard.json'}: import it in Grafana", flush=True)
        try:
            return process.wait()
        except KeyboardInterrupt:
            return 0
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    sys.exit(main())
