"""A model with all it needs, in one signed file: opened only after every byte was checked."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge import canonical, ed25519
from edge.archive import Slice, read_archive, read_folder, write_archive
from edge.manifest import (
    MANIFEST,
    RUNTIME,
    SCHEMA,
    SIGNATURES,
    Manifest,
    canonical_manifest,
    key_id,
    runtime_number,
)
from edge.target import Target, machine
from edge.trust import Root, Trust, unhex, utc

if TYPE_CHECKING:
    from edge.keys import Signer

MAX_BYTES = 16 << 30
MAX_FILES = 10_000
MAX_MANIFEST_BYTES = 4 << 20
MAX_SIGNATURES_BYTES = 64 << 10
MAX_TARGET_BYTES = 1 << 20


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
        signatures = _check_trusted_signatures(
            manifest_bytes, slices[SIGNATURES].read(), trust.root, path, now
        )
        # Parsed only now, when enough trusted keys stand for each of its bytes.
        manifest = Manifest.from_json(canonical.loads(manifest_bytes, MANIFEST))
        _check_all_signatures(manifest, manifest_bytes, signatures, trust.root)
        _check_files(manifest, slices)
        _check_age(manifest, trust, now)
        targets = _read_targets(manifest, slices, arch or machine())
        _check_disk(manifest, path)
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
        _check_hash(name, hashlib.sha256(data).hexdigest(), self.manifest)
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
    data = canonical_manifest(
        {**manifest, "schema": SCHEMA, "files": entries, "signers": signers},
    )
    message = signed_message(data)
    signatures = {key_id(signer.public): signer.sign(message).hex() for signer in sign}
    write_archive(Path(path), {**files, MANIFEST: data, SIGNATURES: canonical.dumps(signatures)})


def signed_message(manifest: bytes) -> bytes:
    """What the keys sign: the schema and the hash of the manifest's bytes."""
    return f"{SCHEMA}\n".encode() + hashlib.sha256(manifest).digest()


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
        raise ValueError(_too_large(path, path.stat().st_size, max_bytes))
    slices = (read_folder if is_folder else read_archive)(path, max_files=MAX_FILES)
    if (size := sum(part.size for part in slices.values())) > max_bytes:
        raise ValueError(_too_large(path, size, max_bytes))
    for name, limit in ((MANIFEST, MAX_MANIFEST_BYTES), (SIGNATURES, MAX_SIGNATURES_BYTES)):
        if name not in slices:
            raise ValueError(f"{path} has no {name}; it is not a bundle, or part of it is missing")
        if slices[name].size > limit:
            raise ValueError(_too_large(Path(name), slices[name].size, limit))
    return slices


def _too_large(path: Path, size: int, limit: int) -> str:
    return f"{path} has size={size}, over the limit of {limit} bytes; refused unread"


def _check_trusted_signatures(
    manifest: bytes, data: bytes, root: Root, path: Path, now: int
) -> dict[str, str]:
    """Make sure that enough keys of the root signed these bytes of the manifest.

    `signatures.json` is read before anybody vouches for it: at most 64 KiB, by the standard
    library's JSON reader, which makes nothing but plain values. The manifest is only hashed.
    """
    if root.expires is not None and now >= root.expires:
        raise ValueError(
            f"the trusted root expired on {utc(root.expires)}; give the device the next one with "
            "`python -m edge.keys trust`"
        )
    signatures = canonical.loads(data, SIGNATURES)
    if not isinstance(signatures, dict) or not all(
        isinstance(value, str) and len(unhex(value)) == ed25519.SIGNATURE_BYTES
        for value in signatures.values()
    ):
        raise ValueError(f"{SIGNATURES} is not an object of key ids and 64-byte signatures in hex")
    trusted = {id_: root.keys[id_] for id_ in signatures if id_ in root.keys}
    for id_, public in trusted.items():
        _check_signature(id_, public, manifest, signatures[id_])
    if not trusted:
        raise ValueError(
            f"{path} is signed by {', '.join(signatures) or 'nobody'}, none of them trusted here; "
            f"trusted are {', '.join(root.keys)}"
        )
    if len(trusted) < root.threshold:
        raise ValueError(
            f"{path} has {len(trusted)} trusted signatures, the root demands {root.threshold}; let "
            "more of its keys sign"
        )
    return signatures


