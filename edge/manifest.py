"""What a bundle says of itself: `manifest.json`, the file that signatures cover."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from edge import canonical, ed25519
from edge.archive import check_name

T = TypeVar("T")

SCHEMA = "deepkits.bundle/1"
# This runtime, as `min_runtime` counts it; the project's version.
RUNTIME = "0.1.0"
KEY_ID_DIGITS = 16
LAST_SECOND = 253_402_300_799
MANIFEST, SIGNATURES = "manifest.json", "signatures.json"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VERSION = re.compile(r"(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})\.(0|[1-9]\d{0,5})", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}")
_ROLE = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DTYPE = re.compile(r"bool|u?int(8|16|32|64)|b?float16|float(32|64)")


@dataclass(frozen=True)
class Tensor:
    """An input or output of the model."""

    name: str
    dtype: str  # as numpy names it
    shape: tuple[int | str, ...]  # a size, or the name of an axis of any size


@dataclass(frozen=True)
class File:
    """What a file must be."""

    sha256: str
    size: int  # bytes
    role: str  # model, target, artifact, ...


@dataclass(frozen=True)
class Requires:
    """What a device needs free to run the bundle."""

    memory_mib: int
    disk_mib: int


@dataclass(frozen=True)
class Manifest:
    """The checked content of `manifest.json`."""

    schema: str
    name: str
    version: str
    channel: str
    created: int  # seconds since 1970, UTC
    expires: int | None  # the same; None: never
    rollback_index: int  # a device takes no bundle of this name with a lower one than it had
    min_runtime: str
    requires: Requires
    signers: Mapping[str, str]  # key id -> public key, hex
    model: str
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    targets: tuple[str, ...]  # in order of preference
    files: Mapping[str, File]  # all but the manifest and the signatures
    license: str
    intended_use: str

    @classmethod
    def from_json(cls, content: Any) -> Manifest:
        """Check the value of a manifest; the schema first, then every key.

        Raises:
            ValueError: a key is missing, unknown or of a wrong kind; the message names it.
        """
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise ValueError(
                f"manifest.schema={schema!r} is not {SCHEMA}; install a runtime that reads it"
            )
        _keys(content, "manifest", *(field.name for field in fields(cls)))
        requires = _keys(content["requires"], "manifest.requires", "memory_mib", "disk_mib")
        manifest = cls(
            schema=schema,
            name=_match(content["name"], _NAME, "manifest.name"),
            version=_match(content["version"], _NAME, "manifest.version"),
            channel=_match(content["channel"], _NAME, "manifest.channel"),
            created=check_time(content["created"], "manifest.created"),
            expires=None
            if content["expires"] is None
            else check_time(content["expires"], "manifest.expires"),
            rollback_index=_count(content["rollback_index"], "manifest.rollback_index"),
            min_runtime=_match(content["min_runtime"], _VERSION, "manifest.min_runtime"),
            requires=Requires(
                **{
                    key: _count(value, f"manifest.requires.{key}")
                    for key, value in requires.items()
                }
            ),
            signers=check_keys(content["signers"], "manifest.signers"),
            model=_text(content["model"], "manifest.model"),
            inputs=_list(content["inputs"], "manifest.inputs", _tensor),
            outputs=_list(content["outputs"], "manifest.outputs", _tensor),
            targets=_list(content["targets"], "manifest.targets", _target_id),
            files=_files(content["files"]),
            license=_text(content["license"], "manifest.license"),
            intended_use=_text(content["intended_use"], "manifest.intended_use"),
        )
        manifest._check_names()
        return manifest

    def _check_names(self) -> None:
        """Compare what the keys say of each other."""
        if self.model not in self.files:
            raise ValueError(f"manifest.model={self.model!r} is not in manifest.files; list it")
        listed = {f"targets/{target}.json" for target in self.targets}
        there = {name for name in self.files if name.startswith("targets/")}
        if listed != there:
            raise ValueError(
                f"manifest.targets and the files of targets/ differ in "
                f"{', '.join(sorted(listed ^ there))}; list each target once"
            )
        for what, names in (
            ("targets", list(self.targets)),
            ("inputs", [tensor.name for tensor in self.inputs]),
            ("outputs", [tensor.name for tensor in self.outputs]),
        ):
            if len(set(names)) < len(names):
                raise ValueError(f"manifest.{what} has a name twice: {', '.join(names)}")


def key_id(public: bytes) -> str:
    """How files name a public key."""
    return hashlib.sha256(public).hexdigest()[:KEY_ID_DIGITS]


def check_keys(content: Any, what: str) -> dict[str, str]:
    """Public keys by id, at least one.

    Raises:
        ValueError: a key is no usable ed25519 key, or an id is not that of its key.
    """
    for id_, public in _dict(content, what).items():
        key = bytes.fromhex(_match(public, _HASH, f"{what}.{id_}"))
        if not ed25519.is_key(key):
            raise ValueError(f"{what}.{id_}={public} is no ed25519 public key; make a new one")
        if id_ != key_id(key):
            raise ValueError(f"{what}.{id_} is the id of another key, {key_id(key)} is this one's")
    return dict(content)


def check_time(content: Any, what: str) -> int:
    """Seconds since 1970, before the year 10000.

    Raises:
        ValueError: it is no such number.
    """
    if _count(content, what) > LAST_SECOND:
        raise ValueError(f"{what}={content} is after the year 9999; seconds since 1970 are meant")
    return int(content)


def runtime_number(version: str) -> tuple[int, ...]:
    """The numbers of a version as 1.20.3, to compare them.

    Raises:
        ValueError: it is not three numbers.
    """
    return tuple(map(int, _match(version, _VERSION, "version").split(".")))


def canonical_manifest(content: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest after the checks of a reader."""
    Manifest.from_json(content)
    return canonical.dumps(dict(content))


