import asyncio

from kits.defect.line.slots import Slots


def test_a_slot_is_free_when_its_last_user_is_done():
    slots = Slots(2)
    first, second = slots.take(), slots.take()
    assert {first, second} == {0, 1}
    assert slots.take() is None
    slots.hold(first)
    slots.release(first)
    assert slots.take() is None
    slots.release(first)
    assert slots.take() == first


def test_whoever_waits_goes_on_when_one_is_free():
    async def run():
        slots = Slots(1)
        slot = slots.take()
        waiting = asyncio.create_task(slots.wait_free())
        await asyncio.sleep(0)
        assert not waiting.done()
        slots.release(slot)
        await waiting

    asyncio.run(run())
