"""What an enrichment record is: the one truth for its columns, their types and their vocabularies."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, TypeAlias

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError, quoted, suggested, written

_INSTANT = pa.timestamp("us", "UTC")

#: A record as answers carry it, in the order of the wire contract. ``cast_record.sql`` says the same in DuckDB's own, narrower types.
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("createdAt", _INSTANT),
        ("updatedAt", _INSTANT),
        ("entityId", pa.string()),
        ("entityType", pa.string()),
        ("field", pa.string()),
        ("status", pa.string()),
        ("error", pa.string()),
        ("dataFound", pa.bool_()),
        ("createdBy", pa.string()),
        ("orgId", pa.string()),
        ("globalEnrichmentId", pa.string()),
        ("creditTransactionId", pa.string()),
    ]
)
COLUMNS: tuple[str, ...] = tuple(SCHEMA.names)
#: What a lookup says of a task beyond its record: its outcome (`outcomes.OUTCOMES`), the record's age, and in how many seconds it
#: counts as timed out if it stays pending.
EXPLANATION = pa.schema([("reason", pa.string()), ("age", pa.float64()), ("expiresIn", pa.float64())])
#: What a trigger has requested, and whose outcome is not known yet: since when, by which call, and the ``createdAt`` of
#: the record that there was.
NO_LEASES = pa.schema(
    [
        ("entityId", pa.string()),
        ("entityType", pa.string()),
        ("field", pa.string()),
        ("since", _INSTANT),
        ("request", pa.string()),
        ("seen", _INSTANT),
    ]
).empty_table()
#: What makes two enrichments the same one, within an organization.
KEY: tuple[str, ...] = ("entityId", "entityType", "field")

ENTITY_TYPES = ("person", "company")
#: The contract's fields; a store can be created with others.
FIELDS = ("emails", "phones", "summary")
#: The contract documents these; any other status is kept as it came and counts as ended.
STATUSES = ("pending", "finished", "timeout", "failed")

#: How each Arrow type looks in pandas, whatever the data: nullable booleans, and the text type that is pandas 3's default.
PANDAS_TYPES = {pa.string(): pd.StringDtype(na_value=float("nan")), pa.bool_(): pd.BooleanDtype()}


def snake(name: str) -> str:
    """Turn a wire name into its snake_case spelling, which is understood wherever columns come in."""
    return re.sub("[A-Z]", lambda capital: "_" + capital[0].lower(), name)


def fold(name: object) -> str:
    """Reduce a column's name to what identifies it: without outer white space, byte order mark, case and snake_case."""
    return re.sub(r"^[\s\ufeff]+|[\s\ufeff]+$|(?<=[^_])_(?=[^_])", "", str(name)).casefold()


def find(found: Sequence[Any], wanted: Iterable[str]) -> dict[str, Any]:
    """Find each wanted column: ``{ours: theirs}``, without those that do not stand there.

    The wire name itself goes first; else it is the one that folds to the same.
    """
    names: dict[str, Any] = {}
    for ours, theirs in _spellings(found, wanted).items():
        if ours in theirs:
            names[ours] = ours
        elif len(theirs) > 1:
            raise ValidationError(f"The columns {listed(theirs)} could all be {ours}; rename or drop all but one.")
        else:
            names[ours] = theirs[0]
    _refuse_twice(found, names.values())
    return names


def record_names(found: Sequence[Any], renames: Mapping[str, str | None] | None = None) -> dict[str, list[Any]]:
    """Find the columns of a record, ``{ours: [theirs, …]}``: all that fold to one name or were renamed to it.

    `renames` is ``{theirs: ours}``, where None says that a column is something else. What looks like another name of the organization
    is found under `STRAY`, where there is an organization too; where there is none, the records would count as the caller's, and it
    is refused.
    """
    renames = _parse_renames(found, renames)
    free = [name for name in found if name not in renames]
    names = _spellings(free, COLUMNS)
    for ours in COLUMNS:
        if theirs := [name for name, wanted in renames.items() if wanted == ours]:
            names[ours] = theirs + (names.get(ours, []) if ours == "orgId" else [])
    _refuse_twice(found, chain.from_iterable(names.values()))
    if missing := [name for name in REQUIRED if name not in names]:
        raise ValidationError(
            f"Records need {columns_listed(missing)}; found {listed(found)}.{suggested(missing[0], free)} Rename them.",
            instead=("columns", {"theirs": "ours"}, "read them under other names"),
        )
    used = set(chain.from_iterable(names.values()))
    alike = [
        name for name in free if name not in used and _ORGANIZATION.fullmatch(unicodedata.normalize("NFKC", str(name)))
    ]
    if alike and "orgId" not in names:
        raise ValidationError(
            f"The column {listed(alike)} looks like the organization, and there is no orgId. Say which it is: "
            f'columns={{"{alike[0]}": "orgId"}}, or columns={{"{alike[0]}": None}} if it is something else.'
        )
    return names | ({STRAY: alike} if alike else {})


