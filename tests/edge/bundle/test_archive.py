import os
import tarfile

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge import archive
from edge.archive import check_name, read_archive, read_folder, write_archive

FILES = {"b/c.bin": b"c" * 700, "signatures.json": b"{}", "a": b"", "manifest.json": b"m" * 512}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.ebundle"
    write_archive(path, FILES)
    return path


def contents(files):
    return {name: part.read() for name, part in files.items()}


def test_an_archive_gives_back_its_files_manifest_first(path):
    files = read_archive(path)
    assert list(files) == ["manifest.json", "signatures.json", "a", "b/c.bin"]
    assert contents(files) == FILES


def test_it_is_the_plain_tar_of_the_standard_library(path, tar):
    order = ["manifest.json", "signatures.json", "a", "b/c.bin"]
    assert path.read_bytes() == tar([(name, FILES[name]) for name in order])
    with tarfile.open(path) as plain:
        assert {m.name: plain.extractfile(m).read() for m in plain.getmembers()} == FILES


def test_order_and_source_of_the_files_do_not_matter(tmp_path, path):
    (tmp_path / "c").write_bytes(FILES["b/c.bin"])
    other = tmp_path / "other"
    write_archive(other, {**dict(reversed(FILES.items())), "b/c.bin": tmp_path / "c"})
    assert other.read_bytes() == path.read_bytes()


def test_a_failed_write_leaves_the_old_archive(tmp_path, path, monkeypatch):
    before = path.read_bytes()

    def full(descriptor):
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_archive(path, {"manifest.json": b"new"})
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_a_folder_with_the_same_files_is_the_same(tmp_path, path):
    with tarfile.open(path) as plain:
        plain.extractall(tmp_path / "folder", filter="data")
    files = read_folder(tmp_path / "folder")
    assert list(files) == list(read_archive(path))
    assert contents(files) == FILES


@pytest.mark.parametrize("position", [0, 100, 108, 116, 136, 148, 157, 263, 265, 329, 345, 511])
def test_every_byte_of_a_header_counts(path, position):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"is not canonical for|is not of a tar|not made of"):
        read_archive(path)


@pytest.mark.parametrize(
    "size", [b"0000000012 ", b"     000012", b"-0000000012", b"\x80" + bytes(10)]
)
def test_other_spellings_of_a_size_are_refused(tmp_path, tar, size):
    data = bytearray(tar([("a", b"x" * 10)]))
    data[124:135] = size
    (tmp_path / "x").write_bytes(data)
    with pytest.raises(ValueError, match="not 11 octal digits"):
        read_archive(tmp_path / "x")


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        (tarfile.SYMTYPE, "a symbolic link"),
        (tarfile.LNKTYPE, "a hard link"),
        (tarfile.CHRTYPE, "a character device"),
        (tarfile.BLKTYPE, "a block device"),
        (tarfile.FIFOTYPE, "a pipe"),
        (tarfile.DIRTYPE, "a folder entry"),
        (tarfile.XHDTYPE, "not canonical"),
        (tarfile.GNUTYPE_LONGNAME, "not canonical"),
        (tarfile.GNUTYPE_SPARSE, "not canonical"),
        (tarfile.AREGTYPE, "not canonical"),
        (tarfile.CONTTYPE, "not canonical"),
    ],
)
def test_entries_that_are_no_regular_files_are_refused(tmp_path, tar, kind, words):
    info = tarfile.TarInfo("evil")
    info.type, info.linkname = kind, "/etc/passwd" if kind in b"12" else ""
    (tmp_path / "x").write_bytes(tar([(info, b"")]))
    with pytest.raises(ValueError, match=words):
        read_archive(tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("/etc/passwd", "is absolute"),
        ("../up", r"climbs with"),
        ("a/../../up", r"climbs with"),
        ("./a", r"climbs with"),
        ("a/.", r"climbs with"),
        ("a//b", "is not made of"),
        ("a/", "is not made of"),
        ("", "is not made of"),
        ("a b", "is not made of"),
        ("a\\b", "is not made of"),
        ("a\nb", "is not made of"),
        ("a\n", "is not made of"),
        ("C:a", "is not made of"),
        ("ａ", "is not made of"),
        ("a" * 101, "over 100 characters"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name, words):
    with pytest.raises(ValueError, match=words):
        check_name(name)
    with pytest.raises(ValueError, match=words):
        write_archive(tmp_path / "x", {name: b""})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words"), [("/a", "absolute"), ("../a", "climbs"), ("a b", "made of"), ("ä", "ASCII")]
)
def test_such_names_are_refused_in_an_archive(tmp_path, tar, name, words):
    (tmp_path / "x").write_bytes(tar([(name, b"")]))
    with pytest.raises(ValueError, match=words):
        read_archive(tmp_path / "x")


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["a", "a"], "is there twice"),
        (["b", "a"], "not in their order"),
        (["a", "manifest.json"], "not in their order"),
        (["a", "a/b"], "is a file and the folder of"),
        ([str(i) for i in range(10, 30)], "over 10 files"),
    ],
)
def test_sets_of_names_that_cannot_be_are_refused(tmp_path, tar, names, words):
    (tmp_path / "x").write_bytes(tar([(name, b"x") for name in names]))
    with pytest.raises(ValueError, match=words):
        read_archive(tmp_path / "x", max_files=10)


