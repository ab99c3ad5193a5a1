"""Coded concepts of the objects, and how one is written.

Concepts are the standard's (DCM, SNOMED CT, RadLex, NCI, UCUM) where it has them. What it has none
for is coded in the project's own scheme, which every object that uses it describes.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from pydicom.dataset import Dataset

OWN_SCHEME = "99DEEPKITS"
SHORT = 16  # characters of a Code Value (SH)
MEANING = 64  # of a Code Meaning (LO)


class Code(NamedTuple):
    """A coded concept."""

    value: str
    scheme: str
    meaning: str

    def item(self) -> Dataset:
        """The concept as an item of a code sequence."""
        item = Dataset()
        item.CodeValue = self.value
        item.CodingSchemeDesignator = self.scheme
        item.CodeMeaning = self.meaning
        return item


def own(value: str, meaning: str) -> Code:
    """A concept of the project's own; what is too long is cut, and told apart by a digest."""
    short = re.sub(r"[^A-Za-z0-9.:+-]", "", value)
    if len(short) > SHORT:
        digest = hashlib.sha256(value.encode()).hexdigest()[:6]
        short = f"{short[: SHORT - 7]}-{digest}"
    return Code(short, OWN_SCHEME, meaning[:MEANING])


def scheme_items() -> list[Dataset]:
    """Items of Coding Scheme Identification that say what the own scheme is."""
    item = Dataset()
    item.CodingSchemeDesignator = OWN_SCHEME
    item.CodingSchemeName = "deepkits: concepts of the medical kit's reports"
    item.CodingSchemeResponsibleOrganization = "deepkits"
    return [item]


# What is segmented, and where.
ABNORMAL_STRUCTURE = Code("49755003", "SCT", "Morphologically Abnormal Structure")
NODULE = Code("27925004", "SCT", "Nodule")
NODULE_OF_LUNG = Code("786838002", "SCT", "Nodule of lung")
LUNG = Code("39607008", "SCT", "Lung")
AI = Code("123109", "DCM", "Artificial Intelligence")
SEGMENTATION = Code("113076", "DCM", "Segmentation")
SOURCE_IMAGE = Code("121322", "DCM", "Source image for image processing operation")