#: Under this `record_names` finds what looks like the organization, beside an orgId.
STRAY = "stray"
#: Without these a record says nothing.
REQUIRED = ("createdAt", "entityId", "field", "status")
#: ``organizationId`` in any spelling, and with a word before it: ``customerOrg``. An account may be many a thing: it has none.
_ORGANIZATION = re.compile(
    r"(?:.*(?:[\W_]|[a-z0-9](?=[A-Z])))?(?i:(?:org|organi[sz]ation|workspace|tenant)s?%s)|[\W_]*(?i:accounts?%s)"
    % ((r"[\W_]*(?:id|ids|uid|uuid|guid|key|code|name|slug|ref|identifier)?[\W_]*",) * 2)
)


def check_renames(renames: object) -> None:
    """Refuse ``columns=`` that is no mapping."""
    if not isinstance(renames, Mapping | None):
        raise ValidationError(
            f'takes a mapping, {{"theirs": "ours"}}, not {type(renames).__name__}.', argument="columns"
        )


def _parse_renames(found: Sequence[Any], renames: Mapping[str, str | None] | None) -> dict[Any, str | None]:
    """Give what the columns (or folders) that are there are renamed to."""
    check_renames(renames)
    given = dict(renames or {})
    renames = {name: given[key] for name in found for key in (name, str(name)) if key in given}
    absent = [theirs for theirs in given if theirs not in {*renames, *map(str, renames)}]
    strange = [ours for ours in given.values() if ours not in (*COLUMNS, None)]
    if absent or strange:
        but = f"the names to give are {listed(COLUMNS, 20)}.{suggested(strange[0], COLUMNS)}" if strange else ""
        if absent:
            but = f"the input has {listed(found)}.{suggested(absent[0], found)}"
        raise ValidationError(f"renames {listed(absent or strange)}, but {but}", argument="columns")
    return renames


def _spellings(found: Iterable[Any], wanted: Iterable[str]) -> dict[str, list[Any]]:
    folded: dict[str, dict[Any, None]] = {}
    for name in found:
        folded.setdefault(fold(name), {})[name] = None
    return {ours: list(folded[fold(ours)]) for ours in wanted if fold(ours) in folded}


def _refuse_twice(found: Sequence[Any], names: Iterable[Any]) -> None:
    counts = Counter(found)
    if twice := [name for name in names if counts[name] > 1]:
        raise ValidationError(f"There are two columns named {listed(twice)}; rename or drop one.")


def parse_statuses(statuses: Mapping[str, str] | None) -> dict[str, str]:
    """Read ``statuses=``: what a status means, by its word in lower case. The contract's own words mean themselves."""
    meant = dict(zip(STATUSES, STATUSES, strict=True))
    if not isinstance(statuses, Mapping | None):
        raise ValidationError(
            f'takes a mapping, {{"in_progress": "pending"}} say, not {type(statuses).__name__}.', argument="statuses"
        )
    for theirs, ours in (statuses or {}).items():
        word = theirs.strip().lower() if isinstance(theirs, str) else ""
        if not word:
            raise ValidationError(f"maps words of a service, not {quoted(theirs)}.", argument="statuses")
        if ours not in STATUSES:
            raise ValidationError(
                f"maps {quoted(theirs)} to {quoted(ours)}, but the contract's words are {listed(STATUSES)}.{suggested(ours, STATUSES)}",
                argument="statuses",
            )
        if meant.setdefault(word, ours) != ours:
            own = "is the contract's own word" if word in STATUSES else f"is mapped to {meant[word]!r}, too"
            raise ValidationError(f"maps {quoted(theirs)} to {quoted(ours)}, but it {own}.", argument="statuses")
    return meant


def known_statuses(words: pa.ChunkedArray, statuses: Mapping[str, str]) -> pa.ChunkedArray:
    """Read statuses as `parse_statuses` gives their meanings, in any case and with outer white space; any other as it came."""
    place = pc.index_in(pc.utf8_lower(pc.utf8_trim_whitespace(words)), pa.array(statuses, pa.string()))
    return pc.coalesce(pc.take(pa.array(statuses.values(), pa.string()), place), words)


def columns_listed(names: Collection[object]) -> str:
    """Columns as a phrase for a message."""
    return f"the column{'' if len(names) == 1 else 's'} {listed(names)}"


