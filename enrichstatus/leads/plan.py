"""What is to be bought of a list of tasks, as a table to read and as requests to send."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from html import escape
from typing import Any, Generic

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus import frames
from enrichstatus.frames import Kind
from enrichstatus.leads.prices import Numbers
from enrichstatus.lookup.contract import TRIGGER_SIZE
from enrichstatus.lookup.tasks import check, task_tables, to_pandas
from enrichstatus.presentation import NONE, html_table, many, number

#: What is to be done with a task, in the order of a plan's table.
ACTIONS = ("have", "no_data", "in_flight", "unknown", "retry", "trigger", "over_budget", "duplicate", "invalid")
BOUGHT = ("retry", "trigger")

Codes = npt.NDArray[np.int64]


class Plan(Generic[Kind]):
    """What is to be bought of a list of tasks, and what not.

    Attributes
    ----------
    frame : a frame like the tasks
        The tasks with ``action``, ``reason`` and ``cost``.
    cost : float
        Credits for all that is to be triggered.
    """

    def __init__(
        self,
        frame: Kind,
        keys: pa.Table,
        action: Codes,
        cost: Numbers,
        fields: Sequence[str],
        *,
        priced: bool,
        notes: Sequence[str] = (),
    ):
        self.frame = frame
        self.cost = float(cost.sum())
        self._keys, self._action, self._costs, self._fields = keys, action, cost, fields
        self._priced, self._notes = priced, notes

    @cached_property
    def _counts(self) -> pd.DataFrame:
        """Tasks and credits by action and field."""
        action = pa.DictionaryArray.from_arrays(self._action, ACTIONS)
        with duckdb.connect() as con:
            con.register("rows", pa.table({"field": self._keys["field"], "action": action, "cost": self._costs}))
            return to_pandas(con.sql(_COUNTS_SQL))

    def summary(self) -> pd.DataFrame:
        """Count the tasks by action (rows) and field (columns), with their total and what they cost, in credits."""
        counts = self._counts
        table = counts.pivot_table(index="action", columns="field", values="tasks", aggfunc="sum", fill_value=0)
        table = table.reindex(ACTIONS, fill_value=0).astype("int64").rename_axis(index=None, columns=None)
        # a store may have any word for a field, one of ours too
        table.columns = [f"{name} (field)" if name in ("total", "cost") else name for name in table.columns]
        table["total"] = table.sum(axis=1)
        table["cost"] = counts.groupby("action")["cost"].sum().reindex(ACTIONS, fill_value=0.0)
        return table

    def to_trigger(self) -> list[dict[str, Any]]:
        """Give what is to be bought as bodies for the service's trigger endpoint, of at most 100 entities each.

        Returns
        -------
        list of dict
            ``{"personIds": [...], "field": "emails"}``, each entity once, in the order of the list; of companies, for which the
            service documents no trigger, ``{"companyIds": [...], "field": ...}``.
        """
        bought = np.flatnonzero(np.isin(self._action, [ACTIONS.index(name) for name in BOUGHT]))
        with task_tables(self._fields) as con:
            check(con, frames.read(self._keys.take(bought)))
            found = con.execute(_TRIGGER_SQL, {"size": TRIGGER_SIZE}).fetchall()
        return [{f"{kind}Ids": ids, "field": field} for kind, field, ids in found]

    def __len__(self) -> int:
        return len(self._action)

    def _headline(self) -> str:
        counts = self._counts.groupby("action")["tasks"].sum()
        bought = int(counts.reindex(BOUGHT, fill_value=0).sum())
        price = f" for {number(self.cost)} credits" if self._priced else ""
        over = int(counts.get("over_budget", 0))
        more = f"; {over:,} more are beyond the budget" if over else ""
        return "; ".join([f"Plan of {many(len(self), 'task')}: {bought:,} to trigger{price}{more}", *self._notes])

    def _table(self) -> pd.DataFrame:
        table = self.summary()
        table = table[table["total"] > 0]
        cells = table.drop(columns="cost").map("{:,}".format)
        if self._priced:
            cells["cost"] = table["cost"].map(number).where(table["cost"] > 0, NONE)
        return cells

    def __repr__(self) -> str:
        return f"{self._headline()}\n{self._table().to_string()}" if len(self) else self._headline()

    def _repr_html_(self) -> str:
        head = f"<b>{escape(self._headline())}</b>"
        return f"<div>{head}{html_table(self._table()) if len(self) else ''}</div>"


_COUNTS_SQL = """
select action, coalesce(field::varchar, '?') as field, count(*) as tasks, sum(cost) as cost
from rows
group by action, field
order by field
"""

_TRIGGER_SQL = """
with batches as (
    select *, (row_number() over (partition by entityType, field order by position) - 1) // $size as batch
    from tasks
)

select entityType::varchar, field::varchar, list(entityId::varchar order by position)
from batches
group by entityType, field, batch
order by min(position)
"""
