"""The defect kit's line beside other ways to look at frames; `python -m benchmarks.defect`."""
