"""Verification of ed25519 signatures in plain Python, as strict as RFC 8032 allows.

The standard library has no ed25519, and a device should not need a compiled package to know whom
it trusts. Nothing here is secret, so nothing has to run in constant time. There is no signing.
"""

from __future__ import annotations

import functools
import hashlib

KEY_BYTES = 32
SIGNATURE_BYTES = 64

_P = 2**255 - 19
_ORDER = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_SQRT_MINUS_1 = pow(2, (_P - 1) // 4, _P)

# X, Y, Z, T with x = X/Z, y = Y/Z, x*y = T/Z.
_Point = tuple[int, int, int, int]
_NEUTRAL: _Point = (0, 1, 1, 0)


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether a signature of a message was made by a key.

    Exactly one signature encoding is accepted for what a signer computed: S is below the group's
    order, points are canonical, and keys or nonces of small order (for which one signature fits
    many messages) are refused.

    Args:
        public: 32 bytes.
        message: any bytes.
        signature: 64 bytes, R and S.
    Source: RFC 8032 section 5.1.7 without the cofactor; compared with libsodium and the RFC's
        vectors in tests/edge/test_ed25519.py.
    """
    if len(signature) != SIGNATURE_BYTES or not is_key(public):
        return False
    nonce, scalar = signature[:32], int.from_bytes(signature[32:], "little")
    if scalar >= _ORDER:
        return False
    key = _decode(public)
    assert key is not None
    x, y, z, t = key
    digest = hashlib.sha512(nonce + public + message).digest()
    factor = int.from_bytes(digest, "little") % _ORDER
    # R must equal S*B - k*A; comparing encodings also makes sure that R is canonical.
    point = _combine(scalar, factor, (_P - x, y, z, _P - t))
    return _encode(point) == nonce and not _has_small_order(point)


def is_key(public: bytes) -> bool:
    """Whether bytes are a usable public key: canonical, on the curve, not of small order."""
    if len(public) != KEY_BYTES:
        return False
    point = _decode(public)
    return point is not None and not _has_small_order(point)


def _add(a: _Point, b: _Point) -> _Point:
    x1, y1, z1, t1 = a
    x2, y2, z2, t2 = b
    m = (y1 - x1) * (y2 - x2) % _P
    n = (y1 + x1) * (y2 + x2) % _P
    c = 2 * _D * t1 * t2 % _P
    d = 2 * z1 * z2
    e, f, g, h = n - m, d - c, d + c, n + m
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(a: _Point) -> _Point:
    x, y, z, _ = a
    m, n = x * x, y * y
    h = m + n
    e = h - (x + y) * (x + y)
    g = m - n
    f = 2 * z * z + g
    # Reduced once each before they are multiplied again.
    e, f, g, h = e % _P, f % _P, g % _P, h % _P
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _multiples(point: _Point) -> list[_Point]:
    """0 to 15 times a point."""
    table = [_NEUTRAL, point]
    for _ in range(14):
        table.append(_add(table[-1], point))
    return table


@functools.cache
def _base_multiples() -> list[_Point]:
    y = 4 * pow(5, -1, _P) % _P
    base = _decode(y.to_bytes(32, "little"))
    assert base is not None
    return _multiples(base)


def _combine(scalar: int, factor: int, point: _Point) -> _Point:
    """Compute scalar * base + factor * point, four bits of both at a time (Straus)."""
    base_table, table = _base_multiples(), _multiples(point)
    result = _NEUTRAL
    for shift in range(252, -1, -4):
        for _ in range(4):
            result = _double(result)
        if digit := scalar >> shift & 15:
            result = _add(result, base_table[digit])
        if digit := factor >> shift & 15:
            result = _add(result, table[digit])
    return result


def _decode(encoded: bytes) -> _Point | None:
    y = int.from_bytes(encoded, "little")
    is_odd, y = y >> 255, y & (2**255 - 1)
    if y >= _P:
        return None
    # x^2 = u / v with u = y^2 - 1, v = d y^2 + 1; the candidate root saves an inversion.
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * v**3 * pow(u * v**7 % _P, (_P - 5) // 8, _P) % _P
    if v * x * x % _P != u:
        x = x * _SQRT_MINUS_1 % _P
        if v * x * x % _P != u:
            return None
    if x == 0 and is_odd:
        return None
    if x % 2 != is_odd:
        x = _P - x
    return x, y, 1, x * y % _P


def _encode(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, _P)
    x, y = x * inverse % _P, y * inverse % _P
    return (y | (x % 2) << 255).to_bytes(32, "little")


def _has_small_order(point: _Point) -> bool:
    x, y, z, _ = _double(_double(_double(point)))
    return x % _P == 0 and (y - z) % _P == 0
