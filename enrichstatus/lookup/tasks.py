"""What a task is (an entity, its type and a field) and how any input becomes checked tasks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError, suggested
from enrichstatus.files.scratch import scratch
from enrichstatus.frames.frames import Frame, Named
from enrichstatus.lookup.vectors.keys import letters_of, read_uuids
from enrichstatus.schema import ENTITY_TYPES, FIELDS, KEY, PANDAS_TYPES, columns_listed, find, listed

KEYS_SQL = Path(__file__).with_name("keys.sql").read_text(encoding="utf-8")
#: What helps where tasks are bad.
COERCE = ("errors", "coerce", "give them a null status")
PROBLEMS_SQL = Path(__file__).with_name("problems.sql").read_text(encoding="utf-8")

# Materialized, or the condition would make DuckDB cast every key twice
_TASKS_SQL = f"""
create temp table tasks as
with keys as materialized ({KEYS_SQL})
select position, castEntityId as entityId, castEntityType as entityType, castField as field
from keys
where castEntityId is not null and castEntityType is not null and castField is not null
"""  # noqa: S608  of constants
# Half of the time goes by: numbers stand for entity types and fields, which are looked up once for all
_NUMBERED_SQL = """
create temp table tasks as
select
    position,
    entityId,
    (enum_range(null::enrichment_entity_type)::enrichment_entity_type[])[entityType + 1] as entityType,
    (enum_range(null::enrichment_field)::enrichment_field[])[field + 1] as field
from numbered
where entityId is not null and entityType is not null and field is not null
"""
#: For fewer tasks than this it would take longer to know the vocabulary than is saved.
MANY = 10_000
#: The distinct tasks of the table ``tasks``, each with the position where it first stands.
DISTINCT_SQL = """
select entityId, entityType, field, min(position) as first
from tasks
group by entityId, entityType, field
"""
_BAD_TASKS_SQL = f"""
select position as "row", problem.name as "column", problem.value as "value", problem.reason as "reason"
from (select position, unnest(keyProblems) as problem from ({PROBLEMS_SQL}))
order by position
"""  # noqa: S608  of constants


def clashing(frame: Named, names: Sequence[str]) -> list[str]:
    """Give those names of new columns that a frame has already."""
    fold = str.casefold if frame.caseless else str
    found = {fold(str(name)) for name in frame.columns}
    return [name for name in names if fold(name) in found]


def create_vocabularies(con: duckdb.DuckDBPyConnection, fields: Sequence[str], kind: str = "type") -> None:
    """Make the two ENUM types that keys are cast to, in the connection's database, or (``temp type``) for the connection alone."""
    con.register("vocabulary", pa.table({"type": pa.array(ENTITY_TYPES), "place": np.arange(len(ENTITY_TYPES))}))
    con.execute(f"create {kind} enrichment_entity_type as enum (select type from vocabulary order by place)")  # noqa: S608  of a constant
    con.register("vocabulary", pa.table({"field": pa.array(fields), "place": np.arange(len(fields))}))
    con.execute(f"create {kind} enrichment_field as enum (select field from vocabulary order by place)")  # noqa: S608
    con.unregister("vocabulary")


@contextmanager
def task_tables(fields: Sequence[str]) -> Iterator[duckdb.DuckDBPyConnection]:
    """Lend one call a cursor where its tasks can be checked; its tables are its own, and end with it."""
    with scratch() as con:
        con.execute("set TimeZone = 'UTC'")
        create_vocabularies(con, fields, "temp type")
        yield con


def check(con: duckdb.DuckDBPyConnection, frame: Frame, *, errors: str = "raise") -> pa.Table:
    """Make the temporary table ``tasks`` (position, entityId, entityType, field) of a frame's keys, without the bad ones.

    Gives the keys as they came, with their ``position``.

    With ``errors="raise"`` bad tasks raise `ValidationError` instead, with all of them in its ``.problems``.
    """
    given = keys_of(frame)
    check_keys(con, given, errors=errors)
    return given


