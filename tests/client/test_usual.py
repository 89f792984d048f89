"""What a client puts together without DuckDB is what its query gives, and what is requested is the same."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.errors import ServiceError
from enrichstatus.lookup.calls.clocks import ServiceClock
from enrichstatus.lookup.vectors.keys import Vocabulary
from enrichstatus.schema import COLUMNS
from enrichstatus.sources.client.transport.transport import Outcome
from tests.support.cases import crossed
from tests.support.factory import record, uid

FIELDS = ("emails", "phones", 'it\'s "so" – é')
EVERY = (*COLUMNS, "reason", "age", "expiresIn")
#: What an answer may be like beside the usual.
ODD = ("usual", "twice", "in capitals", "of another")


class Answers:
    """In the place of a transport: answers each body by its tasks, always the same way, and fails some batches."""

    def __init__(self, seed: int, odd: str, failing: bool) -> None:
        self.clock, self.bodies = ServiceClock(), list[str]()
        self._seed, self._odd, self._failing = seed, odd, failing

    def post(self, bodies: Sequence[str], read: Callable[[bytes], Any], done: Callable[[int], object]) -> Outcome[Any]:
        self.bodies += bodies
        outcome: Outcome[Any] = Outcome()
        for place, body in enumerate(bodies):
            if self._failing and place == 1:
                outcome.failed[place] = ServiceError("It is down.", 503)
                continue
            found = [record for task in json.loads(body)["tasks"] for record in self._records(task)]
            if self._odd == "of another" and place == 0:
                found.append(record(99_999))
            outcome.answered[place] = read(json.dumps(found).encode())
        return outcome

    def _records(self, task: dict[str, str]) -> list[dict[str, Any]]:
        chance = random.Random(zlib.crc32(f"{self._seed} {task}".encode()))
        made = []
        for _ in range(chance.choice([0, 1, 1, 2 if self._odd == "twice" else 1])):
            members = {
                "id": uid(chance.randrange(10**9)),
                "createdAt": f"2026-11-16T08:{chance.choice([46, 40]):02}:{chance.choice([39, 40, 41])}.000Z",
                "updatedAt": chance.choice([None, "2026-11-16T08:59:00.123456Z"]),
                "status": chance.choice(["pending", "PENDING ", "finished", "failed", "timeout", "odd", "Odd"]),
                "dataFound": chance.choice([None, True, False]),
                "error": chance.choice([None, "", "no such"]),
                "orgId": chance.choice([None, "", "org_1", "org_2"]),
            }
            entity = task["entityId"].upper() if self._odd == "in capitals" else task["entityId"]
            made.append(record(0) | task | members | {"entityId": entity})
        return made


@pytest.mark.parametrize(
    ("seed", "odd", "failing", "now"), crossed(range(5), ODD, (False, True), (None, None, "2026-11-16T09:00:00Z"))
)
def test_put_together_in_vectors_or_by_the_query_it_is_the_same(
    monkeypatch: pytest.MonkeyPatch, seed: int, odd: str, failing: bool, now: str | None
):
    """Every column, what failed, and every body: with repeated tasks, strange statuses, and answers that are for the query to read."""
    chance = random.Random(seed)
    tasks = pd.DataFrame(
        [
            {
                "entityId": uid(chance.randrange(300)).upper() if chance.random() < 0.3 else uid(chance.randrange(300)),
                "field": chance.choice(FIELDS),
                "entityType": chance.choice(["person", "company"]),
            }
            for _ in range(550)
        ],
        index=range(7, 557),
    )
    client = es.EnrichmentClient(
        "http://127.0.0.1:9",
        token="t",
        fields=FIELDS,
        statuses={"odd": "finished"},
        max_processing_time={"emails": 800},
    )
    seen = []
    for by_query in (False, True):
        service = Answers(seed, odd, failing)
        monkeypatch.setattr(client, "_transport", lambda service=service: service)
        if by_query:
            monkeypatch.setattr(Vocabulary, "keys_of_table", lambda *given: None)
        try:
            found = client.lookup(tasks, columns=EVERY, now=now, prefix="its_")
            failed = None
        except es.PartialLookupError as error:
            found, failed = error.result, error.failed
        seen.append((found, failed, service.bodies))
    (one, lost, bodies), (other, lost_too, bodies_too) = seen
    assert bodies == bodies_too
    assert (lost is None) == (not failing and odd != "of another")
    if lost is not None:
        pd.testing.assert_frame_equal(lost, lost_too)
    volatile = ["its_age", "its_expiresIn"] if now is None else []  # by the clock
    pd.testing.assert_frame_equal(one.drop(columns=volatile), other.drop(columns=volatile))
