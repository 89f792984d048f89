"""Who may use the endpoint: bearer tokens, kept in a TOML file as their SHA-256 digests, and their organizations."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from enrichstatus.errors import UnauthorizedError, ValidationError
from enrichstatus.lookup.arguments import parse_org

_HEAD = "# Tokens of the enrichstatus endpoint: digests only. Made by: enrichstatus token new --org ORG --tokens FILE\n"


def new_token(path: str | os.PathLike[str], org_id: str) -> str:
    """Make a token for an organization, add its digest to the file (made where there is none), and give the token."""
    org_id = parse_org(org_id)
    if not org_id:
        raise ValidationError("A token is for an organization; name it.")
    file = Path(path)
    token = "es_" + secrets.token_urlsafe(32)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    entry = f'\n[[token]]\norg = {_quoted(org_id)}\nsha256 = "{_digest(token)}"\ncreated = {created}\n'
    if file.exists():
        _check_addition(file, entry, {_digest(token): org_id})  # before anything is written
    try:
        # for its owner alone; one write, so that a server that reads meanwhile sees all of it or nothing
        with open(os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "ab", buffering=0) as handle:
            handle.write((_HEAD if handle.tell() == 0 else "").encode() + entry.encode())
    except OSError as error:
        raise ValidationError(f"The tokens file {str(file)!r} cannot be written: {error.strerror}.") from error
    return token


def read_tokens(path: str | os.PathLike[str]) -> dict[str, str | None]:
    """Read a tokens file: the organization (or None) of each digest."""
    name = os.fspath(path)
    return _parse(_read(name), name)


def _read(name: str) -> str:
    try:
        return Path(name).read_text(encoding="utf-8")
    except OSError as error:
        raise ValidationError(
            f"The tokens file {name!r} cannot be read: {error.strerror}. Make one with: enrichstatus token new"
        ) from error
    except UnicodeError as error:
        raise ValidationError(f"The tokens file {name!r} is not UTF-8: {error}") from error


def _parse(text: str, name: str) -> dict[str, str | None]:
    try:
        content = tomllib.loads(text)
    except ValueError as error:  # its message quotes one character at most
        raise ValidationError(f"The tokens file {name!r} is not TOML: {error}") from error
    entries = content.get("token", [])
    if not isinstance(entries, list) or not all(map(_usable, entries)):
        raise ValidationError(
            f'The tokens file {name!r} takes entries of [[token]] with sha256 = "…" (64 hexadecimal digits) and org = "…".'
        )
    known: dict[str, str | None] = {}
    for entry in entries:
        digest, org_id = entry["sha256"].lower(), entry.get("org")
        if known.setdefault(digest, org_id) != org_id:
            raise ValidationError(
                f"The tokens file {name!r} gives one token to two organizations, {known[digest]!r} and {org_id!r} "
                f"(sha256 {digest[:8]}…). Take out the entry that is wrong."
            )
    return known


def _check_addition(file: Path, entry: str, added: dict[str, str | None]) -> None:
    """Refuse a file that with an entry at its end would not hold what it holds now, and the entry."""
    name = os.fspath(file)
    text = _read(name)
    expected = _parse(text, name) | added
    try:
        if _parse(text + entry, name) == expected:
            return
    except ValidationError:
        pass
    raise ValidationError(
        f"The tokens file {name!r} cannot be added to: its tokens are an array in one place (token = […]). "
        "Write each as an entry of its own, headed [[token]]; the file was left as it is."
    )


def digests(tokens: Mapping[str, str | None]) -> dict[str, str | None]:
    """Turn tokens and their organizations into what a tokens file holds."""
    return {_digest(token): org_id for token, org_id in tokens.items()}


def organization(tokens: Mapping[str, str | None], authorization: str | None) -> str | None:
    """Give the organization of a request by its Authorization header; None is a token that has none."""
    scheme, _, token = (authorization or "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise UnauthorizedError("Send a token: Authorization: Bearer <token>")
    digest = _digest(token.strip())
    # every entry is compared, each in constant time: how long it takes shows nothing of what is there
    matches = [known for known in tokens if hmac.compare_digest(known, digest)]
    if not matches:
        raise UnauthorizedError("The token is not known.")
    org_id = tokens[matches[0]]
    return None if org_id is None else parse_org(org_id)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def _usable(entry: object) -> bool:
    return (
        isinstance(entry, dict)
        and re.fullmatch("[0-9a-fA-F]{64}", str(entry.get("sha256"))) is not None
        and isinstance(entry.get("org", ""), str)
    )


def _quoted(text: str) -> str:
    """Quote text for TOML, whose basic strings escape what JSON's do, and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