def check_keys(con: duckdb.DuckDBPyConnection, given: pa.Table, *, errors: str = "raise") -> None:
    """Do the same of keys as `keys_of` and `with_uuids` give them."""
    if many := len(given) >= MANY:
        fields = vocabulary(con)
        with ThreadPoolExecutor(1) as pool:  # Arrow looks the words up while Python reads the ids
            numbers = pool.submit(with_numbers, given, fields)
            usual = with_uuids(given)
    else:
        usual = with_uuids(given)
    con.register("given", usual)
    if many and usual["entityId"].type == pa.uuid():
        con.register("numbered", numbers.result().drop_columns("entityId").append_column("entityId", usual["entityId"]))
        good = number_tasks(con)
    else:
        good = cast_tasks(con)
    if good < len(given) and errors == "raise":
        raise bad_tasks(con)


def cast_tasks(con: duckdb.DuckDBPyConnection) -> int:
    """Make the temporary table ``tasks`` of the relation ``given``, and give the number of good ones."""
    (good,) = con.execute(_TASKS_SQL).fetchall()[0]
    return int(good)


def number_tasks(con: duckdb.DuckDBPyConnection) -> int:
    """Make the same of the relation ``numbered``, whose UUIDs are cast, and whose other columns are numbers (`with_numbers`)."""
    (good,) = con.execute(_NUMBERED_SQL).fetchall()[0]
    return int(good)


def vocabulary(con: duckdb.DuckDBPyConnection) -> list[str]:
    """Give the fields of a connection's ENUM type, in their order."""
    fields: list[str] = con.execute("select enum_range(null::enrichment_field)").fetchall()[0][0]
    return fields


def bad_tasks(con: duckdb.DuckDBPyConnection) -> ValidationError:
    """Name the bad tasks of the relation ``given``."""
    return ValidationError.of_rows("tasks", problems(con), instead=COERCE)


def keys_of(frame: Frame, first: int = 0) -> pa.Table:
    """Give the keys as they came, with their ``position``, counted from `first`."""
    names = task_names(frame.columns)
    arrived = frame.arrow(list(names.values())).columns
    columns = {ours: _comparable(column) for ours, column in zip(names, arrived, strict=True)}
    person = pa.scalar(ENTITY_TYPES[0], pa.string())
    if "entityType" not in names:
        columns["entityType"] = pa.repeat(person, len(frame))
    elif frame.objects:
        columns["entityType"] = columns["entityType"].fill_null(person)
    return pa.table({"position": np.arange(first, first + len(frame)), **columns})


def unusable(frame: Frame) -> npt.NDArray[np.bool_]:
    """Say which rows of a frame cannot be tasks, as far as it shows: by its key where it has one, with whatever fields it names."""
    names = find(frame.columns, KEY)
    if not {"entityId", "field"} <= set(names):
        return np.zeros(len(frame), bool)
    given = keys_of(frame)
    # of a list of objects, which a lookup has made a frame of, it is a person
    place = given.column_names.index("entityType")
    given = given.set_column(place, "entityType", given["entityType"].fill_null(ENTITY_TYPES[0]))
    named = pc.unique(pc.utf8_trim_whitespace(pc.drop_null(given["field"].cast(pa.string())))).to_pylist()
    with task_tables(list(dict.fromkeys([*FIELDS, *filter(None, named)]))) as con:
        con.register("given", given)
        cast_tasks(con)
        good = con.execute("select position from tasks").fetchnumpy()["position"]
    bad = np.ones(len(frame), bool)
    bad[good] = False
    return bad


def task_names(columns: Sequence[str]) -> dict[str, str]:
    """Say under which names the columns of the key stand: ``{ours: theirs}``."""
    names = find(columns, KEY)
    if missing := [name for name in ("entityId", "field") if name not in names]:
        near = suggested(missing[0], columns)
        raise ValidationError(
            f"Tasks need {columns_listed(missing)}; found {listed(columns)}.{near} "
            "A lead list becomes tasks with tasks_from_leads(leads, entity_id=…, fields=…), at the command line with --entity-id COLUMN."
        )
    return names


