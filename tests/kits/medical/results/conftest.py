"""A scan of headers and a study of a few nodules, on grids of several kinds."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from kits.medical.findings import Finding, Findings
from kits.medical.geometry import Grid, Volume
from kits.medical.results.assemble import Context
from kits.medical.results.headers import save
from kits.medical.results.study import (
    Category,
    Growth,
    Measures,
    ModelFacts,
    Nodule,
    NotDetectable,
    Person,
    SolidCore,
    Source,
    Study,
)
from kits.medical.results.uids import derived_uid

HEAD_FIRST = [1, 0, 0, 0, 1, 0]
FEET_FIRST = [-1, 0, 0, 0, 1, 0]


def oblique():
    """Row and column directions of slices that are turned about two axes."""
    turn, tip = np.deg2rad(20), np.deg2rad(-12)
    about_z = [[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]]
    about_x = [[1, 0, 0], [0, np.cos(tip), -np.sin(tip)], [0, np.sin(tip), np.cos(tip)]]
    turned = np.array(about_z) @ np.array(about_x)
    return [*turned[:, 0], *turned[:, 1]]


def build_grid(shape=(12, 40, 48), spacing=(1.25, 0.7, 0.7), orientation=HEAD_FIRST):
    row, column = np.array(orientation, float).reshape(2, 3)
    axes = np.stack([np.cross(row, column), column, row])
    return Grid(shape, spacing, (-120.5, -87.25, -200.0), axes)


def build_headers(grid, **changes):
    """Headers of a CT on a grid, in the volume's order."""
    headers = []
    for index in range(grid.shape[0]):
        header = Dataset()
        header.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        header.SOPInstanceUID = derived_uid("test slice", str(index))
        header.StudyInstanceUID = derived_uid("test study")
        header.SeriesInstanceUID = derived_uid("test series")
        header.FrameOfReferenceUID = derived_uid("test frame")
        header.PositionReferenceIndicator = ""
        header.PatientName = "Doe^Jane"
        header.PatientID = "P-17"
        header.PatientBirthDate = "19560203"
        header.PatientSex = "F"
        header.PatientAge = "064Y"
        header.StudyDate, header.StudyTime = "20200310", "101112"
        header.SeriesDate, header.SeriesTime = "20200310", "101500"
        header.AcquisitionDate, header.AcquisitionTime = "20200310", "101501.5"
        header.ContentDate, header.ContentTime = "20200310", "101502"
        header.ReferringPhysicianName = "House^Gregory"
        header.StudyID, header.AccessionNumber = "S1", "A42"
        header.StudyDescription = "CT chest"
        header.InstitutionName = "General Hospital"
        header.Modality = "CT"
        header.Manufacturer = "ACME"
        header.ManufacturerModelName = "Scan 64"
        header.DeviceSerialNumber = "12345"
        header.SeriesNumber, header.InstanceNumber = 3, index + 1
        header.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        header.KVP, header.AcquisitionNumber = 120, 1
        header.BodyPartExamined, header.PatientPosition = "CHEST", "HFS"
        header.SliceThickness = grid.spacing_mm[0]
        header.PixelSpacing = list(grid.spacing_mm[1:])
        position = grid.to_patient(np.array([index, 0, 0]))
        header.ImagePositionPatient = [f"{value:.10g}" for value in position]
        header.ImageOrientationPatient = [f"{v:.10g}" for v in grid.axes[[2, 1]].reshape(-1)]
        header.Rows, header.Columns = grid.shape[1:]
        header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
        header.BitsAllocated, header.BitsStored, header.HighBit = 16, 16, 15
        header.PixelRepresentation = 1
        header.RescaleIntercept, header.RescaleSlope = 0, 1
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        for keyword, value in changes.items():
            setattr(header, keyword, value)
        headers.append(header)
    return headers


