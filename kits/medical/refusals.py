"""Why a scan is not read: every reason has a code.

A wrong length, volume or density is worse than none, so what cannot be read for certain is refused.
The message says what was seen, the rule, and what to do; the code is for programs.
"""

from __future__ import annotations

CODES = {
    # the folder
    "no_folder": "the path is not a folder",
    "no_dicom": "no DICOM image in it",
    "too_many_files": "more files than a patient's studies have",
    "too_large": "a file, an image or the volume is larger than any chest CT",
    "unreadable_file": "a DICOM file that cannot be read, or ends early",
    "skipped_file": "a link, or no DICOM file, is named like the slices",
    "split_series": "a part of the series carries another series UID",
    "missing_file": "the DICOMDIR lists a slice that is not there",
    "several_patients": "more than one patient",
    "several_studies": "more than one CT study, and none was named",
    "unknown_series": "the series that was named is not there",
    # what kind of object
    "wrong_modality": "not CT",
    "wrong_body_part": "not of the chest",
    "secondary_capture": "a picture of an image instead of an image",
    "enhanced_multiframe": "all slices in one file: not read yet",
    "localiser": "a scout view",
    "localiser_inside": "a scout view among the slices",
    "derived": "computed from other images (MIP, MPR, average ...)",
    "burned_in": "text is drawn into the pixels",
    "lossy": "the pixels were compressed with loss",
    # headers
    "missing_tag": "a header lacks what must be known",
    "bad_tag": "a header says what cannot be",
    "missing_frame_of_reference": "positions refer to nothing",
    "mixed_frames": "slices with different frames of reference",
    "mixed_orientation": "slices of different orientation",
    "mixed_matrix": "slices with different numbers of rows or columns",
    "mixed_spacing": "slices with different pixel spacing",
    "mixed_field": "slices with different reconstructed fields of view",
    "mixed_kernel": "slices with different reconstruction kernels",
    "mixed_thickness": "slices of different thickness",
    "mixed_acquisition": "slices with different tube voltage",
    # geometry
    "not_orthogonal": "rows and columns are not at right angles, or not unit vectors",
    "not_axial": "coronal or sagittal slices",
    "gantry_tilt": "slices are not at right angles to the table's movement",
    "shifted_slices": "slices are shifted against each other",
    "conflicting_copies": "one identifier, two contents",
    "duplicate_slices": "two slices at one position",
    "repeated_pixels": "the same pixels at two positions",
    "missing_slices": "a slice's place is empty",
    "uneven_spacing": "distances between slices differ",
    "gaps": "slices are thinner than their distance",
    "spacing_conflict": "two headers disagree about distances",
    "implausible_spacing": "pixels of a size that no CT has",
    "too_thick": "slices too thick for nodules",
    "too_few_slices": "too few slices for a volume",
    # pixels
    "transfer_syntax": "compressed in a way that nothing here can undo",
    "pixel_format": "not one 16-bit grey value per pixel",
    "undecodable": "the compressed pixels are damaged",
    "unused_bits": "values in bits that should be empty",
    "rescale": "the way from stored value to Hounsfield units is not usable",
    "rescale_jump": "slices with different rescaling do not fit together",
    "hu_range": "values beyond the range of Hounsfield units",
    "padding": "the padding value is also a possible density",
    "wrapped_values": "values ran over the end of their range",
    "implausible_hu": "air and tissue are not where they must be",
    "slice_jump": "neighbouring slices do not fit together",
    "no_lungs": "no lung to be seen",
    # two scans
    "different_patients": "the earlier scan is of another patient",
    "missing_date": "a scan has no date",
    "shifted_dates": "the dates of one scan were changed, those of the other were not",
    "prior_not_earlier": "the earlier scan is not earlier",
}


class Refusal(ValueError):
    """A scan is not read. `code` is a key of CODES; the text says what was seen and what to do."""

    def __init__(self, code: str, message: str) -> None:
        assert code in CODES, code
        super().__init__(f"{message} [{code}]")
        self.code = code
