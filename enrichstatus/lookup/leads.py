"""A lead list: which column of it holds the entities, and how it becomes tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ValidationError, quoted, suggested
from enrichstatus.files.plain import plain
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Frame, Kind, ListOrPath
from enrichstatus.lookup.arguments import choice, column_named, parse_fields
from enrichstatus.lookup.tasks import KEYS_SQL, clashing, task_names, task_tables
from enrichstatus.schema import ENTITY_TYPES, FIELDS, KEY, find, listed

#: By so many rows it is seen which column holds UUIDs: at least half of what stands there.
_LOOKED_AT = 10_000
#: What the name of a column says of the entities in it.
_NAMED = {
    "company": re.compile("compan|account|organi[sz]ation|employer|(?<![a-z])org(?![a-z])", re.IGNORECASE),
    "person": re.compile("person|people|contact", re.IGNORECASE),
}


def tasks_from_leads(
    leads: Kind | ListOrPath,
    *,
    entity_id: str | None = None,
    fields: Sequence[str] | str = FIELDS,
    entity_type: str = "person",
    encoding: str | None = None,
    skip: int = 0,
    multiline: bool = False,
    sheet: str | None = None,
) -> Kind:
    """Turn a lead list, one row a lead, into tasks, one row a lead and field.

    Parameters
    ----------
    leads : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        The lead list: *n* rows and any columns, which all come along.
    entity_id : str, optional
        The column that holds the entity's UUID; unless given, the only one that holds UUIDs, written with dashes. One whose name is that
        of the other type, ``company_id`` of persons say, is not taken unless it is named.
    fields : str or sequence of str
        The fields to look up, `k` of them: of ``emails``, ``phones`` and ``summary``, unless the store was made with others.
    entity_type : str
        What the leads are: ``person`` or ``company``.
    encoding : str, optional
        How a file is encoded, ``cp1252`` say, unless it is UTF-8 or begins with a byte order mark.
    skip : int
        Lines above the header of a CSV file or a sheet, which are left out.
    multiline : bool
        Read cells in quotes that hold what looks like whole rows, which are refused otherwise: two stray quotes make such a cell, too.
    sheet : str, optional
        The sheet of a workbook; unless given, it must have one only that holds something.

    Returns
    -------
    A frame of the same kind (pandas for a list or a path): *n · k* rows, lead by lead in the order of the list, its columns as
    they were plus ``entityId``, ``entityType`` and ``field``. A pandas index is made anew.

    Raises
    ------
    ValidationError
        The column is not there, or not clear; a field or the type is unusable, or the list already has a column of one of the
        three names.

    Examples
    --------
    >>> import enrichstatus as es, pandas as pd
    >>> leads = pd.DataFrame({"lead_id": ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"], "name": ["Ada"]})
    >>> es.tasks_from_leads(leads, entity_id="lead_id", fields=["emails", "phones"])[["name", "field"]]
      name   field
    0  Ada  emails
    1  Ada  phones
    """
    names = parse_fields(fields)
    choice("entity_type", entity_type, ENTITY_TYPES)
    frame = frames.read(leads, encoding=encoding, skip=skip, multiline=multiline, sheet=sheet)
    empty = frame.objects and not len(frame)
    if entity_id is None:
        if empty:
            raise ValidationError("There are no leads: the list is empty.")
        entity_id = entity_column(frame, entity_type)
    if empty and entity_id not in frame.columns:
        raise ValidationError(
            f"names the column {quoted(entity_id)}, but there are no leads: the list is empty.", argument="entity_id"
        )
    column_named("entity_id", entity_id, frame.columns, "the leads")
    if clashes := clashing(frame, [name for name in KEY if name != entity_id]):
        raise ValidationError(
            f"The leads already have a column {listed(clashes)}; rename it, or look them up as tasks."
        )
    # nothing is dropped, but an index counts anew
    tasks = frame.take(np.repeat(np.arange(len(frame)), len(names))).drop([])
    columns = pa.table(
        {
            "entityId": tasks.arrow([entity_id]).column(0),
            "entityType": pa.repeat(pa.scalar(entity_type, pa.string()), len(tasks)),
            "field": pa.array(np.tile(np.array(names, dtype=object), len(frame)), pa.string()),
        }
    )
    answer: Kind = tasks.assign(columns if entity_id != "entityId" else columns.drop_columns(["entityId"]))
    return answer


def leads_column(frame: Frame, entity_id: str | None, entity_type: str, *, fields_given: bool) -> str | None:
    """Say which column of a list holds the entities: the one that is named, or the only one that holds UUIDs; None of a list of tasks."""
    if entity_id is not None:
        return entity_id
    names = find(frame.columns, KEY)
    if "entityId" in names and ("field" in names or suggested("field", frame.columns)):
        task_names(frame.columns)  # which refuses a field that is misspelt
        if fields_given:
            raise ValidationError(
                "is for a lead list; this one has the columns entityId and field, and is looked up as tasks. Leave it out.",
                argument="fields",
            )
        return None
    if not fields_given and not _holding_uuids(frame):
        task_names(frame.columns)  # it is neither: what tasks need is what most have forgotten
    return entity_column(frame, entity_type)


def entity_column(frame: Frame, entity_type: str) -> str:
    """Find the only column that holds UUIDs; one that is named for the other type of entity is refused."""
    found = _holding_uuids(frame)
    if len(found) != 1:
        given = listed(frame.columns)
        what = f"No column holds UUIDs with dashes, of {given}"
        if not len(frame):
            what = f"There are no leads that would show which column holds UUIDs, of {given}"
        elif found:
            what = f"The columns {listed(found)} all hold UUIDs"
        raise ValidationError(f"{what}. Name the column of the leads' ids with entity_id= (--entity-id).")
    meant = [kind for kind, names in _NAMED.items() if names.search(str(found[0]))]
    if meant and entity_type not in meant:
        raise ValidationError(
            f"The only column that holds UUIDs is {found[0]!r}, by its name of a {meant[0]}, and the leads are looked up as {entity_type}. "
            f"Name the column of the {entity_type} ids with entity_id= (--entity-id), "
            f"or say entity_type={meant[0]!r} (--entity-type {meant[0]})."
        )
    return found[0]


def _holding_uuids(frame: Frame) -> list[str]:
    """Name the columns that hold UUIDs with dashes; 32 hexadecimal digits may as well be a hash, of an e-mail address say."""
    head = frame.take(np.arange(min(len(frame), _LOOKED_AT)))
    names = [name for name in dict.fromkeys(frame.columns) if frame.columns.count(name) == 1]
    texts = [_texts(head.arrow([name])) for name in names]
    place = np.repeat(np.arange(len(names)), len(head))
    cells = pa.chunked_array([chunk for text in texts for chunk in text.chunks], pa.string())
    absent = pa.nulls(len(place), pa.string())
    with task_tables(FIELDS) as con:
        con.register("given", pa.table({"place": place, "entityId": cells, "entityType": absent, "field": absent}))
        return [names[place] for (place,) in con.execute(_HOLD_SQL).fetchall()]


_HOLD_SQL = f"""
select place
from ({KEYS_SQL})
group by place
having
    count(castEntityId) filter (contains(entityId, '-')) > 0
    and 2 * count(castEntityId) filter (contains(entityId, '-')) >= count(nullif(trim(entityId), ''))
order by place
"""  # noqa: S608  of constants


def _texts(table: pa.Table) -> pa.ChunkedArray:
    """Give a column of text or UUIDs as text, and nothing of any other, which cannot be UUIDs."""
    column = plain(table).column(0)
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    return column.cast(pa.string()) if text else pa.chunked_array([pa.nulls(len(column), pa.string())])


@contextmanager
def naming_leads(entity_id: str | None, fields: Sequence[str]) -> Iterator[None]:
    """Name bad tasks by the rows and the column of the lead list that they were made of, one a field; without fields they are tasks."""
    try:
        yield
    except ValidationError as error:
        if error.problems is None or not fields:
            raise
        leads = of_leads(error.problems, entity_id, fields)
        raise ValidationError.of_rows("leads", leads, instead=error.instead) from None


def of_leads(problems: pd.DataFrame, entity_id: str | None, fields: Sequence[str]) -> pd.DataFrame:
    """Name what is wrong with tasks by the rows and the column of the lead list that they were made of."""
    column = problems["column"].replace("entityId", entity_id)
    return problems.assign(row=problems["row"] // len(fields), column=column).drop_duplicates()
