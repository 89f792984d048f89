"""How Spark reads keys and records: its words for what ``keys.sql`` and ``cast_record.sql`` say in DuckDB's.

Texts are put together of constants and of column names that are ours; values are bound (`ARGUMENTS` and the caller's).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from enrichstatus.schema import (
    COLUMNS,
    ENTITY_TYPES,
    EPOCH,
    FIRST_MICROSECOND,
    INSTANT,
    KEY,
    LAST_MICROSECOND,
    STATUSES,
    STRAY,
    Epoch,
    epoch_micros,
    instant_text,
    listed,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Outer white space.
_SPACES = (
    "\t\n\v\f\r\x1c\x1d\x1e\x1f \x85\ufeff\u00a0\u1680"
    "\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
)
_OUTER = r"[\t\n\f\r\p{Z}]*"
#: Bound, because a brace in the text of a query would stand for a relation. ``$`` would let a line's end follow, ``\z`` does not.
ARGUMENTS: Mapping[str, Any] = {
    "canonical": r"\A[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\z",
    "spelled": rf"\A{_OUTER}(?:\{{[0-9A-Fa-f-]+\}}|[0-9A-Fa-f-]+){_OUTER}\z",
    "beside": "[^0-9A-Fa-f]",
    "digits": "^(.{8})(.{4})(.{4})(.{4})(.{12})$",
    "dashed": "$1-$2-$3-$4-$5",
    "spaces": _SPACES,
    "instant": rf"\A(?:{INSTANT})\z",
    "wire": r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,6})?Z\z",
    "epoch": rf"\A(?:{EPOCH})\z",
}

#: All of a key as one column, by which records and tasks are shuffled alike. No number that Spark counts: it is another one where a part
#: that was lost is made again.
POSITION = "entityId || ' ' || entityType || ' ' || field"


def with_keys(spark: SparkSession, given: DataFrame, names: Mapping[str, str], fields: tuple[str, ...]) -> DataFrame:
    """Put the key as it compares beside the columns of tasks (null where it is bad), and ``position``, which is all of it.

    `names` says what the columns of the key are called in `given` (``{ours: theirs}``).
    """
    kind = f"cast({names['entityType']} as string)" if "entityType" in names else f"'{ENTITY_TYPES[0]}'"
    text = f"""
        with keyed as (
            select
                given.*,
                {_uuid(f"cast({names['entityId']} as string)")} as entityId,
                {_known(kind, "types")} as entityType,
                {_known(f"cast({names['field']} as string)", "fields")} as field
            from {{given}} as given
        )
        select keyed.*, {POSITION} as position from keyed
    """  # noqa: S608  of constants
    return spark.sql(text, args=_arguments(fields), given=given)


def records_of(
    spark: SparkSession,
    given: DataFrame,
    names: Mapping[str, Sequence[str]],
    fields: tuple[str, ...],
    *,
    org_id: str,
    own: str | None,
    stray: str,
    statuses: Mapping[str, str],
    reject: bool,
    epoch: Epoch | None,
) -> DataFrame:
    """Read the records of one organization, lazily and in one pass; a bad one raises when it is met, or has a key that none has.

    `names` says what the columns are called in `given` (see `record_names`); `own` is the organization of records without one, and
    `stray` names the columns that look like it.
    """
    types = dict(given.dtypes)
    column = {ours: _given(names.get(ours, ()), types, ours) for ours in COLUMNS}
    clashes = [_clash(ours, names[ours]) for ours in COLUMNS if len(names.get(ours, ())) > 1]
    if STRAY in names:
        org, stray_one = _first(names.get("orgId", ())), _first(names[STRAY])
        clashes.append(f"case when {org} is null and {stray_one} is not null then :stray end")
    column["clash"] = f"coalesce({', '.join([*clashes, 'cast(null as string)'])})"
    casts = ", ".join(f"{one} as cast{name[0].upper()}{name[1:]}" for name, one in _casts(types, names, epoch))
    # Where keys could be null, Spark would see that they are not by computing them twice: '' is neither a key nor null
    otherwise = "''" if reject else f"raise_error(concat('{BAD_RECORD}', problem, '. {_REMEDY}'))"
    text = f"""
        with arrived as (
            select {", ".join(f"{expression} as {name}" for name, expression in column.items())}
            from {{given}} as given
        ),

        own as (
            select arrived.*
            from arrived
            -- most are as they should be, or somebody else's of the same length: only the others are worth trimming
            where arrived.orgId = :org
                or (
                    (arrived.orgId is null or length(arrived.orgId) <> length(:org) or arrived.orgId < '!')
                    and coalesce(nullif(btrim(arrived.orgId, :spaces), ''), nullif(btrim(:own, :spaces), '')) = :org
                )
        ),

        cast_columns as (select own.*, {casts} from own),

        checked as (select cast_columns.*, coalesce(clash, {_PROBLEM}) as problem from cast_columns)

        select
            coalesce(
                castId,
                regexp_replace(
                    md5(concat_ws(
                        '|', :org, castEntityType, castField, castEntityId, cast(unix_micros(castCreatedAt) as string)
                    )),
                    :digits,
                    :dashed
                )
            ) as id,
            castCreatedAt as createdAt,
            castUpdatedAt as updatedAt,
            coalesce(case when problem is null then castEntityId else {otherwise} end, '') as entityId,
            coalesce(castEntityType, '') as entityType,
            coalesce(castField, '') as field,
            castStatus as status,
            nullif(error, '') as error,
            castDataFound as dataFound,
            nullif(createdBy, '') as createdBy,
            :org as orgId,
            nullif(globalEnrichmentId, '') as globalEnrichmentId,
            nullif(creditTransactionId, '') as creditTransactionId
        from checked
    """  # noqa: S608  of constants
    arguments = _arguments(fields) | {"org": org_id, "own": own or ""}
    arguments |= {"words": list(statuses), "meanings": list(statuses.values())}
    arguments |= {"noField": f"is not one of {listed(fields, limit=100)}"}
    arguments |= {"stray": f"orgId is missing, but {stray} looks like it: columns= says what that is"}
    return spark.sql(text, args=arguments, given=given)


def mixed_instants(records: DataFrame, names: Mapping[str, Sequence[str]]) -> list[str]:
    """Name the columns of one instant of which one is a timestamp: as text beside another it would be of the session's zone."""
    types = dict(records.dtypes)
    for several in (names.get(name, ()) for name in ("createdAt", "updatedAt")):
        if len(several) > 1 and not _INSTANTS.isdisjoint(map(types.get, several)):
            return list(several)
    return []


