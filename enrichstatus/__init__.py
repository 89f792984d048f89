"""The status of lead enrichment, for a whole list at once: in a notebook, in ETL, at the command line.

The names are imported when they are first used, so that the command line answers ``--help`` without pandas and DuckDB.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from enrichstatus.registration import register

if TYPE_CHECKING:
    from enrichstatus.accessor import Enrichment
    from enrichstatus.dashboard.dashboard import Dashboard
    from enrichstatus.errors import (
        EnrichStatusError,
        InternalError,
        LookupInterrupted,
        PartialLookupError,
        PollDeadline,
        PollInterrupted,
        RequirementError,
        ServiceError,
        StoreError,
        StoreLockedError,
        UnauthorizedError,
        ValidationError,
    )
    from enrichstatus.leads.plan import Plan
    from enrichstatus.leads.planning import plan
    from enrichstatus.leads.spread import spread
    from enrichstatus.lookup.dialects import lookup_sql
    from enrichstatus.lookup.query import Source
    from enrichstatus.lookup.requirements import require
    from enrichstatus.lookup.tasks import tasks_from_leads
    from enrichstatus.polling.poll import as_completed, poll, wait
    from enrichstatus.polling.schedules import Adaptive, Ask, Backoff
    from enrichstatus.polling.update import Update
    from enrichstatus.reports.coverage import coverage, diff
    from enrichstatus.reports.report import Report
    from enrichstatus.reports.timing import timing, waste
    from enrichstatus.sources.client.client import EnrichmentClient
    from enrichstatus.sources.spark.store import SparkEnrichmentStore
    from enrichstatus.sources.store.load import LoadReport
    from enrichstatus.sources.store.lookup_files import LookupReport
    from enrichstatus.sources.store.store import EnrichmentStore

__all__ = [
    "Adaptive",
    "Ask",
    "Backoff",
    "Dashboard",
    "EnrichStatusError",
    "Enrichment",
    "EnrichmentClient",
    "EnrichmentStore",
    "InternalError",
    "LoadReport",
    "LookupInterrupted",
    "LookupReport",
    "PartialLookupError",
    "Plan",
    "PollDeadline",
    "PollInterrupted",
    "Report",
    "RequirementError",
    "ServiceError",
    "Source",
    "SparkEnrichmentStore",
    "StoreError",
    "StoreLockedError",
    "UnauthorizedError",
    "Update",
    "ValidationError",
    "as_completed",
    "coverage",
    "diff",
    "lookup_sql",
    "plan",
    "poll",
    "require",
    "spread",
    "tasks_from_leads",
    "timing",
    "wait",
    "waste",
]

_HOMES = {
    "enrichstatus.accessor": ["Enrichment"],
    "enrichstatus.dashboard.dashboard": ["Dashboard"],
    "enrichstatus.errors": [
        "EnrichStatusError",
        "InternalError",
        "LookupInterrupted",
        "PartialLookupError",
        "PollDeadline",
        "PollInterrupted",
        "RequirementError",
        "ServiceError",
        "StoreError",
        "StoreLockedError",
        "UnauthorizedError",
        "ValidationError",
    ],
    "enrichstatus.leads.plan": ["Plan"],
    "enrichstatus.leads.planning": ["plan"],
    "enrichstatus.leads.spread": ["spread"],
    "enrichstatus.lookup.dialects": ["lookup_sql"],
    "enrichstatus.lookup.query": ["Source"],
    "enrichstatus.lookup.requirements": ["require"],
    "enrichstatus.lookup.tasks": ["tasks_from_leads"],
    "enrichstatus.polling.poll": ["as_completed", "poll", "wait"],
    "enrichstatus.polling.schedules": ["Adaptive", "Ask", "Backoff"],
    "enrichstatus.polling.update": ["Update"],
    "enrichstatus.reports.coverage": ["coverage", "diff"],
    "enrichstatus.reports.report": ["Report"],
    "enrichstatus.reports.timing": ["timing", "waste"],
    "enrichstatus.sources.client.client": ["EnrichmentClient"],
    "enrichstatus.sources.spark.store": ["SparkEnrichmentStore"],
    "enrichstatus.sources.store.load": ["LoadReport"],
    "enrichstatus.sources.store.lookup_files": ["LookupReport"],
    "enrichstatus.sources.store.store": ["EnrichmentStore"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__


register()
