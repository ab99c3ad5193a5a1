import numpy as np
import pytest

from kernels.crc32c import copy_crc32c, crc32c, crc32c_reference

RNG = np.random.default_rng(0)


# RFC 3720, appendix B.4.
@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_published_values(data, expected):
    assert crc32c_reference(data) == expected
    assert crc32c(np.frombuffer(data, np.uint8)) == expected


@pytest.mark.parametrize("size", [1, 7, 8, 9, 511, 1535, 1536, 1537, 3079, 6000])
def test_native_equals_the_reference_at_odd_sizes_and_places(size):
    data = RNG.integers(0, 256, size + 3, np.uint8)
    for start in (0, 0xDEADBEEF):
        for offset in (0, 1, 3):
            part = data[offset : offset + size]
            assert crc32c(part, start) == crc32c_reference(part.tobytes(), start)


def test_a_view_with_gaps_has_the_checksum_of_its_bytes_and_is_copied_without_them():
    frame = RNG.integers(0, 256, (5, 2000), np.uint8)[:, 13:1990]
    out = np.full(frame.size, 7, np.uint8)
    expected = crc32c_reference(frame.tobytes())
    assert crc32c(frame) == expected
    assert copy_crc32c(frame, out) == expected
    assert np.array_equal(out.reshape(frame.shape), frame)


@pytest.mark.parametrize("step", [(slice(None), slice(None, None, 2)), (slice(None, None, -1),)])
def test_rows_with_gaps_inside_or_backwards_are_copied_first(step):
    array = RNG.integers(0, 1000, (6, 40), np.int32)[step]
    assert crc32c(array) == crc32c_reference(array.tobytes())


def test_a_changed_bit_changes_the_checksum():
    frame = RNG.integers(0, 256, 5000, np.uint8)
    before = crc32c(frame)
    for at in (0, 511, 512, 1600, 4999):
        frame[at] ^= 1
        assert crc32c(frame) != before
        frame[at] ^= 1


@pytest.mark.parametrize("out", [np.empty(9, np.uint8), np.empty(10, np.int8), np.empty((2, 5))])
def test_a_copy_refuses_a_place_of_another_kind(out):
    with pytest.raises(ValueError, match="give 10 bytes"):
        copy_crc32c(np.zeros(10, np.uint8), out)
