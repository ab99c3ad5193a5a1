import contextlib
import json
import socket
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.schedule.wire import (
    DTYPES,
    HEAD,
    MAGIC,
    MAX_BODY_BYTES,
    MAX_LAYOUT_BYTES,
    MAX_PARTS,
    Receiver,
    pack,
    send_all,
    unsent,
)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.settimeout(30)
    theirs.settimeout(30)
    with ours, theirs:
        yield ours, theirs


def receive_one(receiver):
    frames = []
    while not frames:
        frames = receiver.receive()
    (frame,) = frames
    return frame


def send_in_background(connection, data):
    def send():
        with contextlib.suppress(OSError):  # the receiver had enough
            connection.sendall(data)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def data_of(parts):
    return b"".join(part if isinstance(part, bytes) else part.tobytes() for part in parts)


shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)
arrays = st.builds(
    lambda dtype, shape, seed: np.random.default_rng(seed).integers(0, 2, shape).astype(dtype),
    st.sampled_from(DTYPES),
    shapes,
    st.integers(0, 2**32 - 1),
)


@settings(max_examples=100, deadline=None)
@given(
    given_arrays=st.dictionaries(st.text(max_size=20), arrays, max_size=5),
    id_=st.integers(0, 2**32 - 1),
    op=st.text(max_size=10),
    chunk=st.integers(1, 200),
)
def test_what_is_sent_arrives_however_it_is_cut(given_arrays, id_, op, chunk):
    data = data_of(pack(op, id_, {name: [array] for name, array in given_arrays.items()}))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        receiver = Receiver(theirs)
        frames = []
        for start in range(0, len(data), chunk):
            ours.sendall(data[start : start + chunk])
            frames += receiver.receive()
        (frame,) = frames
    assert (frame.id, frame.op, list(frame.arrays)) == (id_, op, list(given_arrays))
    for name, array in given_arrays.items():
        found = frame.arrays[name]
        assert (found.dtype, found.shape) == (array.dtype, array.shape)
        assert found.tobytes() == array.tobytes()
        assert found.flags.aligned
        assert found.flags.writeable


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=200), is_late=st.booleans())
def test_noise_is_refused_or_waits_for_more(data, is_late):
    start = HEAD.pack(MAGIC, len(data), 1, 0, 0.0) if is_late else b""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(start + data + b"\0")
        try:
            frames = Receiver(theirs).receive()
        except ValueError:
            return
    assert frames == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
entries = st.tuples(
    st.text(max_size=4) | json_values,
    st.sampled_from([*DTYPES, "object", "float128", "<f4", "O"]) | json_values,
    st.lists(st.integers(-2, 2**70), max_size=4) | json_values,
)


@settings(max_examples=300, deadline=None)
@given(
    layout=json_values
    | st.fixed_dictionaries(
        {
            "op": st.text(max_size=4) | json_values,
            "arrays": st.lists(entries, max_size=3) | json_values,
            "content": st.dictionaries(st.text(max_size=4), json_values, max_size=2) | json_values,
        }
    ),
    num_bytes=st.integers(0, 2**64 - 1) | st.just(0),
)
def test_a_made_up_layout_is_refused_or_taken_at_its_word(layout, num_bytes):
    text = json.dumps(layout).encode()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(HEAD.pack(MAGIC, len(text), 1, num_bytes, 0.0) + text)
        try:
            frames = Receiver(theirs, max_body_bytes=1 << 16).receive()
        except ValueError:
            return
    for frame in frames:
        assert sum(array.nbytes for array in frame.arrays.values()) <= num_bytes
        assert all(array.dtype.name in DTYPES for array in frame.arrays.values())


