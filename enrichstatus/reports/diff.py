"""What changed between two lookups of a list."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from enrichstatus.errors import ValidationError, quoted
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Frame
from enrichstatus.lookup.tasks import DISTINCT_SQL, check, task_tables, to_pandas
from enrichstatus.presentation import many
from enrichstatus.reports.coverage import answers
from enrichstatus.reports.groups import comparable
from enrichstatus.reports.report import Report
from enrichstatus.schema import FIELDS

DIFF_SQL = Path(__file__).with_name("diff.sql").read_text(encoding="utf-8")
#: What is compared.
_COMPARED = ("status", "dataFound")


def diff(a: Any, b: Any, *, names: tuple[str, str] = ("a", "b")) -> Report:
    """Report where two lookups of a list disagree: of two sources, or at two moments.

    Parameters
    ----------
    a, b : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        What the lookups gave: tasks with ``status`` and ``dataFound``. A task that stands in one several times counts once, as it
        stands first; keys match as everywhere, whatever the case of a UUID, its braces, dashes and outer white space.
    names : tuple of two str
        The names of the two.

    Returns
    -------
    Report
        ``.frame`` has a row for each task whose ``status`` or ``dataFound`` differ, or that only one has: the key, ``status_a``,
        ``status_b``, ``dataFound_a``, ``dataFound_b`` (named by `names`) and the ``change`` in words.

    Raises
    ------
    ValidationError
        A column is missing or of an unusable type, or `names` are not two.

    Examples
    --------
    >>> import enrichstatus as es
    >>> task = {"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}
    >>> before = [{**task, "status": "pending", "dataFound": None}]
    >>> after = [{**task, "status": "finished", "dataFound": True}]
    >>> es.diff(before, after).frame["change"].tolist()
    ['pending → finished']
    """
    pair = tuple(names) if isinstance(names, (tuple, list)) else ()
    if len(pair) != 2 or not all(isinstance(name, str) and name for name in pair) or pair[0] == pair[1]:
        raise ValidationError(
            f'takes two distinct names, such as ("before", "after"), not {quoted(names)}.', argument="names"
        )
    both = [frames.read(a), frames.read(b)]
    with task_tables(_fields(both)) as con:
        left = sum(_keyed(con, *each) for each in zip(both, "ab", pair, strict=True))
        con.register("names", pa.table({"a": [pair[0]], "b": [pair[1]]}))
        compared = con.sql(DIFF_SQL)
        [(total,)] = con.sql("select count(*) from a full join b using (entityId, entityType, field)").fetchall()
        table = to_pandas(compared)
    renamed = {
        f"{column}_{side}": f"{column}_{name}" for side, name in zip("ab", pair, strict=True) for column in _COMPARED
    }
    table = table.rename(columns=renamed)
    aside = f"; {many(left, 'row')} without a usable key left out" if left else ""
    verb = "differs" if len(table) == 1 else "differ"
    changes = table["change"].value_counts().sort_index().sort_values(ascending=False, kind="stable")
    most = ", ".join(f"{count:,} {change}" for change, count in changes.head(3).items()) + (", …" * (len(changes) > 3))
    headline = (
        f"{len(table):,} of {total:,} tasks {verb} between {pair[0]} and {pair[1]}{f': {most}' if most else ''}{aside}"
    )
    return Report(table, headline, "diff", ("entityId", "entityType", "field"), {}, {"names": pair})


def _fields(both: Sequence[Frame]) -> list[str]:
    """Give the fields of the two lists: a store may have others than the contract's."""
    lists = [frame.arrow(["field"]) for frame in both if "field" in frame.columns]
    texts = {text for table in lists for text in comparable(table).column(0).unique().to_pylist()}
    return sorted(
        {str(text) for text in texts if isinstance(text, str) and text and text == text.strip()} | set(FIELDS)
    )


def _keyed(con: duckdb.DuckDBPyConnection, frame: Frame, table: str, name: str) -> int:
    """Make the table of one lookup's distinct tasks, and say how many of its rows have no usable key."""
    words, data = answers(frame, "", who=name)
    check(con, frame, errors="coerce")
    con.register("answers", pa.table({"position": np.arange(len(frame)), "status": words, "dataFound": data}))
    con.execute(_KEYED_SQL)
    con.execute(f"alter table keyed_tasks rename to {table}")
    [(good,)] = con.execute("select count(*) from tasks").fetchall()
    con.execute("drop table tasks")
    return len(frame) - int(good)


_KEYED_SQL = f"""
create temp table keyed_tasks as
select task.first as position, task.entityId, task.entityType, task.field, answers.status, answers.dataFound
from ({DISTINCT_SQL}) as task
inner join answers on answers.position = task.first
"""  # noqa: S608  of a constant
