"""The report verb: one scan in, a folder of objects out, or one line that says why not."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from kits.medical.config import ReportConfig
from kits.medical.dicom import Scan, interval_days, read_scan
from kits.medical.findings import Findings
from kits.medical.infer.find import find_nodules
from kits.medical.infer.lungs import NoLungs
from kits.medical.infer.network import NetworkFacts, OpenNetwork, find_bundle, open_network
from kits.medical.infer.settings import Settings
from kits.medical.refusals import Refusal
from kits.medical.results.assemble import Context, build_study
from kits.medical.results.deidentify import deidentify, deidentify_source, read_key
from kits.medical.results.headers import save
from kits.medical.results.key_image import key_images
from kits.medical.results.matching import Box, lung_box
from kits.medical.results.pdf import write_pdf
from kits.medical.results.pdf_text import Typesetter
from kits.medical.results.priors import Prior, from_report, from_study
from kits.medical.results.seg import segmentation
from kits.medical.results.sr import structured_report
from kits.medical.results.study import ModelFacts, Person, Source, Study
from kits.medical.results.summary import SUMMARY_FILE, write_summary

MISTAKE, REFUSED = 2, 3  # exit status
SHARED = "shared"
DAYS_A_YEAR = 365.25
UNITS = {"D": 1.0, "W": 7.0, "M": DAYS_A_YEAR / 12, "Y": DAYS_A_YEAR}  # of DICOM's ages
# Share of the work, for the bar.
WEIGHTS = {"read": 25.0, "find": 50.0, "write": 25.0}
Tell = Callable[[str, float], None]  # what, share of it that is done


def report_scan(cfg: ReportConfig) -> Path:
    """Write the report of a scan.

    Returns:
        the folder.

    Raises:
        SystemExit: with status 2 or 3, after one line on standard error.
    """
    try:
        return _report(cfg)
    except (Refusal, NoLungs) as refusal:
        text = str(refusal) if isinstance(refusal, Refusal) else f"{refusal} [{refusal.code}]"
        print(f"refused: {text}", file=sys.stderr)
        raise SystemExit(REFUSED) from refusal
    except (ValueError, OSError, ModuleNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(MISTAKE) from error


@dataclass(frozen=True)
class _Job:
    """What a report needs, checked."""

    cfg: ReportConfig
    output: Path
    prior: Path | None
    key: bytes | None
    network: OpenNetwork
    settings: Settings
    threads: int


def _report(cfg: ReportConfig) -> Path:
    started = time.perf_counter()
    job = _check(cfg)
    seconds = {"opening": _since(started)}
    with _bar(has_prior=_is_scan(job.prior)) as stage:
        scan = _read(Path(cfg.scan), cfg.series, job, stage("reading the scan", "read"))
        seconds["reading"] = _since(started) - seconds["opening"]
        prior = _prior(job, scan, stage)
        findings = _find(scan, job, stage("searching the scan", "find"))
        study = build_study(scan.volume, findings, _context(scan, job), prior)
        seconds |= {**study.seconds, "until_writing": _since(started)}
        study = replace(study, seconds=seconds)
        with _whole_or_nothing(job.output) as folder:
            box = lung_box(findings.grid, findings.lung_window)
            _write(study, scan, box, job, folder, stage("writing", "write"))
    _say_result(study, job.output, _since(started))
    return job.output


def _check(cfg: ReportConfig) -> _Job:
    """Everything that can be known to fail before any work."""
    output = Path(cfg.output)
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output={output} is not an empty folder; name a new one")
    if not Path(cfg.scan).is_dir():
        raise Refusal("no_folder", f"scan={cfg.scan} is not a folder; give a folder of DICOM files")
    prior = None if cfg.prior is None else Path(cfg.prior)
    if prior is not None and not prior.is_dir():
        raise Refusal("no_folder", f"prior={prior} is not a folder; give a scan's or a report's")
    find_bundle(Path(cfg.run))
    key = None if cfg.share_key is None else read_key(Path(cfg.share_key))
    for language in cfg.languages:
        Typesetter(language)
    threads = cfg.threads or len(os.sched_getaffinity(0))
    network = open_network(cfg.run, threads)
    changes = {} if cfg.threshold is None else {"threshold": cfg.threshold}
    settings = network.settings(threads=threads, **changes)
    return _Job(cfg, output, prior, key, network, settings, threads)


def _is_scan(folder: Path | None) -> bool:
    return folder is not None and not (folder / SUMMARY_FILE).is_file()


def _read(folder: Path, series: str | None, job: _Job, tell: Tell) -> Scan:
    def progress(step: str, share: float) -> None:
        tell(step, share / 2 + (0.5 if step == "pixels" else 0.0))

    try:
        scan = read_scan(folder, series, threads=job.threads, progress=progress)
    except Refusal as refusal:
        refusal.args = (f"{folder}: {refusal}",)
        raise
    tell("pixels", 1.0)
    return scan


def _find(scan: Scan, job: _Job, tell: Tell) -> Findings:
    shares = {"lungs": 0.1, "coarse": 0.5, "candidates": 0.0, "fine": 0.4}
    before = dict(zip(shares, (0.0, 0.1, 0.6, 0.6), strict=True))

    def progress(step: str, share: float) -> None:
        tell(step, before.get(step, 0.0) + shares.get(step, 0.0) * share)

    return find_nodules(scan.volume, job.network, job.settings, progress)


def _prior(job: _Job, scan: Scan, stage: Callable[[str, str], Tell]) -> Prior | None:
    """The earlier scan: read from its report, or looked at now."""
    if job.prior is None:
        return None
    if not _is_scan(job.prior):
        return from_report(job.prior, scan.source)
    earlier = _read(job.prior, None, job, stage("reading the prior", "read"))
    days = interval_days(earlier, scan)
    findings = _find(earlier, job, stage("searching the prior", "find"))
    study = build_study(earlier.volume, findings, _context(earlier, job))
    box = lung_box(findings.grid, findings.lung_window)
    return from_study(study, box, float(days))


def _context(scan: Scan, job: _Job) -> Context:
    cfg = job.cfg
    return Context(
        source=scan.source,
        model=model_facts(job.network.facts, job.settings),
        is_phantom=is_phantom(scan),
        person=Person(
            setting=cfg.setting,
            risk=cfg.risk,
            cancer=cfg.cancer,
            immunosuppressed=cfg.immunosuppressed,
            age_years=age_years(scan.source),
        ),
        rule_sets=tuple(cfg.rules),
        notes=(*scan.choice.reasons, *scan.notes),
    )


def model_facts(facts: NetworkFacts, settings: Settings) -> ModelFacts:
    """What a report says of the network, and of how it was used."""
    known = facts.provenance
    data = str(known.get("data", ""))
    return ModelFacts(
        name=str(known.get("model") or facts.name),
        version=facts.version,
        sha256=facts.sha256,
        thresholds={"score": settings.threshold, "mask": settings.mask_threshold},
        trained_on=data,
        is_phantom=data == "phantom",
        runtime=f"{facts.runtime}, {facts.precision}",
    )


def is_phantom(scan: Scan) -> bool:
    """Whether the headers say that nobody was scanned."""
    dataset = scan.datasets[0]
    kinds = [str(part).upper() for part in dataset.get("ImageType") or ()]
    return "PHANTOM" in kinds or str(dataset.get("QualityControlSubject", "")).upper() == "YES"


def age_years(source: Source) -> float | None:
    """The patient's age at the scan, if the headers tell it."""
    text = source.age
    if len(text) == 4 and text[:3].isdigit() and text[3] in UNITS:
        return int(text[:3]) * UNITS[text[3]] / DAYS_A_YEAR
    try:
        born, seen = (
            date(int(day[:4]), int(day[4:6]), int(day[6:]))
            for day in (source.birth_date, source.study_date)
        )
    except ValueError:
        return None
    return (seen - born).days / DAYS_A_YEAR