# The report's frame (TID 1500, 1600, 1204, 1002, 4019).
REPORT = Code("126000", "DCM", "Imaging Measurement Report")
LANGUAGE = Code("121049", "DCM", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
OBSERVER_TYPE = Code("121005", "DCM", "Observer Type")
DEVICE = Code("121007", "DCM", "Device")
DEVICE_UID = Code("121012", "DCM", "Device Observer UID")
DEVICE_NAME = Code("121013", "DCM", "Device Observer Name")
DEVICE_MANUFACTURER = Code("121014", "DCM", "Device Observer Manufacturer")
DEVICE_MODEL = Code("121015", "DCM", "Device Observer Model Name")
DEVICE_SERIAL = Code("121016", "DCM", "Device Observer Serial Number")
PROCEDURE = Code("121058", "DCM", "Procedure reported")
CHEST_CT = Code("24627-2", "LN", "CT Chest")
IMAGE_LIBRARY = Code("111028", "DCM", "Image Library")
LIBRARY_GROUP = Code("126200", "DCM", "Image Library Group")
MODALITY = Code("121139", "DCM", "Modality")
CT = Code("CT", "DCM", "Computed Tomography")
FRAME_OF_REFERENCE = Code("112227", "DCM", "Frame of Reference UID")
MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")
GROUP = Code("125007", "DCM", "Measurement Group")
TRACKING_ID = Code("112039", "DCM", "Tracking Identifier")
TRACKING_UID = Code("112040", "DCM", "Tracking Unique Identifier")
FINDING = Code("121071", "DCM", "Finding")
FINDING_SITE = Code("363698007", "SCT", "Finding Site")
REFERENCED_SEGMENT = Code("121191", "DCM", "Referenced Segment")
SOURCE_SERIES = Code("121232", "DCM", "Source series for segmentation")
SOURCE_OF_MEASUREMENT = Code("121112", "DCM", "Source of Measurement")
ALGORITHM_NAME = Code("111001", "DCM", "Algorithm Name")
ALGORITHM_VERSION = Code("111003", "DCM", "Algorithm Version")
ALGORITHM_PARAMETERS = Code("111002", "DCM", "Algorithm Parameters")
COMMENT = Code("121106", "DCM", "Comment")

# Measurements.
VOLUME = Code("118565006", "SCT", "Volume")
LONG_AXIS = Code("103339001", "SCT", "Long Axis")
SHORT_AXIS = Code("103340004", "SCT", "Short Axis")
DIAMETER = Code("81827009", "SCT", "Diameter")
ATTENUATION = Code("112031", "DCM", "Attenuation Coefficient")
MEAN = Code("373098007", "SCT", "Mean")
DERIVATION = Code("121401", "DCM", "Derivation")
METHOD = Code("370129005", "SCT", "Measurement Method")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
SEGMENTED_VOXELS = Code("126030", "DCM", "Sum of segmented voxel method for volume")
PARTIAL_VOLUME = own("partial-volume", "Edge voxels counted by their probability")
VOLUME_LOW = own("volume-low", "Volume, lower 95 % limit")
VOLUME_HIGH = own("volume-high", "Volume, upper 95 % limit")
SEGMENT_VOLUME = own("segment-volume", "Volume of the referenced segment")
LARGEST_DIAMETER = own("longest-3d", "Longest line in any direction")
CORE_VOLUME = own("core-volume", "Volume of the solid core")
CORE_LONG = own("core-long", "Long axis of the solid core")
CORE_SHORT = own("core-short", "Short axis of the solid core")
CORE_DIAMETER = own("core-diameter", "Mean diameter of the solid core")
CORE_THRESHOLD = own("core-threshold", "Attenuation from which on voxels are solid")
INTERVAL = own("prior-interval", "Time since the prior examination")
PRIOR_VOLUME = own("prior-volume", "Volume at the prior examination")
PRIOR_DIAMETER = own("prior-diameter", "Mean diameter at the prior examination")
PRIOR_CORE = own("prior-core", "Core's mean diameter at the prior examination")
DOUBLINGS = own("doublings", "Doublings of the volume per year")
DOUBLINGS_LOW = own("doublings-low", "Doublings per year, lower 95 % limit")
DOUBLINGS_HIGH = own("doublings-high", "Doublings per year, upper 95 % limit")
DOUBLING_TIME = own("vdt", "Volume doubling time")
DOUBLING_TIME_LOW = own("vdt-low", "Volume doubling time, lower 95 % limit")
DOUBLING_TIME_HIGH = own("vdt-high", "Volume doubling time, upper 95 % limit")
MILLIMETRE = Code("mm", "UCUM", "millimeter")
CUBIC_MILLIMETRE = Code("mm3", "UCUM", "cubic millimeter")
PERCENT = Code("%", "UCUM", "Percent")
DAY = Code("d", "UCUM", "day")
PER_YEAR = Code("/a", "UCUM", "per year")
HOUNSFIELD = Code("[hnsf'U]", "UCUM", "Hounsfield unit")

# Evaluations.
TEXTURE = Code("C41144", "NCIt", "Texture")
TEXTURES = {
    "solid": Code("RID50151", "RADLEX", "solid pulmonary nodule"),
    "part_solid": Code("RID50152", "RADLEX", "part-solid pulmonary nodule"),
    "non_solid": Code("RID50153", "RADLEX", "non-solid pulmonary nodule"),
}
GROWTH = own("growth", "Change against the prior examination")
GROWTHS = {
    "new": own("growth-new", "New: not seen before"),
    "growing": own("growth-growing", "Growing: beyond how much readers differ"),
    "shrinking": own("growth-shrinks", "Shrinking: beyond how much readers differ"),
    "stable": own("growth-stable", "Stable"),
    "undecided": own("growth-open", "Undecided: the change is within the uncertainty"),
    "unmatched": own("growth-unmatched", "Not matched with a nodule of the prior"),
}
RATIONALE = own("rationale", "Rationale")
STATUS = own("status", "Status of this report")
UNVERIFIED = own("unverified", "Unverified, for research use")
PHANTOM = own("phantom", "Phantom data: no patient")
LIMITS = own("not-detectable", "Not detectable in this scan")
LOCATION = own("location", "Estimated location")
NOTE = own("note", "Note")
RESULT = own("result", "Result")
NO_NODULE = own("no-nodule", "No nodule reported")
NODULES = own("nodules", "Nodules reported")
