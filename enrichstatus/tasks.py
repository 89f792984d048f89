"""What a task is (an entity, its type and a field) and how any input becomes checked tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa

from enrichstatus import frames
from enrichstatus.errors import ValidationError
from enrichstatus.frames import Frame
from enrichstatus.schema import ENTITY_TYPES, FIELDS, KEY, PANDAS_TYPES, find, listed

_KEYS_SQL = Path(__file__).with_name("keys.sql").read_text()

#: The types a column may arrive in besides text; everything else is turned into text first, so that it can be judged and quoted.
_INSTANTS = {"TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_S", "TIMESTAMP_MS", "TIMESTAMP_NS", "DATE"}
_NATIVE = {
    "id": {"UUID"},
    "entityId": {"UUID"},
    "createdAt": _INSTANTS,
    "updatedAt": _INSTANTS,
    "dataFound": {"BOOLEAN"},
    "position": {"BIGINT"},
}


def tasks_from_leads(
    leads: Any,
    *,
    entity_id: str,
    fields: Sequence[str] | str = FIELDS,
    entity_type: str = "person",
) -> Any:
    """Turn a lead list, one row a lead, into tasks, one row a lead and field.

    Parameters
    ----------
    leads : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        The lead list: *n* rows and any columns, which all come along.
    entity_id : str
        The column that holds the entity's UUID.
    fields : str or sequence of str
        The fields to ask for, `k` of them: of ``emails``, ``phones`` and ``summary``, unless the store was made with others.
    entity_type : str
        What the leads are: ``person`` or ``company``.

    Returns
    -------
    A frame of the same kind (pandas for a list or a path): *n · k* rows, lead by lead in the order of the list, its columns as
    they were plus ``entityId``, ``entityType`` and ``field``. A pandas index is repeated, so that it still names the lead.

    Raises
    ------
    ValidationError
        The column is not there, a field or the type is unusable, or the list already has a column of one of the three names.

    Examples
    --------
    >>> import enrichstatus as es, pandas as pd
    >>> leads = pd.DataFrame({"lead_id": ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"], "name": ["Ada"]})
    >>> es.tasks_from_leads(leads, entity_id="lead_id", fields=["emails", "phones"])[["name", "field"]]
      name   field
    0  Ada  emails
    0  Ada  phones
    """
    names = parse_fields(fields)
    if entity_type not in ENTITY_TYPES:
        raise ValidationError(f"entity_type= is one of {listed(ENTITY_TYPES)}, not {entity_type!r}.")
    frame = frames.read(leads)
    if entity_id not in frame.columns:
        raise ValidationError(
            f"entity_id= names the column {entity_id!r}, but the leads have {listed(frame.columns)}."
        )
    if taken := [name for name in KEY if name in frame.columns and name != entity_id]:
        raise ValidationError(f"The leads already have a column {listed(taken)}; rename it, or look them up as tasks.")
    each = np.repeat(np.arange(len(frame)), len(names))
    tasks = frame.take(each)
    columns = pa.table(
        {
            "entityId": tasks.arrow([entity_id])[entity_id],
            "entityType": pa.repeat(pa.scalar(entity_type, pa.string()), len(each)),
            "field": pa.array(np.tile(np.array(names, dtype=object), len(frame)), pa.string()),
        }
    )
    return tasks.assign(columns if entity_id != "entityId" else columns.drop_columns(["entityId"]))


def parse_fields(fields: Sequence[str] | str) -> tuple[str, ...]:
    """Check a vocabulary of fields: one or more distinct names, without outer white space."""
    names = (fields,) if isinstance(fields, str) else tuple(fields)
    bad = [name for name in names if not isinstance(name, str) or not name or name != name.strip()]
    if bad or not names or len(set(names)) < len(names):
        raise ValidationError(f"fields= takes distinct names, such as {FIELDS}, not {fields!r}.")
    return names


def create_vocabularies(con: duckdb.DuckDBPyConnection, fields: Sequence[str]) -> None:
    """Make the two ENUM types that keys are cast to, in the connection's database."""
    con.register("vocabulary", pa.table({"type": pa.array(ENTITY_TYPES), "place": np.arange(len(ENTITY_TYPES))}))
    con.execute("create type enrichment_entity_type as enum (select type from vocabulary order by place)")
    con.register("vocabulary", pa.table({"field": pa.array(fields), "place": np.arange(len(fields))}))
    con.execute("create type enrichment_field as enum (select field from vocabulary order by place)")
    con.unregister("vocabulary")


def check(con: duckdb.DuckDBPyConnection, frame: Frame, *, errors: str = "raise") -> None:
    """Make the temporary table ``tasks`` (position, entityId, entityType, field) of a frame's keys, in which a bad key is null.

    With ``errors="raise"`` bad tasks raise `ValidationError` instead, with all of them in its ``.problems``.
    """
    names = find(frame.columns, KEY)
    if missing := [name for name in ("entityId", "field") if name not in names]:
        raise ValidationError(
            f"Tasks need the column {listed(missing)}; found {listed(frame.columns)}. "
            "A lead list becomes tasks with tasks_from_leads(leads, entity_id=…, fields=[…])."
        )
    arrived = frame.arrow(list(names.values()))
    con.register("arrived", arrived.append_column("position", pa.array(np.arange(len(frame)))))
    relation = given(con.table("arrived"), names | {"position": "position"}, ("position", *KEY), objects=frame.objects)
    con.register("given", relation)
    con.execute("create temp table tasks as " + _KEYS_SQL)
    if errors == "raise" and con.execute("select count(problems) from tasks").fetchall() != [(0,)]:
        problems = to_pandas(con.sql(_PROBLEMS_SQL))
        raise ValidationError.of_rows("tasks", problems, 'Mend them, or pass errors="coerce" to give them a null status.')


_PROBLEMS_SQL = """
select position as "row", problem.name as "column", problem.value as "value", problem.reason as "reason"
from (select position, unnest(problems) as problem from tasks)
order by position
"""


def keyed(con: duckdb.DuckDBPyConnection, given: duckdb.DuckDBPyRelation) -> duckdb.DuckDBPyRelation:
    """Cast the keys of a relation and name their ``problems``; its other columns pass through."""
    con.register("given", given)
    return con.sql(_KEYS_SQL)


def given(
    relation: duckdb.DuckDBPyRelation, names: Mapping[str, str], wanted: Sequence[str], *, objects: bool
) -> duckdb.DuckDBPyRelation:
    """Pick the wanted columns, of which `names` says what they are called there (``{ours: theirs}``); absent ones are null.

    An absent entity type is a person; in JSON objects, which leave members out one by one, so is a null one.
    """
    types = dict(zip(relation.columns, map(str, relation.types), strict=True))
    person = duckdb.ConstantExpression("person")
    picked = []
    for ours in wanted:
        column: duckdb.Expression = duckdb.ConstantExpression(None)
        if ours in names:
            column = duckdb.ColumnExpression(names[ours])
        if types.get(names.get(ours, "")) not in _NATIVE.get(ours, ()):
            column = column.cast("VARCHAR")
        if ours == "entityType" and (objects or ours not in names):
            column = duckdb.CoalesceOperator(column, person)
        picked.append(column.alias(ours))
    return relation.select(*picked)


def to_pandas(relation: duckdb.DuckDBPyRelation) -> pd.DataFrame:
    """Fetch a small relation with the dtypes that all our frames have."""
    return relation.to_arrow_table().to_pandas(types_mapper=PANDAS_TYPES.get)
