"""Faults put into healthy CT series: `FAULTS` and `inject`."""

from benchmarks.medical.injection import densities, files, geometry, kinds, readable
from benchmarks.medical.injection.fault import FAULTS, Fault, inject

# Each of these modules registers its faults when it is imported.
MODULES = readable, geometry, densities, files, kinds

__all__ = ["FAULTS", "MODULES", "Fault", "inject"]
