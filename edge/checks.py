"""What is checked of a bundle before it is used; each refusal has its own message."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from edge import canonical, ed25519
from edge.archive import Slice
from edge.manifest import (
    KEY_ID_DIGITS,
    MANIFEST,
    RUNTIME,
    SCHEMA,
    SIGNATURES,
    Manifest,
    runtime_number,
)
from edge.target import Target
from edge.trust import Root, Trust, unhex, utc

MAX_TARGET_BYTES = 1 << 20


def signed_message(manifest: bytes) -> bytes:
    """What the keys sign: the schema and the hash of the manifest's bytes."""
    return f"{SCHEMA}\n".encode() + hashlib.sha256(manifest).digest()


def too_large(path: Path, size: int, limit: int) -> str:
    """The message for a file that is too large to be looked at."""
    return f"{path} has size={size}, over the limit of {limit} bytes; refused unread"


def check_trusted_signatures(
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
    # Ids come into messages, which end on a terminal: strangers may not choose the characters.
    if not isinstance(signatures, dict) or not all(
        len(id_) == KEY_ID_DIGITS
        and unhex(id_)
        and isinstance(value, str)
        and len(unhex(value)) == ed25519.SIGNATURE_BYTES
        for id_, value in signatures.items()
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


def check_all_signatures(
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


def check_files(manifest: Manifest, slices: Mapping[str, Slice]) -> None:
    """Compare names, then sizes, then hashes with the manifest's."""
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
        check_hash(name, slices[name].sha256(), manifest)


def check_hash(name: str, found: str, manifest: Manifest) -> None:
    """Compare a file's hash with the manifest's."""
    if found != (wanted := manifest.files[name].sha256):
        raise ValueError(
            f"{name} has sha256 {found[:12]}…, the manifest says {wanted[:12]}…; copy the bundle "
            "again"
        )


def check_age(manifest: Manifest, trust: Trust, now: int) -> None:
    """Refuse a bundle that is older than one before, too old, or too new for this runtime."""
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


def read_targets(manifest: Manifest, slices: Mapping[str, Slice], arch: str) -> dict[str, Target]:
    """The targets, if one of them is for an architecture."""
    targets = {}
    for id_ in manifest.targets:
        name = f"targets/{id_}.json"
        if slices[name].size > MAX_TARGET_BYTES:
            raise ValueError(too_large(Path(name), slices[name].size, MAX_TARGET_BYTES))
        data = slices[name].read()
        check_hash(name, hashlib.sha256(data).hexdigest(), manifest)
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


def check_disk(manifest: Manifest, path: Path) -> None:
    """Refuse a bundle that needs more disk than is free where it lies."""
    free_mib = shutil.disk_usage(path.absolute().parent).free >> 20
    if manifest.requires.disk_mib > free_mib:
        raise ValueError(
            f"manifest.requires.disk_mib={manifest.requires.disk_mib} is above the {free_mib} MiB "
            f"that are free beside {path}; free some"
        )