def bad_rows(frame: Frame, fields: Sequence[str]) -> pd.DataFrame:
    """Say what is wrong with the tasks of a frame, where `fields` are those that are known: see `problems`."""
    with task_tables(fields) as con:
        con.register("given", keys_of(frame))
        return problems(con)


def problems(con: duckdb.DuckDBPyConnection) -> pd.DataFrame:
    """Say what is wrong with the tasks that were checked last: ``row``, ``column``, ``value`` and ``reason``."""
    con.register("keyed", con.sql(KEYS_SQL))
    return to_pandas(con.sql(_BAD_TASKS_SQL))


def keep_problems(con: duckdb.DuckDBPyConnection) -> npt.NDArray[np.int64]:
    """Make the temporary table ``problem`` of the same, of any number, and give the rows in their order."""
    con.register("keyed", con.sql(KEYS_SQL))
    con.execute(f"create temp table problem as {_BAD_TASKS_SQL}")
    rows = con.execute('select distinct "row" from problem order by "row"').fetchnumpy()["row"]
    return np.asarray(rows, np.int64)


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Turn what is neither text, categories nor UUIDs into text, so that it can be checked and quoted."""
    kind = column.type
    if pa.types.is_dictionary(kind) or pa.types.is_large_string(kind) or str(kind) in _COMPARABLE:
        return column
    try:
        return column.cast(pa.string())
    except (pa.ArrowException, ValueError):  # no key, whatever is in it: the kind is quoted
        return pc.if_else(column.is_valid(), pa.scalar(str(kind), pa.string()), pa.scalar(None, pa.string()))


def with_uuids(given: pa.Table) -> pa.Table:
    """Cast ``entityId`` to UUIDs where all of it is spelled as UUIDs usually are; any other spelling is for ``keys.sql`` to read."""
    column = given["entityId"]
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return given
    chunks = [_uuids(chunk) for chunk in column.chunks]
    if any(chunk is None for chunk in chunks):
        return given
    return given.set_column(given.column_names.index("entityId"), "entityId", pa.chunked_array(chunks, pa.uuid()))


def with_numbers(given: pa.Table, fields: Sequence[str]) -> pa.Table:
    """Put for each entity type and field its place in the vocabulary, null where it is not there."""
    for name, words in (("entityType", ENTITY_TYPES), ("field", fields)):
        places = pc.index_in(given[name].cast(pa.string()), pa.array(words, pa.string()))
        given = given.set_column(given.column_names.index(name), name, places)
    return given


def all_uuids(con: duckdb.DuckDBPyConnection, given: pa.Table) -> pa.Table:
    """Cast ``entityId`` to UUIDs however it is spelled, null where it is bad."""
    usual = with_uuids(given)
    if usual["entityId"].type == pa.uuid():
        return usual
    con.register("given", given)
    texts = con.sql(_IDS_SQL).to_arrow_table()["entityId"].combine_chunks()
    ids = _uuids(texts.fill_null("00000000-0000-0000-0000-000000000000"))
    assert ids is not None  # DuckDB writes them as usual
    ids = pa.ExtensionArray.from_storage(pa.uuid(), pc.if_else(texts.is_valid(), ids.storage, None))
    return given.set_column(given.column_names.index("entityId"), "entityId", ids)


_IDS_SQL = f"select castEntityId::varchar as entityId from ({KEYS_SQL}) order by position"  # noqa: S608  of a constant


def _uuids(texts: pa.Array) -> pa.Array | None:
    """Cast text that `letters_of` and `read_uuids` read; nothing of any other. It takes a fifth of the time that DuckDB's cast does."""
    letters = letters_of(texts)
    if letters is None or (values := read_uuids(letters)) is None:
        return None
    storage = pa.Array.from_buffers(pa.binary(16), len(texts), [None, pa.py_buffer(values)])
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


_COMPARABLE = {"string", "string_view", "extension<arrow.uuid>"}


def to_pandas(relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Fetch a small relation with the dtypes that all our frames have."""
    frame: pd.DataFrame = relation.to_arrow_table().to_pandas(types_mapper=PANDAS_TYPES.get)
    return frame
