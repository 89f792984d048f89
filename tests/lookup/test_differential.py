"""The library against a plain-Python reading of the rules, over random records and tasks with every edge in them."""

from __future__ import annotations

import random
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import enrichstatus as es
from enrichstatus.schema import COLUMNS, FIELDS, STATUSES
from enrichstatus.sources.store.answering import point_lookup as answering
from tests.support.cases import cases

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
LIMIT = timedelta(seconds=800)
#: few, so that keys meet; of several versions, and some alike at either end
ENTITIES = [
    uuid.UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"),
    uuid.UUID("f81d4fae-7dec-11d0-a765-00a0c91e6bf7"),
    uuid.UUID("018f4fae-7dec-7d00-a765-00a0c91e6bf6"),
    uuid.UUID("9b2e5a14-3c7d-4e8f-8a1b-2c3d4e5f6a7b"),
    uuid.UUID(int=0),
    uuid.UUID(int=2**128 - 1),
]
IDS = [str(uuid.uuid5(uuid.NAMESPACE_OID, str(n))) for n in range(8)]


def spelled(value: uuid.UUID) -> st.SearchStrategy[str]:
    text = str(value)
    return st.sampled_from(
        [
            text,
            text.upper(),
            "{" + text + "}",
            text.replace("-", ""),
            f"  {text}\t",
            f"\u2003{text.upper()}\n",
        ]
    )


entities = st.sampled_from(ENTITIES).flatmap(spelled)
moments = st.one_of(
    # around the limit of the timeout rule, to the microsecond, and long ago
    st.sampled_from([NOW - LIMIT + timedelta(microseconds=n) for n in (-1000, -1, 0, 1, 1000)]),
    st.sampled_from([NOW, NOW - timedelta(days=400), NOW + timedelta(seconds=5), NOW - timedelta(seconds=799)]),
)


def written(moment: datetime) -> st.SearchStrategy[str]:
    east = moment.astimezone().astimezone(tz=None)
    return st.sampled_from(
        [
            moment.isoformat(),
            moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            moment.replace(tzinfo=None).isoformat(),
            east.isoformat(),
        ]
    )


records = st.fixed_dictionaries(
    {
        "id": st.sampled_from(IDS),
        "createdAt": moments.flatmap(written),
        "updatedAt": st.none() | moments.flatmap(written),
        "entityId": entities,
        "entityType": st.sampled_from(["person", "company"]),
        "field": st.sampled_from(FIELDS),
        "status": st.sampled_from(["pending", "finished", "timeout", "failed", "Pending", "unheard of"]),
        "error": st.sampled_from([None, "provider unavailable"]),
        "dataFound": st.sampled_from([None, True, False]),
        "createdBy": st.sampled_from([None, "u1", "u2"]),
        "orgId": st.sampled_from(["org_1", "org_2"]),
        "globalEnrichmentId": st.sampled_from([None, "g"]),
        "creditTransactionId": st.none(),
    }
)
tasks = st.fixed_dictionaries(
    {
        "entityId": entities | st.sampled_from(["", "nonsense", None, "f81d4fae-7dec-11d0-a765"]),
        "field": st.sampled_from(FIELDS) | st.sampled_from(["fax", None, "EMAILS"]),
        "entityType": st.sampled_from(["person", "company", "person", "robot"]),
    }
)


# --- the reference: loops, dicts and datetimes, and nothing of the library -----------------------------------------------------


def instant(text: str | None) -> datetime | None:
    if text is None:
        return None
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def value_of(text: str | None) -> uuid.UUID | None:
    try:
        return uuid.UUID(text.strip().strip("{}")) if text else None
    except ValueError:
        return None


def last(*moments: datetime | None) -> tuple[tuple[bool, datetime], ...]:
    """Order by these, descending, nulls last: for max()."""
    return tuple((moment is not None, moment or NOW) for moment in moments)


