"""What is to be bought of a list of tasks, as a table to read and as requests to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, Generic

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus.files.results import jsonable
from enrichstatus.files.scratch import scratch
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Kind
from enrichstatus.leads.prices import Numbers
from enrichstatus.lookup.contract import TRIGGER_SIZE
from enrichstatus.lookup.lazy import lazy
from enrichstatus.lookup.tasks import check, task_tables, to_pandas
from enrichstatus.presentation import NONE, credits_of, html_table, many, number

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
    prices : dict
        Credits for one task, by ``field`` or ``field/type``.
    balance : float or None
        The credits that the service said are left, where the budget is the balance.
    org_id : str or None
        The organization whose records were looked in, where the source names it.
    new_organization : bool
        Whether it was made for an organization that may have no record yet.
    notes : tuple of str
        What its headline warns of: an empty store, an unknown status, tasks without a price.
    """

    def __init__(
        self,
        frame: Kind,
        keys: pa.Table,
        action: Codes,
        cost: Numbers,
        fields: Sequence[str],
        *,
        prices: Mapping[str, float],
        seen: pa.Table,
        balance: float | None,
        org_id: str | None,
        notes: Sequence[str] = (),
        new_organization: bool = False,
    ):
        self.frame = frame
        self.cost = float(cost.sum())
        self.balance, self.org_id, self.new_organization = balance, org_id, new_organization
        self._keys, self._action, self._costs, self._fields = keys, action, cost, fields
        self.prices, self._seen, self._priced, self.notes = dict(prices), seen, bool(prices), tuple(notes)

    @lazy
    def _counts(self) -> pd.DataFrame:
        """Tasks and credits by action and field."""
        action = pa.DictionaryArray.from_arrays(self._action, ACTIONS)
        with scratch() as con:
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

    def to_dict(self) -> dict[str, Any]:
        """Give a program what it says in words: by field how many tasks have which action, and the credits by action."""
        table = self.summary()
        counts, paid = table.drop(columns=["total", "cost"]).to_dict(), table["cost"].to_dict()
        told = {"tasks": len(self), "counts": counts, "credits": paid if self.prices else None}
        given: dict[str, Any] = jsonable(told | {"cost": self.cost, "balance": self.balance})
        return given

    def to_trigger(self) -> list[dict[str, Any]]:
        """Give what is to be bought as bodies for the service's trigger endpoint, of at most 100 entities each.

        Returns
        -------
        list of dict
            ``{"personIds": [...], "field": "emails"}``, each entity once, in the order of the list; of companies, for which the
            service documents no trigger, ``{"companyIds": [...], "field": ...}``.
        """
        with scratch() as con:
            con.register("purchases", self.purchases())
            found = con.execute(_TRIGGER_SQL).fetchall()
        return [{f"{kind}Ids": ids, "field": field} for kind, field, ids in found]

    def purchases(self) -> pa.Table:
        """Give what is to be bought: its key, ``cost``, the ``batch`` in which it is triggered, and what was recorded of it.

        That is ``createdAt`` and ``updatedAt`` of its record, null where there was none, and whether it was still ``pending``.
        """
        return self._purchases

    @lazy
    def _purchases(self) -> pa.Table:
        bought = np.flatnonzero(np.isin(self._action, [ACTIONS.index(name) for name in BOUGHT]))
        with task_tables(self._fields) as con:
            check(con, frames.read(self._keys.take(bought).drop_columns("position")))
            known = self._seen.take(bought).append_column("cost", pa.array(self._costs[bought]))
            con.register("known", known.append_column("position", pa.array(np.arange(len(bought)))))
            return con.sql(_PURCHASES_SQL, params={"size": TRIGGER_SIZE}).to_arrow_table()

    @lazy
    def quote(self) -> dict[str, Any]:
        """What is to be bought, at what prices, as a value that can be saved as JSON, signed off and compared.

        It has the ``organization``, where it is known, ``tasks``, ``credits``, the tasks by field in ``fields``, ``prices``, and a
        ``digest``, which is another one where a task is bought that was not, or what was recorded of one, or its price, has changed.
        """
        purchases = self.purchases()
        with scratch() as con:
            con.execute("set TimeZone = 'UTC'")
            con.register("purchases", purchases)
            ((digest,),) = con.execute(_DIGEST_SQL).fetchall()
            fields = dict(con.execute("select field, count(*) from purchases group by field order by field").fetchall())
        counts = {"tasks": purchases.num_rows, "credits": self.cost, "fields": fields}
        return {"organization": self.org_id, **counts, "prices": self.prices, "digest": digest}

    def __len__(self) -> int:
        return len(self._action)

    def _headline(self) -> str:
        counts = self._counts.groupby("action")["tasks"].sum()
        bought = int(counts.reindex(BOUGHT, fill_value=0).sum())
        price = f" for {credits_of(self.cost)}" if self._priced else ""
        over = int(counts.get("over_budget", 0))
        more = f"; {over:,} more are beyond the budget" if over else ""
        left = ""
        if self.balance is not None:
            left = f", which leaves {number(self.balance - self.cost)} of {number(self.balance)}"
        head = f"Plan of {many(len(self), 'task')}: {bought:,} to trigger{price}{left}{more}"
        return "; ".join([head, *self.notes])

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

_PURCHASES_SQL = """
with parts as (
    select
        tasks.*,
        known.* exclude position,
        (row_number() over (partition by entityType, field order by tasks.position) - 1) // $size as part
    from tasks
    inner join known using (position)
)

select
    entityId::varchar as entityId,
    entityType::varchar as entityType,
    field::varchar as field,
    cost,
    createdAt,
    updatedAt,
    pending,
    position,
    min(position) over (partition by entityType, field, part) as batch
from parts
order by batch, position
"""

_TRIGGER_SQL = """
select entityType, field, list(entityId order by position)
from purchases
group by batch, entityType, field
order by batch
"""

_DIGEST_SQL = """
select md5(coalesce(string_agg(
    concat_ws('|', entityId, entityType, field, cost, epoch_us(createdAt), ' ', epoch_us(updatedAt), pending),
    ';' order by entityId, entityType, field
), ''))
from purchases
"""
