import threading

import numpy as np
import pytest
from PIL import Image

from kits.defect.line import store as module
from kits.defect.line.store import Store

PICTURE = np.arange(100, dtype=np.uint8).reshape(10, 10)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_pictures_are_written_whole_and_not_more_than_asked(tmp_path):
    troubles = []
    store = Store(tmp_path / "defects", 2, troubles.append)
    assert [store.keep(f"{at}.png", PICTURE) for at in range(3)] == ["0.png", "1.png", ""]
    store.close()
    assert names(tmp_path / "defects") == ["0.png", "1.png"]
    assert np.array_equal(np.asarray(Image.open(tmp_path / "defects" / "1.png")), PICTURE)
    assert not troubles


def test_a_picture_that_cannot_be_written_is_told_and_the_next_one_that_can(tmp_path):
    troubles = []
    store = Store(tmp_path / "defects", 9, troubles.append)
    store.keep("missing/0.png", PICTURE)
    store.keep("1.png", PICTURE)
    store.close()
    assert "missing/0.png cannot be written" in troubles[0]
    assert troubles[1:] == [""]


def test_a_slow_disk_holds_up_nobody(tmp_path, monkeypatch):
    troubles, may_go_on = [], threading.Event()
    monkeypatch.setattr(module, "MAX_WAITING", 3)
    monkeypatch.setattr(module.Image, "fromarray", lambda _: pytest.fail("it has no disk"))

    class Slow:
        def save(self, path, *_, **__):
            may_go_on.wait(10)
            path.write_bytes(b"x")

    monkeypatch.setattr(module.Image, "fromarray", lambda _: Slow())
    store = Store(tmp_path / "defects", 99, troubles.append)
    kept = [store.keep(f"{at}.png", PICTURE) for at in range(10)]
    assert kept.count("") >= 6
    assert "3 pictures wait for the disk" in troubles[0]
    may_go_on.set()
    store.close()
    assert len(names(tmp_path / "defects")) == 10 - kept.count("")