def _write(study: Study, scan: Scan, box: Box, job: _Job, folder: Path, tell: Tell) -> None:
    made = segmentation(study, scan.datasets)
    objects = {} if made is None else {"seg.dcm": made}
    objects["sr.dcm"] = structured_report(study, scan.datasets, made)
    tell("objects", 0.3)
    for number, image in enumerate(key_images(study, scan.datasets, scan.volume.voxels), start=1):
        objects[f"key_image_{number:02d}.dcm"] = image
    for name, dataset in objects.items():
        save(dataset, folder / name)
    tell("objects", 0.5)
    for language in job.cfg.languages:
        write_pdf(study, scan.volume, language, folder / f"report_{language}.pdf")
    write_summary(study, box, folder / SUMMARY_FILE)
    if job.key is not None:
        shared = folder / SHARED
        shared.mkdir()
        for name, dataset in objects.items():
            save(deidentify(dataset, job.key), shared / name)
        anonymous = _anonymous(study, job.key)
        for language in job.cfg.languages:
            write_pdf(anonymous, scan.volume, language, shared / f"report_{language}.pdf")
    tell("objects", 1.0)


def _anonymous(study: Study, key: bytes) -> Study:
    """A study whose page names nobody: no dates of other scans, no words of the headers."""
    nodules = tuple(
        replace(each, growth=each.growth and replace(each.growth, prior_date=""))
        for each in study.nodules
    )
    source = deidentify_source(study.source, key)
    return replace(study, source=source, nodules=nodules, prior_date="", notes={})


