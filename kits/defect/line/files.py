"""What a run of the line leaves: verdicts line by line, a summary, a report for people."""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kits.defect.line.config import InspectConfig
from kits.defect.line.ledger import read, verify
from kits.defect.line.report import write_report
from kits.defect.line.station import LEDGER, Station
from kits.defect.line.tally import Tally

QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999, "max": 1.0}


def write_files(station: Station, cfg: InspectConfig, status: int) -> None:
    """Write verdicts.jsonl, summary.json and report.html beside the ledger."""
    output = station.output
    ledger = output / LEDGER
    with _whole(output / "verdicts.jsonl") as part:
        write_verdicts(ledger, station.first_trigger, part)
    summary = {
        "exit_status": status,
        "settings": asdict(cfg),
        "ledger_entries": verify(ledger),
        "first_trigger": station.first_trigger,
        **summarise(station.tally),
        "audit": station.audit.to_json(),
        "alarms": [asdict(alarm) for alarm in station.alarms.told],
        "model": station.model,
    }
    with _whole(output / "summary.json") as part:
        part.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    with _whole(output / "report.html") as part:
        write_report(part, station, summary)


def write_verdicts(ledger: Path, first_trigger: int, path: Path) -> None:
    """A line of JSON for each part of a run."""
    with (
        contextlib.closing(read(ledger)) as connection,
        path.open("w", encoding="utf-8") as stream,
    ):
        rows = connection.execute(
            "SELECT trigger, camera, state, triggered_ns, decided_ns, reason, detail FROM parts "
            "WHERE trigger >= ? ORDER BY trigger",
            (first_trigger,),
        )
        names = [column[0] for column in rows.description][:-1]
        for *values, detail in rows:
            content = {**dict(zip(names, values, strict=True)), **json.loads(detail)}
            stream.write(json.dumps(content, separators=(",", ":")) + "\n")


def summarise(tally: Tally) -> dict[str, Any]:
    """Counts and times of a run."""
    parts = tally.states.total()
    looked = sum(camera.num_looked for camera in tally.cameras.values())
    cells = sum(camera.num_looked * camera.flagged.size for camera in tally.cameras.values())
    return {
        "parts": parts,
        "states": dict(tally.states),
        "reasons": dict(tally.reasons.most_common(20)),
        "latency_ms": quantiles(tally.latency_ms),
        "stages_ms": {name: quantiles(values) for name, values in tally.stages_ms.items()},
        "tiles_per_part": tally.tiles / looked if looked else None,
        "flagged_share": tally.cells / cells if cells else None,
        "cameras": {name: dict(camera.states) for name, camera in tally.cameras.items()},
    }


def quantiles(values: Any) -> dict[str, float]:
    """Of some times; empty where there are none."""
    if not len(values):
        return {}
    found = np.quantile(np.asarray(values, np.float64), list(QUANTILES.values()))
    return dict(zip(QUANTILES, found.round(3).tolist(), strict=True))


@contextlib.contextmanager
def _whole(path: Path) -> Any:
    """A file beside, which takes this one's place when it is whole."""
    part = path.with_name(f".part-{path.name}")
    yield part
    os.replace(part, path)  # noqa: PTH105 - says what it does
