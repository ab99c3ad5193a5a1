"""CRC-32C (Castagnoli, as in iSCSI, ext4 and SCTP), bit by bit: the definition."""

from __future__ import annotations

POLYNOMIAL = 0x82F63B78  # reflected


def crc32c_reference(data: bytes, start: int = 0) -> int:
    """Of some bytes, or of what follows bytes that have the checksum `start`.

    Source: RFC 3720, appendix B.4, whose examples are in tests/kernels/crc32c/test_crc32c.py.
    """
    crc = start ^ 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (POLYNOMIAL if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
