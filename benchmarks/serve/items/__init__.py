"""One module for each question the benchmark answers; each holds its `ITEM`."""
