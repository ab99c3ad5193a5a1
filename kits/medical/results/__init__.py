"""From findings to what a hospital reads: measures, categories, DICOM objects, PDF. No torch."""
