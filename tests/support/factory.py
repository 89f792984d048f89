"""Records and tasks for the tests, in the wire format."""

from __future__ import annotations

import uuid
from typing import Any

NOW = "2026-11-16T09:00:00Z"
ORG = "org_1"


def uid(number: int) -> str:
    """Give the same UUID for the same number, spread like random ones."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(number)))


def record(number: int = 0, **members: Any) -> dict[str, Any]:
    """Make a finished enrichment in the wire format; `members` change it."""
    return {
        "id": uid(1_000_000 + number),
        "createdAt": "2026-11-16T08:00:00.000Z",
        "updatedAt": "2026-11-16T08:01:00.000Z",
        "entityId": uid(number),
        "entityType": "person",
        "field": "emails",
        "status": "finished",
        "error": None,
        "dataFound": True,
        "createdBy": "user_1",
        "orgId": ORG,
        "globalEnrichmentId": None,
        "creditTransactionId": None,
    } | members


def task(number: int = 0, field: str = "emails") -> dict[str, str]:
    return {"entityId": uid(number), "field": field}
