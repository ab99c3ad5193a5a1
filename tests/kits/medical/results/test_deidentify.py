"""Nothing that names a patient survives, and all that says how the scan was made does."""

import re
from dataclasses import replace
from datetime import datetime
from io import BytesIO

import numpy as np
import pydicom
import pytest
from pydicom.datadict import DicomDictionary, dictionary_keyword, dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRLittleEndian

from kits.medical.results import codes
from kits.medical.results.basic_profile import CLEANED, DUMMIES, EMPTIED, KEPT
from kits.medical.results.content import CONTAINS, CONTEXT, code, container, text
from kits.medical.results.deidentify import deidentify, deidentify_source
from kits.medical.results.headers import save
from kits.medical.results.key_image import key_images
from kits.medical.results.seg import segmentation
from kits.medical.results.sr import structured_report
from kits.medical.results.uids import derived_uid

KEY = b"k" * 64
SECRET = "Zyxwvu"  # stands for what names a patient; no vocabulary knows it
# Value representations that hold text, and a secret that fits each.
TEXTUAL = dict.fromkeys(("LO", "SH", "ST", "LT", "UT", "PN", "UC", "UR"), SECRET) | {
    "AE": SECRET.upper(), "CS": SECRET.upper(), "AS": "077Y", "DA": "19770707",
    "DT": "19770707070707", "TM": "070707.77", "UI": "1.2.77.77.77", "OB": b"Zyxwvu",
    "UN": b"Zyxwvu", "OW": b"Zyxwvu",
}  # fmt: skip
TRACES = [b"zyxwvu", b"077y", b"19770707", b"070707.77", b"1.2.77.77.77"]


def as_bytes(dataset):
    file = BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def objects(study, headers):
    voxels = np.full(study.grid.shape, -850, np.int16)
    segments = segmentation(study, headers)
    ct = pydicom.Dataset(headers[0])
    ct.file_meta = headers[0].file_meta
    ct.PixelData = voxels[0].tobytes()
    ct["PixelData"].VR = "OW"
    return {
        "ct": ct,
        "seg": segments,
        "sr": structured_report(study, headers, segments),
        "image": key_images(study, headers, voxels)[0],
    }


@pytest.fixture(params=["ct", "seg", "sr", "image"])
def shared_object(request, study, headers):
    return objects(study, headers)[request.param]


def every_textual_element():
    """Each attribute of the standard that can hold text, filled with a secret."""
    for tag in DicomDictionary:
        kind = dictionary_VR(tag).split(" or ")[0]
        is_structural = Tag(tag).group in (0x0000, 0x0002) or Tag(tag).elem == 0
        if kind in TEXTUAL and not is_structural and dictionary_keyword(tag):
            yield DataElement(tag, kind, TEXTUAL[kind])


def test_no_attribute_of_the_whole_dictionary_carries_a_secret_out(study, headers):
    dataset = objects(study, headers)["ct"]
    spared = {
        "SOPClassUID", "BurnedInAnnotation", "PixelData", "SpecificCharacterSet",
        *KEPT,  # technical by decision; a test below looks at the texts among them
        "TextValue",  # only items of a report have one: test below
    }  # fmt: skip
    nested = Dataset()
    filled = 0
    for element in every_textual_element():
        if element.keyword not in spared:
            dataset.add(element)
            nested.add(element)
            filled += 1
    dataset.SourceImageSequence = [nested]
    dataset.ContentSequence = [nested]
    dataset.add_new(0x00091001, "LO", SECRET)
    dataset.add_new(0x60003000, "OW", SECRET.encode())
    assert filled > 1500
    before, after = as_bytes(dataset).lower(), as_bytes(deidentify(dataset, KEY)).lower()
    assert all(trace in before for trace in TRACES)
    assert not [trace for trace in TRACES if trace in after]


def test_texts_that_stay_are_about_the_machine():
    texts = {
        keyword
        for keyword in KEPT
        if dictionary_VR(keyword) in ("LO", "SH", "ST", "LT", "UT", "PN", "UC")
    }
    assert texts == {
        "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "ConvolutionKernel",
        "SecondaryCaptureDeviceManufacturer", "SecondaryCaptureDeviceManufacturerModelName",
        "CodeValue", "LongCodeValue", "CodingSchemeDesignator", "CodingSchemeVersion",
        "CodeMeaning", "CodingSchemeName", "CodingSchemeResponsibleOrganization",
        "SegmentAlgorithmName", "AlgorithmName", "AlgorithmVersion", "AlgorithmSource",
        "RescaleType", "DeidentificationMethod",
    }  # fmt: skip


