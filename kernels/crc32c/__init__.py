"""Checksums of frames: CRC-32C while they are copied, and once more where they are read."""

from __future__ import annotations

from kernels.crc32c.native import copy_crc32c, crc32c
from kernels.crc32c.reference import crc32c_reference

__all__ = ["copy_crc32c", "crc32c", "crc32c_reference"]