def _check_all_signatures(
    manifest: Manifest, data: bytes, signatures: Mapping[str, str], root: Root
) -> None:
    """Compare signatures with the list in the manifest, and check those of other keys too.

    They count for nothing, yet no byte of the bundle stays unchecked.
    """
    if set(signatures) != set(manifest.signers):
        wrong = ", ".join(sorted(set(signatures) ^ set(manifest.signers)))
        raise ValueError(f"{SIGNATURES} and manifest.signers differ in {wrong}; sign it again")
    for id_, public in manifest.signers.items():
        if root.keys.get(id_, public) != public:
            raise ValueError(f"manifest.signers.{id_} is not the trusted key of this id; refused")
        if id_ not in root.keys:
            _check_signature(id_, public, data, signatures[id_])


def _check_signature(id_: str, public: str, manifest: bytes, signature: str) -> None:
    if not ed25519.verify(bytes.fromhex(public), signed_message(manifest), unhex(signature)):
        raise ValueError(
            f"the signature of key {id_} does not fit {MANIFEST}; the bundle was changed, copy it "
            "again"
        )


def _check_files(manifest: Manifest, slices: Mapping[str, Slice]) -> None:
    there, listed = set(slices) - {MANIFEST, SIGNATURES}, set(manifest.files)
    if extra := sorted(there - listed):
        raise ValueError(f"{extra[0]} is in the bundle and not in the manifest; refused")
    if missing := sorted(listed - there):
        raise ValueError(f"{missing[0]} is in the manifest and not in the bundle; copy it again")
    for name, file in manifest.files.items():
        if slices[name].size != file.size:
            raise ValueError(
                f"{name} has size={slices[name].size}, the manifest says {file.size}; copy the "
                "bundle again"
            )
    for name in manifest.files:
        _check_hash(name, slices[name].sha256(), manifest)


def _check_hash(name: str, found: str, manifest: Manifest) -> None:
    if found != (wanted := manifest.files[name].sha256):
        raise ValueError(
            f"{name} has sha256 {found[:12]}…, the manifest says {wanted[:12]}…; copy the bundle "
            "again"
        )


def _check_age(manifest: Manifest, trust: Trust, now: int) -> None:
    stored = trust.rollback_index(manifest.name)
    if manifest.rollback_index < stored:
        raise ValueError(
            f"manifest.rollback_index={manifest.rollback_index} is below {stored}, which this "
            f"device had of {manifest.name}; take a newer bundle"
        )
    if manifest.expires is not None and now >= manifest.expires:
        raise ValueError(
            f"manifest.expires={manifest.expires}: the bundle expired on {utc(manifest.expires)}; "
            "take a newer bundle"
        )
    if runtime_number(manifest.min_runtime) > runtime_number(RUNTIME):
        raise ValueError(
            f"manifest.min_runtime={manifest.min_runtime} is above this runtime, {RUNTIME}; "
            "install a newer runtime"
        )


def _read_targets(manifest: Manifest, slices: Mapping[str, Slice], arch: str) -> dict[str, Target]:
    """The targets, if one of them is for an architecture."""
    targets = {}
    for id_ in manifest.targets:
        name = f"targets/{id_}.json"
        if slices[name].size > MAX_TARGET_BYTES:
            raise ValueError(_too_large(Path(name), slices[name].size, MAX_TARGET_BYTES))
        data = slices[name].read()
        _check_hash(name, hashlib.sha256(data).hexdigest(), manifest)
        targets[id_] = _parse_target(data, name)
        if targets[id_].id != id_:
            raise ValueError(f"{name} is of target {targets[id_].id!r}; name the file as it is")
    known = sorted({target.arch for target in targets.values()})
    if arch not in known and "any" not in known:
        raise ValueError(
            f"the bundle is for arch={', '.join(known)}, this device is {arch}; take a bundle with "
            "a target for it"
        )
    return targets


def _parse_target(data: bytes, name: str) -> Target:
    try:
        content = json.loads(data)
        if not isinstance(content, dict) or not isinstance(content.get("arch"), str):
            raise ValueError("an object with arch is wanted")
        return Target.from_json(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{name} is not a target ({error}); make the bundle again") from None


def _check_disk(manifest: Manifest, path: Path) -> None:
    free_mib = shutil.disk_usage(path.absolute().parent).free >> 20
    if manifest.requires.disk_mib > free_mib:
        raise ValueError(
            f"manifest.requires.disk_mib={manifest.requires.disk_mib} is above the {free_mib} MiB "
            f"that are free beside {path}; free some"
        )
