"""The bill of materials of a bundle, CycloneDX 1.6: its model and the wheels it runs on."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path

ARCHITECTURES = ("x86_64", "aarch64")
# What the default backend needs on a device; the lock also holds what builds the project.
WHEELS = ("flatbuffers", "numpy", "onnxruntime", "packaging", "protobuf")
_NAMESPACE = uuid.UUID("5c7f2b0a-3e0a-5d4f-9a53-0d6f8e2b7c11")
_LOCK = "requirements/edge.txt"


@dataclass(frozen=True)
class Wheel:
    """A locked requirement."""

    name: str
    version: str
    hashes: tuple[str, ...]  # sha256 of its files, of all platforms

    def line(self) -> str:
        """As pip reads it with --require-hashes."""
        hashes = [f"    --hash=sha256:{value}" for value in self.hashes]
        return " \\\n".join([f"{self.name}=={self.version}", *hashes])


def locked_wheels() -> list[Wheel]:
    """The runtime's wheels as the project's lock of the device side pins them.

    Raises:
        ValueError: the lock lacks one of them.
        FileNotFoundError: neither a checkout's lock is there nor the installed copy.
    """
    wheels = {wheel.name: wheel for wheel in _parse(_lock_text())}
    if missing := [name for name in WHEELS if name not in wheels]:
        raise ValueError(f"{_LOCK} does not pin {', '.join(missing)}; run make lock")
    return [wheels[name] for name in WHEELS]


def requirements(wheels: Iterable[Wheel]) -> dict[str, str]:
    """Architecture -> requirements for `pip install --no-index --require-hashes`.

    One lock serves both: its hashes are those of the wheels of every platform.
    """
    text = "".join(f"{wheel.line()}\n" for wheel in wheels)
    return dict.fromkeys(ARCHITECTURES, text)


def bill(
    name: str, version: str, model_sha256: str, wheels: Iterable[Wheel], created: int
) -> bytes:
    """The bill of materials as JSON; equal inputs give equal bytes.

    Args:
        name: of the bundle.
        version: of the bundle.
        model_sha256: of the portable model.
        wheels: the runtime.
        created: seconds since 1970.

    Raises:
        ModuleNotFoundError: cyclonedx-python-lib is not installed; names the extra.
    """
    try:
        from cyclonedx.model import HashAlgorithm, HashType
        from cyclonedx.model.bom import Bom, BomMetaData
        from cyclonedx.model.component import Component, ComponentType
        from cyclonedx.output.json import JsonV1Dot6
        from packageurl import PackageURL
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"cyclonedx is not installed ({error}); pip install .[convert]"
        ) from None
    model = Component(
        name=name,
        version=version,
        type=ComponentType.MACHINE_LEARNING_MODEL,
        bom_ref=f"model:{name}",
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=model_sha256)],
    )
    libraries = [
        Component(
            name=wheel.name,
            version=wheel.version,
            type=ComponentType.LIBRARY,
            bom_ref=f"pkg:pypi/{wheel.name}@{wheel.version}",
            purl=PackageURL("pypi", None, wheel.name, wheel.version),
        )
        for wheel in wheels
    ]
    bundle = Component(
        name=f"{name}.ebundle", version=version, type=ComponentType.APPLICATION, bom_ref="bundle"
    )
    facts = f"{name} {version} {model_sha256} {created}"
    bom = Bom(
        components=[model, *libraries],
        metadata=BomMetaData(component=bundle, timestamp=datetime.fromtimestamp(created, UTC)),
        serial_number=uuid.uuid5(_NAMESPACE, facts),
    )
    bom.register_dependency(bundle, [model, *libraries])
    return (JsonV1Dot6(bom).output_as_string(indent=1) + "\n").encode()


def _lock_text() -> str:
    checkout = Path(__file__).parents[2] / _LOCK
    if checkout.is_file():
        return checkout.read_text(encoding="utf-8")
    installed = resources.files("edge") / "requirements.txt"
    if not installed.is_file():
        raise FileNotFoundError(f"{_LOCK} is not there, nor a copy in edge; install the project")
    return installed.read_text(encoding="utf-8")


def _parse(lock: str) -> Iterable[Wheel]:
    for line in lock.replace("\\\n", " ").splitlines():
        if found := re.match(r"([\w.-]+)==([\w.!+-]+)", line):
            hashes = tuple(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
            yield Wheel(found[1], found[2], hashes)
