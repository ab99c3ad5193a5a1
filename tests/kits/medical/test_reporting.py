"""The report verb on a phantom's files: everything, or one line that says why not."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pydicom
import pypdf
import pytest

from kits.medical import reporting
from kits.medical.config import ReportConfig
from kits.medical.data.config import PhantomData
from kits.medical.data.phantom_case import make_phantom
from kits.medical.data.phantom_dicom import write_series
from kits.medical.findings import Finding, Findings
from kits.medical.infer.lungs import find_lungs
from kits.medical.infer.network import NetworkFacts
from kits.medical.infer.settings import Settings
from kits.medical.results.deidentify import make_key
from kits.medical.results.study import Source

NUM_NODULES = 4
PATIENT = "PHANTOM"
FACTS = NetworkFacts(
    name="deepkits-medical", version="0.1.0", sha256="ab" * 32, target="x86_64", runtime="numpy 2",
    precision="float32", multiple=16, threshold=0.5, mask_threshold=0.5,
    provenance={"data": "phantom", "model": "student"},
)  # fmt: skip


@pytest.fixture(scope="module")
def phantom():
    data = PhantomData(pixel_mm=2.0, slice_mm=3.5, shape=(72, 140, 180))
    return make_phantom(data, "test", 1)


@pytest.fixture(scope="module")
def folders(phantom, tmp_path_factory):
    """The same phantom scanned twice, a year apart."""
    home = tmp_path_factory.mktemp("scans")
    for name, date in (("then", "20250301"), ("now", "20260301")):
        write_series(phantom, home / name, date)
    return home


@pytest.fixture
def reader(phantom, monkeypatch):
    """A network and a search that know the truth: a trained network's place."""

    def open_network(run, threads):
        return SimpleNamespace(facts=FACTS, settings=lambda **changes: Settings(**changes))

    def find_nodules(volume, network, settings, progress):
        progress("coarse", 1.0)
        lungs = find_lungs(volume)
        found = [truth(nodule) for nodule in phantom.case.nodules[:NUM_NODULES]]
        findings = [each for each in found if each.score >= settings.threshold]
        return Findings(volume.grid, tuple(findings), lungs.window, lungs.volume_ml, {"total": 0.1})

    def truth(nodule):
        mask = nodule.votes > 0
        place = [
            part.start + size / 2 for part, size in zip(nodule.window, mask.shape, strict=True)
        ]
        centre = tuple(float(v) for v in phantom.case.volume.grid.to_patient(np.array(place)))
        texture = (0.8, 0.1, 0.1) if nodule.texture > 4 else (0.1, 0.8, 0.1)
        chance = mask.astype(np.uint8) * np.uint8(255)
        return Finding(0.9, centre, nodule.window, mask, chance, texture)

    monkeypatch.setattr(reporting, "open_network", open_network)
    monkeypatch.setattr(reporting, "find_nodules", find_nodules)
    monkeypatch.setattr(reporting, "find_bundle", lambda run: run)


@pytest.fixture
def config(folders, tmp_path, reader):
    return ReportConfig(
        scan=str(folders / "now"), run="run", output=str(tmp_path / "report"), threads=1
    )


def refused(cfg, status, capsys):
    """What is said on standard error by a report that fails; it must leave nothing."""
    with pytest.raises(SystemExit) as stopped:
        reporting.report_scan(cfg)
    assert stopped.value.code == status
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_everything_is_written_and_says_what_it_is(config, capsys):
    output = reporting.report_scan(replace(config, languages=["en", "zh"]))
    names = sorted(path.name for path in output.iterdir())
    images = [f"key_image_{number:02d}.dcm" for number in range(1, NUM_NODULES + 1)]
    assert names == sorted(
        [*images, "findings.json", "report_en.pdf", "report_zh.pdf", "seg.dcm", "sr.dcm"]
    )
    content = json.loads((output / "findings.json").read_text())
    assert content["is_phantom"]
    assert content["model"]["is_phantom"]
    assert len(content["nodules"]) == NUM_NODULES
    assert pydicom.dcmread(output / "sr.dcm").VerificationFlag == "UNVERIFIED"
    assert len(pydicom.dcmread(output / "seg.dcm").SegmentSequence) == NUM_NODULES
    text = pypdf.PdfReader(output / "report_en.pdf").pages[0].extract_text()
    assert "PHANTOM: SIMULATED DATA" in text
    said = capsys.readouterr().out
    assert f"PHANTOM; {NUM_NODULES} nodules; Lung-RADS" in said
    assert "to be checked by a physician" in said


def test_a_given_threshold_decides_and_is_written_down(config, tmp_path):
    numbers = {}
    for threshold in (None, 0.95):
        cfg = replace(config, threshold=threshold, output=str(tmp_path / str(threshold)))
        content = json.loads((reporting.report_scan(cfg) / "findings.json").read_text())
        numbers[threshold] = len(content["nodules"]), content["model"]["thresholds"]["score"]
    assert numbers == {None: (NUM_NODULES, Settings().threshold), 0.95: (0, 0.95)}


def test_a_threshold_that_is_no_share_is_refused(config):
    with pytest.raises(ValueError, match=r"threshold=1.5 is not from 0 to 1; set threshold"):
        replace(config, threshold=1.5)


def test_the_same_scan_gives_the_same_bytes(config, tmp_path):
    first = reporting.report_scan(config)
    second = reporting.report_scan(replace(config, output=str(tmp_path / "again")))
    for path in first.iterdir():
        if path.name != "findings.json":  # holds wall times
            assert path.read_bytes() == (second / path.name).read_bytes(), path.name


