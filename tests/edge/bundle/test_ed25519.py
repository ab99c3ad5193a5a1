import hashlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.exceptions import CryptoError
from nacl.signing import SigningKey, VerifyKey

from edge import ed25519

ORDER = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19

# RFC 8032 section 7.1: public key, message, signature.
VECTORS = {
    "1": (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        b"",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555"
        "fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "2": (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        b"\x72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da0"
        "85ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "3": (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        b"\xaf\x82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac1"
        "8ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "SHA(abc)": (
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        hashlib.sha512(b"abc").digest(),
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b5890"
        "9351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}
# The eight points whose order divides eight, and other spellings of them.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
NOT_CANONICAL = [
    "0100000000000000000000000000000000000000000000000000000000000080",  # x = 0, odd
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # y = p
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",  # y = p + 1
    "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]


def libsodium_verifies(public, message, signature):
    try:
        VerifyKey(public).verify(message, signature)
    except (CryptoError, ValueError):
        return False
    return True


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_of_the_rfc_verify(name):
    public, message, signature = VECTORS[name]
    assert ed25519.verify(bytes.fromhex(public), message, bytes.fromhex(signature))
    assert not ed25519.verify(bytes.fromhex(public), message + b"!", bytes.fromhex(signature))


@settings(max_examples=150, deadline=None)
@given(
    seed=st.binary(min_size=32, max_size=32),
    message=st.binary(max_size=80),
    part=st.sampled_from(["none", "public", "message", "signature"]),
    bit=st.integers(min_value=0, max_value=511),
)
def test_it_says_what_libsodium_says(seed, message, part, bit):
    key = SigningKey(seed)
    values = {
        "public": bytearray(bytes(key.verify_key)),
        "message": bytearray(message),
        "signature": bytearray(key.sign(message).signature),
    }
    if part != "none" and values[part]:
        bit %= 8 * len(values[part])
        values[part][bit // 8] ^= 1 << bit % 8
    arguments = [bytes(values[name]) for name in ("public", "message", "signature")]
    assert ed25519.verify(*arguments) == libsodium_verifies(*arguments)
    if part == "none":
        assert ed25519.verify(*arguments)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=64, max_size=64))
def test_random_bytes_do_not_verify(public, signature):
    assert not ed25519.verify(public, b"message", signature)


def test_a_scalar_not_below_the_order_is_refused():
    public, message, signature = VECTORS["2"]
    signature = bytes.fromhex(signature)
    scalar = int.from_bytes(signature[32:], "little")
    for other in (scalar + ORDER, scalar + 2 * ORDER, scalar + 8 * ORDER):
        changed = signature[:32] + other.to_bytes(32, "little")
        assert not ed25519.verify(bytes.fromhex(public), message, changed)


@pytest.mark.parametrize("public", SMALL_ORDER + NOT_CANONICAL)
def test_weak_and_misspelt_keys_are_refused(public):
    public = bytes.fromhex(public)
    assert not ed25519.is_key(public)
    # With a key of small order, R = 0 and S = 0 fit one message in eight.
    signature = bytes([1, *bytes(63)])
    assert not any(ed25519.verify(public, bytes([i]), signature) for i in range(32))


def test_a_nonce_of_small_order_is_refused():
    """Who knows the key can make one: R = 0, S = k * secret."""
    seed = bytes(range(32))
    public = bytes(SigningKey(seed).verify_key)
    raw = bytearray(hashlib.sha512(seed).digest()[:32])
    raw[0] &= 248
    raw[31] = raw[31] & 127 | 64
    secret = int.from_bytes(raw, "little")
    nonce = bytes([1, *bytes(31)])
    k = int.from_bytes(hashlib.sha512(nonce + public + b"m").digest(), "little")
    signature = nonce + (k * secret % ORDER).to_bytes(32, "little")
    assert not ed25519.verify(public, b"m", signature)
    assert not libsodium_verifies(public, b"m", signature)


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_other_lengths_are_refused(length):
    public, message, signature = VECTORS["1"]
    assert not ed25519.is_key(bytes(length))
    assert not ed25519.verify(bytes(length), message, bytes.fromhex(signature))
    if length != 64:
        assert not ed25519.verify(bytes.fromhex(public), message, bytes(length))


def test_points_off_the_curve_are_no_keys():
    refused = sum(not ed25519.is_key(y.to_bytes(32, "little")) for y in range(2, 202))
    assert 60 < refused < 140  # half of all y have no x


def test_a_verification_takes_milliseconds():
    public, message, signature = VECTORS["2"]
    arguments = bytes.fromhex(public), message, bytes.fromhex(signature)
    times = []
    for _ in range(5):
        started = time.process_time()
        ed25519.verify(*arguments)
        times.append(time.process_time() - started)
    assert min(times) < 0.010
