import asyncio
import logging

import numpy as np
import pytest

from core.serve.config import ModelFile
from core.serve.engine import Call
from core.serve.errors import BadRequest, NotFound, NotReady
from core.serve.watch import Watcher
from tests.core.serve.onnx_files import write_nan, write_slow, write_times
from tests.core.serve.test_local_engine import X, call, running, slow_call, until

ISOLATIONS = ["auto", "process"]


def versions(engine):
    return [(one.version, one.state) for one in engine.catalogue()]


def reloads(engine, result):
    page, _ = engine._metrics.render()
    start = f'deepkits_reloads_total{{model="m",result="{result}"}} '
    (line,) = [line for line in page.decode().splitlines() if line.startswith(start)]
    return float(line.removeprefix(start))


async def assert_answers(engine, factor, version):
    answer = await engine.infer(call())
    np.testing.assert_array_equal(answer.outputs["y"], factor * X)
    assert answer.version == version


@pytest.mark.parametrize("isolation", ISOLATIONS)
def test_a_changed_file_becomes_the_newest_version(tmp_path, isolation):
    async def run():
        file = write_times(tmp_path / "m.onnx", 1.0)
        async with running(file, isolation=isolation) as engine:
            await assert_answers(engine, 1, "1")
            assert (await engine.reload("m")).version == "1"
            assert reloads(engine, "unchanged") == 1
            write_times(file, 2.0)
            assert (await engine.reload("m")).version == "2"
            await assert_answers(engine, 2, "2")
            assert reloads(engine, "ok") == 1
            # Nobody waits for the old one.
            await until(lambda: versions(engine) == [("2", "ready")])
            with pytest.raises(NotFound, match="there are: 2"):
                await engine.infer(call(version="1"))

    asyncio.run(run())


