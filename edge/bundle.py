"""A model with all it needs, in one signed file: opened only after every byte was checked."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import canonical
from edge.archive import Slice, read_archive, read_folder, write_archive
from edge.checks import (
    check_age,
    check_all_signatures,
    check_disk,
    check_files,
    check_hash,
    check_trusted_signatures,
    read_targets,
    signed_message,
    too_large,
)
from edge.manifest import MANIFEST, SCHEMA, SIGNATURES, Manifest, canonical_manifest, key_id
from edge.target import Target, machine
from edge.trust import Trust

if TYPE_CHECKING:
    from edge.keys import Signer

MAX_BYTES = 16 << 30
MAX_FILES = 10_000
MAX_MANIFEST_BYTES = 4 << 20
MAX_SIGNATURES_BYTES = 64 << 10


@dataclass(frozen=True)
class Bundle:
    """A verified bundle."""

    path: Path
    manifest: Manifest
    targets: Mapping[str, Target]  # by id, in the manifest's order of preference
    slices: Mapping[str, Slice]

    @classmethod
    def open(
        cls,
        path: str | Path,
        trust: Trust | None = None,
        *,
        now: int | None = None,
        arch: str | None = None,
        max_bytes: int = MAX_BYTES,
    ) -> Bundle:
        """Check a bundle; nothing but the standard library's JSON reader sees its content.

        The order is: size, structure, signatures, schema, every hash, rollback index, expiry,
        runtime version, architecture, free disk. The first thing wrong ends it.

        Args:
            path: an archive, or a folder with the same files.
            trust: whose signatures count; None reads the default trust folder.
            now: seconds since 1970; None asks the clock.
            arch: of the device it is for; None: this machine's.
            max_bytes: a larger bundle is refused unread.
        Raises:
            ValueError: anything is wrong; each case has its own message.
            OSError: the file cannot be read.
        """
        path = Path(path)
        trust = Trust.load() if trust is None else trust
        now = int(time.time()) if now is None else now
        slices = _read_structure(path, max_bytes)
        manifest_bytes = slices[MANIFEST].read()
        signatures = check_trusted_signatures(
            manifest_bytes, slices[SIGNATURES].read(), trust.root, path, now
        )
        # Parsed only now, when enough trusted keys stand for each of its bytes.
        manifest = Manifest.from_json(canonical.loads(manifest_bytes, MANIFEST))
        check_all_signatures(manifest, manifest_bytes, signatures, trust.root)
        check_files(manifest, slices)
        check_age(manifest, trust, now)
        targets = read_targets(manifest, slices, arch or machine())
        check_disk(manifest, path)
        return cls(path, manifest, targets, slices)

    @property
    def files(self) -> tuple[str, ...]:
        """Names of all files that `read` knows, sorted."""
        return tuple(sorted(self.manifest.files))

    @property
    def num_bytes(self) -> int:
        """Of all files together, with the manifest and the signatures."""
        return sum(part.size for part in self.slices.values())

    def read(self, name: str) -> bytes:
        """The content of a file, hashed again: what is used is what was checked.

        Raises:
            ValueError: there is no such file, or it changed since the bundle was opened.
        """
        if name not in self.manifest.files:
            near = ", ".join(file for file in self.files if file.startswith(name.split("/")[0]))
            raise ValueError(f"{self.path} has no file {name!r}; it has {near or self.files}")
        data = self.slices[name].read()
        check_hash(name, hashlib.sha256(data).hexdigest(), self.manifest)
        return data


def write_bundle(
    path: str | Path,
    manifest: Mapping[str, Any],
    files: Mapping[str, bytes | Path],
    roles: Mapping[str, str],
    sign: Sequence[Signer],
) -> None:
    """Write a signed bundle; equal inputs give equal bytes.

    Args:
        path: the archive; an older one is replaced.
        manifest: the manifest without `schema`, `files` and `signers`, which are made here.
        files: name -> content, or where the content lies.
        roles: name -> role; a file not named has its top folder's name, or `other`.
        sign: keys that sign, each once.
    Raises:
        ValueError: a reader would refuse the manifest, or nobody signs.
    """
    if not sign or len({signer.public for signer in sign}) < len(sign):
        raise ValueError(f"sign has {len(sign)} keys, it needs at least one, and each once")
    if unknown := sorted(set(roles) - set(files)):
        raise ValueError(f"roles names {', '.join(unknown)}, not among files; drop them")
    entries = {
        name: _entry(content, roles.get(name, name.split("/")[0] if "/" in name else "other"))
        for name, content in files.items()
    }
    signers = {key_id(signer.public): signer.public.hex() for signer in sign}
    content = {**manifest, "schema": SCHEMA, "files": entries, "signers": signers}
    data = canonical_manifest(content)
    message = signed_message(data)
    signatures = {key_id(signer.public): signer.sign(message).hex() for signer in sign}
    path = Path(path)
    part = path.with_name(f".unchecked-{path.name}")
    try:
        write_archive(part, {**files, MANIFEST: data, SIGNATURES: canonical.dumps(signatures)})
        # A file may have changed between hashing and copying, or the disk may be bad.
        check_files(Manifest.from_json(content), read_archive(part))
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _entry(content: bytes | Path, role: str) -> dict[str, Any]:
    """What the manifest says of a file."""
    if isinstance(content, bytes):
        return {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "role": role}
    part = Slice(content, 0, content.stat().st_size)
    return {"sha256": part.sha256(), "size": part.size, "role": role}


def _read_structure(path: Path, max_bytes: int) -> dict[str, Slice]:
    """Where the files lie; sizes are bounded before anything is read."""
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist; name a bundle")
    is_folder = path.is_dir()
    if not is_folder and path.stat().st_size > max_bytes:
        raise ValueError(too_large(path, path.stat().st_size, max_bytes))
    slices = (read_folder if is_folder else read_archive)(path, max_files=MAX_FILES)
    if (size := sum(part.size for part in slices.values())) > max_bytes:
        raise ValueError(too_large(path, size, max_bytes))
    for name, limit in ((MANIFEST, MAX_MANIFEST_BYTES), (SIGNATURES, MAX_SIGNATURES_BYTES)):
        if name not in slices:
            raise ValueError(f"{path} has no {name}; it is not a bundle, or part of it is missing")
        if slices[name].size > limit:
            raise ValueError(too_large(Path(name), slices[name].size, limit))
    return slices
