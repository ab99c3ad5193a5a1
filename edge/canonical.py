"""JSON with one spelling: equal values are equal bytes, so that a hash or signature covers a value.

Sorted keys (by code point), no spaces, UTF-8 without needless escapes, whole numbers alone. Floats
are left out: their spelling differs between languages.
"""

from __future__ import annotations

import json
from typing import Any, NoReturn

# The largest whole number every JSON reader keeps exactly.
LARGEST = 2**53 - 1


def dumps(value: Any) -> bytes:
    """The canonical bytes of a value of dict, list, str, int, bool and None.

    Raises:
        ValueError: the value holds anything else, or too large a number.
    """
    _check(value)
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


def loads(data: bytes, what: str) -> Any:
    """The value of canonical bytes; any other spelling of the same value is refused.

    Args:
        data: bytes of a size the caller has bounded.
        what: names the file in messages.
    Raises:
        ValueError: not JSON, not canonical, a key twice, a float, a number over 2**53 - 1.
    """
    try:
        value = json.loads(
            data.decode(), parse_float=_refuse_number, parse_constant=_refuse_number, parse_int=_int
        )
        again = dumps(value)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{what} is not canonical JSON ({error}); make it again") from None
    # Also finds keys given twice: the second would be lost in the value.
    if again != data:
        raise ValueError(f"{what} is not canonical JSON (another spelling); make it again")
    return value


def _refuse_number(text: str) -> NoReturn:
    raise ValueError(f"{text[:40]} is not a whole number")


def _int(text: str) -> int:
    if len(text) > 17:
        raise ValueError(f"{text[:20]}... is over 2**53 - 1")
    return int(text)


def _check(value: Any) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise ValueError(f"key {key!r} is not text")
            _check(item)
    elif isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > LARGEST:
            raise ValueError(f"{value} is over 2**53 - 1")
    elif not isinstance(value, (str, bool)) and value is not None:
        raise ValueError(f"{value!r} is none of dict, list, str, int, bool, None")