def stored(loaded: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep of each organization's id the newest version; of two of the same time one whose status is known, an ended one, then the greater in the documented order."""

    def rank(one: dict[str, Any]) -> Any:
        texts = [one["createdBy"], one["globalEnrichmentId"], one["creditTransactionId"]]
        return (
            last(instant(one["updatedAt"])),
            one["status"] in STATUSES,
            one["status"] != "pending",
            instant(one["createdAt"]),
            one["status"],
            (one["dataFound"] is not None, bool(one["dataFound"])),
            (one["error"] is not None, one["error"] or ""),
            value_of(one["entityId"]),
            ["person", "company"].index(one["entityType"]),
            FIELDS.index(one["field"]),
            [(text is not None, text or "") for text in texts],
        )

    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for one in loaded:
        if one["status"].lower() in STATUSES:  # the words that are known are read in any case
            one = one | {"status": one["status"].lower()}
        identity = (one["orgId"], one["id"])
        if identity not in kept or rank(one) > rank(kept[identity]):
            kept[identity] = one
    return list(kept.values())


def answered(kept: list[dict[str, Any]], asked: dict[str, Any], org: str) -> dict[str, Any] | None:
    key = (value_of(asked["entityId"]), asked["entityType"], asked["field"])
    if key[0] is None:
        return None
    found = [
        one
        for one in kept
        if one["orgId"] == org and (value_of(one["entityId"]), one["entityType"], one["field"]) == key
    ]
    if not found:
        return None
    newest = max(
        found,
        key=lambda one: (*last(instant(one["createdAt"]), instant(one["updatedAt"])), uuid.UUID(one["id"])),
    )
    created = instant(newest["createdAt"])
    assert created is not None
    pending = newest["status"] == "pending"
    return newest | {
        "createdAt": created,
        "updatedAt": instant(newest["updatedAt"]),
        "entityId": str(key[0]),
        "status": "timeout" if pending and NOW - created > LIMIT else newest["status"],
        "dataFound": None if pending else newest["dataFound"],
    }


def plain(frame: pd.DataFrame) -> list[dict[str, Any]]:
    objects = (
        frame[["r_" + name for name in COLUMNS]].rename(columns=lambda name: name.removeprefix("r_")).astype(object)
    )
    rows: list[dict[str, Any]] = objects.where(objects.notna(), None).to_dict("records")
    return [
        row | {name: row[name] and row[name].to_pydatetime() for name in ("createdAt", "updatedAt")} for row in rows
    ]


NOTHING = dict.fromkeys(COLUMNS)
#: Records as an export has them in Parquet.
TEXT = pa.schema([(name, pa.bool_() if name == "dataFound" else pa.string()) for name in COLUMNS])


@pytest.mark.parametrize("few", [1000, -1], ids=["index", "scan"])
@settings(max_examples=cases(10, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loaded=st.lists(records, max_size=24),
    asked=st.lists(tasks, max_size=12),
    seed=st.integers(0, 2**32),
    parts=st.integers(1, 4),
)
def test_the_library_agrees_with_a_plain_reading_of_the_rules(
    monkeypatch: pytest.MonkeyPatch,
    few: int,
    loaded: list[dict[str, Any]],
    asked: list[dict[str, Any]],
    seed: int,
    parts: int,
):
    """Loaded in any order, in any parts and twice over, every column of every answer is what the rules say."""
    monkeypatch.setattr(answering, "FEW", few)
    shuffled = random.Random(seed).sample(loaded * 2, len(loaded) * 2)
    with es.EnrichmentStore() as store:
        for part in range(parts):
            report = store.load(shuffled[part::parts])
            assert report.read == report.inserted + report.updated + report.unchanged
        frame = pd.DataFrame(asked, columns=["entityId", "field", "entityType"])
        for org in ("org_1", "org_2", "org_3"):
            answer = store.lookup(frame, org_id=org, now=NOW, columns=COLUMNS, prefix="r_", errors="coerce")
            expected = [answered(stored(loaded), one, org) or NOTHING for one in asked]
            assert plain(answer) == expected
            inner = store.lookup(frame, org_id=org, now=NOW, columns=COLUMNS, prefix="r_", errors="coerce", how="inner")
            assert plain(inner) == [row for row in expected if row is not NOTHING]


@settings(max_examples=cases(6, 25), deadline=None)
@given(loaded=st.lists(records, max_size=24), seed=st.integers(0, 2**32), parts=st.integers(1, 4))
def test_a_store_ends_in_the_same_state_whatever_the_order(loaded: list[dict[str, Any]], seed: int, parts: int):
    """The same records in another order and in other parts leave the same rows behind, counted right."""
    shuffled = random.Random(seed).sample(loaded, len(loaded))
    with es.EnrichmentStore() as one, es.EnrichmentStore() as other:
        whole = one.load(loaded)
        inserted = sum(other.load(shuffled[part::parts]).inserted for part in range(parts))
        assert whole.inserted == inserted == len({(record["orgId"], record["id"]) for record in loaded})
        assert one.load(shuffled).unchanged == len(loaded)
        assert contents(one) == contents(other)


@pytest.mark.parametrize("to_file", [False, True], ids=["frame", "files"])
@settings(max_examples=cases(3, 60), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    loaded=st.lists(st.tuples(records, st.booleans(), st.integers(0, 2)), min_size=1, max_size=24),
    asked=st.lists(tasks, min_size=1, max_size=12),
)
def test_a_scan_of_files_answers_as_a_store_that_loaded_them(
    tmp_path_factory: pytest.TempPathFactory,
    to_file: bool,
    loaded: list[tuple[dict[str, Any], bool, int]],
    asked: list[dict[str, Any]],
):
    """Also where the newest version of a record has another key or another createdAt, or is like an older one in all that is compared."""
    folder = tmp_path_factory.mktemp("scan")
    whole = pd.DataFrame([record | {"id": record["id"] if named else None} for record, named, _ in loaded])
    for name, part in whole.groupby(pd.Series([number for *_, number in loaded])):
        pq.write_table(pa.Table.from_pandas(part, TEXT, preserve_index=False), folder / f"{name}.parquet")
    frame = pd.DataFrame(asked, columns=["entityId", "field", "entityType"])
    options: dict[str, Any] = {"org_id": "org_1", "now": NOW, "columns": "all", "prefix": "r_", "errors": "coerce"}
    with es.EnrichmentStore() as store, es.EnrichmentStore.scan(folder / "?.parquet") as scan:
        store.load(folder / "?.parquet")
        if to_file:
            frame.to_parquet(folder / "tasks.parquet")
            for source, name in ((store, "store"), (scan, "scan")):
                source.lookup_to(folder / "tasks.parquet", folder / f"{name}.of.parquet", **options)
            assert pq.read_table(folder / "scan.of.parquet").equals(pq.read_table(folder / "store.of.parquet"))
        else:
            for names in ("all", ("status", "dataFound"), ("createdBy",)):
                options["columns"] = names
                pd.testing.assert_frame_equal(scan.lookup(frame, **options), store.lookup(frame, **options))


def contents(store: es.EnrichmentStore) -> list[tuple[Any, ...]]:
    with store._cursor() as con:
        return con.execute("select columns(* exclude load)::varchar from enrichments order by id, orgId").fetchall()