def test_growth_is_told_against_a_report_and_against_a_scan(config, folders, tmp_path):
    before = reporting.report_scan(
        replace(config, scan=str(folders / "then"), output=str(tmp_path / "before"))
    )
    found = []
    for name, prior in (("report", before), ("scan", folders / "then")):
        cfg = replace(config, prior=str(prior), output=str(tmp_path / name))
        content = json.loads((reporting.report_scan(cfg) / "findings.json").read_text())
        assert content["prior_date"] == "20250301"
        found.append(content["nodules"])
    assert found[0] == found[1]
    states = [nodule["growth"]["state"] for nodule in found[0]]
    assert set(states) <= {"stable", "undecided"}  # nothing grew, and nothing is said to
    then = json.loads((before / "findings.json").read_text())["nodules"]
    assert [n["tracking_uid"] for n in found[0]] == [n["tracking_uid"] for n in then]


def test_what_is_shared_names_nobody(config, phantom, tmp_path):
    key = tmp_path / "key"
    make_key(key)
    output = reporting.report_scan(replace(config, share_key=str(key)))
    written = json.loads((output / "findings.json").read_text())["source"]
    secrets = [written["patient_id"], written["study_uid"], written["series_uid"]]
    shared = sorted((output / "shared").iterdir())
    assert {path.name for path in shared} >= {"seg.dcm", "sr.dcm", "report_en.pdf"}
    for path in shared:
        content = path.read_bytes()
        if path.suffix == ".pdf":
            pages = pypdf.PdfReader(path).pages
            content = "".join(page.extract_text() for page in pages).encode()
        for secret in secrets:
            assert secret.encode() not in content, (path.name, secret)


def test_a_missing_slice_is_refused_with_its_code_and_nothing_is_left(config, tmp_path, capsys):
    scan = tmp_path / "holed"
    scan.mkdir()
    for number, path in enumerate(sorted(Path(config.scan).iterdir())):
        if number != 50:
            (scan / path.name).write_bytes(path.read_bytes())
    said = refused(replace(config, scan=str(scan)), reporting.REFUSED, capsys)
    assert said.startswith("refused: ")
    assert "[missing_slices]" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["holed"]


@pytest.mark.parametrize("kind", ["report", "scan"])
def test_a_prior_of_another_patient_is_refused(config, folders, tmp_path, capsys, kind):
    if kind == "report":
        prior = reporting.report_scan(
            replace(config, scan=str(folders / "then"), output=str(tmp_path / "prior"))
        )
        path = prior / "findings.json"
        path.write_text(path.read_text().replace('"patient_id": "', '"patient_id": "X'))
        capsys.readouterr()
    else:
        prior = tmp_path / "prior"
        prior.mkdir()
        for path in (folders / "then").iterdir():
            dataset = pydicom.dcmread(path)
            dataset.PatientID = "somebody else"
            dataset.save_as(prior / path.name)
    cfg = replace(config, prior=str(prior))
    assert "[different_patients]" in refused(cfg, reporting.REFUSED, capsys)


def test_scans_in_the_wrong_order_are_refused(config, folders, capsys):
    cfg = replace(config, scan=str(folders / "then"), prior=str(folders / "now"))
    assert "[prior_not_earlier]" in refused(cfg, reporting.REFUSED, capsys)


def test_an_output_that_is_not_empty_is_refused_before_any_work(
    config, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(reporting, "read_scan", None)  # must not be reached
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "old.txt").write_text("old")
    assert "is not an empty folder" in refused(config, reporting.MISTAKE, capsys)
    assert (tmp_path / "report" / "old.txt").read_text() == "old"


def test_a_folder_that_is_not_there_is_refused(config, tmp_path, capsys):
    for key in ("scan", "prior"):
        cfg = replace(config, **{key: str(tmp_path / "nowhere")})
        assert "[no_folder]" in refused(cfg, reporting.REFUSED, capsys)


def test_a_run_without_a_bundle_is_a_mistake(config, tmp_path, capsys, monkeypatch):
    monkeypatch.undo()
    (tmp_path / "run").mkdir()
    said = refused(replace(config, run=str(tmp_path / "run")), reporting.MISTAKE, capsys)
    assert "has no export/medical.ebundle" in said


def test_a_report_that_fails_half_way_leaves_nothing(config, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise OSError("no space left on the disk")

    monkeypatch.setattr(reporting, "write_pdf", fail)
    assert "no space left" in refused(config, reporting.MISTAKE, capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "years"),
    [
        (Source(age="064Y"), 64.0),
        (Source(age="006M"), 0.5),
        (Source(birth_date="19560310", study_date="20200310"), 64.0),
        (Source(birth_date="", study_date="20200310"), None),
        (Source(age="old"), None),
    ],
)
def test_ages_come_from_the_headers(source, years):
    assert reporting.age_years(source) == (years and pytest.approx(years, abs=0.01))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"languages": ["de"]}, "languages=de is not a choice of en, zh"),
        ({"languages": []}, "is not a choice of en, zh"),
        ({"rules": ["lung_rads_2014"]}, "rules=lung_rads_2014 is not"),
        ({"setting": "checkup"}, "setting=checkup"),
        ({"risk": "medium"}, "risk=medium"),
        ({"threads": 0}, "threads=0 is below 1"),
    ],
)
def test_settings_that_are_no_choice_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        ReportConfig(scan="a", run="b", **change)


def test_the_report_needs_no_torch():
    code = "import kits.medical.reporting, sys; print('torch' in sys.modules)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
