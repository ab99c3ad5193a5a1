"""The export verb of every kit: a run's model, smaller if asked, converted, proven, packed, signed.

Everything is made in a temporary folder beside the output and moved there last: a target that is
wrong leaves nothing that could be taken for a bundle.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from core.convert.compressed import Compressed, compress
from core.convert.config import ExportConfig
from core.convert.export import ExportTrail, export_onnx
from core.convert.pack import Contents, golden_vectors, pack
from core.convert.parity import Parity, compare
from core.convert.parity_report import Entry, write_reports
from core.convert.provenance import run_facts, statement
from core.convert.sbom import bill, locked_wheels, requirements
from core.convert.source import Source
from core.convert.target import Artifact, Options, converter_of
from core.kit import Exportable, Kit
from edge.bundle import Bundle
from edge.device import BACKENDS
from edge.keys import Signer, load_signers
from edge.pipeline import Pipeline
from edge.target import machine

MODEL, MARK = "model.onnx", "parity.json"
NUM_OTHER_STEPS = 4
DAY_S = 86_400
STATES_THAT_RUN = ("verified", "emulated")


class ExportError(ValueError):
    """A target is wrong: nothing was written."""


@dataclass(frozen=True)
class Row:
    """What became of one target."""

    id: str
    state: str  # a target's state, or "skipped"
    size: int | None = None  # bytes
    max_error: float | None = None
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True)
class Exported:
    """What an export left."""

    bundle: Path
    folder: Path
    rows: tuple[Row, ...]
    tested: tuple[str, ...]  # targets on which the bundle was opened here


def export_run(cfg: ExportConfig, kit: Kit, *, console: Console | None = None) -> Exported:
    """Make `<output>/<kit>.ebundle` with its reports, and a folder for each target.

    Raises:
        ExportError: a target computes something else, or cannot be made.
        ValueError: the run is of another kit or not finished, or there is no key to sign with.
    """
    console = console or Console()
    run = Path(cfg.run)
    facts = run_facts(run)
    if facts["kit"] != kit.name:
        raise ValueError(
            f"run={cfg.run} is a run of kit {facts['kit']!r}; use kits.{facts['kit']}.export"
        )
    signers = load_signers()
    if not signers:
        raise ValueError("there is no key to sign with; make one with `python -m edge.keys new`")
    output = Path(cfg.output) if cfg.output else run / "export"
    _check_output(output)
    with _work_folder(output) as work, _progress(console, len(cfg.target.ids)) as say:
        job = _Job(cfg, kit, run, facts, work, say)
        path = job.make(signers)
        say("self-test of the bundle")
        tested = self_test(path)
        _replace(work, output)
    console.print(_table(kit.name, job.rows, tested))
    bundle = output / path.name
    console.print(f"bundle: {bundle} ({bundle.stat().st_size / 2**20:.1f} MiB)", soft_wrap=True)
    console.print(f"parity: {output / 'parity.html'}", soft_wrap=True)
    return Exported(bundle, output, tuple(job.rows), tested)


class _Job:
    """One export; `rows` fill as it goes on."""

    def __init__(
        self, cfg: ExportConfig, kit: Kit, run: Path, facts: dict[str, Any], work: Path, say: Any
    ) -> None:
        self.cfg, self.kit, self.run, self.facts = cfg, kit, run, facts
        self.work, self.say = work, say
        self.rows: list[Row] = []

    def make(self, signers: Sequence[Signer]) -> Path:
        """Convert, compare, report and pack."""
        cfg = self.cfg
        self.say("open the run")
        model = self.kit.open_run(self.run)
        self.say("portable ONNX")
        onnx = self.work / MODEL
        trail = export_onnx(model.source, onnx, opset=cfg.opset)
        smaller = None
        if cfg.compress.is_quantized or cfg.compress.is_pruned:
            self.say("compress")
            smaller = compress(cfg.compress, model, onnx, self.run / "compress")
            shutil.copyfile(smaller.onnx, onnx)
        source = smaller.source if smaller else model.source
        usual = Options(values={"tolerances": model.tolerances})
        options = smaller.options if smaller else usual
        entries, artifacts = self._targets(source, onnx, options)
        self._report(model, entries, trail)
        return self._pack(model, source, onnx, artifacts, smaller, signers)

    def _targets(
        self, source: Source, onnx: Path, options: Options
    ) -> tuple[list[Entry], list[Artifact]]:
        entries, artifacts = [], []
        for id_ in self.cfg.target.ids:
            self.say(id_)
            started = time.perf_counter()
            folder = self.work / id_
            folder.mkdir()
            try:
                converter = converter_of(id_)
                artifact = converter.convert(source, onnx, folder, id_, options)
            except (ModuleNotFoundError, ValueError) as error:
                if not self.cfg.target.skip_missing:
                    raise ExportError(f"target {id_!r} cannot be made: {error}") from error
                shutil.rmtree(folder)
                self.rows.append(Row(id_, "skipped", note=str(error)))
                continue
            runner = converter.open(artifact)
            parity = None
            if runner is not None and artifact.target.state in STATES_THAT_RUN:
                tolerance = artifact.target.tolerance
                parity = compare(source, runner, tolerance, seed=self.cfg.seed)
                if not parity.passed:
                    raise ExportError(
                        f"target {id_!r} does not compute what the run's model does: "
                        f"{parity.problems[0]}; nothing was written"
                    )
            entries.append(Entry(artifact.target, parity, artifact.notes))
            artifacts.append(artifact)
            size = sum((folder / name).stat().st_size for name in artifact.files)
            seconds = time.perf_counter() - started
            self.rows.append(Row(id_, artifact.target.state, size, _max_error(parity), seconds))
        if not artifacts:
            raise ExportError(
                "no target could be made: " + "; ".join(f"{r.id}: {r.note}" for r in self.rows)
            )
        return entries, artifacts

    def _report(self, model: Exportable, entries: list[Entry], trail: ExportTrail) -> None:
        write_reports(
            self.work / "parity.json",
            self.work / "parity.html",
            entries,
            model=model.source.name,
            origin=model.source.origin,
            trail=trail,
        )

    def _pack(
        self,
        model: Exportable,
        source: Source,
        onnx: Path,
        artifacts: list[Artifact],
        smaller: Compressed | None,
        signers: Sequence[Signer],
    ) -> Path:
        self.say("pack and sign")
        cfg, created = self.cfg, self.facts["created"]
        name = f"deepkits-{self.kit.name}"
        digest = hashlib.sha256(onnx.read_bytes()).hexdigest()
        wheels = locked_wheels()
        reports = {"parity.json": self.work / "parity.json"}
        if smaller:
            reports["compression.json"] = smaller.report
        settings = {
            "targets": [artifact.target.id for artifact in artifacts],
            "compress": asdict(cfg.compress),
            "opset": cfg.opset,
            "seed": cfg.seed,
        }
        contents = Contents(
            name=name,
            version=cfg.version,
            channel=cfg.channel,
            created=created,
            expires=None if cfg.valid_days is None else created + round(cfg.valid_days * DAY_S),
            rollback_index=cfg.rollback_index,
            license=model.license,
            intended_use=model.intended_use,
            source=source,
            onnx=onnx,
            artifacts=artifacts,
            golden=golden_vectors(source, cfg.num_vectors, cfg.seed),
            pre=model.pre,
            post=model.post,
            inputs=model.inputs,
            config_schema=model.config_schema,
            config_default=model.config_default,
            sbom=bill(name, cfg.version, digest, wheels, created),
            provenance=statement(
                self.run,
                self.facts,
                model_sha256=digest,
                export=settings,
                model=model.provenance,
            ),
            reports=reports,
            requirements=requirements(wheels),
        )
        path = self.work / f"{self.kit.name}.ebundle"
        pack(path, contents, signers, engines=cfg.engines)
        return path


def self_test(path: Path) -> tuple[str, ...]:
    """Open a bundle as a device does, on every target that this machine can run.

    Raises:
        ValueError: the bundle is refused, or a self-test fails.
    """
    bundle = Bundle.open(path)
    runnable = [
        target.id
        for target in bundle.targets.values()
        if target.state in STATES_THAT_RUN
        and target.arch in ("any", machine())
        and target.backend in BACKENDS
    ]
    for id_ in runnable:
        Pipeline.open(bundle, device=id_)
    return tuple(runnable)


def _max_error(parity: Parity | None) -> float | None:
    if parity is None:
        return None
    return max(output.max_absolute for case in parity.cases for output in case.outputs)


def _check_output(output: Path) -> None:
    """Refuse to replace a folder that is no earlier export."""
    if output.exists() and not (output / MARK).is_file() and any(output.iterdir()):
        raise ValueError(
            f"output={output} holds other things than an export; name a new folder, or empty it"
        )
    output.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _work_folder(output: Path) -> Iterator[Path]:
    """A folder beside the output, on the same disk; gone when the export fails."""
    work = Path(tempfile.mkdtemp(prefix=f".part-{output.name}-", dir=output.parent))
    try:
        yield work
    finally:
        if work.exists():
            shutil.rmtree(work)


def _replace(work: Path, output: Path) -> None:
    """Put the finished folder in the place of the earlier one."""
    (work / MODEL).unlink()
    work.chmod(0o755)
    if output.exists():
        shutil.rmtree(output)
    work.rename(output)


@contextmanager
def _progress(console: Console, num_targets: int) -> Iterator[Callable[[str], None]]:
    columns = (TextColumn("{task.description:<28}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("export", total=num_targets + NUM_OTHER_STEPS)

        def say(what: str) -> None:
            progress.update(task, description=what, advance=1)

        yield say


def _table(kit: str, rows: Sequence[Row], tested: Sequence[str]) -> Table:
    table = Table(title=f"{kit}: targets", title_justify="left", box=SIMPLE, padding=(0, 1, 0, 0))
    for name in ("target", "state", "tested", "MiB", "max error", "s"):
        left = name in ("target", "state")
        table.add_column(name, justify="left" if left else "right", no_wrap=True)
    for row in rows:
        table.add_row(
            row.id,
            row.state,
            "passed" if row.id in tested else "–",
            "–" if row.size is None else f"{row.size / 2**20:.1f}",
            "–" if row.max_error is None else f"{row.max_error:.1e}",
            f"{row.seconds:.0f}",
        )
    notes = [f"{row.id}: {row.note}" for row in rows if row.note]
    table.caption = "\n".join(notes) or None
    table.caption_justify = "left"
    return table
