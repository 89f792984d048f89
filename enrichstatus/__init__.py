"""The status of lead enrichment, for a whole list at once: in a notebook, in ETL, at the command line."""

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
