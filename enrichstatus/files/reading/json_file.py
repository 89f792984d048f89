"""JSON files: the members of their objects, those in envelopes too, and the line of each fault."""

from __future__ import annotations

import glob
import json
import math
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from decimal import Context, Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from enrichstatus.errors import ValidationError
from enrichstatus.files.scratch import scratch
from enrichstatus.files.text import BLOCK, COMPRESSIONS, FILE, blocks, encoding_of, is_utf8, opened, shown, unreadable
from enrichstatus.schema import listed

# The members of all objects, and whether Python has to look at a file: values that are not objects, a member that stands twice, and
# perhaps a comma too many, which DuckDB overlooks, or a number with more digits than a double holds, which it rounds
_MEMBERS_SQL = r"""
with objects as (
    select
        json_keys(json) as members,
        json_type(json) <> 'OBJECT' or len(members) <> list_unique(members) or regexp_matches(json, $odd) as odd,
        row_number() over () as place
    from read_json_objects($files, hive_partitioning = false)
), members as (
    select
        unnest(if(len(members) > 0, members, [null])) as member,
        unnest(range(greatest(len(members), 1))) as nth,
        place,
        odd
    from objects
)
select member, bool_or(odd) from members group by member order by min(place), min(nth), member
"""


#: A comma too many, and a number of 18 digits or more beside a point or an exponent; that begins where a number can, or the search is slow.
_POINT = "|".join(rf"[0-9]{{{whole}}}\.[0-9]{{{17 - whole}}}" for whole in range(17))
_ODD = rf",\s*[}}\]]|[:,\[\s-](?:0\.0*[1-9][0-9]{{17}}|[1-9](?:[0-9]{{17,}}[.eE]|{_POINT}))"


def members(
    paths: Sequence[str], encoding: str | None, con: duckdb.DuckDBPyConnection | None
) -> tuple[dict[str, pa.Table | None], list[list[str]]]:
    """Find the members of JSON files; gives the objects of those that Python has to read, too."""
    values_of: dict[str, pa.Table | None] = dict.fromkeys(paths)
    headers = []
    with scratch() if con is None else con.cursor() as cursor:
        for path in paths:
            found: list[tuple[str | None, bool]] = []
            odd = not is_utf8(path, encoding) or not _array_ends(path)
            if not odd:
                try:
                    found = cursor.execute(_MEMBERS_SQL, {"files": [glob.escape(path)], "odd": _ODD}).fetchall()
                except duckdb.InvalidInputException:  # Python says in which line
                    odd = True
            found_here = [member for member, _ in found if member is not None]
            if odd or any(flag for _, flag in found) or _may_be_wrapped(found_here):
                values = _objects(path, encoding)
                found_here = list(dict.fromkeys(member for value in values for member in value))
                values_of[path] = _as_table(path, values)
            headers.append(found_here)
    return values_of, headers


def _array_ends(path: str) -> bool:
    """Whether a JSON array that begins also ends, without a comma before; DuckDB would not notice. A compressed file is read whole."""
    with opened(path) as stream:
        start = stream.read(1 << 16)
        if Path(path).suffix.lower() in COMPRESSIONS:
            last = start
            while block := stream.read(BLOCK):
                last = (last + block)[-(1 << 16) :]
        else:
            stream.seek(max(0, os.path.getsize(path) - (1 << 16)))
            last = stream.read()
    return not start.lstrip().startswith(b"[") or last.rstrip().endswith(b"]")


#: Members that hold the rows of an envelope, those that may stand beside them, and those of messages of Singer and Airbyte.
_ROWS = ("data", "results", "records", "items", "value", "rows")
_BESIDE = re.compile(
    r"meta|metadata|_?links|paging|pagination|next|previous|prev|first|last|count|total|total_?count|total_?size|page|pages|page_?size|"
    r"per_page|limit|offset|cursor|next_?cursor|has_?more|success|status|ok|errors?|message|object|url|version|took|done|"
    r"next_?records_?url|request_?id|@odata\.\w+",
    re.IGNORECASE,
)
_MESSAGE = re.compile(
    "type|stream|record|schema|key_properties|bookmark_properties|value|version|time_extracted|state|log|trace|catalog|spec|control|"
    "connectionStatus|namespace"
)
_TYPE = re.compile("RECORD|SCHEMA|STATE|ACTIVATE_VERSION|BATCH|LOG|TRACE|CATALOG|SPEC|CONTROL|CONNECTION_STATUS")
_AIRBYTE = "_airbyte_data"


def _may_be_wrapped(members: Sequence[str]) -> bool:
    """Whether objects with these members may be envelopes of the rows."""
    page = any(name in _ROWS for name in members) and all(name in _ROWS or _BESIDE.fullmatch(name) for name in members)
    message = {"type", "record"} <= set(members) and all(map(_MESSAGE.fullmatch, members))
    return page or message or _AIRBYTE in members


