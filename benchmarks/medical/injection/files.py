"""Files that are damaged, missing, or made to do harm."""

from __future__ import annotations

from pydicom.encaps import encapsulate, generate_frames

from benchmarks.medical.healthy import Series
from benchmarks.medical.injection.encoding import compress, set_encapsulated
from benchmarks.medical.injection.fault import each, fault, inner, names


@fault("refuse", "transfer_syntax")
def no_decoder(series: Series) -> None:
    """High-throughput JPEG 2000, for which there is no decoder."""
    set_encapsulated(series, "1.2.840.10008.1.2.4.201", b"\xff\x4f\xff\x51" + bytes(200))


@fault("refuse", "transfer_syntax")
def unknown_syntax(series: Series) -> None:
    """A transfer syntax that nobody knows."""
    set_encapsulated(series, "1.2.3.4.5", bytes(200))


@fault("refuse", "undecodable")
def compressed_damaged(series: Series) -> None:
    """One JPEG 2000 slice ends in the middle."""
    compress(series, "jpeg_2000")
    one = series.slices[inner(series)][1]
    data = one.PixelData
    frame = next(iter(generate_frames(data, number_of_frames=1)))
    one["PixelData"].value = encapsulate([frame[: len(frame) // 3]])


@fault("refuse", "undecodable")
def compressed_of_other_size(series: Series) -> None:
    """The headers say more rows and columns than the compressed images have."""
    compress(series, "jpeg_ls")
    each(series, lambda one: [setattr(one, "Rows", one.Rows * 2)])


@fault("refuse", "unreadable_file")
def pixels_cut(series: Series) -> None:
    """The last file ends early, as after a broken copy."""
    series.cut[names(series)[-1]] = 700


@fault("refuse", "unreadable_file", "missing_tag")
def header_cut(series: Series) -> None:
    """The last file ends within its header."""
    name, one = series.slices[-1]
    series.cut[name] = len(one.PixelData) + 300


@fault("refuse", "unreadable_file", "skipped_file")
def empty_file(series: Series) -> None:
    """The last file is empty."""
    series.files[names(series)[-1]] = b""


@fault("refuse", "unreadable_file", "skipped_file")
def zeroed_file(series: Series) -> None:
    """The last file holds zeros, as after a full disk."""
    series.files[names(series)[-1]] = bytes(4000)


@fault("refuse", "skipped_file", "unreadable_file")
def last_slice_is_a_link(series: Series) -> None:
    """The last slice is a link to a file elsewhere."""
    name, _ = series.slices[-1]
    del series.files[name]
    series.links[name] = "/dev/zero"


@fault("refuse", "too_large", "unreadable_file")
def bomb_in_header(series: Series) -> None:
    """One header asks for 65535 x 65535 pixels."""
    one = series.slices[inner(series)][1]
    one.Rows = one.Columns = 65535


@fault("refuse", "undecodable", "transfer_syntax")
def bomb_in_codestream(series: Series) -> None:
    """A compressed image asks for 60000 x 60000 pixels."""
    size = (60000).to_bytes(4, "big")
    stream = b"\xff\x4f\xff\x51\x00\x29\x00\x00" + size + size + bytes(8) + size + size + bytes(60)
    set_encapsulated(series, "1.2.840.10008.1.2.4.90", stream)


@fault("refuse", "split_series")
def end_slice_with_damaged_uid(series: Series) -> None:
    """The series UID of the last slice lost a digit, as on a bad disk."""
    one = series.slices[-1][1]
    one.SeriesInstanceUID = one.SeriesInstanceUID[:-2] + "7"