def test_every_keyword_of_the_table_is_one():
    for keyword in (*KEPT, *EMPTIED, *CLEANED, *DUMMIES):
        assert pydicom.datadict.tag_for_keyword(keyword) is not None, keyword


def test_patient_and_hospital_are_gone(shared_object):
    content = as_bytes(deidentify(shared_object, KEY))
    secrets = ("Doe", "Jane", "P-17", "19560203", "House", "A42", "General Hospital", "20200310")
    assert not [word for word in secrets if word.encode() in content]


def test_the_validator_finds_no_error(shared_object, validate):
    assert validate(deidentify(shared_object, KEY)) == []


def test_the_object_given_stays_as_it_is(shared_object):
    before = as_bytes(shared_object)
    deidentify(shared_object, KEY)
    assert as_bytes(shared_object) == before


def test_the_same_key_gives_the_same_file_and_another_key_another(shared_object):
    once = as_bytes(deidentify(shared_object, KEY))
    assert once == as_bytes(deidentify(shared_object, KEY))
    other = deidentify(shared_object, b"x" * 64)
    assert other.PatientID != deidentify(shared_object, KEY).PatientID
    assert other.SOPInstanceUID != deidentify(shared_object, KEY).SOPInstanceUID


def test_references_resolve_among_shared_objects(study, headers):
    made = {name: deidentify(one, KEY) for name, one in objects(study, headers).items()}
    scans = {deidentify(header, KEY).SOPInstanceUID for header in headers}
    frames = made["seg"].PerFrameFunctionalGroupsSequence
    pointed = {
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for frame in frames
    }
    assert pointed < scans
    assert made["image"].SourceImageSequence[0].ReferencedSOPInstanceUID in scans
    listed = {
        instance.ReferencedSOPInstanceUID
        for item in made["sr"].CurrentRequestedProcedureEvidenceSequence
        for series in item.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert listed == scans | {made["seg"].SOPInstanceUID}
    assert len({one.StudyInstanceUID for one in made.values()}) == 1
    assert made["seg"].FrameOfReferenceUID == made["ct"].FrameOfReferenceUID


def test_measurements_and_masks_stay(study, headers, dcmqi, tmp_path):
    made = {name: deidentify(one, KEY) for name, one in objects(study, headers).items()}
    original = segmentation(study, headers)
    np.testing.assert_array_equal(made["seg"].pixel_array, original.pixel_array)
    path = save(made["sr"], tmp_path / "sr.dcm")
    dcmqi("tid1500reader", "--inputDICOM", path, "--outputMetadata", tmp_path / "sr.json")
    read = (tmp_path / "sr.json").read_text()
    assert read.count('"Long Axis"') == len(study.nodules)
    assert all(f'"TrackingIdentifier" : "{nodule.tracking_id}"' in read for nodule in study.nodules)
    tracked = [segment.TrackingUID for segment in made["seg"].SegmentSequence]
    assert all(uid in read for uid in tracked)


def test_intervals_between_examinations_stay(make_headers, plain_grid):
    def moment(header):
        stamp = header.AcquisitionDate + header.AcquisitionTime.split(".")[0]
        return datetime.strptime(stamp, "%Y%m%d%H%M%S")

    now = make_headers(plain_grid)[0]
    prior = make_headers(plain_grid, AcquisitionDate="20190228", AcquisitionTime="235959")[0]
    prior.StudyInstanceUID = derived_uid("prior study")
    before, after = (deidentify(header, KEY) for header in (prior, now))
    assert moment(after) - moment(before) == moment(now) - moment(prior)
    assert moment(after) < moment(now)
    assert before.PatientID == after.PatientID
    assert after.AcquisitionTime.endswith(".5")


def test_patients_are_moved_by_different_times(make_headers, plain_grid):
    moved = [
        deidentify(make_headers(plain_grid, PatientID=name)[0], KEY).StudyDate for name in "ABCD"
    ]
    assert len(set(moved)) == 4


@pytest.mark.parametrize("date", ["2020", "someday", ""])
def test_what_is_no_date_is_emptied(make_headers, plain_grid, date):
    with pydicom.config.disable_value_validation():
        header = make_headers(plain_grid, StudyDate=date)[0]
    assert deidentify(header, KEY).StudyDate == ""


def test_it_says_what_was_done(shared_object):
    made = deidentify(shared_object, KEY)
    done = [item.CodeValue for item in made.DeidentificationMethodCodeSequence]
    assert done[0] == "113100"
    assert {"113105", "113107"} < set(done)
    assert ("113101" in done) == (shared_object.Modality in ("SEG", "OT"))
    assert ("113104" in done) == (shared_object.Modality == "SR")
    assert made.PatientIdentityRemoved == "YES"
    assert made.LongitudinalTemporalInformationModified == "MODIFIED"


def test_descriptions_keep_words_about_the_scan_alone(make_headers, plain_grid):
    header = make_headers(
        plain_grid, SeriesDescription="CT Thorax Mrs. Doe 1.25mm lung, room 4711",
        StudyDescription="Jane",
    )[0]  # fmt: skip
    made = deidentify(header, KEY)
    assert made.SeriesDescription == "CT Thorax 1.25mm lung"
    assert "StudyDescription" not in made


def test_texts_of_people_leave_a_report(study, headers):
    report = objects(study, headers)["sr"]
    note = text(CONTAINS, codes.COMMENT, f"{SECRET} called")
    tracked = text(CONTEXT, codes.TRACKING_ID, f"nodule-1 {SECRET}")
    person = Dataset()
    person.ValueType, person.RelationshipType = "PNAME", CONTAINS
    person.PersonName = SECRET
    report.ContentSequence.append(container(CONTAINS, codes.EVALUATIONS, [note, tracked, person]))
    named = codes.Code("location", "99HOSPITAL", SECRET)
    report.ContentSequence.append(text(CONTAINS, named, SECRET))
    report.ContentSequence.append(code(CONTAINS, codes.FINDING, named))
    made = deidentify(report, KEY)
    assert SECRET.encode() not in as_bytes(made)
    assert study.not_detectable.lines["en"][0].encode() in as_bytes(made)


def test_a_verification_goes_with_its_verifier(study, headers):
    report = objects(study, headers)["sr"]
    report.VerificationFlag = "VERIFIED"
    verifier = Dataset()
    verifier.VerifyingObserverName = SECRET
    report.VerifyingObserverSequence = [verifier]
    made = deidentify(report, KEY)
    assert made.VerificationFlag == "UNVERIFIED"
    assert "VerifyingObserverSequence" not in made


def test_pixels_with_text_are_refused(study, headers):
    made = objects(study, headers)
    made["ct"].BurnedInAnnotation = "YES"
    with pytest.raises(ValueError, match="may show who"):
        deidentify(made["ct"], KEY)
    del made["image"].BurnedInAnnotation
    with pytest.raises(ValueError, match="may show who"):
        deidentify(made["image"], KEY)


def test_other_objects_are_refused(headers):
    headers[0].SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    with pytest.raises(ValueError, match="is not one of CT Image"):
        deidentify(headers[0], KEY)


def test_the_senders_station_leaves_the_file_header(study, headers):
    made = objects(study, headers)["seg"]
    made.file_meta.SourceApplicationEntityTitle = "STATION7"
    shared = deidentify(made, KEY)
    assert b"STATION7" not in as_bytes(shared)
    assert shared.file_meta.MediaStorageSOPInstanceUID == shared.SOPInstanceUID
    assert shared.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


def test_a_page_names_the_patient_like_the_objects(study, headers):
    source = replace(study.source, institution="General Hospital", study_time="101112")
    page = deidentify_source(source, KEY)
    made = deidentify(headers[0], KEY)
    assert (page.patient_id, page.patient_name) == (made.PatientID, str(made.PatientName))
    assert (page.study_uid, page.series_uid) == (made.StudyInstanceUID, made.SeriesInstanceUID)
    assert (page.study_date, page.study_time) == (made.StudyDate, made.StudyTime)
    assert page.institution == ""
    assert re.fullmatch(r"ANON-[0-9A-F]{16}", page.patient_id)
