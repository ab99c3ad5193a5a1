"""Where a bundle's model came from: data, code, settings and versions, as an in-toto statement."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path, PurePath
from typing import Any

# What decides the numbers of a converted model.
PACKAGES = ("numpy", "onnx", "onnxruntime", "onnxscript", "openvino", "torch", "executorch", "nncf")


def run_facts(run: Path) -> dict[str, Any]:
    """What a finished run recorded of itself.

    Returns:
        kit, created (seconds since 1970: SOURCE_DATE_EPOCH, else when the run started), and the
        content of environment.json and data.json.

    Raises:
        ValueError: a file is missing: not a run, or not a finished one.
    """
    content = {}
    for name in ("environment.json", "data.json", "config.yaml"):
        if not (run / name).is_file():
            raise ValueError(f"run={run} has no {name}; name a finished run's folder")
    for name in ("environment", "data"):
        content[name] = json.loads((run / f"{name}.json").read_text(encoding="utf-8"))
    started = datetime.fromisoformat(content["environment"]["time"])
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is not None and not epoch.isdecimal():
        raise ValueError(f"SOURCE_DATE_EPOCH={epoch!r} is not whole seconds since 1970; unset it")
    return {
        **content,
        "kit": content["environment"].get("kit", ""),
        "created": int(epoch) if epoch is not None else int(started.timestamp()),
    }


def statement(
    run: Path,
    facts: Mapping[str, Any],
    *,
    model_sha256: str,
    export: Mapping[str, Any],
    model: Mapping[str, Any],
) -> dict[str, Any]:
    """The statement; equal inputs give equal content, and no folder of this machine is in it.

    Args:
        run: the run's folder.
        facts: from `run_facts`.
        model_sha256: of the portable model.
        export: settings of the export that change what is in the bundle.
        model: what the kit says of its model.

    Source: in-toto Statement v1 with the predicate of SLSA provenance v1.
    """
    environment, data = facts["environment"], facts["data"]
    config = hashlib.sha256((run / "config.yaml").read_bytes()).hexdigest()
    packages = environment.get("packages", {})
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "model/model.onnx", "digest": {"sha256": model_sha256}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "deepkits.export/1",
                "externalParameters": {
                    "kit": facts["kit"],
                    "command": _command(environment.get("command", [])),
                    "export": dict(export),
                },
                "internalParameters": dict(model),
                "resolvedDependencies": [
                    {"name": "data", "digest": {"sha256": data["sha256"]}},
                    {"name": "config.yaml", "digest": {"sha256": config}},
                    {
                        "name": "code",
                        "digest": {"gitCommit": environment.get("git_commit")},
                        "annotations": {"uncommitted changes": environment.get("git_dirty")},
                    },
                ],
            },
            "runDetails": {
                "builder": {
                    "id": "deepkits",
                    "version": {
                        "python": environment.get("python"),
                        **{name: packages[name] for name in PACKAGES if name in packages},
                    },
                },
                "metadata": {
                    "invocationId": f"{facts['kit']}/{run.resolve().name}",
                    "startedOn": environment["time"],
                },
            },
        },
    }


def _command(command: list[str]) -> list[str]:
    """The command without folders of the machine: they may name people."""
    return [_without_folder(word) for word in command]


def _without_folder(word: str) -> str:
    key, equals, value = word.rpartition("=")
    return f"{key}{equals}{PurePath(value).name}" if PurePath(value).is_absolute() else word
