"""Tokens: the 64-bit numbers that stand for accounts, devices, categories and so on."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np

# An entity or category that an event does not have.
MISSING_TOKEN = 0


def token(kind: str, value: str) -> int:
    """Return the token of a value: first 8 bytes, little endian, of blake2b(kind + NUL + value).

    Args:
        kind: name space, e.g. "device"; equal values of two kinds get different tokens.
        value: the value as text.
    Returns:
        an integer in [0, 2**64); 0 is MISSING_TOKEN and has a chance of 2**-64 here.
    """
    return int.from_bytes(blake2b(f"{kind}\0{value}".encode()).digest()[:8], "little")


def token_array(kind: str, values: Iterable[object]) -> np.ndarray:
    """Return the tokens of many values; None becomes MISSING_TOKEN.

    Args:
        kind: name space of all values.
        values: n values, each turned into text by `str`.
    Returns:
        (n,) uint64.
    """
    numbers = [MISSING_TOKEN if value is None else token(kind, str(value)) for value in values]
    return np.array(numbers, dtype=np.uint64)
