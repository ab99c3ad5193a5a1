"""Copies of the model files in service, for workers that start later than the file may change.

They lie in a folder of their own, which a lock marks as used: what a killed process left behind is
removed by the next.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

from core.schedule.model_file import BUNDLE, ONNX, hash_contents, hash_model, read_onnx

PREFIX = "deepkits-models-"
LOCK = "lock"


class Kept:
    """A folder of copies; `close` removes it."""

    def __init__(self) -> None:
        remove_left_behind()
        # Not under its name before it is locked: another process would take it for left behind.
        made = Path(tempfile.mkdtemp(prefix=".deepkits-"))
        self._lock = os.open(made / LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self.folder = made.with_name(PREFIX + made.name.removeprefix(".deepkits-"))
        made.rename(self.folder)
        self._count = 0

    def keep(self, file: Path, sha256: str) -> Path:
        """A copy of a model file, with the weights beside it.

        Raises:
            ValueError: it is not the file that is meant, or of no kind that can be served.
            OSError: it cannot be read, or the disk is full.
        """
        self._count += 1
        folder = self.folder / str(self._count)
        folder.mkdir()
        copy = folder / file.name
        try:
            if file.suffix == ONNX:
                # Read once: a start waits for it.
                contents = read_onnx(file)
                found = hash_contents(contents)
                for name, content in contents.items():
                    (folder / name).write_bytes(content)
            else:
                shutil.copyfile(file, copy)
                found = hash_model(copy) if file.suffix == BUNDLE else sha256
            if sha256 and found != sha256:
                raise ValueError(f"{file} changed while it was copied; load it again")
        except BaseException:
            shutil.rmtree(folder)
            raise
        return copy

    def drop(self, copy: Path) -> None:
        """A model is not served any longer."""
        shutil.rmtree(copy.parent)

    def close(self) -> None:
        """Remove all copies."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def remove_left_behind() -> None:
    """Remove the folders of processes that ended without closing theirs."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            lock = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            # Another user's, or removed by another process just now.
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(lock).st_uid == os.getuid():
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            continue
        finally:
            os.close(lock)
