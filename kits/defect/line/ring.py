"""Frames in shared memory: one process writes them, others read them where they lie.

Slots have a fixed size. Each begins with a head that says which trigger its pixels belong to and
what their checksum is; a sequence number is odd while they are written. Whoever owns the ring hands
out slots and takes them back; the memory has no name and is gone with the last process that has it,
however that ends.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kernels.crc32c import copy_crc32c, crc32c
from kernels.native import load

MAGIC = b"dkring1\0"
# Of the whole ring, and of each slot's head; pixels begin at multiples of it.
PAGE_BYTES = 4096
_HEAD = struct.Struct("<8sQIII")  # magic, number of slots, height, width, bytes of a slot
_SLOT = struct.Struct("<QQqI")  # sequence, trigger, captured (ns), checksum


class Damaged(ValueError):
    """A slot does not hold what it should: half written, another trigger's, or changed."""


@dataclass(frozen=True)
class Head:
    """What a slot says of its pixels."""

    sequence: int
    trigger: int
    captured_ns: int  # on the clock of `time.monotonic_ns`
    checksum: int  # CRC-32C of the pixels


class Ring:
    """Slots for mono frames of one size; make one with `create`, open it elsewhere by `attach`."""

    def __init__(self, descriptor: int) -> None:
        # Before the first frame, rather than at it.
        load()
        self.descriptor = descriptor
        self._memory = mmap.mmap(descriptor, 0)
        magic, self.num_slots, self.height_px, self.width_px, self._slot_bytes = _HEAD.unpack_from(
            self._memory
        )
        if magic != MAGIC or len(self._memory) != PAGE_BYTES + self.num_slots * self._slot_bytes:
            raise ValueError(f"descriptor {descriptor} is no ring; it begins with {magic!r}")

    @classmethod
    def create(cls, num_slots: int, height_px: int, width_px: int) -> Ring:
        """A ring in memory of its own.

        Raises:
            ValueError: a number is below 1.
            OSError: the memory cannot be had.
            RuntimeError: the native library is not built for this machine.
        """
        if min(num_slots, height_px, width_px) < 1:
            raise ValueError(
                f"a ring of {num_slots} slots of {height_px} x {width_px} px holds nothing; "
                "give 1 or more of each"
            )
        pixels = height_px * width_px
        slot_bytes = PAGE_BYTES + pixels + -pixels % PAGE_BYTES
        descriptor = os.memfd_create("deepkits-ring", os.MFD_CLOEXEC)
        try:
            os.ftruncate(descriptor, PAGE_BYTES + num_slots * slot_bytes)
            head = _HEAD.pack(MAGIC, num_slots, height_px, width_px, slot_bytes)
            os.pwrite(descriptor, head, 0)
            return cls(descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    @classmethod
    def attach(cls, descriptor: int) -> Ring:
        """Open a ring that another process created."""
        return cls(descriptor)

    def write(self, slot: int, trigger: int, pixels: np.ndarray, captured_ns: int) -> Head:
        """Copy a frame into a slot.

        Args:
            slot: which the owner of the ring has handed out.
            trigger: what the frame belongs to.
            pixels: (H, W) uint8 of the ring's size; rows may have gaps.
            captured_ns: when it was taken.
        Raises:
            ValueError: a frame of another size or type.
        """
        self._check(pixels)
        start = self._start(slot)
        sequence = _SLOT.unpack_from(self._memory, start)[0]
        # Odd from here on, also where a writer died in this slot before.
        sequence = sequence + 1 | 1
        _SLOT.pack_into(self._memory, start, sequence, trigger, captured_ns, 0)
        checksum = copy_crc32c(pixels, self._pixels(slot))
        head = Head(sequence + 1, trigger, captured_ns, checksum)
        _SLOT.pack_into(self._memory, start, head.sequence, trigger, captured_ns, checksum)
        return head

    def read(self, slot: int, trigger: int, *, has_checksum: bool = True) -> np.ndarray:
        """A trigger's pixels, where they lie: nothing is copied, and they cannot be written to.

        Args:
            slot: where they should be.
            trigger: whose they should be.
            has_checksum: whether to compare the checksum; it is enough that one reader does.
        Returns:
            (H, W) uint8.
        Raises:
            Damaged: the slot holds something else.
        """
        head = self.head(slot)
        self._check_head(slot, trigger, head)
        pixels = self._pixels(slot)
        if has_checksum and (found := crc32c(pixels)) != head.checksum:
            raise Damaged(
                f"the frame of trigger {trigger} has checksum {found:08x}, {head.checksum:08x} was "
                "written; it changed in memory"
            )
        frame = pixels.reshape(self.height_px, self.width_px)
        frame.flags.writeable = False
        return frame

    def head(self, slot: int) -> Head:
        """What a slot says of itself."""
        return Head(*_SLOT.unpack_from(self._memory, self._start(slot)))

    def cut(self, slot: int, trigger: int, boxes: Sequence[tuple[int, int, int, int]]) -> list:
        """Copies of parts of a frame, and certainly of this one.

        Args:
            slot: where it lies.
            trigger: whose it is.
            boxes: left, top, right, bottom of each, inside the frame.
        Raises:
            Damaged: the slot holds something else, or was written to meanwhile.
        """
        before = self.head(slot)
        self._check_head(slot, trigger, before)
        frame = self._pixels(slot).reshape(self.height_px, self.width_px)
        parts = [frame[top:bottom, left:right].copy() for left, top, right, bottom in boxes]
        self._check_head(slot, trigger, self.head(slot))
        return parts

    def close(self) -> None:
        """Give the memory back, once nobody looks at a frame any longer."""
        os.close(self.descriptor)
        try:
            self._memory.close()
        except BufferError:
            # A view of it is still held; the memory goes with that.
            return

    def _start(self, slot: int) -> int:
        if not 0 <= slot < self.num_slots:
            raise ValueError(f"slot={slot} is not one of 0 to {self.num_slots - 1}")
        return PAGE_BYTES + slot * self._slot_bytes

    def _pixels(self, slot: int) -> np.ndarray:
        size = self.height_px * self.width_px
        return np.frombuffer(self._memory, np.uint8, size, self._start(slot) + PAGE_BYTES)

    def _check(self, pixels: np.ndarray) -> None:
        if pixels.shape != (self.height_px, self.width_px) or pixels.dtype != np.uint8:
            size = " x ".join(str(length) for length in pixels.shape)
            raise ValueError(
                f"a frame of {size} {pixels.dtype} came, the recipe is for {self.height_px} x "
                f"{self.width_px} uint8; set the camera or take another recipe"
            )

    def _check_head(self, slot: int, trigger: int, head: Head) -> None:
        if head.sequence % 2:
            raise Damaged(f"slot {slot} is half written; its writer died or is at work")
        if head.trigger != trigger:
            raise Damaged(f"slot {slot} holds trigger {head.trigger}, not {trigger}")
