import multiprocessing
import os

import numpy as np
import pytest

from kits.defect.line.ring import Damaged, Ring

FRAME = np.arange(6 * 10, dtype=np.uint8).reshape(6, 10)


@pytest.fixture
def ring():
    made = Ring.create(3, 6, 10)
    yield made
    made.close()


def test_a_frame_is_read_where_it_was_written(ring):
    head = ring.write(1, 77, FRAME, 123)
    other = Ring.attach(os.dup(ring.descriptor))
    frame = other.read(1, 77)
    assert np.array_equal(frame, FRAME)
    assert other.head(1) == head
    assert (head.trigger, head.captured_ns, head.sequence % 2) == (77, 123, 0)
    with pytest.raises(ValueError, match="read-only"):
        frame[0, 0] = 1
    # Not copied: what is written shows.
    ring.write(1, 78, FRAME + 1, 124)
    assert frame[0, 0] == 1


def test_a_view_with_gaps_is_written_without_them(ring):
    wide = np.zeros((6, 16), np.uint8)
    wide[:, :10] = FRAME
    ring.write(0, 1, wide[:, :10], 0)
    assert np.array_equal(ring.read(0, 1), FRAME)


def test_each_write_has_the_next_sequence(ring):
    assert [ring.write(2, n, FRAME, 0).sequence for n in range(3)] == [2, 4, 6]


def test_another_triggers_frame_is_refused(ring):
    ring.write(0, 5, FRAME, 0)
    with pytest.raises(Damaged, match="holds trigger 5, not 6"):
        ring.read(0, 6)


def test_a_changed_pixel_is_seen(ring):
    ring.write(0, 5, FRAME, 0)
    ring._pixels(0)[17] ^= 1
    with pytest.raises(Damaged, match="it changed in memory"):
        ring.read(0, 5)
    assert ring.read(0, 5, has_checksum=False) is not None


def test_a_slot_whose_writer_died_is_refused_until_it_is_written_again(ring):
    ring.write(0, 5, FRAME, 0)
    # As a writer leaves it that is killed while it copies.
    head = ring.head(0)
    ring._memory[4096 : 4096 + 8] = (head.sequence + 1).to_bytes(8, "little")
    with pytest.raises(Damaged, match="half written"):
        ring.read(0, 5)
    assert ring.write(0, 6, FRAME, 0).sequence % 2 == 0
    ring.read(0, 6)


def test_parts_are_copies_of_one_frame(ring):
    ring.write(0, 5, FRAME, 0)
    parts = ring.cut(0, 5, [(2, 1, 5, 3), (0, 0, 10, 6)])
    assert np.array_equal(parts[0], FRAME[1:3, 2:5])
    ring.write(0, 6, FRAME + 1, 0)
    assert parts[0][0, 0] == FRAME[1, 2]
    with pytest.raises(Damaged):
        ring.cut(0, 5, [(0, 0, 1, 1)])


@pytest.mark.parametrize("frame", [FRAME[:-1], FRAME[:, :-1], FRAME.astype(np.uint16), FRAME[0]])
def test_a_frame_of_another_size_or_type_is_refused(ring, frame):
    with pytest.raises(ValueError, match="the recipe is for 6 x 10 uint8"):
        ring.write(0, 1, frame, 0)


def test_what_is_no_ring_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds nothing"):
        Ring.create(0, 6, 10)
    descriptor = os.memfd_create("x")
    os.ftruncate(descriptor, 8192)
    with pytest.raises(ValueError, match="is no ring"):
        Ring.attach(descriptor)
    os.close(descriptor)


def _write(descriptor, trigger):
    Ring.attach(descriptor).write(0, trigger, FRAME, 9)


def test_another_process_writes_what_this_one_reads(ring):
    process = multiprocessing.get_context("fork").Process(target=_write, args=(ring.descriptor, 4))
    process.start()
    process.join(20)
    assert np.array_equal(ring.read(0, 4), FRAME)
