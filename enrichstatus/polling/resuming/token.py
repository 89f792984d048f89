"""A token: all that another machine has to know to go on with a poll, as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from enrichstatus.errors import ValidationError, quoted
from enrichstatus.polling.resuming import state
from enrichstatus.polling.schedules import Ask

if TYPE_CHECKING:
    from enrichstatus.polling.update import Update

_KIND, _VERSION = "enrichstatus/poll-token/", "1"
#: Characters: a longer text is not read, and not written.
_MOST = 100_000_000
_ANEW = "begin again with poll(…)"


@dataclass(frozen=True)
class Course:
    """How a poll goes on.

    Times are seconds since it began, but for `began`.
    """

    #: the address of the service, where the source has one, and whose records were answered, where there were any
    service: str | None
    organization: str | None
    began: datetime
    end: float | None
    missing_after: float
    errors: str
    #: what is looked up next, and when it is due; None where this was the last request
    ask: Ask
    due: float | None
    #: how many waits of the schedule are over, and how many requests in a row were not answered
    waits: int
    failures: int
    #: when the last answer came
    heard: float
    #: when this was known
    at: float


def write(update: Update, *, tasks: bool) -> str:
    """Write an update's token, with its tasks or without."""
    known, course = update.tracker, update.course
    told: dict[str, Any] = {
        "enrichstatus": _KIND + _VERSION,
        "service": course.service,
        "organization": course.organization,
        "began": _text(course.began),
        "at": _text(course.began, course.at),
        # not a moment too early, as the text has milliseconds
        "next": _text(course.began, None if course.due is None else course.due + 0.001),
        "deadline": _text(course.began, course.end),
        "tasks": len(known.listed),
        "digest": known.listed.digest,
        "list": known.listed.pack() if tasks else None,
        "state": state.write(known),
        "requests": update.requests,
        "errors": course.errors,
        "prefix": known.prefix,
        "columns": list(known.names.values()),
        "missingAfter": _milliseconds(course.missing_after),
        "heard": _milliseconds(course.heard),
        "waits": course.waits,
        "failures": course.failures,
        "fields": None if course.ask.fields is None else list(course.ask.fields),
        "samples": dict(course.ask.samples),
    }
    token = _json(told | {"check": _check(told)})
    if len(token) > _MOST:
        raise ValidationError(
            f"The token of {len(known.listed):,} tasks has {len(token):,} characters, and {_MOST:,} are read at most. Use "
            ".token_without_tasks, and resume(token, source, tasks=…)."
        )
    return token


def read(token: object) -> dict[str, Any]:
    """Read a token, and check that it is whole."""
    if not isinstance(token, str):
        raise refused(f"takes the .token of an update, which is text, not {type(token).__name__}.")
    if len(token) > _MOST:
        raise refused(
            f"has {len(token):,} characters, and {_MOST:,} are read at most: this is not the .token of an update."
        )
    try:
        told = json.loads(token)
        check = told.pop("check", None) if isinstance(told, dict) else None
        whole = check == _check(told)
    except (ValueError, RecursionError):
        told, whole = None, False
    kind = told.get("enrichstatus") if isinstance(told, dict) else None
    if not isinstance(kind, str) or not kind.startswith(_KIND):
        raise refused(f"is not the .token of an update, or not all of it. Give it as it was, or {_ANEW}.")
    if (version := kind.removeprefix(_KIND)) != _VERSION:
        raise refused(
            f"has the version {quoted(version)}, and this enrichstatus reads {_VERSION!r}. Go on with the enrichstatus that wrote it, or "
            f"{_ANEW}."
        )
    if not whole or not isinstance(tasks := told.get("tasks"), int) or not 0 <= tasks <= _MOST // 10:
        raise refused(f"is not as it was written: something in it was changed or cut. Give it as it was, or {_ANEW}.")
    return dict(told)


def course_of(told: Mapping[str, Any]) -> Course:
    """Give how the poll of a token goes on; what cannot be read raises `ValueError`, `TypeError` or `LookupError`."""
    began = _instant(told["began"])

    def since(name: str) -> float | None:
        return None if told[name] is None else (_instant(told[name]) - began).total_seconds()

    return Course(
        told["service"],
        told["organization"],
        began,
        since("deadline"),
        told["missingAfter"] / 1000,
        told["errors"],
        Ask(0.0, None if told["fields"] is None else tuple(told["fields"]), dict(told["samples"])),
        since("next"),
        int(told["waits"]),
        int(told["failures"]),
        told["heard"] / 1000,
        since("at") or 0.0,
    )


def refused(message: str) -> ValidationError:
    """Refuse a token."""
    return ValidationError(message, argument="token")


def unreadable(error: Exception) -> ValidationError:
    """Say that what stands in a whole token makes no sense."""
    return refused(
        f"cannot be read ({type(error).__name__}: {error}). Give a token that enrichstatus wrote, or {_ANEW}."
    )


def _check(told: Mapping[str, Any]) -> str:
    """Give a digest of all that is told; only whole numbers and text are, so that any program's JSON gives the same."""
    return hashlib.sha256(_json(told).encode()).hexdigest()


def _json(told: Mapping[str, Any]) -> str:
    return json.dumps(told, sort_keys=True, separators=(",", ":"))


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _text(began: datetime, seconds: float | None = 0.0) -> str | None:
    if seconds is None:
        return None
    return f"{(began + timedelta(seconds=seconds)).astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)
