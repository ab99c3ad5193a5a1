"""From a phantom's DICOM files to every object of its report, and those for sharing."""

import json

import numpy as np
import pytest
import SimpleITK

from kits.medical.data.phantom_dicom import SeriesSettings, make_series, write_series
from kits.medical.dicom import read_scan
from kits.medical.findings import Finding, Findings
from kits.medical.results.assemble import Context, build_study
from kits.medical.results.deidentify import deidentify
from kits.medical.results.headers import save
from kits.medical.results.key_image import key_images
from kits.medical.results.seg import segmentation
from kits.medical.results.sr import structured_report
from kits.medical.results.study import ModelFacts, Person

pytestmark = pytest.mark.slow
KEY = b"k" * 64
RULES = ("lung_rads_2022", "c_lung_rads", "fleischner_2017")


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A scan as it was read, and a study of what its makers know to be in it."""
    folder = tmp_path_factory.mktemp("phantom") / "scan"
    settings = SeriesSettings(number=2, shape="72,192,192", slice_mm=3.0, pixel_mm=1.8)
    phantom = make_series(settings)
    write_series(phantom, folder)
    scan = read_scan(folder)
    grid = scan.volume.grid
    findings = []
    for nodule in phantom.case.nodules:
        votes = np.unpackbits(nodule.votes[..., None], axis=-1).sum(axis=-1)
        mask = 2 * votes >= nodule.num_readers
        middle = np.array([(part.start + part.stop - 1) / 2 for part in nodule.window])
        centre = tuple(float(value) for value in grid.to_patient(middle))
        share = (255 * votes / nodule.num_readers).clip(0, 255).astype(np.uint8)
        findings.append(Finding(0.9, centre, nodule.window, mask, share, (0.8, 0.1, 0.1)))
    everywhere = tuple(slice(0, size) for size in grid.shape)
    model = ModelFacts("student", "1", "ab" * 32, {"score": 0.3}, is_phantom=True)
    context = Context(scan.source, model, True, Person(), RULES, scan.notes)  # noqa: FBT003
    study = build_study(scan.volume, Findings(grid, tuple(findings), everywhere, 5000.0), context)
    assert len(study.nodules) > 3
    return scan, study


@pytest.fixture(scope="module")
def objects(reported):
    scan, study = reported
    segments = segmentation(study, scan.datasets)
    report = structured_report(study, scan.datasets, segments)
    return [segments, report, *key_images(study, scan.datasets, scan.volume.voxels)]


def test_the_validator_finds_no_error(objects, validate):
    for made in objects:
        assert validate(made) == []
        assert validate(deidentify(made, KEY)) == []


def test_another_reader_finds_the_masks_volumes(reported, objects, dcmqi, tmp_path):
    path = save(objects[0], tmp_path / "seg.dcm")
    dcmqi("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path, "-t", "nrrd")
    for nodule in reported[1].nodules:
        image = SimpleITK.ReadImage(str(tmp_path / f"{nodule.number}.nrrd"))
        count = np.count_nonzero(SimpleITK.GetArrayFromImage(image))
        assert count == np.count_nonzero(nodule.finding.mask)
        volume_mm3 = count * np.prod(image.GetSpacing())
        assert volume_mm3 == pytest.approx(nodule.measures.counted_volume_mm3, rel=1e-6)


def test_another_reader_finds_the_reports_numbers(reported, objects, dcmqi, tmp_path):
    for made in (objects[1], deidentify(objects[1], KEY)):
        path = save(made, tmp_path / "sr.dcm")
        dcmqi("tid1500reader", "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
        groups = json.loads((tmp_path / "sr.json").read_text())["Measurements"]
        for group, nodule in zip(groups, reported[1].nodules, strict=True):
            found = {
                item["quantity"]["CodeMeaning"]: float(item["value"])
                for item in group["measurementItems"]
            }
            assert found["Long Axis"] == nodule.measures.long_axis_mm
            assert found["Diameter"] == nodule.measures.mean_diameter_mm
            assert found["Volume"] == pytest.approx(nodule.measures.volume_mm3, rel=1e-13)


def test_every_object_says_that_it_is_a_phantoms(objects):
    for made in objects:
        assert made.QualityControlSubject == "YES"
        assert "PHANTOM" in made.SeriesDescription
        assert "unverified" in made.SeriesDescription
