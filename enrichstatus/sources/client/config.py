"""How requests are made to a remote service: its address, the token and the bounds, checked."""

from __future__ import annotations

import ipaddress
import math
import os
import re
import secrets
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from enrichstatus.errors import UnauthorizedError, ValidationError, quoted
from enrichstatus.lookup import contract as wire
from enrichstatus.lookup.arguments import parse_duration, parse_flags, parse_number

if TYPE_CHECKING:
    import requests

#: Of this process alone.
_KEY = secrets.token_bytes(32)
#: A shorter token is not a secret, and hiding it would spoil other words of a text.
_SECRET = 6
#: Seconds for a call whose deadline is not given.
_DEADLINE = 600.0


@dataclass(frozen=True)
class Rate:
    """So many requests in so many seconds."""

    requests: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.requests:,} in {self.seconds:g} s"


class Request(NamedTuple):
    """What is requested of the service, whatever the body."""

    path: str = wire.PATH
    accepted: tuple[int, ...] = (200,)
    #: whether it may be sent again where it is not known what became of it
    repeated: bool = True


@dataclass(frozen=True)
class Settings:
    """How requests are made to one service; durations in seconds."""

    address: str
    connect: float
    read: float
    deadline: float | None
    retries: int
    backoff: float
    max_retry_after: float
    rate: Rate | None
    workers: int
    verify: bool | str
    loopback: bool

    @property
    def url(self) -> str:
        """Where batches are posted."""
        return self.address + wire.PATH

    def time_for(self, requests: int) -> float:
        """Give the bound on a call in seconds: unless given, ten minutes beyond what the rate makes so many requests take."""
        if self.deadline is not None:
            return self.deadline
        return _DEADLINE + (requests / self.rate.requests * self.rate.seconds if self.rate else 0.0)


class Bearer:
    """Holds the token, and sets it on a request so that neither ``.netrc`` nor a redirect replaces it.

    It is made before the token is checked, so that no frame of an error holds the token.
    """

    def __init__(self, token: str | Bearer | None):
        token = token._token if isinstance(token, Bearer) else token
        self._token: Any = os.environ.get("ENRICHSTATUS_TOKEN") if token is None else token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Authorize one request."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def __repr__(self) -> str:
        return "Bearer(…)"

    def __reduce__(self) -> str:
        raise TypeError("A token is not pickled; where it is needed, the environment's ENRICHSTATUS_TOKEN has it.")

    def digest(self) -> bytes:
        """Tell tokens apart within this process; nothing can be learned of the token, nor compared elsewhere."""
        return blake2b(str(self._token).encode(errors="replace"), key=_KEY).digest()

    def check(self) -> None:
        """Refuse a token that no request can carry; no message shows it."""
        if self._token is None or (isinstance(self._token, str) and not self._token):
            raise UnauthorizedError("There is no token, nor ENRICHSTATUS_TOKEN in the environment.")
        if not isinstance(self._token, str):
            raise ValidationError(f"is text, not of the type {type(self._token).__name__}.", argument="token")
        if not self._token.isascii() or not self._token.isprintable() or " " in self._token:
            raise ValidationError(
                "is text of printable ASCII without white space; what was given has other characters in it "
                "(perhaps the line end of the file it was read from).",
                argument="token",
            )

    def hide(self, text: str) -> str:
        """Take the token out of a text that came from elsewhere."""
        return text.replace(self._token, "…") if len(self._token) >= _SECRET else text


def parse_settings(
    base_url: str | None,
    *,
    workers: int,
    timeout: tuple[float, float] | float,
    deadline: object,
    retries: int,
    backoff: float,
    max_retry_after: object,
    rate: object,
    allow_http: bool,
    verify: str | os.PathLike[str] | bool | None,
    progress: bool | None = None,
    **_: object,
) -> Settings:
    """Check how requests are made, of all arguments of a client."""
    parse_flags(allow_http=allow_http, progress=progress)
    address, loopback = parse_address(base_url, allow_http=allow_http)
    connect, read = timeout if isinstance(timeout, (tuple, list)) and len(timeout) == 2 else (timeout, timeout)
    return Settings(
        address=address,
        connect=parse_number("timeout", connect),
        read=parse_number("timeout", read),
        deadline=None if deadline is None else parse_duration(deadline, "deadline").total_seconds(),
        retries=int(parse_number("retries", retries, least=0, whole=True)),
        backoff=parse_number("backoff", backoff, least=0),
        max_retry_after=parse_duration(max_retry_after, "max_retry_after").total_seconds(),
        rate=parse_rate(rate),
        workers=int(parse_number("workers", workers, least=1, whole=True)),
        verify=parse_verify(verify),
        loopback=loopback,
    )


def parse_rate(value: object) -> Rate | None:
    """Read a rate: requests in a time, such as ``"600/min"``; None is none."""
    if value is None:
        return None
    found = _RATE.fullmatch(value) if isinstance(value, str) else None
    seconds = float(found[2] or 1) * _UNITS[found[3].lower()] if found else 0.0
    if not found or not int(found[1]) or not 0 < seconds < math.inf:
        raise ValidationError(
            f'takes requests in a time, such as "600/min", "10/s" or "5/2s"; not {quoted(value)}.', argument="rate"
        )
    return Rate(int(found[1]), seconds)


_UNITS = {"s": 1, "sec": 1, "second": 1, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86_400, "day": 86_400}
_RATE = re.compile(rf"\s*([0-9]{{1,9}})\s*/\s*([0-9]{{1,9}}(?:\.[0-9]{{1,9}})?)?\s*({'|'.join(_UNITS)})\s*", re.I)


def parse_address(base_url: str | None, *, allow_http: bool) -> tuple[str, bool]:
    """Check the base URL; gives it without a slash at the end, and whether it is this machine's own."""
    text = os.environ.get("ENRICHSTATUS_BASE_URL") if base_url is None else base_url
    if text is None or (isinstance(text, str) and not text):
        raise ValidationError(
            "is missing, and so is ENRICHSTATUS_BASE_URL in the environment: where is the service?", argument="base_url"
        )
    text = text.strip() if isinstance(text, str) else ""
    try:
        parts = urlsplit("" if re.search(r"[\s\\]", text) else text)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise ValidationError(
            'is an address such as "https://api.example.com"; what was given is not.', argument="base_url"
        )
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValidationError(
            "has no user, password, query or fragment; the token goes in ENRICHSTATUS_TOKEN of the environment, or is given apart.",
            argument="base_url",
        )
    loopback = _is_loopback(host)
    if parts.scheme == "http" and not loopback and not allow_http:
        raise ValidationError(
            f"Over plain http to {host} everybody on the way could read the token. Use https.",
            instead=("allow_http", True, "send it all the same"),
        )
    return text.removesuffix("/").removesuffix(wire.PATH), loopback


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_verify(value: Any) -> bool | str:
    """Check what certificates are checked with: True, or the path of a bundle; there is no way to leave it off."""
    if value is None or value is True:
        return True
    if not isinstance(value, (str, os.PathLike)) or not (path := os.fspath(value)) or not isinstance(path, str):
        raise ValidationError(
            f"takes True, or the path of a file or folder of authorities, not {quoted(value)}. Certificates are always "
            "checked; for a service with a certificate of your own pass the bundle of the authority that signed it.",
            argument="verify",
        )
    if not os.path.exists(path):
        raise ValidationError(
            f"is the path of a file or folder of authorities; there is nothing at {path!r}. Correct the path, or "
            "leave it out to check with the authorities that are known.",
            argument="verify",
        )
    return path
