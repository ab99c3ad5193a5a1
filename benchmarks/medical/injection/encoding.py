"""Compressed pixels, and a DICOMDIR."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import gdcm
from pydicom import dcmread
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian

from benchmarks.medical.healthy import ROOT, Series

SYNTAXES = {
    "jpeg_lossless": ("JPEGLosslessProcess14_1", "1.2.840.10008.1.2.4.70"),
    "jpeg_ls": ("JPEGLSLossless", "1.2.840.10008.1.2.4.80"),
    "jpeg_2000": ("JPEG2000Lossless", "1.2.840.10008.1.2.4.90"),
    "rle": ("RLELossless", "1.2.840.10008.1.2.5"),
}


def compress(series: Series, name: str) -> None:
    """Compress with GDCM, which is not what decodes JPEG-LS, JPEG 2000 and RLE first."""
    kind, _ = SYNTAXES[name]
    with tempfile.TemporaryDirectory() as folder:
        for file, one in series.slices:
            # GDCM works on files alone.
            source, target = Path(folder, "a"), Path(folder, "b")
            one.save_as(source, enforce_file_format=True)
            reader = gdcm.ImageReader()
            reader.SetFileName(str(source))
            assert reader.Read()
            change = gdcm.ImageChangeTransferSyntax()
            change.SetTransferSyntax(gdcm.TransferSyntax(getattr(gdcm.TransferSyntax, kind)))
            change.SetInput(reader.GetImage())
            assert change.Change()
            writer = gdcm.ImageWriter()
            writer.SetFileName(str(target))
            writer.SetFile(reader.GetFile())
            writer.SetImage(change.GetOutput())
            assert writer.Write()
            made = dcmread(target)
            one["PixelData"] = made["PixelData"]
            one.file_meta.TransferSyntaxUID = made.file_meta.TransferSyntaxUID
            series.files[file] = one


def set_encapsulated(series: Series, syntax: str, frame: bytes) -> None:
    for _, one in series.slices:
        one.file_meta.TransferSyntaxUID = syntax
        one["PixelData"] = DataElement("PixelData", "OB", encapsulate([frame]))
        one["PixelData"].is_undefined_length = True


def dicomdir(slices: list[Dataset]) -> bytes:
    """The least that a DICOMDIR is."""
    records = [_new_record("PATIENT"), _new_record("STUDY")]
    series = _new_record("SERIES")
    series.SeriesInstanceUID = slices[0].SeriesInstanceUID
    records.append(series)
    for number, one in enumerate(slices):
        record = _new_record("IMAGE")
        record.ReferencedFileID = ["DICOM", f"{number}"]
        record.ReferencedSOPClassUIDInFile = one.SOPClassUID
        record.ReferencedSOPInstanceUIDInFile = one.SOPInstanceUID
        record.ReferencedTransferSyntaxUIDInFile = one.file_meta.TransferSyntaxUID
        records.append(record)
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    directory.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.1.3.10"
    directory.file_meta.MediaStorageSOPInstanceUID = ROOT + "1.2.3"
    directory.FileSetID = "TEST"
    directory.DirectoryRecordSequence = Sequence(records)
    buffer = io.BytesIO()
    directory.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _new_record(kind: str) -> Dataset:
    record = Dataset()
    record.OffsetOfTheNextDirectoryRecord = record.OffsetOfReferencedLowerLevelDirectoryEntity = 0
    record.RecordInUseFlag = 0xFFFF
    record.DirectoryRecordType = kind
    return record
