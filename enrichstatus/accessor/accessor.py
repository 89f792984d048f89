"""``leads.enrichment`` of a pandas DataFrame: a lead list, one row a lead, looked up and planned without a word of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import pandas as pd

from enrichstatus.frames import frames
from enrichstatus.leads.plan import Plan
from enrichstatus.leads.planning import plan
from enrichstatus.leads.spread import spread
from enrichstatus.lookup.arguments import Errors, Instant, check_source, parse_fields
from enrichstatus.lookup.leads import entity_column, naming_leads, tasks_from_leads
from enrichstatus.lookup.query import Source
from enrichstatus.presentation import many
from enrichstatus.reports.coverage import coverage
from enrichstatus.reports.report import Report
from enrichstatus.schema import FIELDS, KEY


class Enrichment:
    """The enrichment of a lead list: a DataFrame with a column of entity ids.

    Examples
    --------
    >>> import enrichstatus as es, pandas as pd
    >>> leads = pd.DataFrame({"name": ["Ada"], "lead_id": ["f81d4fae-7dec-11d0-a765-00a0c91e6bf6"]})
    >>> store = es.EnrichmentStore(org_id="org_1")
    >>> leads.enrichment.status(store, entity_id="lead_id", fields="emails").drop(columns="lead_id")
      name emails_status  emails_dataFound  ready
    0  Ada           NaN              <NA>  False
    >>> leads.enrichment.plan(store, entity_id="lead_id", fields="emails", costs={"emails": 1})
    Plan of 1 task: 1 to trigger for 1 credit; the store is empty: nothing is known of what was bought before
            emails  total cost
    trigger       1     1    1
    """

    def __init__(self, leads: pd.DataFrame):
        self._leads = leads

    def __repr__(self) -> str:
        return f"Enrichment of {many(len(self._leads), 'lead')}: .status(), .plan() and .coverage() take a source"

    def status(
        self,
        source: Source,
        *,
        entity_id: str | None = None,
        fields: Sequence[str] | str = FIELDS,
        entity_type: str = "person",
        errors: Errors = "raise",
        now: Instant = None,
    ) -> pd.DataFrame:
        """Look up the list; gives it with ``emails_status``, ``emails_dataFound``, … and ``ready``, its index untouched.

        Parameters
        ----------
        source : Source
            Where to look them up.
        entity_id, fields, entity_type
            As for `tasks_from_leads`.
        errors, now
            As for `EnrichmentStore.lookup`.

        Raises
        ------
        ValidationError
            As from both, and where the list has one of the columns that are added.
        """
        entity_id, status = self._looked_up(source, entity_id, fields, entity_type, errors=errors, now=now)
        wide: pd.DataFrame = spread(status)
        added = [name for name in KEY if name != entity_id and name not in self._leads.columns]
        return wide.drop(columns=[name for name in added if name in wide.columns]).set_axis(self._leads.index)

    def plan(
        self,
        source: Source,
        *,
        entity_id: str | None = None,
        fields: Sequence[str] | str = FIELDS,
        entity_type: str = "person",
        costs: Mapping[str, float] | None = None,
        budget: float | None = None,
        priority: str | None = None,
        retry: Sequence[str] | str = ("timeout", "failed"),
        stale_after: str | float | timedelta | None = None,
        now: Instant = None,
        prefix: str = "",
    ) -> Plan:
        """Plan what to buy for the list: the first arguments are those of `status`, the others and the errors of `enrichstatus.plan`."""
        return plan(
            source,
            self._tasks(entity_id, fields, entity_type),
            costs=costs,
            budget=budget,
            priority=priority,
            retry=retry,
            stale_after=stale_after,
            now=now,
            prefix=prefix,
        )

    def coverage(
        self,
        source: Source,
        by: str | Sequence[str] | None = "field",
        *,
        entity_id: str | None = None,
        fields: Sequence[str] | str = FIELDS,
        entity_type: str = "person",
        errors: Errors = "raise",
        now: Instant = None,
        small: int = 30,
    ) -> Report:
        """Say for how much of the list there is data, by field and any of its columns: see `status` and `enrichstatus.coverage`."""
        _, status = self._looked_up(source, entity_id, fields, entity_type, errors=errors, now=now)
        return coverage(status, by, small=small)

    def _looked_up(
        self, source: Source, entity_id: str | None, fields: Sequence[str] | str, entity_type: str, **options: Any
    ) -> tuple[str, pd.DataFrame]:
        """Look up the list, whose column of entities is given too; bad leads are named by their rows in it."""
        check_source(source)
        entity_id = entity_column(frames.read(self._leads), entity_type) if entity_id is None else entity_id
        tasks = self._tasks(entity_id, fields, entity_type)
        with naming_leads(entity_id, parse_fields(fields)):
            return entity_id, source.lookup(tasks, **options)

    def _tasks(self, entity_id: str | None, fields: Sequence[str] | str, entity_type: str) -> pd.DataFrame:
        tasks: pd.DataFrame = tasks_from_leads(
            self._leads, entity_id=entity_id, fields=parse_fields(fields), entity_type=entity_type
        )
        return tasks
