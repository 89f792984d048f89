"""The distinct tasks of a frame: in vectors where its ids are written as usual, else by DuckDB."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa

from enrichstatus.frames.frames import Frame, Rows
from enrichstatus.lookup.tasks import DISTINCT_SQL, check_keys, keys_of, task_tables, to_pandas
from enrichstatus.lookup.vectors.keys import Keys, Vocabulary, distinct, texts, uuids
from enrichstatus.lookup.vectors.rules import words
from enrichstatus.schema import ENTITY_TYPES, KEY, PANDAS_TYPES


def distinct_tasks(frame: Frame, fields: Sequence[str], *, errors: str) -> tuple[pd.DataFrame, Rows]:
    """Give the distinct tasks of a frame in the order of first appearance, and of each row the place of its task, -1 for a bad one.

    The tasks have the columns of the key, with each UUID written the same way, and their place as ``task``. Errors are those of
    `lookup.tasks.check`.
    """
    given, vocabulary = keys_of(frame), Vocabulary(fields)
    keys = vocabulary.keys_of_table(given)
    if keys is not None:
        first, places = distinct(keys)
        return _written(vocabulary, Keys(keys.high[first], keys.low[first], keys.kind[first])), places
    with task_tables(fields) as con:
        check_keys(con, given, errors=errors)
        con.execute(_DISTINCT_SQL)
        tasks = to_pandas(con.sql(_TASKS_SQL))
        rows = con.sql(_ROWS_SQL).to_arrow_table()
    places = np.full(len(frame), -1)
    places[rows["position"].to_numpy()] = rows["task"].to_numpy()
    return tasks, places


def _written(vocabulary: Vocabulary, keys: Keys) -> pd.DataFrame:
    kinds, names = np.divmod(keys.kind, len(vocabulary.fields))
    columns = (texts(uuids(keys.high, keys.low)), words(kinds, ENTITY_TYPES), words(names, vocabulary.fields))
    table = pa.table([column.cast(pa.string()) for column in columns], names=list(KEY))
    frame: pd.DataFrame = table.append_column("task", pa.array(np.arange(len(table)))).to_pandas(
        types_mapper=PANDAS_TYPES.get
    )
    return frame


_DISTINCT_SQL = f"""
create temp table distinctTasks as
select *, row_number() over (order by first) - 1 as task
from ({DISTINCT_SQL})
"""  # noqa: S608  of a constant

_TASKS_SQL = f"""
select {", ".join(f"{name}::varchar as {name}" for name in KEY)}, task
from distinctTasks
order by task
"""  # noqa: S608  of constants

_ROWS_SQL = """
select tasks.position, distinctTasks.task
from tasks
inner join distinctTasks using (entityId, entityType, field)
"""
