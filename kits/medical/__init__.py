"""Lung nodules on chest CT: from DICOM to a report, on the processor a small hospital has."""
