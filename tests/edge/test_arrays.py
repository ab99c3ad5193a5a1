import io
import pickle
import random
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.arrays import read_npz, write_npz

KINDS = ["bool", "int8", "uint16", "<i4", ">i8", "float16", "<f4", ">f8", "complex64", "<U3", "S5"]
some_arrays = st.sampled_from(KINDS).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def npy(descr, shape, data, order=False, version=b"\x01\x00"):
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n".encode()
    size = len(header).to_bytes(2 if version == b"\x01\x00" else 4, "little")
    return b"\x93NUMPY" + version + size + header + data


def zipped(members, compression=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"[a-z/]{1,8}", fullmatch=True), some_arrays, max_size=3))
def test_arrays_survive_and_numpy_agrees(given_arrays):
    data = write_npz(given_arrays)
    stream = io.BytesIO()
    np.savez_compressed(stream, **given_arrays)
    plain = np.load(io.BytesIO(data), allow_pickle=False)
    for found in (read_npz(data), read_npz(stream.getvalue()), plain):
        assert set(found) == set(given_arrays)
        for name, array in given_arrays.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes()


def test_equal_arrays_are_equal_bytes():
    a, b = np.arange(6.0).reshape(2, 3), np.array(1, np.int64)
    assert write_npz({"a": a, "b": b}) == write_npz({"b": b.copy(), "a": a.copy()})


def test_arrays_in_columns_keep_their_values():
    array = np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    assert (read_npz(write_npz({"a": array}))["a"] == array).all()


def test_what_is_read_can_be_written_to():
    found = read_npz(write_npz({"a": np.zeros(3)}))["a"]
    found[0] = 1


@pytest.mark.parametrize("version", [b"\x01\x00", b"\x02\x00"])
def test_both_versions_of_the_header_are_read(version):
    data = zipped({"a.npy": npy("'<i4'", "(2,)", bytes(8), version=version)})
    assert (read_npz(data)["a"] == np.zeros(2, np.int32)).all()


class Evil:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def test_objects_are_refused_not_unpickled():
    stream = io.BytesIO()
    np.savez(stream, a=np.array([Evil()], dtype=object))
    with pytest.raises(ValueError, match=r"objects are never unpickled"):
        read_npz(stream.getvalue())
    data = zipped({"a.npy": npy("'|O'", "(1,)", pickle.dumps(Evil()))})
    with pytest.raises(ValueError, match=r"objects are never unpickled"):
        read_npz(data)
    with pytest.raises(ValueError, match=r"is not of \.npy version"):
        read_npz(zipped({"a.npy": pickle.dumps(Evil())}))
    with pytest.raises(ValueError, match="a has dtype=object, not numbers"):
        write_npz({"a": np.array([None])})


@pytest.mark.parametrize(
    ("member", "words"),
    [
        (npy("[('x', '<f4')]", "(1,)", bytes(4)), "is not a plain array"),
        (npy("'<M8[ns]'", "(1,)", bytes(8)), "is not a plain array"),
        (npy("'|V4'", "(1,)", bytes(4)), "is not a plain array"),
        (npy("__import__('os')", "(1,)", bytes(4)), "is not a plain array"),
        (npy("'<f4'", "(-1,)", bytes(4)), "is not a plain array"),
        (npy("'<f4'", "(1.0,)", bytes(4)), "is not a plain array"),
        (npy("'<f3'", "(1,)", bytes(3)), r"has dtype=b'<f3', which numpy does not know"),
        (npy("'<f4'", "(2,)", bytes(4)), r"has shape \(2,\) of float32, 8 bytes; 4 are there"),
        (npy("'<f4'", "(1,)", bytes(8)), r"4 bytes; 8 are there"),
        (npy("'<f4'", "(1000000000000,)", b""), r"4000000000000 bytes; 0 are there"),
        (npy("'<f4'", f"({2**40}, {2**24})", b""), r"\d+ bytes; 0 are there"),
        (npy("'<f4'", f"({10**17}, {10**17}, 0)", b""), r"."),
        (npy("'<f4'", str((1,) * 99), bytes(4)), r"."),
        (npy("'<U999999999'", "(0,)", b""), r"."),
        (npy("'<f4'", "(1,)", bytes(4), order="None"), "is not a plain array"),
        (npy("'<f4'", "(1,)", bytes(4), version=b"\x03\x00"), r"is not of \.npy version 1 or 2"),
        (b"\x93NUMPY\x01\x00\xff\xff", "is not a plain array"),
        (b"\x93NUMPY\x01", r"is not of \.npy version 1 or 2"),
        (b"", r"is not of \.npy version 1 or 2"),
    ],
)
def test_members_that_are_no_plain_arrays_are_refused(member, words):
    with pytest.raises(ValueError, match=words):
        read_npz(zipped({"a.npy": member}))


def test_a_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    data = zipped({f"{i}.npy": npy("'|u1'", "(10000000,)", bytes(10_000_000)) for i in range(2)})
    assert len(data) < 50_000
    monkeypatch.setattr(zipfile.ZipFile, "read", None)
    with pytest.raises(ValueError, match=r"unpacks to 2\d{7} bytes, over 10000000; refused as a"):
        read_npz(data, max_bytes=10_000_000)


def test_a_member_longer_than_it_declares_is_refused():
    """The directory says 100 bytes, the stream holds ten million."""
    data = bytearray(zipped({"a.npy": npy("'|u1'", "(10000000,)", bytes(10_000_000))}))
    start = data.rindex(b"PK\x01\x02")
    data[start + 24 : start + 28] = (100).to_bytes(4, "little")
    with pytest.raises(ValueError, match=r"the npz is damaged|is not a plain array|are there"):
        read_npz(bytes(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "the npz is damaged"),
        (b"PK\x05\x06" + bytes(17), "the npz is damaged"),
        (zipped({"a.txt": b""}), r"member 'a\.txt' is no \.npy"),
        (zipped({"a.npy": b""}, zipfile.ZIP_BZIP2), "has compression=12"),
        (zipped({"a.npy": b""}, zipfile.ZIP_LZMA), "has compression=14"),
        (zipped({f"{i}.npy": b"" for i in range(10_001)}), "has 10001 arrays, over 10000"),
    ],
)
def test_other_zips_are_refused(data, words):
    with pytest.raises(ValueError, match=words):
        read_npz(data)


def test_an_array_twice_or_encrypted_is_refused():
    member = npy("'<f4'", "(1,)", bytes(4))
    data = zipped({"a.npy": member, "b.npy": member}).replace(b"b.npy", b"a.npy")
    with pytest.raises(ValueError, match="has an array twice"):
        read_npz(data)
    data = bytearray(zipped({"a.npy": member}))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(ValueError, match=r"'a\.npy' is encrypted"):
        read_npz(bytes(data))


def test_damage_gives_the_same_arrays_or_a_message():
    """Random changes: the checksums of the zip find those of content; no other error comes out."""
    given_arrays = {"x": np.arange(40, dtype=np.float32), "t": np.array(["ab", "c"])}
    stream = io.BytesIO()
    np.savez_compressed(stream, **given_arrays)
    rng = random.Random(0)
    refused = 0
    for data in (write_npz(given_arrays), stream.getvalue()):
        for _ in range(1000):
            changed = bytearray(data)
            for _ in range(rng.choice((1, 1, 20))):
                changed[rng.randrange(len(changed))] ^= rng.randrange(1, 256)
            try:
                found = read_npz(bytes(changed))
            except ValueError:
                refused += 1
                continue
            for array in found.values():
                assert any(array.tobytes() == wanted.tobytes() for wanted in given_arrays.values())
    assert refused > 1000
