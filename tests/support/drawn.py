"""Records and tasks drawn at random, with every edge of the rules in them."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from enrichstatus.schema import FIELDS
from tests.support.factory import NOW, uid

MOMENT = datetime.fromisoformat(NOW)
LIMITS = {"emails": 800, "phones": "20 min", "summary": timedelta(days=400)}
STATUSES = ["pending", "finished", "timeout", "failed", "PENDING", "in_progress", "unheard of"]
ENTITIES = [str(uuid.UUID(int=draw)) for draw in (*range(6), 2**96, 2**96 + 1, 2**127, 2**128 - 1)] + [uid(n) for n in range(30)]  # fmt: skip


def records(draw: random.Random, count: int) -> list[dict[str, Any]]:
    """Draw records with every edge: few keys and few instants, so that most meet; ids with several versions, of other keys too."""
    limits = [timedelta(seconds=800), timedelta(minutes=20), timedelta(days=400)]
    edges = [MOMENT - limit + timedelta(microseconds=n) for limit in limits for n in (-1, 0, 1)]
    instants = [*edges, MOMENT, MOMENT - timedelta(days=500)]

    def instant() -> str:
        return draw.choice(instants).astimezone(UTC).isoformat()

    return [
        {
            "id": draw.choice([uid(draw.randrange(count)), None]),
            "createdAt": instant(),
            "updatedAt": draw.choice([None, instant()]),
            "entityId": draw.choice(ENTITIES),
            "entityType": draw.choice(["person", "person", "company"]),
            "field": draw.choice(FIELDS),
            "status": draw.choice(STATUSES),
            "error": draw.choice([None, 'it "broke"\n']),
            "dataFound": draw.choice([None, True, False]),
            "createdBy": draw.choice([None, "u1"]),
            "orgId": f"org_{draw.randrange(3)}",
            "globalEnrichmentId": None,
            "creditTransactionId": draw.choice([None, "t"]),
        }
        for _ in range(count)
    ]


def tasks(draw: random.Random, count: int, *, spelled: bool = True) -> pd.DataFrame:
    """Draw tasks, of which most have a record; `spelled` in several ways."""
    rows = [
        (
            draw.choice([str, str.upper, "{{{}}}".format] if spelled else [str, str.upper])(
                draw.choice([*ENTITIES, uid(draw.randrange(10**6))])
            ),
            draw.choice(["person", "company"]),
            draw.choice(FIELDS),
        )
        for _ in range(count)
    ]
    return pd.DataFrame(rows, columns=["entityId", "entityType", "field"])
