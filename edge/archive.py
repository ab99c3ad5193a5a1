"""A tar with one spelling: equal files are equal archives, and no byte is left unchecked.

A reader of ordinary tars skips over much: padding, owner, times, what follows the end. Here every
header must be the one that `write_archive` makes for that name and size. `tar` reads the result.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

BLOCK = 512
CHUNK = 1 << 20
END = bytes(2 * BLOCK)
LONGEST_NAME = 100  # what the ustar name field holds
LARGEST_FILE = 8**11 - 1  # what its size field holds
FIRST = ("manifest.json", "signatures.json")

_NAME = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"5": "a folder entry",
    b"6": "a pipe",
}


@dataclass(frozen=True)
class Slice:
    """Where a file of a bundle lies: a part of an archive, or the whole of a file in a folder."""

    file: Path
    offset: int
    size: int

    def chunks(self) -> Iterator[memoryview]:
        """The bytes, at most 1 MiB at a time, each valid until the next.

        Raises:
            ValueError: the file is shorter than when it was looked at, or is no regular file.
        """
        buffer = memoryview(bytearray(min(CHUNK, self.size)))
        descriptor = _open_file(self.file)
        try:
            position, end = self.offset, self.offset + self.size
            while position < end:
                count = os.preadv(descriptor, [buffer[: end - position]], position)
                if count == 0:
                    raise ValueError(f"{self.file} changed while it was read; copy it again")
                yield buffer[:count]
                position += count
        finally:
            os.close(descriptor)

    def read(self) -> bytes:
        """All bytes."""
        return b"".join(bytes(chunk) for chunk in self.chunks())

    def sha256(self) -> str:
        """Hash of all bytes, hex."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()


def check_name(name: str) -> str:
    """The name, if a file in a bundle may have it.

    Raises:
        ValueError: it is absolute, climbs with .., is too long, or has other characters than
            letters, digits and ._-/
    """
    if len(name) > LONGEST_NAME:
        raise ValueError(f"name={name[:60]!r}... is over {LONGEST_NAME} characters; shorten it")
    if name.startswith("/"):
        raise ValueError(f"name={name!r} is absolute; a bundle holds relative paths alone")
    if {".", ".."} & set(name.split("/")):
        raise ValueError(f"name={name!r} climbs with . or ..; a bundle holds plain paths alone")
    if not _NAME.fullmatch(name):
        raise ValueError(f"name={name!r} is not made of letters, digits, '.', '_', '-' and '/'")
    return name


def ordered(names: Iterator[str] | Mapping[str, object]) -> list[str]:
    """Names in the order of an archive: manifest, signatures, then sorted."""
    return sorted(names, key=_rank)


def write_archive(path: Path, files: Mapping[str, bytes | Path]) -> None:
    """Write the canonical archive of some files; a reader sees all of it or nothing.

    Args:
        path: the archive; an older one is replaced.
        files: name -> content, or where the content lies. Their order does not matter.
    Raises:
        ValueError: a name may not be in a bundle, or a file changed while it was copied.
    """
    part = path.with_name(f".part-{path.name}")
    try:
        with part.open("wb") as stream:
            for name in _checked(ordered(files)):
                content = files[name]
                size = len(content) if isinstance(content, bytes) else content.stat().st_size
                stream.write(_header(name, size))
                if isinstance(content, bytes):
                    stream.write(content)
                else:
                    for chunk in Slice(content, 0, size).chunks():
                        stream.write(chunk)
                stream.write(bytes(-size % BLOCK))
            stream.write(END)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_archive(path: Path, *, max_files: int = 10_000) -> dict[str, Slice]:
    """Where the files of an archive lie; their contents are not read.

    Raises:
        ValueError: a single byte outside the files' contents differs from what `write_archive`
            writes for these names and sizes.
    """
    files: dict[str, Slice] = {}
    descriptor = _open_file(path)
    try:
        end, position = os.fstat(descriptor).st_size, 0
        while True:
            header = os.pread(descriptor, BLOCK, position)
            if len(header) < BLOCK or not any(header):
                break
            name, size = _parse(header, path, position)
            position += BLOCK
            if position + size > end:
                raise ValueError(
                    f"{path}: {name} has size={size}, only {end - position} bytes follow; the file "
                    "was cut off or is a bomb; copy it again"
                )
            padding = -size % BLOCK
            if os.pread(descriptor, padding, position + size) != bytes(padding):
                raise ValueError(f"{path}: the padding after {name} is not zero; copy it again")
            if name in files:
                raise ValueError(f"{path}: {name} is there twice; make the bundle again")
            files[name] = Slice(path, position, size)
            if len(files) > max_files:
                raise ValueError(f"{path} has over {max_files} files; refused as a bomb")
            position += size + padding
        tail = os.pread(descriptor, len(END) + 1, position)
    finally:
        os.close(descriptor)
    if len(tail) < len(END):
        raise ValueError(f"{path} ends at byte {end}, before the end of the archive; copy it again")
    if tail != END:
        raise ValueError(f"{path} goes on after the end of the archive; copy it again")
    if list(files) != ordered(files):
        raise ValueError(f"{path}: files are not in their order; make the bundle again")
    _checked(list(files))
    return files