@contextmanager
def _whole_or_nothing(output: Path) -> Iterator[Path]:
    """A folder beside the output that takes its place once everything is in it."""
    output.parent.mkdir(parents=True, exist_ok=True)
    # Its owner's alone, for it holds a patient's data.
    work = Path(tempfile.mkdtemp(prefix=f".part-{output.name}-", dir=output.parent))
    try:
        yield work
        if output.exists():
            output.rmdir()  # it is empty, or somebody wrote into it since: then this fails
        work.rename(output)
    finally:
        if work.exists():
            shutil.rmtree(work)


@contextmanager
def _bar(*, has_prior: bool) -> Iterator[Callable[[str, str], Tell]]:
    """A bar over all stages; the callable starts a stage and gives what moves it."""
    total = sum(WEIGHTS.values()) + (WEIGHTS["read"] + WEIGHTS["find"]) * has_prior
    columns = (TextColumn("{task.description:<20}"), BarColumn(), TimeElapsedColumn())
    console = Console(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as bar:
        task = bar.add_task("report", total=total)
        ended = 0.0

        def stage(title: str, kind: str) -> Tell:
            nonlocal ended
            begin, weight = ended, WEIGHTS[kind]
            ended += weight
            bar.update(task, description=title, completed=begin)
            return lambda _, share: bar.update(task, completed=begin + weight * share)

        yield stage


def _say_result(study: Study, output: Path, seconds: float) -> None:
    count = len(study.nodules)
    phantom = "PHANTOM; " if study.is_phantom else ""
    codes = "; ".join(f"{each.rule_set} {each.code}" for each in study.categories)
    print(f"{output}: {phantom}{count} nodule{'s' * (count != 1)}; {codes}; {seconds:.1f} s")
    for nodule in study.nodules:
        sizes = nodule.measures
        growth = f", {nodule.growth.state}" if nodule.growth else ""
        print(
            f"  {nodule.number}: {nodule.texture.replace('_', '-')}, "
            f"{sizes.mean_diameter_mm:.1f} mm, {sizes.volume_mm3:.0f} mm³, "
            f"{nodule.location['en']}, score {nodule.finding.score:.2f}{growth}"
        )
    print("unverified, for research use: every finding is to be checked by a physician")


def _since(started: float) -> float:
    return time.perf_counter() - started
