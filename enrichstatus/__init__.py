"""The status of lead enrichment, for a whole list at once: in a notebook, in ETL, at the command line."""

from enrichstatus.errors import (
    EnrichStatusError,
    InternalError,
    LookupInterrupted,
    PartialLookupError,
    ServiceError,
    StoreError,
    StoreLockedError,
    UnauthorizedError,
    ValidationError,
)
from enrichstatus.lookup import Source
from enrichstatus.sources.client import EnrichmentClient
from enrichstatus.sources.loading import LoadReport
from enrichstatus.sources.store import EnrichmentStore
from enrichstatus.tasks import tasks_from_leads

__all__ = [
    "EnrichStatusError",
    "EnrichmentClient",
    "EnrichmentStore",
    "InternalError",
    "LoadReport",
    "LookupInterrupted",
    "PartialLookupError",
    "ServiceError",
    "Source",
    "StoreError",
    "StoreLockedError",
    "UnauthorizedError",
    "ValidationError",
    "tasks_from_leads",
]
