import asyncio

import pytest

from core.serve.config import ServeConfig
from core.serve.errors import BadRequest, Cancelled, Overloaded, TooLarge
from core.serve.limits import Budget, Slow, WrongEncoding, read_body, until_disconnect
from tests.core.serve.small_engine import SmallEngine, app_of, ask, get, post

INFER = "/v2/models/double/infer"


def pieces(*bodies, last="http.disconnect"):
    messages = [{"type": "http.request", "body": body, "more_body": True} for body in bodies]
    if last == "http.request":
        messages[-1]["more_body"] = False

    async def receive():
        if messages:
            return messages.pop(0)
        if last == "nothing":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return receive


def read(receive, headers=(), max_bytes=10, timeout_s=5.0, budget=None):
    budget = budget or Budget(100)
    return asyncio.run(read_body(receive, dict(headers), max_bytes, budget, timeout_s))


@pytest.mark.parametrize("bodies", [[b""], [b"a" * 10], [b"a" * 5, b"b" * 5], [b"a", b"", b"b"]])
def test_a_body_is_read_up_to_the_bound(bodies):
    assert read(pieces(*bodies, last="http.request")) == b"".join(bodies)


@pytest.mark.parametrize("bodies", [[b"a" * 11], [b"a" * 5, b"b" * 6], [b"a"] * 100])
def test_a_body_without_a_length_is_refused_beyond_the_bound(bodies):
    with pytest.raises(TooLarge, match="10 are taken"):
        read(pieces(*bodies, last="http.request"))


def test_an_endless_body_is_refused_where_it_passes_the_bound():
    given = []

    async def receive():
        given.append(1)
        return {"type": "http.request", "body": b"a" * 4, "more_body": True}

    with pytest.raises(TooLarge):
        read(receive)
    assert len(given) == 3


def test_a_length_beyond_the_bound_is_refused_unread():
    async def receive():
        raise AssertionError("read")

    with pytest.raises(TooLarge, match="11 bytes"):
        read(receive, {b"content-length": b"11"})


@pytest.mark.parametrize("length", [b"", b"-1", b"1e3", b"9" * 5000, "²".encode("latin-1")])
def test_a_length_that_is_none_is_refused(length):
    with pytest.raises(BadRequest, match="Content-Length"):
        read(pieces(b"", last="http.request"), {b"content-length": length})


@pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"GZIP, identity"])
def test_a_compressed_body_is_refused(encoding):
    with pytest.raises(WrongEncoding, match="Content-Encoding"):
        read(pieces(b""), {b"content-encoding": encoding})
    assert post(app_of(), INFER, b"", headers={b"content-encoding": encoding}).status == 415


def test_a_body_that_does_not_come_is_not_waited_for():
    with pytest.raises(Slow, match=r"1 bytes came in 0\.01 s"):
        read(pieces(b"a", last="nothing"), timeout_s=0.01)


def test_a_body_that_comes_fast_enough_has_its_time():
    async def trickle():
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"a" * 2**16, "more_body": len(given) < 5}

    given = []

    async def receive():
        given.append(1)
        return await trickle()

    assert len(read(receive, max_bytes=2**20, timeout_s=0.02, budget=Budget(2**20))) == 5 * 2**16


def test_bodies_are_held_up_to_a_bound_until_they_are_answered():
    budget = Budget(10)
    assert read(pieces(b"a" * 6, last="http.request"), budget=budget) == b"a" * 6
    for given in ([b"b" * 5], [b"b", b"b" * 4], [b"b" * 11]):
        with pytest.raises(Overloaded, match=r"[67] bytes are held"):
            read(pieces(*given, last="http.request"), budget=budget, max_bytes=20)
    assert read(pieces(b"b" * 4, last="http.request"), budget=budget) == b"b" * 4
    budget.give(6)
    assert read(pieces(b"c", b"c" * 5, last="http.request"), budget=budget) == b"c" * 6


def test_what_was_answered_or_went_away_is_not_held():
    app = app_of(config=ServeConfig(max_body_mib=0.001, access_log=False))
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}' + b" " * 900

    async def run():
        for _ in range(40):
            assert (await ask(app, "POST", INFER, body)).status == 200
            assert (await ask(app, "POST", INFER, b"?" * 1000)).status == 400
        slow = "/v2/models/slow/infer"
        waiting = [asyncio.create_task(ask(app, "POST", slow, body)) for _ in range(20)]
        await asyncio.sleep(0.01)
        refused = await ask(app, "POST", INFER, body)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return refused, await ask(app, "POST", INFER, body)

    refused, answered = asyncio.run(run())
    assert (refused.status, refused.headers["retry-after"], answered.status) == (429, "1", 200)


def test_a_caller_who_goes_away_while_sending_is_cancelled():
    with pytest.raises(Cancelled):
        read(pieces(b"a"))
    with pytest.raises(Cancelled):
        read(pieces())


def test_the_application_refuses_too_much_with_413():
    app = app_of(config=ServeConfig(max_body_mib=0.001, access_log=False))
    reply = asyncio.run(ask(app, "POST", INFER, b"", pieces=[b" " * 600] * 2))
    assert (reply.status, "1048 are taken" in reply.json["error"]) == (413, True)
    assert post(app, INFER, b" " * 2000).status == 413
    load = "/v2/repository/models/double/load"
    assert post(app_of(), load, b" " * (2**16 + 1)).status == 413


def test_other_requests_answer_at_once_what_they_do_not_take():
    app = app_of()
    assert get(app, INFER).status == 404
    assert post(app, "/v2").status == 405
    assert get(app, "/models/double/predict").status == 404


def test_an_answer_survives_a_timeout_inside():
    async def answer():
        try:
            async with asyncio.timeout(0.01):
                await asyncio.Event().wait()
        except TimeoutError:
            return "late"

    assert asyncio.run(until_disconnect(answer(), pieces(last="nothing"))) == "late"


def test_an_error_after_waiting_is_passed_on():
    async def answer():
        await asyncio.sleep(0)
        raise BadRequest("no")

    with pytest.raises(BadRequest, match="no"):
        asyncio.run(until_disconnect(answer(), pieces(last="nothing")))


def test_a_cancelled_server_is_no_caller_who_went_away():
    async def run():
        engine = SmallEngine()
        body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}'
        task = asyncio.create_task(ask(app_of(engine), "POST", "/v2/models/slow/infer", body))
        while not engine.calls:
            await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return engine.cancelled.is_set()

    assert asyncio.run(run())


def test_a_caller_who_goes_away_frees_the_slot_before_anything_else_runs():
    async def run():
        gone, freed = asyncio.Event(), []

        async def receive():
            await gone.wait()
            return {"type": "http.disconnect"}

        async def answer():
            try:
                await asyncio.Event().wait()
            finally:
                freed.append(1)

        task = asyncio.create_task(until_disconnect(answer(), receive))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        gone.set()
        turns = 0
        while not freed:
            await asyncio.sleep(0)
            turns += 1
        with pytest.raises(Cancelled):
            await task
        return turns, len(asyncio.all_tasks())

    turns, tasks = asyncio.run(run())
    assert turns <= 4
    assert tasks == 1
