"""Columns as they came to a Spark cluster, as expressions of what they mean: what keys.sql and scan.sql are to the embedded engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as fn

from enrichstatus.schema import COLUMNS, ENTITY_TYPES

_CANONICAL = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
#: An instant's zone behind its time of day.
_ZONED = r":\d\d.*([zZ]|[A-Za-z]+/?\w*|[+-]\d\d?(:?\d\d)?)$"
_DATE = r"^\d+-\d+-\d+$"


def keys(frame: DataFrame, names: Mapping[str, str], fields: Sequence[str]) -> dict[str, Column]:
    """Give the columns of a key in the one form that compares (rule 2 of the lookup), null where they have none.

    `names` says under which names they stand; without a type an entity is a person.
    """
    person = fn.lit(ENTITY_TYPES[0])
    kind = fn.col(f"`{names['entityType']}`").cast("string") if "entityType" in names else person
    field = fn.col(f"`{names['field']}`").cast("string")
    return {
        "entityId": uuid_text(frame, names["entityId"]),
        "entityType": fn.when(kind.isin(*ENTITY_TYPES), kind),
        "field": fn.when(field.isin(*fields), field),
    }


def uuid_text(frame: DataFrame, name: str) -> Column:
    """Give the lower-case text of a UUID in any spelling that the embedded engine reads; null where it is none."""
    column = fn.col(f"`{name}`")
    text = fn.hex(column) if frame.schema[name].dataType.typeName() == "binary" else column.cast("string")
    bare = fn.regexp_replace(fn.regexp_replace(text, r"^[\s\p{Z}]+|[\s\p{Z}]+$", ""), r"^\{([^{}]*)\}$", "$1")
    digits = fn.lower(fn.regexp_replace(bare, "-", ""))
    spelt = fn.regexp_replace(digits, "^(.{8})(.{4})(.{4})(.{4})(.{12})$", "$1-$2-$3-$4-$5")
    # nearly all come as they should, and the rest takes five times as long
    return fn.when(text.rlike(_CANONICAL), text).when(digits.rlike("^[0-9a-f]{32}$"), spelt)


def instant(frame: DataFrame, name: str) -> Column:
    """Give an instant; what has no zone is UTC, whatever the session's zone."""
    column, kind = fn.col(f"`{name}`"), frame.schema[name].dataType.typeName()
    if kind == "timestamp":
        return column
    text = fn.trim(column.cast("string"))
    utc = fn.when(text.rlike(_DATE), fn.concat(text, fn.lit("T00:00:00Z"))).when(text.rlike(_ZONED), text)
    return utc.otherwise(fn.concat(text, fn.lit("Z"))).try_cast("timestamp")


def told(name: str) -> Column:
    """Give a text without outer spaces; a blank one is null."""
    return fn.nullif(fn.trim(fn.col(f"`{name}`").cast("string")), fn.lit(""))


def records(
    frame: DataFrame, names: Mapping[str, str], fields: Sequence[str], *, org_id: str, owner: str | None, strict: bool
) -> DataFrame:
    """Read an organization's records; a bad one is an error when it is read (`strict`), or left out."""
    absent = fn.lit(None).cast("string")
    texts = {name: told(names[name]) if name in names else absent for name in COLUMNS}
    found = frame.where(fn.coalesce(texts["orgId"], fn.lit(owner).cast("string")) == fn.lit(org_id))
    made = {name: instant(frame, names[name]) if name in names else absent.cast("timestamp") for name in _INSTANTS}
    key = keys(frame, names, fields)
    given_id = uuid_text(frame, names["id"]) if "id" in names else absent
    data = texts["dataFound"].try_cast("boolean")
    wanted = {**key, "createdAt": made["createdAt"], "status": texts["status"]}
    optional = {"id": given_id, "updatedAt": made["updatedAt"], "dataFound": data}
    problem = fn.coalesce(
        *(fn.when(column.isNull(), _said(name, texts[name])) for name, column in wanted.items()),
        *(
            fn.when(column.isNull() & texts[name].isNotNull(), _said(name, texts[name]))
            for name, column in optional.items()
        ),
    )
    # a record without an id gets the one that it gets where it is loaded
    parts = [
        fn.lit(org_id),
        key["entityType"],
        key["field"],
        key["entityId"],
        fn.unix_micros(made["createdAt"]).cast("string"),
    ]
    digest = fn.md5(fn.concat_ws("|", *parts))
    derived = fn.regexp_replace(digest, "^(.{8})(.{4})(.{4})(.{4})(.{12})$", "$1-$2-$3-$4-$5")
    columns = {
        **texts,
        **made,
        **key,
        "id": fn.coalesce(given_id, derived),
        "dataFound": data,
        "orgId": fn.lit(org_id),
    }
    if strict:
        # in a column that every question needs
        columns["entityId"] = fn.when(problem.isNull(), key["entityId"]).otherwise(
            fn.raise_error(problem).cast("string")
        )
    else:
        found = found.where(problem.isNull())
    return found.select(*(columns[name].alias(name) for name in COLUMNS))


_INSTANTS = ("createdAt", "updatedAt")
_EXPECTED = {
    "createdAt": "an ISO 8601 timestamp",
    "updatedAt": "an ISO 8601 timestamp",
    "dataFound": "true or false",
    "status": "a status",
    "entityType": "one of those known",
    "field": "one of those known",
}


def _said(name: str, text: Column) -> Column:
    value = fn.coalesce(fn.concat(fn.lit("'"), text, fn.lit("'")), fn.lit("null"))
    return fn.concat(
        fn.lit(f"enrichstatus: a record has the {name} "),
        value,
        fn.lit(f", which is not {_EXPECTED.get(name, 'a UUID')}"),
    )