def _unwrapped(path: str, values: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Take the rows out of their envelopes, where all are envelopes of one kind."""
    members = list(dict.fromkeys(member for value in values for member in value))
    if not _may_be_wrapped(members):
        return values
    inner: list[Any]
    if _AIRBYTE in members:
        inner = [value.get(_AIRBYTE) for value in values]
        with suppress(ValueError):
            inner = [_DECODER.decode(one) if isinstance(one, str) else one for one in inner]
    elif "record" in members:
        if not all(_TYPE.fullmatch(str(value.get("type"))) for value in values):
            return values
        messages = [value for value in values if value["type"] == "RECORD"]
        inner = [message.get("record") for message in messages]
        if all(isinstance(one, dict) and isinstance(one.get("data"), dict) and "stream" in one for one in inner):
            # Airbyte
            messages, inner = inner, [one["data"] for one in inner]
        if len(streams := sorted({str(message.get("stream")) for message in messages})) > 1:
            raise ValidationError(f"{path!r} holds records of several streams, {listed(streams)}; keep those of one.")
    else:
        name, *more = [name for name in members if name in _ROWS]
        held = [value for one in (name, *more) if isinstance(value := values[0].get(one), (dict, list))]
        if len(values) == 1 and len(held) == 1 + len(more) and (more or isinstance(held[0], dict)):
            raise ValidationError(
                f"{path!r} is a wrapper around the rows, and which they are is not clear: expected a list in one of "
                f"{listed(_ROWS, 9)}, found {listed([name, *more])}. Keep the list of the rows alone."
            )
        lists = [value.get(name) for value in values]
        if more or not all(isinstance(rows, list) for rows in lists):
            return values
        inner = [row for rows in lists for row in rows or ()]
    return inner if all(isinstance(one, dict) for one in inner) else values


class _Digits(ValueError):
    """A number has more digits than a double, or Python, holds."""


def _float(text: str) -> float:
    """Read a number of which a double keeps every digit, or that a double was written as."""
    number = float(text)
    digits = len(re.sub(r"[eE].*|\D", "", text).lstrip("0"))
    if math.isinf(number) or (digits > 17 and Context(prec=digits).create_decimal(Decimal(number)) != Decimal(text)):
        raise _Digits(text)
    return number


def _int(text: str) -> int:
    if len(text) > _LONGEST:
        raise _Digits(text)
    return int(text)


#: Digits of a whole number that Python reads.
_LONGEST = 4300


class _Twice(ValueError):
    """A member stands twice in an object."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise _Twice(next(name for name in names if names.count(name) > 1))
    return made


_DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_float=_float, parse_int=_int)
_SPACE = re.compile(r"[ \t\r\n]*")


def _objects(path: str, encoding: str | None) -> list[dict[str, Any]]:
    """Read the objects of a JSON file, in an array or one after the other, with Python, which says where something is wrong."""
    text = "".join(blocks(path, encoding_of(path, encoding)))
    values = []

    def after(place: int) -> int:
        return _SPACE.match(text, place).end()  # type: ignore[union-attr]  # it matches nothing, too

    def line(place: int) -> int:
        return text.count("\n", 0, place) + 1

    place = start = after(0)
    array = text.startswith("[", place)
    try:
        if array:
            place = after(place + 1)
        more = not (array and text.startswith("]", place))
        while more and (array or place < len(text)):
            start = place
            value, place = _DECODER.raw_decode(text, place)
            if not isinstance(value, dict):
                raise unreadable(
                    path, line(start), f"{shown(text[start:])} is not a JSON object, as rows are. Leave it out."
                )
            if r"\ud" in text[start:place].lower():
                json.dumps(value, ensure_ascii=False).encode()
            values.append(value)
            place = after(place)
            if array:
                more = text.startswith(",", place)
                if not more and not text.startswith("]", place):
                    raise json.JSONDecodeError("Expecting ',' or ']'", text, place)
                place = after(place + 1) if more else place
        if array and after(place + 1) < len(text):
            raise json.JSONDecodeError("Extra data", text, after(place + 1))
    except json.JSONDecodeError as error:
        cut = error.pos >= len(text.rstrip()) or "Unterminated" in error.msg
        begun = f", in what begins in line {line(start)}" if line(start) < error.lineno else ""
        remedy = "Fix it there, or write the file anew with a program for JSON."
        remedy = "The file is cut off: fetch it anew." if cut else remedy
        raise unreadable(path, error.lineno, f"{error.msg} (column {error.colno}{begun}). {remedy}") from None
    except _Twice as error:
        why = f"the member {str(error)!r} stands twice in one object. Rename or drop one."
    except _Digits as error:
        beyond = re.fullmatch(r"[^eE]*[eE].*", str(error)) and math.isinf(float(str(error)))
        what = (
            "is beyond what a double holds: its exponent is too great" if beyond else "has more digits than can be kept"
        )
        why = f"the number {shown(str(error))} {what}. Write it in quotes, as text."
    except UnicodeEncodeError:
        why = "half of a surrogate pair is not text; write the character in full."
    except RecursionError:
        why = "its values are nested too deeply. Leave them out."
    else:
        return _unwrapped(path, values)
    raise unreadable(path, line(start), why)


def _as_table(path: str, values: list[dict[str, Any]]) -> pa.Table:
    """Give objects to DuckDB as text, with their file."""
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    return pa.table({"json": pa.array(texts, pa.string()), FILE: pa.repeat(path, len(texts))})
