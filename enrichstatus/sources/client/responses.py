"""What a service answers, checked: enrichment objects as a table, or what is wrong."""

from __future__ import annotations

import html
import json
import math
import re
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from enrichstatus.errors import EnrichStatusError, InternalError, ServiceError, UnauthorizedError, ValidationError
from enrichstatus.presentation import plain
from enrichstatus.schema import SCHEMA, instants, known_statuses, listed

if TYPE_CHECKING:
    import requests

#: Without these an object says nothing; of the others the contract allows that they are null.
_REQUIRED = ("id", "createdAt", "updatedAt", "entityId", "entityType", "field", "status", "dataFound")
_NEVER_NULL = ("id", "createdAt", "entityId", "entityType", "field", "status")
_TEXT = pa.schema([(one.name, one.type if one.type == pa.bool_() else pa.string()) for one in SCHEMA])


class Unreadable(EnrichStatusError):
    """The answer is not complete JSON, as when a proxy or a cut connection had a hand in it; the message says what it is."""


def parse(content: bytes) -> Any:
    """Read JSON."""
    with suppress(ValueError, RecursionError):  # not chained: these errors hold the whole answer
        return json.loads(content)
    raise Unreadable(f"not JSON, but {_excerpt(content)!r}" if content.strip() else "nothing")


def read(content: bytes, statuses: Mapping[str, str]) -> pa.Table:
    """Read the records of an answer."""
    return table(parse(content), statuses)


def table(found: Any, statuses: Mapping[str, str]) -> pa.Table:
    """Turn an answer into a table (`schema.SCHEMA`), checked; members that the contract has not are left out."""
    if not isinstance(found, list):
        raise ServiceError(f"The service answered with {_kind(found)} where an array of enrichments belongs.", 200)
    if strangers := set(map(type, found)) - {dict}:
        kinds = listed(kind.__name__ for kind in strangers)
        raise ServiceError(f"The service answered with an array that holds {kinds}.", 200)
    present = Counter(chain.from_iterable(found))
    if missing := [name for name in _REQUIRED if present[name] < len(found)]:
        raise ServiceError(f"The service answered with an enrichment that lacks {listed(missing)}.", 200)
    with suppress(*_WRONG):  # not chained: these errors hold the value
        records = _cast(pa.Table.from_pylist(found, schema=_TEXT))
        if null := [name for name in _NEVER_NULL if records[name].null_count]:
            raise ServiceError(f"The service answered with an enrichment whose {listed(null)} is null.", 200)
        place = SCHEMA.get_field_index("status")
        return records.set_column(place, "status", known_statuses(records["status"], statuses))
    wrong = [name for name in SCHEMA.names if not _fits(found, name)]
    raise ServiceError(f"The service answered with an enrichment whose {listed(wrong)} is of a wrong type.", 200)


_WRONG = (pa.ArrowException, TypeError, ValueError, OverflowError)


def _cast(records: pa.Table) -> pa.Table:
    for place, name in enumerate(records.column_names):
        if pa.types.is_timestamp(SCHEMA.field(name).type):
            records = records.set_column(place, name, instants(records[name]))
    return records


def _fits(found: list[dict[str, Any]], name: str) -> bool:
    with suppress(*_WRONG):
        _cast(pa.Table.from_pylist(found, schema=pa.schema([_TEXT.field(name)])))
        return True
    return False


def balance(content: bytes) -> tuple[float, str | None]:
    """Read an organization's credits, and the organization."""
    found = parse(content)
    left = found.get("balance") if isinstance(found, dict) else None
    if isinstance(left, bool) or not isinstance(left, (int, float)) or not math.isfinite(left):
        raise ServiceError("The service answered with a balance that is not a number.", 200)
    organization = found.get("organizationId")
    return float(left), organization if isinstance(organization, str) else None


def error_of(response: requests.Response, content: bytes, url: str, hide: Callable[[str], str]) -> EnrichStatusError:
    """Make the exception of an answer that is not 200, of its headers and what was read of its content."""
    status = response.status_code
    if response.is_redirect or 300 <= status < 400:
        target = hide(response.headers.get("Location", "nowhere"))[:200]
        return ServiceError(
            f"{url} redirects ({status}) to {target}, which is not followed: the token is for the address that was given. "
            "If that is the service, give it as base_url.",
            status,
        )
    code, message = _code_and_message(content)
    message = hide(message)
    if status == 400:
        return ValidationError(message if code else f"{url} refused the request (400): {message}")
    if status == 401:
        return UnauthorizedError(f"{url} refused the token (401): {message}")
    if status == 500 and code == InternalError.code:
        return InternalError(message)
    return ServiceError(f"{url} answered {status}: {message or response.reason or 'nothing'}", status)


def _code_and_message(content: bytes) -> tuple[str, str]:
    """Read code and message of ``{"error": {…}}``, of the same members at the top, or of a body that is not JSON."""
    try:
        body = parse(content)
    except Unreadable as error:
        return "", str(error)
    inner = body.get("error", body) if isinstance(body, dict) else body
    if isinstance(inner, dict):
        return str(inner.get("code", "")), plain(str(inner.get("message", "") or inner))[:500]
    return "", plain(str(inner))[:500]


def _excerpt(content: bytes) -> str:
    """The beginning of a text without its markup."""
    text = content[:4000].decode("utf-8", "replace")
    text = re.sub(r"(?is)<(script|style|head)\b.*?(</\1>|$)|<[^>]*(>|$)", " ", text)
    return plain(html.unescape(text))[:100]


def _kind(value: Any) -> str:
    return {dict: "an object", str: "text", type(None): "null", bool: "a truth value"}.get(type(value), "a number")


def brief(reason: object) -> str:
    """Shorten an error of requests or urllib3 to what a person can use."""
    arguments: Sequence[object] = getattr(reason, "args", ())
    if len(arguments) == 2 and isinstance(arguments[1], Exception):
        reason = f"{str(arguments[0]).rstrip('.')}: {arguments[1]}"
    text = re.sub(r"<[^<>]*>: |HTTPS?Connection(Pool)?\([^()]*\): ", "", plain(str(reason)))
    return text[:300]


def scrubbed(error: Exception) -> Exception:
    """Remove the token from an error of requests or urllib3: from its request, and from the frames of its traceback."""
    request = getattr(error, "request", None)
    if request is not None:
        request.headers.pop("Authorization", None)
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)  # tools that show the variables of frames would show the header
        link = link.__cause__ or link.__context__
    return error
