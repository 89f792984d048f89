"""The arguments that calls have in common, read and checked."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from inspect import iscoroutinefunction
from numbers import Integral, Real
from typing import Any, Literal, TypeAlias, TypeGuard

import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ValidationError, quoted, suggested
from enrichstatus.schema import COLUMNS, EPOCHS, EXPLANATION, FIELDS, KEY, Epoch, instants, listed

#: The documented maximum execution time of the service's sibling endpoint.
MAX_PROCESSING_TIME = timedelta(seconds=800)

Columns: TypeAlias = Sequence[str] | str
How: TypeAlias = Literal["left", "inner"]
Errors: TypeAlias = Literal["raise", "coerce"]
Instant: TypeAlias = datetime | str | None


def parse_options(columns: Columns, how: How, errors: Errors, prefix: str) -> tuple[str, ...]:
    """Check the options of a lookup; gives the names of the columns to add."""
    names = parse_columns(columns)
    parse_prefix(prefix)
    choice("how", how, ("left", "inner"))
    choice("errors", errors, ("raise", "coerce"))
    return names


def parse_columns(columns: Columns, known: Sequence[str] = (*COLUMNS, *EXPLANATION.names)) -> tuple[str, ...]:
    """Read ``columns=``: names of a record's columns and of what explains it, or ``"all"`` for a record's that are not the key."""
    if isinstance(columns, str) and columns == "all":
        return tuple(name for name in COLUMNS if name not in KEY)
    names = names_of(columns) or ()
    strange = [name for name in names if not isinstance(name, str) or name not in known]
    if strange or not names or len(set(names)) < len(names):
        raise ValidationError(
            f'takes "all" or some of {listed(known, limit=20)}, each once; not {quoted(columns)}.{_near(strange, known)}',
            argument="columns",
        )
    return names


def parse_fields(fields: Sequence[str] | str) -> tuple[str, ...]:
    """Check a vocabulary of fields: one or more distinct names, without outer white space."""
    names = names_of(fields) or ()
    bad = [name for name in names if not is_text(name) or not name or name != name.strip()]
    if bad or not names or len(set(names)) < len(names):
        raise ValidationError(f"takes distinct names, such as {FIELDS}, not {quoted(fields)}.", argument="fields")
    return names


def names_of(value: object) -> tuple[Any, ...] | None:
    """Read an argument that takes one name or several; None is no such argument. What they are is not checked."""
    if isinstance(value, str):
        return (value,)
    with suppress(TypeError):  # an array without dimensions says that it can be gone through
        return tuple(value) if isinstance(value, Iterable) else None
    return None


def parse_prefix(prefix: object) -> str:
    """Check what is put before the names of columns."""
    if not isinstance(prefix, str):
        raise ValidationError(f"is text, not {quoted(prefix)}.", argument="prefix")
    return _encodable(prefix, "prefix")


def parse_org(org_id: str | None) -> str:
    """Read an organization: text, without outer white space; None is empty."""
    if org_id is not None and not isinstance(org_id, str):
        raise ValidationError(f"is text, not {type(org_id).__name__}.", argument="org_id")
    return _encodable(org_id or "", "org_id").strip().strip("\ufeff").strip()


def _encodable(text: str, argument: str) -> str:
    if not is_text(text):
        raise ValidationError(f"has parts that are not UTF-8: {quoted(text)}. Name it in UTF-8.", argument=argument)
    return text


def is_text(value: object) -> TypeGuard[str]:
    """Whether a value is text that other programs take: half a surrogate pair is not."""
    try:
        return isinstance(value, str) and bool(value.encode() or True)
    except UnicodeError:
        return False


def choices(name: str, value: object, allowed: Sequence[str]) -> tuple[str, ...]:
    """Read an option that takes one, several or none of those allowed."""
    names = names_of(value)
    strange = [value] if names is None else [one for one in names if not isinstance(one, str) or one not in allowed]
    if names is None or strange:
        raise ValidationError(
            f"takes some of {listed(map(repr, allowed))}, not {listed(map(quoted, strange))}.{_near(strange, allowed)}",
            argument=name,
        )
    return names


def choice(name: str, value: object, allowed: Sequence[str]) -> None:
    """Refuse an option that is not one of those allowed."""
    if not isinstance(value, str) or value not in allowed:
        raise ValidationError(
            f"is one of {listed(map(repr, allowed))}, not {quoted(value)}.{_near([value], allowed)}", argument=name
        )


def _near(strange: Sequence[object], known: Iterable[object]) -> str:
    return suggested(strange[0], known) if strange and isinstance(strange[0], str) else ""


def parse_flags(*, progress: object = None, **flags: object) -> None:
    """Check switches: True or False; of `progress` None is a choice too."""
    for name, value in flags.items():
        if not isinstance(value, bool):
            raise ValidationError(f"takes True or False, not {quoted(value)}.", argument=name)
    if progress is not None and not isinstance(progress, bool):
        raise ValidationError(f"takes True or False, or None, not {quoted(progress)}.", argument="progress")


def column_named(argument: str, name: Any, columns: Sequence[Any], whose: str) -> None:
    """Refuse the name of a column that is not there, or that two have."""
    count = [column for column in columns if isinstance(column, type(name))].count(name)
    if not count:
        raise ValidationError(
            f"names the column {quoted(name)}, but {whose} have {listed(columns)}.{_near([name], columns)}",
            argument=argument,
        )
    if count > 1:
        raise ValidationError(f"There are two columns named {quoted(name)}; rename or drop one.")


def parse_epoch(epoch: Epoch | None) -> Epoch | None:
    """Check the unit of instants that are numbers, where there are such."""
    if epoch is not None:
        choice("epoch", epoch, tuple(EPOCHS))
    return epoch


def check_source(source: object) -> None:
    """Refuse an object without ``lookup``."""
    lookup = getattr(source, "lookup", None)
    if isinstance(source, type) or not callable(lookup):
        kind = f"the class {source.__name__}" if isinstance(source, type) else type(source).__name__
        raise ValidationError(f"is a store, a client, or any object with their lookup, not {kind}.", argument="source")
    if iscoroutinefunction(lookup):
        raise ValidationError(
            f"has a lookup that is awaited ({type(source).__name__}). Give an AsyncEnrichmentClient to apoll, aresume or "
            "await_completed; all else takes its .blocking, or another source whose lookup blocks.",
            argument="source",
        )


#: A whole number that no database holds.
_BEYOND = 1 << 63


def parse_number(
    name: str,
    value: Any,
    *,
    least: float | None = None,
    most: float = math.inf,
    whole: bool = False,
    what: str = "number",
) -> float:
    """Check a number: above 0, or from `least` on, up to `most`; `what` says which kind of number it is."""
    if not isinstance(value, bool) and isinstance(value, (Integral if whole else Real)):
        with suppress(OverflowError):  # an integer that no float can hold
            number = int(value) if whole else float(value)  # type: ignore[call-overload]  # it is one
            if (
                (number > 0 if least is None else number >= least)
                and number <= most
                and number != math.inf
                and not (whole and number >= _BEYOND)
            ):
                return number  # nor is it NaN
    low = "above 0" if least is None else f"from {least:g}"
    high = f" to {most:g}" if most < math.inf else "" if least is None else " up"
    raise ValidationError(f"takes a {'whole ' if whole else ''}{what} {low}{high}, not {quoted(value)}.", argument=name)


def parse_instant(value: Instant, name: str = "now") -> datetime:
    """Read an instant: an aware datetime or ISO 8601 text; without a zone it is UTC; None is the clock's."""
    if value is None:
        return datetime.now(UTC)
    try:
        if not isinstance(value, (str, datetime)):
            raise TypeError
        instant = pd.Timestamp(instants(pa.chunked_array([[value]]))[0].as_py() if isinstance(value, str) else value)
        if pd.isna(instant):
            raise ValueError
    except (ValueError, TypeError) as error:
        raise ValidationError(
            f'takes a datetime or text such as "2025-01-13T10:30:00Z", not {quoted(value)}.', argument=name
        ) from error
    instant = instant.tz_localize(UTC) if instant.tzinfo is None else instant.tz_convert(UTC)
    return instant.to_pydatetime(warn=False)


