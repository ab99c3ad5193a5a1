"""What a secret key makes of a patient's identifiers: the same each time, and known to it alone."""

from __future__ import annotations

import hmac
import os
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from kits.medical.results.uids import as_uid

SHORTEST_KEY = 32  # bytes
STANDARD_ROOT = "1.2.840.10008."  # of UIDs that the standard defines
EARLIEST_DAYS, LATEST_DAYS = 30, 3650  # by how much dates are moved back


def make_key(path: Path) -> None:
    """Write a new secret key to a file that only its owner may read.

    Raises:
        FileExistsError: there is one; with another key, patients would get other names.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(SHORTEST_KEY) + "\n")


def read_key(path: Path) -> bytes:
    """Read the secret key.

    Raises:
        ValueError: others may read the file, or the key is too short to be one.
    """
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise ValueError(f"{path} has mode {mode:o}, others may read it; chmod 600 {path}")
    key = path.read_bytes().strip()
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"{path} holds {len(key)} bytes, a key has {SHORTEST_KEY}; make_key()")
    return key


@dataclass(frozen=True)
class Pseudonyms:
    """What a secret key makes of one patient's identifiers."""

    key: bytes
    patient: str  # what tells the patient from others

    @classmethod
    def of(cls, key: bytes, patient_id: str, issuer: str, study_uid: str) -> Pseudonyms:
        """Those of a patient; without a patient's id, those of a study.

        Raises:
            ValueError: the key is too short.
        """
        if len(key) < SHORTEST_KEY:
            raise ValueError(f"the key has {len(key)} bytes, less than {SHORTEST_KEY}; make_key()")
        return cls(key, f"{issuer}\n{patient_id}" if patient_id else f"study\n{study_uid}")

    def _digest(self, purpose: str, value: str) -> bytes:
        return hmac.digest(self.key, f"{purpose}\n{value}".encode(), "sha256")

    def uid(self, value: str) -> str:
        """Another UID for a UID; those of the standard stay."""
        if not value or value.startswith(STANDARD_ROOT):
            return value
        return as_uid(self._digest("uid", value))

    @property
    def id(self) -> str:
        """Another id for the patient."""
        return f"ANON-{self._digest('patient', self.patient).hex()[:16].upper()}"

    @property
    def name(self) -> str:
        """Another name, in the standard's form: family and given."""
        return self.id.replace("-", "^")

    @property
    def shift(self) -> timedelta:
        """By how much the patient's dates and times are moved."""
        number = int.from_bytes(self._digest("shift", self.patient)[:8])
        seconds = number % ((LATEST_DAYS - EARLIEST_DAYS) * 86_400)
        return -timedelta(days=EARLIEST_DAYS, seconds=seconds)
