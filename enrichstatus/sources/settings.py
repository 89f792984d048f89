"""How a remote service is asked: its address, the token and the bounds, checked."""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from enrichstatus import wire
from enrichstatus.errors import UnauthorizedError, ValidationError


@dataclass(frozen=True)
class Settings:
    """How one service is asked; durations in seconds."""

    url: str
    connect: float
    read: float
    deadline: float
    retries: int
    backoff: float
    max_retry_after: float
    workers: int
    verify: bool | str
    loopback: bool


def parse_address(base_url: str | None, *, allow_http: bool) -> tuple[str, bool]:
    """Check the base URL; gives it without a slash at the end, and whether it is this machine's own."""
    text = os.environ.get("ENRICHSTATUS_BASE_URL") if base_url is None else base_url
    if not text:
        raise ValidationError(
            "There is no base_url=, nor ENRICHSTATUS_BASE_URL in the environment: where is the service?"
        )
    try:
        parts = urlsplit(text.strip()) if isinstance(text, str) else urlsplit("")
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        host = ""
    if re.search(r"[\s\\]", text.strip() if isinstance(text, str) else ""):
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise ValidationError('base_url= is an address such as "https://api.example.com"; what was given is none.')
    if parts.username or parts.password or parts.query or parts.fragment:
        raise ValidationError("base_url= has no user, password, query or fragment; the token goes in token=.")
    loopback = _is_loopback(host)
    if parts.scheme == "http" and not loopback and not allow_http:
        raise ValidationError(
            f"Over plain http to {host} everybody on the way could read the token. Use https, or pass allow_http=True."
        )
    return text.strip().removesuffix("/").removesuffix(wire.PATH), loopback


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def parse_token(token: str | None) -> str:
    """Check the token, or that of the environment; no message shows it."""
    found = os.environ.get("ENRICHSTATUS_TOKEN") if token is None else token
    if not found:
        raise UnauthorizedError("There is no token=, nor ENRICHSTATUS_TOKEN in the environment.")
    if not isinstance(found, str) or not found.isascii() or not found.isprintable() or " " in found:
        raise ValidationError(
            "token= is text of printable ASCII without white space; what was given has other characters in it "
            "(a line end from a file, perhaps: token.strip() takes it off)."
        )
    return found


def parse_number(name: str, value: Any, *, least: float | None = None, whole: bool = False) -> float:
    """Check a number: above 0, or from `least` on."""
    kind: Any = int if whole else (int, float)
    fits = isinstance(value, kind) and not isinstance(value, bool)
    if not fits or not (value > 0 if least is None else value >= least) or value == float("inf"):
        bound = "above 0" if least is None else f"from {least:g}"
        raise ValidationError(f"{name}= takes {'whole numbers' if whole else 'numbers'} {bound}, not {value!r}.")
    return float(value)