def make_mask(shape, seed):
    """A lump without symmetry, so that a flip or a shift shows."""
    random = np.random.default_rng(seed)
    d, h, w = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    mask = d**2 + 1.3 * h**2 + w**2 + 0.2 * w < 0.9 + 0.2 * random.random(shape)
    mask[shape[0] // 2, 1, shape[2] // 2] = True
    return mask


def make_measures(mask, window, grid, texture):
    counted = float(mask.sum()) * grid.voxel_mm3
    middle = (window[0].start + window[0].stop) // 2
    core = SolidCore(-300.0, counted / 3, 4.1, 3.3, 3.7, middle)
    return Measures(
        volume_mm3=counted * 1.03,
        volume_interval_mm3=(counted * 0.7, counted * 1.4),
        counted_volume_mm3=counted,
        long_axis_mm=8.3,
        short_axis_mm=6.1,
        mean_diameter_mm=7.2,
        max_diameter_3d_mm=9.4567891234567891,
        slice_index=middle,
        long_axis=((0.0, 0.0, 0.0), (8.3, 0.0, 0.0)),
        short_axis=((0.0, 0.0, 0.0), (0.0, 6.1, 0.0)),
        centre_mm=tuple(grid.to_patient(np.array([middle, window[1].start, window[2].start]))),
        mean_hu=-101.25,
        core=core if texture == "part_solid" else None,
    )


def make_category(rule_set="Lung-RADS", version="v2022", code="4A"):
    return Category(
        rule_set, version, code, {"en": "Suspicious"},
        {"en": ("solid, 8.3 mm ≥ 8 mm", "baseline")}, {"en": "CT in 3 months"}, "ACR 2022",
    )  # fmt: skip


GROWTHS = (
    None,
    Growth(
        "growing", "20190301", 375.0, 120.0, 5.9, None, derived_uid("test tracking", "1"),
        1.1, (0.4, 1.8), 332.0, (203.0, 913.0),
    ),
    Growth(
        "undecided", "20190301", 375.0, 100.0, 5.0, 3.0, derived_uid("test tracking", "2"),
        0.2, (-0.4, 0.8), 1826.0, (456.6, float("inf")),
    ),
)  # fmt: skip


def build_study(grid, num_nodules=3, *, is_phantom=False, with_prior=True):
    """A study of lumps that lie in different slices; the first two overlap in slices."""
    nodules = []
    for number in range(1, num_nodules + 1):
        shape = (5, 9 + number, 11)
        start = (min(2 * number - 2, grid.shape[0] - 5), 2 + 5 * number % 20, 3 + 9 * number % 30)
        window = tuple(slice(a, a + b) for a, b in zip(start, shape, strict=True))
        mask = make_mask(shape, number)
        texture = ("solid", "part_solid", "non_solid")[number % 3]
        finding = Finding(
            0.25 + 0.1 * number, (0.0, 0.0, 0.0), window, mask,
            (mask * 255).astype(np.uint8), (0.2, 0.3, 0.5),
        )  # fmt: skip
        growth = GROWTHS[number % 3] if with_prior else None
        nodules.append(
            Nodule(
                number,
                finding,
                make_measures(mask, window, grid, texture),
                texture,
                {"en": "right lung, upper third"},
                f"nodule-{number}",
                derived_uid("test tracking", str(number)),
                (make_category(), make_category("Fleischner", "2017", "solid ≥ 8 mm")),
                growth,
            )
        )
    source = Source(
        patient_name="Doe^Jane", patient_id="P-17", study_uid=derived_uid("test study"),
        series_uid=derived_uid("test series"), study_date="20200310",
    )  # fmt: skip
    lines = {"en": ("Nodules below 4.0 mm are likely missed at 1.25 mm slices.",)}
    model = ModelFacts("student", "2026.1", "ab" * 32, {"score": 0.35}, runtime="numpy fp32")
    return Study(
        source=source,
        grid=grid,
        nodules=tuple(nodules),
        not_detectable=NotDetectable(4.0, 1.25, 20.0, lines),
        model=model,
        is_phantom=is_phantom,
        lung_volume_ml=5200.0,
        categories=(make_category(),),
        prior_date="20190301" if with_prior else "",
        prior_study_uid=derived_uid("prior study") if with_prior else "",
        notes={"en": ("No lymph nodes were looked for.",)},
    )


GRIDS = {
    "plain": build_grid(),
    "thick": build_grid((9, 40, 48), (5.0, 0.9, 0.6)),
    "feet first": build_grid(orientation=FEET_FIRST),
    "oblique": build_grid(orientation=oblique()),
    "odd size": build_grid((11, 37, 43), (0.625, 0.81, 0.81)),
}


@pytest.fixture(params=GRIDS, ids=[name.replace(" ", "_") for name in GRIDS])
def grid(request):
    return GRIDS[request.param]


@pytest.fixture
def plain_grid():
    return GRIDS["plain"]


@pytest.fixture
def make_grid():
    return build_grid


@pytest.fixture
def make_headers():
    return build_headers


@pytest.fixture
def make_study():
    return build_study


@pytest.fixture
def study(plain_grid):
    return build_study(plain_grid)


@pytest.fixture
def headers(plain_grid):
    return build_headers(plain_grid)


@pytest.fixture
def validate(tmp_path):
    """Errors that dciodvfy, the validator of dicom3tools, finds in an object."""
    tool = shutil.which("dciodvfy")
    if tool is None:
        pytest.skip("dciodvfy is missing: `make system` installs dicom3tools")

    def errors(made):
        path = save(made, tmp_path / "checked.dcm")
        said = subprocess.run([tool, path], capture_output=True, errors="replace", check=False)
        return [line for line in said.stderr.splitlines() if line.startswith("Error")]

    return errors


@pytest.fixture
def dcmqi():
    """Run a program of dcmqi, which reads DICOM with another library (dcmtk)."""

    def run(program, *arguments):
        said = subprocess.run(
            [Path(sys.executable).with_name(program), *arguments],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert said.returncode == 0, said.stderr

    return run


def build_chest(scale=1.0):
    """A small chest with a solid, a part-solid and a non-solid nodule, and what finds them.

    Args:
        scale: of the nodules' diameters.
    """
    shape, spacing = (44, 90, 110), (2.5, 2.0, 2.0)
    grid = Grid(shape, spacing, (-109.0, -89.0, -200.0), np.eye(3)[::-1])
    z, y, x = np.meshgrid(
        *[(np.arange(n) - (n - 1) / 2) * step for n, step in zip(shape, spacing, strict=True)],
        indexing="ij",
    )
    hu = np.full(shape, -1000.0)
    hu[(x / 105) ** 2 + (y / 85) ** 2 < 1] = 40
    lungs = ((np.abs(x) - 48) / 38) ** 2 + (y / 60) ** 2 + (z / 50) ** 2 < 1
    hu[lungs] = -850
    findings = []
    for centre, radius, density, core, texture, score in (
        ((-48, 10, 20), 6.0, 40, 0.0, (0.9, 0.05, 0.05), 0.97),
        ((50, -12, -15), 10.0, -600, 5.0, (0.1, 0.8, 0.1), 0.81),
        ((-50, -20, -25), 8.0, -650, 0.0, (0.1, 0.1, 0.8), 0.55),
    ):
        away = np.sqrt((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2)
        share = np.clip((radius * scale - away) / 2 + 0.5, 0, 1)
        hu += (density - hu) * share
        hu += (40 - hu) * np.clip((core * scale - away) / 2 + 0.5, 0, 1) * (core > 0)
        mask = share >= 0.5
        places = np.argwhere(mask)
        low, high = places.min(axis=0) - 2, places.max(axis=0) + 3
        window = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        chance = np.round(255 * share[window]).astype(np.uint8)
        point = tuple(float(v) for v in grid.to_patient(places.mean(axis=0)))
        findings.append(Finding(score, point, window, mask[window], chance, texture))
    random = np.random.default_rng(0)
    voxels = np.round(hu + random.normal(0, 20, shape)).astype(np.int16)
    inside = np.argwhere(lungs)
    window = tuple(
        slice(int(a), int(b) + 1) for a, b in zip(inside.min(0), inside.max(0), strict=True)
    )
    volume = float(lungs.sum()) * grid.voxel_mm3 / 1000
    return Volume(grid, voxels), Findings(grid, tuple(findings), window, volume, {"total": 1.0})


@pytest.fixture(scope="session")
def chest():
    return build_chest()


@pytest.fixture(scope="session")
def make_chest():
    return build_chest


@pytest.fixture
def context():
    source = Source(
        patient_name="Doe^Jane", patient_id="P-17", birth_date="19560203", sex="F", age="064Y",
        study_uid=derived_uid("test study"), study_date="20200310", study_description="CT chest",
        accession_number="A42", series_uid=derived_uid("test series"), series_number="3",
        manufacturer="ACME", scanner="Scan 64", kernel="B50f", tube_kv=120.0,
        slice_thickness_mm=2.5,
    )  # fmt: skip
    model = ModelFacts(
        "student", "2026.1", "ab" * 32, {"score": 0.35, "mask": 0.5}, "phantom",
        is_phantom=True, runtime="numpy 2",
    )  # fmt: skip
    rules = ("lung_rads_2022", "c_lung_rads", "fleischner_2017")
    return Context(
        source, model, is_phantom=False, person=Person(age_years=64.0), rule_sets=rules,
        notes=("a note of the reader",),
    )  # fmt: skip
