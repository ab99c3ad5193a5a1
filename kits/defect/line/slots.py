"""Who uses which slot of a ring: one is free again when nobody reads or writes it any longer."""

from __future__ import annotations

import asyncio


class Slots:
    """Of one ring; belongs to one event loop."""

    def __init__(self, number: int) -> None:
        self._free = list(range(number))
        self._users = [0] * number
        self._freed = asyncio.Event()

    @property
    def num_free(self) -> int:
        """Slots that nobody uses."""
        return len(self._free)

    def take(self) -> int | None:
        """A slot for one more frame, used by the caller; None: all are in use."""
        if not self._free:
            return None
        slot = self._free.pop(0)
        self._users[slot] = 1
        return slot

    def hold(self, slot: int) -> None:
        """One more uses it."""
        self._users[slot] += 1

    def release(self, slot: int) -> None:
        """One of its users is done."""
        self._users[slot] -= 1
        if not self._users[slot]:
            # Behind the others: a late reader of the last frame finds it for longer.
            self._free.append(slot)
            self._freed.set()

    async def wait_free(self) -> None:
        """Until there is a free slot."""
        while not self._free:
            self._freed.clear()
            await self._freed.wait()