@pytest.mark.parametrize("isolation", ISOLATIONS)
@pytest.mark.parametrize("fault", ["nothing", "cut", "nan"])
def test_a_file_that_fails_leaves_the_old_version_in_service(tmp_path, isolation, fault):
    async def run():
        file = write_times(tmp_path / "m.onnx", 1.0)
        whole = file.read_bytes()
        async with running(file, isolation=isolation) as engine:
            if fault == "nan":
                write_nan(file)
            else:
                file.write_bytes(whole[: len(whole) // 2] if fault == "cut" else b"\x00")
            with pytest.raises(BadRequest, match=r"m\.onnx.*the old version stays in service"):
                await engine.reload("m")
            assert reloads(engine, "rolled_back") == 1
            await assert_answers(engine, 1, "1")
            if fault == "nan":
                # What failed while it was loaded is told until the file is another.
                assert versions(engine) == [("2", "failed"), ("1", "ready")]
                with pytest.raises(NotReady, match=r"version 2 .* is failed: .*self-test"):
                    engine.find("m", "2")
            write_times(file, 3.0)
            newest = await engine.reload("m")
            await assert_answers(engine, 3, newest.version)
            await until(lambda: versions(engine) == [(newest.version, "ready")])

    asyncio.run(run())


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ModuleNotFoundError()])
def test_a_machine_that_cannot_load_it_leaves_the_old_version_too(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    async def run():
        file = write_times(tmp_path / "m.onnx", 1.0)
        async with running(file) as engine:
            write_times(file, 2.0)
            with monkeypatch.context() as patch:
                patch.setattr("core.serve.loading.open_inline", fail)
                with pytest.raises(BadRequest, match="the old version stays in service"):
                    await engine.reload("m")
                await assert_answers(engine, 1, "1")
            await engine.reload("m")
            await assert_answers(engine, 2, engine.find("m").version)

    asyncio.run(run())


def test_requests_of_the_old_version_are_finished_by_it(tmp_path):
    async def run():
        file = write_slow(tmp_path / "m.onnx", 1.0)
        async with running(file, isolation="process", max_batch=1) as engine:
            old = [asyncio.create_task(engine.infer(slow_call(50))) for _ in range(4)]
            await asyncio.sleep(0)
            write_slow(file, 2.0)
            reload = asyncio.create_task(engine.reload("m"))
            while not reload.done():
                answer = await engine.infer(slow_call(1))
                assert answer.outputs["y"] == float(answer.version)
            assert (await engine.infer(slow_call(1))).version == "2"
            answers = await asyncio.gather(*old)
            assert [(one.version, one.outputs["y"][0]) for one in answers] == [("1", 1.0)] * 4

    asyncio.run(run())


def test_two_reloads_at_once_load_a_version_once(tmp_path):
    async def run():
        file = write_times(tmp_path / "m.onnx", 1.0)
        async with running(file, isolation="process") as engine:
            write_times(file, 2.0)
            told = await asyncio.gather(*(engine.reload("m") for _ in range(3)))
            assert [one.version for one in told] == ["2"] * 3
            assert (reloads(engine, "ok"), reloads(engine, "unchanged")) == (1, 2)

    asyncio.run(run())


def test_an_unknown_model_cannot_be_reloaded(tmp_path):
    async def run():
        async with running(write_times(tmp_path / "m.onnx", 1.0)) as engine:
            with pytest.raises(NotFound):
                await engine.reload("n")

    asyncio.run(run())


def test_of_several_files_the_changed_one_is_reloaded_and_newest(tmp_path):
    one = write_times(tmp_path / "one.onnx", 1.0)
    two = write_times(tmp_path / "two.onnx", 2.0)

    async def run():
        async with running(ModelFile("m", one), ModelFile("m", two)) as engine:
            write_times(one, 3.0)
            await engine.reload("m")
            await assert_answers(engine, 3, "3")
            await until(lambda: versions(engine) == [("2", "ready"), ("3", "ready")])
            answer = await engine.infer(Call("m", {"x": X}, version="2"))
            np.testing.assert_array_equal(answer.outputs["y"], 2 * X)

    asyncio.run(run())


def test_a_model_that_got_slow_moves_into_workers(tmp_path, monkeypatch):
    async def run():
        file = write_times(tmp_path / "m.onnx", 1.0)
        async with running(file) as engine:
            assert engine._crew.pool.workers == {}
            monkeypatch.setattr("core.serve.model.INLINE_S", 0.0)
            write_times(file, 2.0)
            await engine.reload("m")
            assert len(engine._crew.pool.workers) == 1
            await assert_answers(engine, 2, "2")

    asyncio.run(run())


def test_a_watched_file_is_reloaded_once_it_is_at_rest(tmp_path, caplog):
    caplog.set_level(logging.WARNING)

    async def run():
        file = write_times(tmp_path / "m.onnx", 1.0)
        async with running(file) as engine:
            watcher = Watcher([file], engine._loader.changed)
            watch = asyncio.create_task(watcher.run(0.05))
            write_times(file, 2.0)
            await until(lambda: engine.find("m").version == "2")
            file.write_bytes(b"\x00nothing")
            await until(lambda: reloads(engine, "rolled_back") == 1)
            await assert_answers(engine, 2, "2")
            file.unlink()
            await asyncio.sleep(0.2)
            await assert_answers(engine, 2, "2")
            write_times(file, 4.0)
            await until(lambda: engine.find("m").version == "3")
            await assert_answers(engine, 4, "3")
            # It is told once, not at every look.
            assert reloads(engine, "rolled_back") == 1
            watch.cancel()

    asyncio.run(run())
    assert "the old version stays in service" in caplog.text


def test_a_file_is_told_of_when_nobody_writes_to_it_any_longer(tmp_path):
    file = tmp_path / "m.onnx"
    file.write_bytes(b"one")

    async def changed(path):
        raise AssertionError(path)

    watcher = Watcher([file], changed)
    assert not watcher.look()
    assert watcher.take() == []
    file.write_bytes(b"two, half")
    assert watcher.look()
    # Written to between two looks.
    file.write_bytes(b"two, half and half")
    assert watcher.take() == []
    assert watcher.look()
    assert watcher.take() == [file]
    assert not watcher.look()
    file.unlink()
    assert watcher.look()
    assert watcher.take() == []