def raw_keys(names: Mapping[str, str]) -> list[str]:
    """Name the columns of a key as they came, as text, for an error to quote."""
    return [f"cast({names[name]} as string) as {name}" for name in KEY if name in names]


#: How the error of a bad record begins; Spark itself puts a code before it and one after it.
BAD_RECORD = "A bad record: "
_REMEDY = 'Fix it, or make the source with errors="reject", which leaves such records out'


def _arguments(fields: tuple[str, ...]) -> dict[str, Any]:
    return {**ARGUMENTS, "types": list(ENTITY_TYPES), "fields": list(fields)}


def _uuid(column: str) -> str:
    """Read a UUID in any spelling; most are canonical, and only the others are worth rewriting."""
    return f"""case
        when {column} rlike :canonical then {column}
        when {column} rlike :spelled and length(regexp_replace({column}, :beside, '')) = 32
            then regexp_replace(lower(regexp_replace({column}, :beside, '')), :digits, :dashed)
    end"""


def _known(column: str, vocabulary: str) -> str:
    return f"case when array_contains(:{vocabulary}, {column}) then {column} end"


def _given(theirs: Sequence[str], types: Mapping[str, str], ours: str) -> str:
    """Give a column as it came where its type is a native one, else as text; an absent entity type is a person."""
    if not theirs:
        return f"'{ENTITY_TYPES[0]}'" if ours == "entityType" else "cast(null as string)"
    if len(theirs) > 1:
        return _first(theirs)
    [name] = theirs
    return f"given.{name}" if types[name] in _NATIVE.get(ours, ()) else f"cast(given.{name} as string)"


def _first(names: Sequence[str]) -> str:
    """Give what stands in the first of several columns that is not empty, as text."""
    return f"coalesce({', '.join([*map(_text, names), 'cast(null as string)'])})"