def parse_period(since: Instant, until: Instant) -> tuple[datetime | None, datetime | None]:
    """Read the period; a date means until the end of that day."""
    begin = None if since is None else parse_instant(since, "since")
    end = None if until is None else parse_instant(until, "until")
    if end and isinstance(until, str) and re.fullmatch(r"\s*[0-9]{4}-[0-9]{2}-[0-9]{2}\s*", until):
        end += timedelta(days=1)
    if begin and end and begin >= end:
        raise ValidationError(f"ends the period at {until}, which is not after since, {since}.", argument="until")
    return begin, end


def parse_duration(value: object, name: str = "max_processing_time") -> timedelta:
    """Read a duration: ``"800s"``, ``"30min"``, a timedelta, or a number of seconds; above zero."""
    try:
        if isinstance(value, bool) or not isinstance(value, (str, int, float, timedelta)):
            raise TypeError
        if isinstance(value, str):
            if re.fullmatch(r"\s*[\d.]*\s*", value):
                raise ValueError  # no unit: pandas would read nanoseconds
            value = re.sub(r"(?<=[\d\s])d\b", "D", value)  # pandas warns of the small one
        duration = pd.Timedelta(seconds=value) if isinstance(value, (int, float)) else pd.Timedelta(value)
        if not duration > pd.Timedelta(0):  # nor is NaT
            raise ValueError
    except (ValueError, TypeError, OverflowError) as error:
        raise ValidationError(
            f'takes a duration above zero, such as "800s" or "30min"; not {quoted(value)}.', argument=name
        ) from error
    return duration.to_pytimedelta()


def parse_limits(value: object, fields: Sequence[str]) -> dict[str, timedelta]:
    """Read the maximum processing time: one for all fields, or a mapping for some (the others keep the default)."""
    if not isinstance(value, Mapping):
        return dict.fromkeys(fields, parse_duration(value))
    if unknown := [name for name in value if name not in fields]:
        raise ValidationError(
            f"names the field {listed(unknown)}; the fields are {listed(fields)}.{_near(unknown, fields)}",
            argument="max_processing_time",
        )
    return {name: parse_duration(value.get(name, MAX_PROCESSING_TIME)) for name in fields}
