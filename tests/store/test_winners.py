"""Which record of a key is the newest is decided when a store is loaded, as the query would decide it each time."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.frames.frames import read
from enrichstatus.lookup.query import LOOKUP_SQL, asker, newest_sql
from enrichstatus.lookup.tasks import check
from enrichstatus.schema import COLUMNS
from enrichstatus.sources.store.answering import point_lookup
from tests.support.cases import cases
from tests.support.drawn import LIMITS, records, tasks
from tests.support.factory import NOW, ORG, record, task, uid


def by_the_query(store: es.EnrichmentStore, asked: pd.DataFrame, org_id: str) -> pd.DataFrame:
    """Answer with the whole query, over all records as they lie in the store."""
    with store._cursor() as con:
        check(con, read(asked))
        con.register("asker", asker(org_id, store.max_processing_time, NOW))
        con.register("records", con.table("enrichments"))
        answer = con.sql(LOOKUP_SQL).select("position", *ANSWERS)
        # pandas 2 does not take over DuckDB's enums
        found = (
            answer.project("* replace (entityType::varchar as entityType, field::varchar as field)")
            .to_arrow_table()
            .to_pandas()
        )
    found = found.set_index("position").reindex(range(len(asked)))
    return found.assign(reason=found["reason"].fillna("no_record"))


USUAL = ("status", "dataFound", "reason")
ANSWERS = (*COLUMNS, "reason", "age", "expiresIn")


def decided_as_by_the_query(store: es.EnrichmentStore) -> bool:
    newest = newest_sql("orgId", "entityId", "entityType", "field")
    text = f"with contending as (from enrichments) select count(*) from ({newest}) where superseded <> (rank > 1)"  # noqa: S608
    with store._cursor() as con:
        return con.execute(text).fetchall() == [(0,)]


@pytest.mark.parametrize("few", [1000, -1], ids=["index", "scan"])
@pytest.mark.parametrize("seed", range(cases(4, 250)))
def test_a_store_that_decided_at_load_answers_as_the_whole_query(monkeypatch: pytest.MonkeyPatch, seed: int, few: int):
    """Ties, nulls, versions, organizations, spellings, limits by field, unknown statuses and the instant of the limit: 200 tasks a seed."""
    monkeypatch.setattr(point_lookup, "FEW", few)
    if few < 0:  # as of very many
        monkeypatch.setattr("enrichstatus.lookup.tasks.MANY", 0)
    draw = random.Random(seed)
    loaded = records(draw, draw.choice([5, 60, 400]))
    with es.EnrichmentStore(max_processing_time=LIMITS, statuses={"in_progress": "pending"}) as store:
        parts = draw.randint(1, 5)
        for part in range(parts):
            store.load(loaded[part::parts])
            assert decided_as_by_the_query(store)
        for org in ("org_0", "org_1", "org_2"):
            asked = tasks(draw, 67, spelled=draw.random() < 0.5)
            found = store.lookup(asked, org_id=org, now=NOW, columns=ANSWERS, prefix="r_")
            found = found[["r_" + name for name in ANSWERS]].set_axis(ANSWERS, axis=1)
            expected = by_the_query(store, asked, org)
            pd.testing.assert_frame_equal(found, expected.astype(found.dtypes), check_names=False)
            # few tasks with these columns are answered without the query
            usual = store.lookup(asked, org_id=org, now=NOW, columns=USUAL)[list(USUAL)]
            pd.testing.assert_frame_equal(usual, found[list(USUAL)], check_names=False)


def test_a_newer_version_can_give_up_the_first_place(store: es.EnrichmentStore):
    """A record whose newest version has another key leaves the old key to the next newest, in one load or in two."""
    first, second = record(0), record(0, id=uid(1), createdAt="2026-11-16T07:00:00Z", status="failed", dataFound=False)
    store.load([first, second])
    assert store.lookup([task(0)], now=NOW)["status"].tolist() == ["finished"]
    store.load([first | {"entityId": uid(9), "updatedAt": "2026-11-16T08:30:00Z"}])
    assert store.lookup([task(0), task(9)], now=NOW)["status"].tolist() == ["failed", "finished"]
    assert decided_as_by_the_query(store)


@pytest.fixture
def store() -> Iterator[es.EnrichmentStore]:
    with es.EnrichmentStore(org_id=ORG) as store:
        yield store


def test_ten_thousand_organizations_and_forty_fields():
    """Each organization is answered of its own records, however many there are, and whatever the number of fields."""
    fields = [f"field_{n}" for n in range(40)]
    numbers = range(20_000)
    frame = pd.DataFrame(
        {
            "entityId": [uid(n % 100) for n in numbers],
            "field": [fields[n % 40] for n in numbers],
            "status": ["finished"] * 20_000,
            "createdAt": ["2026-11-16T08:00:00Z"] * 10_000 + ["2026-11-16T08:00:01Z"] * 10_000,
            "dataFound": [n < 10_000 for n in numbers],
            "orgId": [f"org {n % 10_000}" for n in numbers],
        }
    )
    with es.EnrichmentStore(fields=fields) as store:
        store.load(frame)
        for n in (0, 1, 9_999):
            asked = [{"entityId": uid(n % 100), "field": fields[place % 40]} for place in (n, n + 1)]
            found = store.lookup(asked, org_id=f"org {n}", now=NOW)["dataFound"]
            assert found.astype(object).tolist() == [False, pd.NA]  # of two records the later one
            assert store.lookup(asked[:1], org_id=f"org {(n + 1) % 10_000}", now=NOW)["status"].isna().all()