def read_folder(path: Path, *, max_files: int = 10_000) -> dict[str, Slice]:
    """Where the files of a bundle lie that is a plain folder; the same checks as of an archive.

    Raises:
        ValueError: there is anything but folders and regular files, or a name no bundle may have.
    """
    files: dict[str, Slice] = {}
    waiting = [path]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                name = check_name(Path(entry.path).relative_to(path).as_posix())
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(Path(entry.path))
                    continue
                info = entry.stat(follow_symlinks=False)
                if not stat.S_ISREG(info.st_mode):
                    raise ValueError(
                        f"{path}: {name} is no regular file; a bundle has no links or devices"
                    )
                files[name] = Slice(Path(entry.path), 0, info.st_size)
                if len(files) + len(waiting) > max_files:
                    raise ValueError(f"{path} has over {max_files} files; refused as a bomb")
    return {name: files[name] for name in ordered(files)}


def _rank(name: str) -> tuple[int, str]:
    return (FIRST.index(name) if name in FIRST else len(FIRST), name)


def _checked(names: list[str]) -> list[str]:
    """Names that can also lie in one folder: none is a folder of another."""
    known = set(names)
    for name in names:
        check_name(name)
        parts = name.split("/")
        for count in range(1, len(parts)):
            if (folder := "/".join(parts[:count])) in known:
                raise ValueError(f"name={folder!r} is a file and the folder of {name}; rename one")
    return names


def _header(name: str, size: int) -> bytes:
    """The ustar header: mode 0644, owner 0, time 0."""
    if size > LARGEST_FILE:
        raise ValueError(f"{name} has size={size}, over {LARGEST_FILE} bytes; split it")
    fields = (
        name.encode("ascii").ljust(100, b"\0"),
        b"0000644\0" + b"0000000\0" * 2,
        b"%011o\0" % size,
        b"00000000000\0",
        b" " * 8,  # the checksum counts itself as spaces
        b"0".ljust(101, b"\0"),
        b"ustar\x0000",
    )
    header = bytearray(b"".join(fields).ljust(BLOCK, b"\0"))
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _parse(header: bytes, path: Path, position: int) -> tuple[str, int]:
    """Name and size of a header, if it is the canonical one for them."""
    where = f"{path}: the header at byte {position}"
    if header[257:262] != b"ustar":
        is_gzip = position == 0 and header.startswith(b"\x1f\x8b")
        what = f"{path} is compressed" if is_gzip else f"{where} is not of a tar"
        raise ValueError(f"{what}; a bundle is a plain tar, copy it again")
    kind = header[156:157]
    if kind in _KINDS:
        raise ValueError(f"{where} is of {_KINDS[kind]}; a bundle has regular files alone")
    raw_name, raw_size = header[:100].rstrip(b"\0"), header[124:135]
    try:
        name = raw_name.decode("ascii")
    except UnicodeDecodeError:
        raise ValueError(f"{where} has name={raw_name!r}, not ASCII; rename it") from None
    check_name(name)
    if not re.fullmatch(rb"[0-7]{11}", raw_size):
        raise ValueError(f"{where} has size={raw_size!r}, not 11 octal digits; copy it again")
    size = int(raw_size, 8)
    if header != _header(name, size):
        raise ValueError(f"{where} is not canonical for {name}; copy the bundle again")
    return name, size


def _open_file(path: Path) -> int:
    """A descriptor of a regular file; opening a pipe must not wait for its writer."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise ValueError(f"{path} is no regular file; name a bundle")
    return descriptor
