"""Whom a device trusts (`root.json`) and what it has seen (`rollback.json`), in one folder."""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edge import canonical, ed25519
from edge.manifest import check_keys, check_time

ROOT_SCHEMA = "deepkits.root/1"
ROLLBACK_SCHEMA = "deepkits.rollback/1"
MAX_BYTES = 1 << 20
_FIELDS = ("schema", "version", "threshold", "expires", "keys")


@dataclass(frozen=True)
class Root:
    """The keys a device trusts, and how many of them a bundle needs.

    A root of version N+1 replaces one of version N when enough keys of both have signed it.
    """

    version: int
    threshold: int
    keys: Mapping[str, str]  # key id -> public key, hex
    expires: int | None = None  # seconds since 1970, UTC
    signatures: Mapping[str, str] = field(default_factory=dict)  # key id -> signature, hex

    def __post_init__(self) -> None:
        check_keys(dict(self.keys), "root.keys")
        if not 1 <= self.threshold <= len(self.keys):
            raise ValueError(
                f"root.threshold={self.threshold} is not from 1 to the {len(self.keys)} keys"
            )
        if self.expires is not None:
            check_time(self.expires, "root.expires")
        if self.version < 1:
            raise ValueError(f"root.version={self.version} is not from 1 up")

    @classmethod
    def from_bytes(cls, data: bytes, what: str) -> Root:
        """Read `root.json`; its own threshold of keys must have signed it.

        Raises:
            ValueError: not canonical, keys missing or unknown, too few good signatures.
        """
        root = cls.draft(data, what)
        root.check_signed_by(root, what)
        return root

    @classmethod
    def draft(cls, data: bytes, what: str) -> Root:
        """Read a root that is still being signed."""
        content = canonical.loads(data, what)
        if not isinstance(content, dict) or content.get("schema") != ROOT_SCHEMA:
            raise ValueError(f"{what} is not of schema {ROOT_SCHEMA}; name a root")
        if set(content) != {*_FIELDS, "signatures"}:
            raise ValueError(f"{what} has keys {sorted(content)}; it needs {_FIELDS} + signatures")
        for name in ("version", "threshold"):
            if type(content[name]) is not int:
                raise ValueError(f"{what}: {name}={content[name]!r} is not a whole number")
        for name in ("keys", "signatures"):
            values = content[name].values() if isinstance(content[name], dict) else [None]
            if not all(isinstance(value, str) for value in values):
                raise ValueError(f"{what}: {name} is not an object of texts")
        return cls(**{name: value for name, value in content.items() if name != "schema"})

    def to_bytes(self) -> bytes:
        """The content of `root.json`."""
        return canonical.dumps({**self._signed(), "signatures": dict(self.signatures)})

    def message(self) -> bytes:
        """What keys sign."""
        digest = hashlib.sha256(canonical.dumps(self._signed())).digest()
        return f"{ROOT_SCHEMA}\n".encode() + digest

    def missing_signatures(self, by: Root) -> int:
        """How many more keys of a root must sign this one."""
        message = self.message()
        good = sum(
            ed25519.verify(bytes.fromhex(public), message, unhex(self.signatures.get(id_, "")))
            for id_, public in by.keys.items()
        )
        return max(by.threshold - good, 0)

    def check_signed_by(self, by: Root, what: str) -> None:
        """Make sure that enough keys of a root (this one or the one before) have signed this.

        Raises:
            ValueError: too few have.
        """
        if missing := self.missing_signatures(by):
            raise ValueError(
                f"{what} lacks {missing} of {by.threshold} signatures of the keys of root version "
                f"{by.version}; sign it with `python -m edge.keys sign`"
            )

    def _signed(self) -> dict[str, Any]:
        values = {name: getattr(self, name) for name in _FIELDS[1:]}
        return {"schema": ROOT_SCHEMA, **values, "keys": dict(self.keys)}


@dataclass(frozen=True)
class Trust:
    """The trust folder of a device."""

    folder: Path
    root: Root

    @classmethod
    def load(cls, folder: Path | None = None) -> Trust:
        """Read the trust folder: the given one, `$DEEPKITS_HOME` or `~/.config/deepkits`.

        Raises:
            ValueError: there is no root, or it is damaged.
        """
        folder = home() if folder is None else folder
        path = folder / "root.json"
        if not path.exists():
            raise ValueError(
                f"{path} does not exist: nobody is trusted yet; make a key and a root with "
                "`python -m edge.keys new`, or take over a root with `python -m edge.keys trust`"
            )
        return cls(folder, Root.from_bytes(read_bounded(path), str(path)))

    def rollback_index(self, name: str) -> int:
        """The highest accepted rollback index of the bundles of a name; 0 if there was none.

        Raises:
            ValueError: the file is damaged: then nothing is known, and nothing accepted.
        """
        return self._indexes().get(name, 0)

    def accept(self, name: str, rollback_index: int) -> None:
        """Take no bundle of this name with a lower index from now on; never lowers it."""
        with locked(self.folder):
            indexes = self._indexes()
            indexes[name] = max(rollback_index, indexes.get(name, 0))
            content = canonical.dumps({"schema": ROLLBACK_SCHEMA, "indexes": indexes})
            write_atomic(self.folder / "rollback.json", content)

    def replace_root(self, root: Root, what: str) -> Trust:
        """Trust the next root instead of this one.

        Raises:
            ValueError: it is not the next version, or not signed by enough keys of both.
        """
        with locked(self.folder):
            current = Trust.load(self.folder).root
            if root.version != current.version + 1:
                raise ValueError(
                    f"{what} has version={root.version}, this device has {current.version} and "
                    f"takes {current.version + 1} next; give it each version in turn"
                )
            root.check_signed_by(current, what)
            root.check_signed_by(root, what)
            write_atomic(self.folder / "root.json", root.to_bytes())
        return Trust(self.folder, root)

    def _indexes(self) -> dict[str, int]:
        path = self.folder / "rollback.json"
        if not path.exists():
            return {}
        content = canonical.loads(read_bounded(path), str(path))
        indexes = content.get("indexes") if isinstance(content, dict) else None
        if (
            not isinstance(indexes, dict)
            or content != {"schema": ROLLBACK_SCHEMA, "indexes": indexes}
            or not all(type(index) is int and index >= 0 for index in indexes.values())
        ):
            raise ValueError(f"{path} is not of schema {ROLLBACK_SCHEMA}; restore it from a backup")
        return indexes


def home() -> Path:
    """The trust folder when none is named."""
    named = os.environ.get("DEEPKITS_HOME")
    return Path(named) if named else Path.home() / ".config" / "deepkits"


def utc(seconds: int) -> str:
    """A time for messages."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def read_bounded(path: Path) -> bytes:
    """A small file.

    Raises:
        ValueError: it is over 1 MiB.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"{path} is over {MAX_BYTES} bytes; it is not what it should be")
    return data


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a crash leaves the old one or the new one, never a part."""
    part = path.with_name(f".part-{path.name}")
    with part.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    part.replace(path)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Bring a folder's entries (new names, renames) to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One process at a time changes a trust folder."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def unhex(text: str) -> bytes:
    """Bytes of lower-case hex; empty for anything else, which no signature fits."""
    is_hex = len(text) % 2 == 0 and set(text) <= set("0123456789abcdef")
    return bytes.fromhex(text) if is_hex else b""
