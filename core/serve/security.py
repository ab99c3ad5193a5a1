"""Who may ask, how often, and from which page: tokens, rates, hosts, headers."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.serve.config import LOOPBACK, ServeConfig
from core.serve.errors import Overloaded, ServeError, Unauthorized

MIN_TOKEN = 16
# What pages may do: only what came from here, nothing inline, in nobody's frame.
PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "cache-control": "no-cache",
}

Headers = Mapping[bytes, bytes]


class WrongHost(ServeError):
    """The request came for another host, or from another site's page."""

    status, code = 403, "unauthorized"


@dataclass(frozen=True)
class Tokens:
    """Names of those who may ask, by the hash of their tokens; no token is kept."""

    names: Mapping[bytes, str]

    @classmethod
    def read(cls, path: Path) -> Tokens:
        """Read lines of `name token`; empty lines and those that begin with # are left out.

        Raises:
            ValueError: a line is something else; it is told by its number, never by its content.
        """
        names: dict[bytes, str] = {}
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            if not line.strip() or line.startswith("#"):
                continue
            parts = line.split()
            if len(parts) != 2 or len(parts[1]) < MIN_TOKEN or not parts[1].isascii():
                raise ValueError(
                    f"tokens={path} line {number} is not `name token` with a token of {MIN_TOKEN} "
                    "ASCII characters or more; `openssl rand -hex 32` gives one"
                )
            digest = hashlib.sha256(parts[1].encode()).digest()
            if digest in names or parts[0] in names.values():
                raise ValueError(
                    f"tokens={path} line {number} has a name or token a second time; give each once"
                )
            names[digest] = parts[0]
        if not names:
            raise ValueError(f"tokens={path} holds no line `name token`; add one")
        return cls(names)

    def find(self, token: bytes) -> str | None:
        """The token's name; takes as long for a wrong token as for any right one."""
        given = hashlib.sha256(token).digest()
        found = None
        for digest, name in self.names.items():
            if hmac.compare_digest(given, digest):
                found = name
        return found


@dataclass(slots=True)
class Bucket:
    """Requests that a token may still send; fills with its rate, up to one second's worth."""

    left: float
    at: float


@dataclass
class Guard:
    """Admits a request or says why not; cheap enough for each request."""

    tokens: Tokens | None = None
    rate: float = 0.0  # requests per second of one token; 0: no limit
    is_private: bool = True
    clock: Callable[[], float] = time.monotonic
    _buckets: dict[str, Bucket] = field(default_factory=dict)

    @classmethod
    def of(cls, config: ServeConfig) -> Guard:
        """The guard that a configuration asks for.

        Raises:
            ValueError: the file of tokens is not what it must be.
        """
        tokens = Tokens.read(config.tokens) if config.tokens else None
        return cls(tokens, config.rate_limit, config.is_private)

    def admit(self, headers: Headers, *, basic: bool = False) -> str:
        """The name of the request's token; "" where none is asked for.

        Args:
            headers: of the request, lower-case names.
            basic: also take the token as the password of HTTP Basic, as a browser sends it.
        Raises:
            Unauthorized, Overloaded, WrongHost.
        """
        self.check_site(headers)
        name = ""
        if self.tokens is not None:
            found = self.tokens.find(_token(headers.get(b"authorization", b""), basic=basic))
            if found is None:
                raise Unauthorized(
                    "the request has no valid token; send `Authorization: Bearer <token>`"
                )
            name = found
        if self.rate:
            self._take(name)
        return name

    def check_site(self, headers: Headers) -> None:
        """Refuse what another site's page sends through a person's browser.

        A page elsewhere can name this machine as its own host (DNS rebinding) or post here from
        its own; a browser says so in Host and Origin.
        """
        host = headers.get(b"host", b"")
        if self.is_private and not _is_loopback(host):
            raise WrongHost(
                f"Host={_text(host)} is not one of {', '.join(LOOPBACK)}: the service listens for "
                "this machine alone; use one of them"
            )
        origin = headers.get(b"origin")
        if origin is not None and (not host or origin.partition(b"://")[2].lower() != host.lower()):
            raise WrongHost(f"Origin={_text(origin)} is another site; its pages may not ask here")

    def _take(self, name: str) -> None:
        now = self.clock()
        size = max(1.0, self.rate)
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(size, now)
        bucket.left = min(size, bucket.left + (now - bucket.at) * self.rate)
        bucket.at = now
        if bucket.left < 1:
            raise Overloaded(
                f"more than rate_limit={self.rate:g} requests per second came with this token; "
                "wait",
                (1 - bucket.left) / self.rate,
            )
        bucket.left -= 1


def _is_loopback(host: bytes) -> bool:
    if host.startswith(b"["):
        return host.partition(b"]")[0] == b"[::1"
    return host.partition(b":")[0].lower() in (b"127.0.0.1", b"localhost")


def _text(value: bytes) -> str:
    return value[:100].decode("latin-1")


def _token(value: bytes, *, basic: bool) -> bytes:
    scheme, _, token = value.partition(b" ")
    token = token.strip()
    if scheme.lower() == b"bearer":
        return token
    if basic and scheme.lower() == b"basic":
        try:
            return base64.b64decode(token, validate=True).partition(b":")[2]
        except binascii.Error:
            return b""
    return b""