def _text(name: str) -> str:
    return f"nullif(btrim(cast(given.{name} as string), :spaces), '')"


def _clash(ours: str, names: Sequence[str]) -> str:
    """Say what is wrong where columns of one meaning disagree."""
    different = f"array_distinct(array_compact(array({', '.join(map(_text, names))})))"
    value = "" if ours == "orgId" else f", ' ' || chr(39) || array_join({different}, ', ') || chr(39)"
    said = f"concat('{ours}'{value}, ' stands there more than once, and differs')"
    return f"case when size({different}) > 1 then {said} end"


_INSTANTS = {"timestamp", "timestamp_ntz"}
_NATIVE = {"createdAt": _INSTANTS, "updatedAt": _INSTANTS, "dataFound": {"boolean"}}


def _casts(types: Mapping[str, str], names: Mapping[str, Sequence[str]], epoch: Epoch | None) -> list[tuple[str, str]]:
    kinds = {ours: types[theirs[0]] if len(theirs) == 1 else "string" for ours, theirs in names.items()}
    found = "own.dataFound"
    if kinds.get("dataFound") != "boolean":
        found = "try_cast(btrim(own.dataFound, :spaces) as boolean)"
    return [
        ("id", _uuid("own.id")),
        ("createdAt", _instant("own.createdAt", kinds.get("createdAt"), epoch)),
        ("updatedAt", _instant("own.updatedAt", kinds.get("updatedAt"), epoch)),
        ("entityId", _uuid("own.entityId")),
        ("entityType", _known("own.entityType", "types")),
        ("field", _known("own.field", "fields")),
        ("status", _status("own.status")),
        ("dataFound", found),
    ]


def _status(column: str) -> str:
    """Read a status: the words that are known in any case and with outer white space, any other as it came within it."""
    word = f"btrim({column}, :spaces)"
    return f"""case
        when {column} in ({_STATUSES}) then {column}
        else coalesce(element_at(map_from_arrays(:words, :meanings), lower({word})), nullif({word}, ''))
    end"""


_STATUSES = ", ".join(f"'{word}'" for word in STATUSES)


def _instant(column: str, kind: str | None, epoch: Epoch | None) -> str:
    """Read an instant of the years 1 to 9999, which without a zone is UTC whatever zone the session is in."""
    if kind == "timestamp":
        return column
    if kind == "timestamp_ntz":  # a cast would go by the session's zone, and has no value where that skips an hour
        return f"""timestamp_micros(
            unix_date(cast({column} as date)) * 86400000000
            + hour({column}) * 3600000000
            + minute({column}) * 60000000
            + cast(extract(second from {column}) * 1000000 as bigint)
        )"""
    number = f"when {column} rlike :epoch then timestamp_micros({epoch_micros(column, epoch)})" if epoch else ""
    read = f"""case
        when {column} rlike :wire then try_cast({column} as timestamp_ltz)
        when {column} rlike :instant then try_cast({instant_text(column, ":instant")} as timestamp_ltz)
        {number}
    end"""
    return f"case when unix_micros({read}) between {FIRST_MICROSECOND} and {LAST_MICROSECOND} then {read} end"


def _wrong(name: str, reason: str) -> str:
    value = f"left(nullif(btrim(cast({name} as string), :spaces), ''), 60)"
    return f"coalesce(concat('{name} ''', {value}, ''' ', {reason}), '{name} is missing')"


_TYPES = f"'is not one of {listed(ENTITY_TYPES)}'"
_PROBLEM = f"""case
    when castEntityId is null then {_wrong("entityId", "'is not a UUID'")}
    when castEntityType is null then {_wrong("entityType", _TYPES)}
    when castField is null then {_wrong("field", ":noField")}
    when castId is null and btrim(id, :spaces) <> '' then {_wrong("id", "'is not a UUID'")}
    when castCreatedAt is null then {_wrong("createdAt", "'is not an ISO 8601 timestamp'")}
    when castUpdatedAt is null and btrim(cast(updatedAt as string), :spaces) <> ''
        then {_wrong("updatedAt", "'is not an ISO 8601 timestamp'")}
    when castStatus is null then 'status is missing'
    when castDataFound is null and btrim(cast(dataFound as string), :spaces) <> ''
        then {_wrong("dataFound", "'is not true or false'")}
end"""