def test_an_archive_cut_anywhere_is_refused(path):
    data = path.read_bytes()
    for size in range(0, len(data), 128):
        path.write_bytes(data[:size])
        with pytest.raises(ValueError, match=r"was cut off|before the end|padding after"):
            read_archive(path)


def test_a_size_larger_than_the_file_is_refused(tmp_path, tar):
    data = tar([("a", b"")])
    (tmp_path / "x").write_bytes(archive._header("a", 8**11 - 1) + data[512:])
    with pytest.raises(ValueError, match="a bomb"):
        read_archive(tmp_path / "x")


@pytest.mark.parametrize("tail", [b"x", b"\0", bytes(512), bytes(9216), b"another bundle" * 99])
def test_anything_after_the_end_is_refused(path, tail):
    path.write_bytes(path.read_bytes() + tail)
    with pytest.raises(ValueError, match="goes on after the end"):
        read_archive(path)


def test_padding_that_is_not_zero_is_refused(path):
    data = bytearray(path.read_bytes())
    data[-1025] = 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"the padding after b/c\.bin is not zero"):
        read_archive(path)


def test_what_is_no_tar_is_refused(tmp_path, path):
    path.write_bytes(b"\x1f\x8b" + bytes(2000))
    with pytest.raises(ValueError, match="is compressed; a bundle is a plain tar"):
        read_archive(path)
    path.write_bytes(b"PK" * 1000)
    with pytest.raises(ValueError, match="is not of a tar"):
        read_archive(path)
    os.mkfifo(tmp_path / "pipe")
    for other in ("pipe", "."):
        with pytest.raises(ValueError, match="is no regular file"):
            read_archive(tmp_path / other)


@pytest.mark.parametrize("kind", ["link", "folder link", "pipe", "socket", "name", "many"])
def test_a_folder_with_anything_else_is_refused(tmp_path, kind):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "manifest.json").write_bytes(b"{}")
    words = "is no regular file"
    if kind == "link":
        (folder / "a").symlink_to(folder / "manifest.json")
    elif kind == "folder link":
        (folder / "a").symlink_to(tmp_path)
    elif kind == "pipe":
        os.mkfifo(folder / "a")
    elif kind == "socket":
        os.mknod(folder / "a", 0o140600)
    elif kind == "name":
        (folder / "a b").write_bytes(b"")
        words = "is not made of"
    else:
        for i in range(11):
            (folder / str(i)).write_bytes(b"")
        words = "over 10 files"
    with pytest.raises(ValueError, match=words):
        read_folder(folder, max_files=10)


def test_a_file_that_shrinks_while_it_is_read_is_refused(path):
    part = read_archive(path)["b/c.bin"]
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match="changed while it was read"):
        part.read()


def test_large_files_are_read_in_pieces(tmp_path):
    data = os.urandom(archive.CHUNK * 2 + 5)
    write_archive(tmp_path / "x", {"a": b"1", "b": data})
    part = read_archive(tmp_path / "x")["b"]
    assert [len(chunk) for chunk in part.chunks()] == [archive.CHUNK] * 2 + [5]
    assert part.read() == data


@settings(deadline=None)
@given(st.binary(max_size=1600))
def test_random_bytes_are_refused_with_a_message(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "random"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=str(path)):
        read_archive(path)


def test_a_file_too_large_for_its_header_is_refused():
    with pytest.raises(ValueError, match="split it"):
        archive._header("a", 8**11)
