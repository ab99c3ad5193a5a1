"""What a report says, as values: every object that is written (SEG, SR, image, PDF) reads these.

Lengths are millimetres, volumes cubic millimetres, intervals 95 %. Points are (x, y, z) in the
patient (LPS). Texts for people are mappings from language ("en" always, "zh") to text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kits.medical.findings import Finding
from kits.medical.geometry import Grid, Triple

Interval = tuple[float, float]  # low, high; 95 %
Segment = tuple[Triple, Triple]  # both ends of a line
Texts = Mapping[str, str]  # language -> text
GrowthState = Literal["new", "growing", "shrinking", "stable", "undecided", "unmatched"]


@dataclass(frozen=True)
class SolidCore:
    """The solid part of a part-solid nodule."""

    threshold_hu: float  # voxels of the mask at or above it, smoothed over; largest piece
    volume_mm3: float
    long_axis_mm: float
    short_axis_mm: float
    mean_diameter_mm: float  # of both axes, one decimal
    slice_index: int  # of the scan: where the core is largest


@dataclass(frozen=True)
class Measures:
    """Size of one nodule."""

    volume_mm3: float  # the reported one: edge voxels count by their probability
    volume_interval_mm3: Interval  # from how much readers differ at this size
    counted_volume_mm3: float  # voxels of the mask times the volume of one: what the SEG holds
    long_axis_mm: float  # longest line on slice_index, one decimal
    short_axis_mm: float  # longest line across it at a right angle, one decimal
    mean_diameter_mm: float  # mean of both, one decimal: what the rules take
    max_diameter_3d_mm: float  # longest line in any direction
    slice_index: int  # of the scan: the axial slice of largest area
    long_axis: Segment  # where the line lies
    short_axis: Segment
    centre_mm: Triple  # of mass of the mask
    mean_hu: float  # over the mask
    core: SolidCore | None = None  # part-solid nodules alone; None there too if nothing is solid
    volume_method: Literal["edge-weighted", "counted"] = "edge-weighted"


@dataclass(frozen=True)
class Category:
    """What one rule set says about one nodule, or about the scan."""

    rule_set: str  # "Lung-RADS"
    version: str  # "v2022"
    code: str  # "4A"
    meaning: Texts  # of the code
    rationale: Mapping[str, tuple[str, ...]]  # language -> lines: value, limit, outcome
    action: Texts  # what the rule set recommends
    source: str  # the publication


@dataclass(frozen=True)
class Growth:
    """One nodule against an earlier scan."""

    state: GrowthState
    prior_date: str = ""  # YYYYMMDD
    interval_days: float | None = None
    prior_volume_mm3: float | None = None
    prior_mean_diameter_mm: float | None = None
    prior_core_diameter_mm: float | None = None
    prior_tracking_uid: str = ""
    # log2 of the volume ratio per year, and its interval; 0 is no growth.
    doublings_per_year: float | None = None
    doublings_interval: Interval | None = None
    # Volume doubling time; None where the volume fell. The interval's high end is inf where no
    # growth is possible too; there is no interval where growth is ruled out.
    vdt_days: float | None = None
    vdt_interval_days: Interval | None = None
    note: Texts = field(default_factory=dict)  # why undecided or unmatched


@dataclass(frozen=True)
class Nodule:
    """One nodule of the report."""

    number: int  # 1 is the first in the report; also its segment number
    finding: Finding
    measures: Measures
    texture: str  # one of findings.TEXTURES
    location: Texts  # "right lung, upper third"; an estimate
    tracking_id: str  # for people: "nodule-1"
    tracking_uid: str  # a DICOM UID; that of the prior's nodule where one was matched
    categories: tuple[Category, ...] = ()  # in the order of Study.rule_sets
    growth: Growth | None = None  # None: no prior was given


@dataclass(frozen=True)
class Source:
    """The scan in the words of its headers; empty where they say nothing."""

    patient_name: str = ""
    patient_id: str = ""
    birth_date: str = ""  # YYYYMMDD
    sex: str = ""
    age: str = ""  # DICOM's: 064Y
    study_uid: str = ""
    study_date: str = ""  # YYYYMMDD
    study_time: str = ""
    study_description: str = ""
    accession_number: str = ""
    institution: str = ""
    series_uid: str = ""
    series_number: str = ""
    series_description: str = ""
    series_reasons: tuple[str, ...] = ()  # why this series, or what to know about it
    manufacturer: str = ""
    scanner: str = ""
    kernel: str = ""
    tube_kv: float | None = None
    slice_thickness_mm: float | None = None


@dataclass(frozen=True)
class Person:
    """What was said about the patient beside the images; None and unknown where nothing was."""

    setting: str = "unknown"  # screening, incidental, unknown
    risk: str = "unknown"  # of lung cancer: low, high, unknown
    cancer: bool | None = None
    immunosuppressed: bool | None = None
    age_years: float | None = None  # by the headers


@dataclass(frozen=True)
class NotDetectable:
    """What this scan cannot show, and why."""

    smallest_mm: float  # nodules below are likely missed
    thickness_mm: float  # the larger of slice thickness and distance
    noise_hu: float  # standard deviation, measured
    lines: Mapping[str, tuple[str, ...]]  # language -> sentences


@dataclass(frozen=True)
class ModelFacts:
    """What looked at the scan."""

    name: str
    version: str
    sha256: str  # of the bundle's manifest, or of the run's weights
    thresholds: Mapping[str, float] = field(default_factory=dict)
    trained_on: str = ""  # the data source's name
    is_phantom: bool = False  # trained on phantoms
    runtime: str = ""  # backend and precision


@dataclass(frozen=True)
class Study:
    """Everything a report says about one scan."""

    source: Source
    grid: Grid  # of the scan
    nodules: tuple[Nodule, ...]
    not_detectable: NotDetectable
    model: ModelFacts
    is_phantom: bool  # the scan is a phantom's
    lung_volume_ml: float
    categories: tuple[Category, ...] = ()  # of the whole scan, one for each rule set
    person: Person = field(default_factory=Person)
    prior_date: str = ""
    prior_study_uid: str = ""
    notes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # of the whole scan
    seconds: Mapping[str, float] = field(default_factory=dict)  # step -> wall time

    @property
    def rule_sets(self) -> tuple[str, ...]:
        """Names of the rule sets, in order."""
        return tuple(category.rule_set for category in self.categories)
