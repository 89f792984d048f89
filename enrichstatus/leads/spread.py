"""From one row a task back to one row a lead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError
from enrichstatus.files.scratch import scratch
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Frame, Kind, ListOrPath, Rows
from enrichstatus.lookup.arguments import parse_prefix
from enrichstatus.lookup.tasks import KEYS_SQL, clashing, task_tables
from enrichstatus.outcomes import outcome
from enrichstatus.schema import EXPLANATION, FIELDS, columns_listed, find, listed

_READY = "ready"


def spread(status: Kind | ListOrPath, *, prefix: str = "") -> Kind:
    """Turn what a lookup gave, one row a task, into one row a lead: the inverse of `tasks_from_leads`.

    Parameters
    ----------
    status : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        Tasks with ``status`` and ``dataFound``: the rows of a lead are those of one entity and type. A lead that is twice in a list stays
        two rows.
    prefix : str
        What stands before ``status`` and ``dataFound``, where the lookup was given one.

    Returns
    -------
    A frame of the same kind
        The leads in the order of their first tasks, with the other columns of these and a new index. For each field two columns are
        added, ``emails_status`` and ``emails_dataFound``, null where a lead has no such task, and one for each of ``reason``, ``age`` and
        ``expiresIn`` that the lookup added; and ``ready``, whether all that was looked up
        of a lead has ended: a task without a record has not.

    Raises
    ------
    ValidationError
        A column is missing, or one of those that are added is there already.

    Examples
    --------
    >>> import enrichstatus as es, pandas as pd
    >>> leads = pd.DataFrame({"name": ["Ada"], "lead_id": ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]})
    >>> tasks = es.tasks_from_leads(leads, entity_id="lead_id", fields=["emails", "phones"])
    >>> status = es.EnrichmentStore(org_id="org_1").lookup(tasks)
    >>> es.spread(status).drop(columns=["lead_id", "entityId", "entityType"])
      name emails_status  emails_dataFound phones_status  phones_dataFound  ready
    0  Ada           NaN              <NA>           NaN              <NA>  False
    """
    parse_prefix(prefix)
    frame = frames.read(status)
    names = find(frame.columns, ("entityId", "field", "entityType"))
    answers = [prefix + name for name in ("status", "dataFound")]
    answers += [prefix + name for name in EXPLANATION.names if prefix + name in frame.columns]
    missing = [name for name in ("entityId", "field") if name not in names]
    if missing := missing + [name for name in answers if name not in frame.columns]:
        raise ValidationError(
            f"The status lacks {columns_listed(missing)}; found {listed(frame.columns)}. Spread takes what a lookup gave, "
            "and the prefix that the lookup was given."
        )
    field, fields = _codes(frame, names["field"])  # a task without a field has none to show
    lead, first = _leads(frame, names, field)
    leads = frame.take(first).drop([names["field"], *answers])
    columns: dict[str, Any] = {}
    answered = _answered(frame, answers)
    for code, name in enumerate(fields.to_pylist()):  # a few fields, not tasks
        rows = np.flatnonzero(field == code)
        place = np.full(len(first), -1)
        place[lead[rows]] = rows
        found = answered.take(pa.array(place, mask=place < 0))
        columns |= {f"{name}_{answer}": found[answer] for answer in answers}
    words = answered[answers[0]]
    over = [word for word in words.unique().to_pylist() if outcome(word, None).ended]  # a few statuses, not leads
    ended = pc.is_in(words, pa.array(over, pa.string()))
    waiting = lead[~ended.to_numpy()]
    columns[_READY] = pa.array(np.bincount(waiting, minlength=len(first)) == 0, pa.bool_())
    if clashes := clashing(leads, list(columns)):
        raise ValidationError(
            f"The leads already have {columns_listed(clashes)}; rename or drop {'it' if len(clashes) == 1 else 'them'}."
        )
    answer: Kind = leads.assign(pa.table(columns))
    return answer


def _answered(frame: Frame, names: Sequence[str]) -> pa.Table:
    status, found, *_ = names
    texts = frame.arrow(names[2:]).schema.types
    try:
        return frame.arrow(names).cast(pa.schema(list(zip(names, [pa.string(), pa.bool_(), *texts], strict=True))))
    except (pa.ArrowException, ValueError) as error:
        raise ValidationError(f"{status} is text and {found} true, false or null; these are not: {error}") from error


def _leads(frame: Frame, names: Mapping[str, str], field: Rows) -> tuple[Rows, Rows]:
    """Number the leads in the order of their first tasks: of each row the lead, and of each lead its first row."""
    entity = _entities(frame, names["entityId"])
    kind, kinds = _codes(frame, names["entityType"]) if "entityType" in names else (np.zeros_like(entity), ("person",))
    entity = entity * (len(kinds) + 1) + kind
    # a lead that is twice in a list has each field twice: the second of each is the second lead's
    task = pd.Series(entity * (int(field.max(initial=0)) + 1) + field)
    again = task.duplicated().to_numpy()
    time = task.groupby(task, sort=False).cumcount().to_numpy() if again.any() else np.zeros_like(entity)
    lead, leads = pd.factorize(entity * (int(time.max(initial=0)) + 1) + time)
    first = np.empty(len(leads), dtype=np.int64)
    first[lead[::-1]] = np.arange(len(lead))[::-1]
    return lead, first


def _entities(frame: Frame, name: str) -> Rows:
    """Number the entities: a UUID in two spellings is one."""
    codes, values = _codes(frame, name)
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        given = {"position": np.arange(len(values)), "entityId": values, "entityType": values, "field": values}
        with task_tables(FIELDS) as con:
            con.register("given", pa.table(given))
            same = con.sql(_SAME_SQL).to_arrow_table()["entity"].to_numpy()
        codes = np.append(same, len(values))[codes]
    return codes


# Of each distinct spelling the place of its entity's first; what is not a UUID is itself
_SAME_SQL = f"""
select min(position) over (partition by coalesce(castEntityId::varchar, entityId)) as entity
from ({KEYS_SQL})
order by position
"""  # noqa: S608  of a constant


def _codes(frame: Frame, name: str) -> tuple[Rows, pa.Array]:
    """Number the values of a column in the order of their first appearance; a null is one beyond them."""
    column = frame.arrow([name]).column(0).combine_chunks()
    column = column.storage if isinstance(column, pa.ExtensionArray) else column
    if pa.types.is_nested(column.type):  # which Arrow cannot compare
        with scratch() as con:
            texts = con.from_arrow(pa.table({"value": column})).select("value::varchar")
            column = texts.to_arrow_table().column(0).combine_chunks()
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    values = encoded.dictionary
    return encoded.indices.fill_null(len(values)).to_numpy().astype(np.int64), values
