"""The status of lead enrichment, for a whole list at once: in a notebook, in ETL, at the command line."""

from enrichstatus.accessor import Enrichment
from enrichstatus.analysis import coverage, diff
from enrichstatus.dashboard import Dashboard
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
from enrichstatus.gate import require
from enrichstatus.history import timing, waste
from enrichstatus.lookup import Source
from enrichstatus.planning import plan
from enrichstatus.plans import Plan
from enrichstatus.polling import as_completed, poll, wait
from enrichstatus.schedules import Adaptive, Ask, Backoff
from enrichstatus.sources.client import EnrichmentClient
from enrichstatus.sources.loading import LoadReport
from enrichstatus.sources.spark import SparkEnrichmentStore
from enrichstatus.sources.store import EnrichmentStore
from enrichstatus.spreading import spread
from enrichstatus.tables import Report
from enrichstatus.tasks import tasks_from_leads
from enrichstatus.updates import Update

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
    "plan",
    "poll",
    "require",
    "spread",
    "tasks_from_leads",
    "timing",
    "wait",
    "waste",
]