def _files(content: Any) -> dict[str, File]:
    files = {}
    for name, entry in _dict(content, "manifest.files").items():
        what = f"manifest.files.{name}"
        if check_name(name) in (MANIFEST, SIGNATURES):
            raise ValueError(f"{what} may not be listed: it is not covered by its own hash")
        _keys(entry, what, "sha256", "size", "role")
        files[name] = File(
            sha256=_match(entry["sha256"], _HASH, f"{what}.sha256"),
            size=_count(entry["size"], f"{what}.size"),
            role=_match(entry["role"], _ROLE, f"{what}.role"),
        )
    return files


def _tensor(content: Any, what: str) -> Tensor:
    _keys(content, what, "name", "dtype", "shape")
    return Tensor(
        name=_text(content["name"], f"{what}.name"),
        dtype=_match(content["dtype"], _DTYPE, f"{what}.dtype"),
        shape=_list(content["shape"], f"{what}.shape", _axis, can_be_empty=True),
    )


def _axis(content: Any, what: str) -> int | str:
    return _text(content, what) if isinstance(content, str) else _count(content, what)


def _target_id(content: Any, what: str) -> str:
    return _match(content, _NAME, what)


def _keys(content: Any, what: str, *names: str) -> dict[str, Any]:
    if (found := set(_dict(content, what))) != set(names):
        wrong = ", ".join(sorted(found ^ set(names)))
        raise ValueError(f"{what} has missing or unknown keys: {wrong}; it has {', '.join(names)}")
    return dict(content)


def _dict(content: Any, what: str) -> dict[str, Any]:
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{what}={content!r:.80} is not a filled object of keys and values")
    return content


def _list(
    content: Any, what: str, read: Callable[[Any, str], T], *, can_be_empty: bool = False
) -> tuple[T, ...]:
    if not isinstance(content, list) or not (content or can_be_empty):
        raise ValueError(f"{what}={content!r:.80} is not a filled list")
    return tuple(read(item, f"{what}[{index}]") for index, item in enumerate(content))


def _text(content: Any, what: str) -> str:
    if not isinstance(content, str) or not content:
        raise ValueError(f"{what}={content!r:.80} is not a filled text")
    return content


def _match(content: Any, pattern: re.Pattern[str], what: str) -> str:
    if not pattern.fullmatch(_text(content, what)):
        raise ValueError(f"{what}={content!r:.80} does not look like {pattern.pattern}")
    return str(content)


def _count(content: Any, what: str) -> int:
    if isinstance(content, bool) or not isinstance(content, int) or content < 0:
        raise ValueError(f"{what}={content!r:.80} is not a whole number from 0 up")
    return content