@pytest.mark.parametrize(
    ("layout", "word"),
    [
        (b"[]", "without op"),
        (b"{", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b'{"op":1,"arrays":[],"content":{}}', "wrong kind"),
        (b'{"op":"a","arrays":[["x","object",[1]]],"content":{}}', "dtype='object'"),
        (b'{"op":"a","arrays":[["x","int8",[-1]]],"content":{}}', "shape="),
        (b'{"op":"a","arrays":[["x","int8",[true]]],"content":{}}', "shape="),
        (b'{"op":"a","arrays":[["x","int8",[0]],["x","int8",[0]]],"content":{}}', "one name"),
        (b'{"op":"a","arrays":[["x","int8",[17]]],"content":{}}', "0 bytes of arrays"),
    ],
)
def test_a_wrong_layout_is_refused_and_named(pair, layout, word):
    ours, theirs = pair
    thread = send_in_background(ours, HEAD.pack(MAGIC, len(layout), 1, 0, 0.0) + layout)
    with pytest.raises(ValueError, match=word):
        receive_one(Receiver(theirs))
    theirs.close()
    thread.join()


@pytest.mark.parametrize(
    "head",
    [
        (b"nope", 2, 1, 0, 0.0),
        (MAGIC, MAX_LAYOUT_BYTES + 1, 1, 0, 0.0),
        (MAGIC, 2, 1, MAX_BODY_BYTES + 1, 0.0),
    ],
)
def test_a_frame_of_another_kind_or_size_is_refused_before_its_body(pair, head):
    ours, theirs = pair
    ours.sendall(HEAD.pack(*head))
    with pytest.raises(ValueError, match="a frame begins with"):
        Receiver(theirs).receive()


def test_pieces_arrive_as_one_array_without_being_copied(pair):
    ours, theirs = pair
    pieces = [np.full((rows, 3), rows, np.float32) for rows in (1, 4, 2)]
    parts = pack("run", 7, {"x": pieces}, content='{"key": "m"}', seconds=0.5)
    assert all(any(part is piece for part in parts) for piece in pieces)
    send_all(ours, parts)
    frame = receive_one(Receiver(theirs))
    np.testing.assert_array_equal(frame.arrays["x"], np.concatenate(pieces))
    assert (frame.id, frame.op, frame.content, frame.seconds) == (7, "run", {"key": "m"}, 0.5)


def test_large_bodies_many_pieces_and_transposed_arrays_arrive(pair):
    ours, theirs = pair
    large = np.arange(600_000, dtype=np.int64).reshape(2, -1)
    rows = [np.full((1, 2), row, np.int16) for row in range(2 * MAX_PARTS)]
    sent = {"large": [large], "rows": rows, "turned": [large[:, :8].T], "none": [np.empty((0, 3))]}
    parts = pack("run", 1, sent)
    thread = threading.Thread(target=lambda: (send_all(ours, parts), send_all(ours, parts)))
    thread.start()
    receiver = Receiver(theirs)
    for _ in range(2):
        frame = receive_one(receiver)
        np.testing.assert_array_equal(frame.arrays["large"], large)
        np.testing.assert_array_equal(frame.arrays["rows"], np.concatenate(rows))
        np.testing.assert_array_equal(frame.arrays["turned"], large[:, :8].T)
        assert frame.arrays["none"].shape == (0, 3)
    thread.join()


def test_several_frames_in_one_read_come_together(pair):
    ours, theirs = pair
    ours.sendall(b"".join(data_of(pack("ping", id_, {})) for id_ in range(5)))
    assert [frame.id for frame in Receiver(theirs).receive()] == [0, 1, 2, 3, 4]


def test_the_end_of_the_other_side_is_told(pair):
    ours, theirs = pair
    ours.sendall(data_of(pack("ping", 1, {}))[:-1])
    receiver = Receiver(theirs)
    assert receiver.receive() == []
    ours.close()
    with pytest.raises(EOFError):
        receiver.receive()


@pytest.mark.parametrize("dtype", ["object", "U4", "complex64", "datetime64[s]", ">f4"])
def test_other_types_are_not_sent(dtype):
    with pytest.raises(ValueError, match="array 'x' has dtype="):
        pack("run", 1, {"x": [np.zeros(2, dtype)]})


@pytest.mark.parametrize("sent", range(9))
def test_what_is_left_of_a_frame_follows_what_was_sent(sent):
    parts = [b"abc", np.arange(2, dtype=np.int16), b"z"]
    assert b"".join(bytes(part) for part in unsent(parts, sent)) == data_of(parts)[sent:]