def listed(names: Iterable[object], limit: int = 12) -> str:
    """Names as a phrase for a message, cut off where there are too many to read."""
    texts = [written(name) for name in names]
    more = f" … ({len(texts)} in all)" if len(texts) > limit else ""
    return (", ".join(texts[:limit]) + more) or "no columns"


#: An instant as text, in the words that DuckDB's, Spark's, Arrow's and Python's regular expressions share: only what has one meaning. Its
#: parts: date, hours and minutes, seconds, six digits of a fraction, and hours and minutes of the offset. Without an offset it is UTC.
INSTANT = (
    r"[\t\n\r ]*([0-9]{4}-[0-9]{2}-[0-9]{2})(?:[Tt ]((?:[01][0-9]|2[0-3]):[0-5][0-9])(?:(:[0-5][0-9])(?:[.,]([0-9]{1,6})[0-9]{0,3})?)?"
    r" ?(?:[Zz]|[Uu][Tt][Cc]|[Gg][Mm][Tt]|([+-](?:0[0-9]|1[0-4]))(?::?([0-5][0-9]))?)?)?[\t\n\r ]*"
)
#: One as the wire has it.
_WIRE = r"\A[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]\.[0-9]{3}Z\z"
#: What is put before each part, and what stands for one that is left out, so that all of them read it: ``2026-11-01 10:00:00.0+00:00``.
_INSTANT_PARTS = (("", ""), (" ", "00:00"), ("", ":00"), (".", "0"), ("", "+00"), (":", "00"))
#: An instant as a number, which is one only where its unit is declared; floats come with exponents.
EPOCH = r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?(?:[Ee][+-]?[0-9]{1,2})?"
#: The unit of instants that are numbers.
Epoch: TypeAlias = Literal["s", "ms", "us"]
#: The microseconds in each.
EPOCHS: dict[Epoch, int] = {"s": 1_000_000, "ms": 1_000, "us": 1}
#: The years 1 to 9999 in microseconds since 1970: an instant outside these no calendar or other database can hold.
FIRST_MICROSECOND, LAST_MICROSECOND = -62135596800000000, 253402300799999999


def are_usual(texts: pa.ChunkedArray) -> bool:
    """Say whether all instants are written as the wire has them, so that Arrow can cast them, but for days that there are not."""
    found: bool | None = pc.all(pc.match_substring_regex(texts, _WIRE)).as_py()
    return found is not False


def instants(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Read instants (see `INSTANT`); ValueError where one is not."""
    if are_usual(texts):
        return texts.cast(_INSTANT)  # in a tenth of the time
    anchored = rf"\A(?:{INSTANT})\z"
    if pc.any(pc.invert(pc.match_substring_regex(texts, anchored))).as_py():
        raise ValueError("not an ISO 8601 timestamp")
    spelled = []
    for place, (before, otherwise) in enumerate(_INSTANT_PARTS, 1):
        part = pc.replace_substring_regex(texts, anchored, rf"\{place}")
        spelled += [before, pc.if_else(pc.equal(part, ""), otherwise, part)]
    found = pc.binary_join_element_wise(*spelled, "").cast(_INSTANT)
    years = pc.year(found)
    if pc.any(pc.or_(pc.less(years, 1), pc.greater(years, 9999))).as_py():
        raise ValueError("not within the years 1 to 9999, in UTC")
    return found


def instant_text(column: str, pattern: str) -> str:
    """Spell what `INSTANT` (in SQL: `pattern`) matches in full, in SQL that DuckDB and Spark share."""
    parts = (
        f"'{before}', coalesce(nullif(regexp_extract({column}, {pattern}, {place}), ''), '{otherwise}')"
        for place, (before, otherwise) in enumerate(_INSTANT_PARTS, 1)
    )
    return f"concat({', '.join(parts)})"


def epoch_micros(column: str, unit: Epoch) -> str:
    """Read what `EPOCH` matches in full as microseconds, null outside of the years 1 to 9999, in SQL that DuckDB and Spark share."""
    number = f"try_cast({column} as decimal(27, 9)) * cast({EPOCHS[unit]} as decimal(7, 0))"
    return f"case when {number} between {FIRST_MICROSECOND} and {LAST_MICROSECOND} then cast(floor({number}) as bigint) end"


def timestamps(instants: pa.ChunkedArray) -> pa.ChunkedArray:
    """Format instants as the wire has them: ``2025-01-13T10:30:00.000Z``."""
    # a cast and a replacement take a tenth of the time of strftime
    text = instants.cast(pa.timestamp("ms", "UTC"), safe=False).cast(pa.timestamp("ms")).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(text, " ", "T"), "Z", "")
