"""Tables of a lake, Delta and Iceberg: loaded, scanned and looked up like any other input, each at one version."""

from __future__ import annotations

import datetime as dt
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from tests.support.factory import NOW, ORG, record, task, uid
from tests.support.lake import KEY, SECRET, require, running

pytestmark = [pytest.mark.lakes, pytest.mark.xdist_group("lakes")]

ORGS = (ORG, "org_2", "o'3")
SCHEMA = pa.schema(
    [(name, pa.bool_() if name == "dataFound" else pa.string()) for name in record()] + [("day", pa.date32())]
)


def rows(*records: dict[str, Any]) -> pa.Table:
    days = [{"day": dt.date.fromisoformat(one["createdAt"][:10])} for one in records]
    return pa.Table.from_pylist([one | day for one, day in zip(records, days, strict=True)], SCHEMA)


def made(day: int, org: str, **members: Any) -> dict[str, Any]:
    return record(day, id=uid(100 * day + ORGS.index(org)), orgId=org, createdAt=f"2026-11-{day}T08:00:00Z") | members


RECORDS = [made(day, org) for day in (11, 15, 16) for org in ORGS]


def delta(folder: Path, table: pa.Table, **more: Any) -> Any:
    """Write a Delta table; gives it."""
    require("deltalake")
    import deltalake

    deltalake.write_deltalake(
        folder, table, partition_by=["orgId", "day"] if "orgId" in table.column_names else None, **more
    )
    return deltalake.DeltaTable(folder)


def iceberg(folder: Path, table: pa.Table) -> Any:
    """Write an Iceberg table; gives it."""
    require("pyiceberg")
    from pyiceberg.catalog.sql import SqlCatalog

    folder.mkdir(exist_ok=True)
    catalog = SqlCatalog("default", uri=f"sqlite:///{folder}/catalog.db", warehouse=folder.as_uri())
    catalog.create_namespace_if_not_exists("lake")
    new = catalog.create_table(f"lake.{folder.name}", schema=table.schema)
    if "orgId" in table.column_names:
        with new.update_spec() as spec:
            spec.add_identity("orgId")
            spec.add_identity("day")
    new.append(table)
    return new


KINDS: dict[str, Callable[[Path, pa.Table], Any]] = {"delta": delta, "iceberg": iceberg}


def statuses(source: es.Source, *tasks: Any, **options: Any) -> list[Any]:
    answer = source.lookup(list(tasks), now=NOW, **options)
    return [None if pd.isna(value) else value for value in answer["status"]]


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_is_loaded_and_scanned(tmp_path: Path, kind: str):
    """A load reads all of it, a scan the parts of the asking organization and of the days since then; both answer alike."""
    table = KINDS[kind](tmp_path / "records", rows(*RECORDS))
    with es.EnrichmentStore(org_id=ORG) as store:
        assert store.load(table).inserted == 9
        assert store.load(table).unchanged == 9
        with es.EnrichmentStore.scan(table, org_id=ORG) as source:
            assert "read where it lies" in repr(source)
            for org in ORGS:
                expected = store.lookup([task(11), task(16), task(17)], columns="all", now=NOW, org_id=org)
                found = source.lookup([task(11), task(16), task(17)], columns="all", now=NOW, org_id=org)
                pd.testing.assert_frame_equal(found, expected)
            assert es.plan(source, [task(11), task(1)], now=NOW).frame["action"].tolist() == ["have", "trigger"]
            assert len(source.records()) == 3
            with pytest.warns(es.OrganizationWarning):
                assert statuses(source, task(11), org_id="org_4") == [None]
    with es.EnrichmentStore.scan(table, org_id=ORG, since="2026-11-16") as source:
        assert statuses(source, task(11), task(15), task(16)) == [None, None, "finished"]
    # what is not read need not be there
    for path in (tmp_path / "records").rglob("*.parquet"):
        if "orgId=org_2" in str(path) or "day=2026-11-11" in str(path):
            path.unlink()
    with es.EnrichmentStore.scan(table, org_id=ORG, since="2026-11-14") as source:
        assert statuses(source, task(11), task(15), task(16)) == [None, "finished", "finished"]
        with pytest.raises(es.EnrichStatusError):
            source.lookup([task(15)], org_id="org_2")


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_and_leads_may_be_a_table(tmp_path: Path, kind: str):
    """What comes back of a table is an Arrow table with the columns of the answer."""
    table = KINDS[kind](
        tmp_path / "t", pa.table({"entityId": [uid(0), uid(1)], "field": ["emails"] * 2, "own": [1, 2]})
    )
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load([record(0)])
        status = store.lookup(table, now=NOW)
        assert dict(zip(status["own"].to_pylist(), status["status"].to_pylist(), strict=True)) == {
            1: "finished",
            2: None,
        }
    leads = KINDS[kind](tmp_path / "leads", pa.table({"lead_id": [uid(0), uid(1)]}))
    assert es.tasks_from_leads(leads, entity_id="lead_id", fields="phones")["field"].to_pylist() == ["phones"] * 2


def test_a_folder_that_holds_a_delta_table_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its path is enough, at the command line too; each lookup sees the newest version, an object the one that it stands at."""
    table = delta(tmp_path / "records", rows(*RECORDS))
    tasks = tmp_path / "tasks"
    delta(tasks, pa.table({"entityId": [uid(15), uid(16)], "field": ["emails"] * 2}))
    with (
        es.EnrichmentStore(org_id=ORG) as store,
        es.EnrichmentStore.scan(tmp_path / "records", org_id=ORG) as newest,
        es.EnrichmentStore.scan(table, org_id=ORG) as pinned,
    ):
        assert store.load(tmp_path / "records").inserted == 9
        later = made(16, ORG, status="failed", updatedAt="2026-11-16T08:30:00Z")
        delta(tmp_path / "records", rows(later), mode="append")
        assert statuses(newest, task(16)) == ["failed"]
        assert statuses(pinned, task(16)) == ["finished"]
        assert store.load(tmp_path / "records").updated == 1
        assert set(store.lookup(tasks, now=NOW)["status"]) == {"finished", "failed"}
        assert newest.lookup_to(tasks, tmp_path / "o.csv", now=NOW).rows == 2
        with pytest.raises(es.ValidationError, match=r"records' is not replaced"):
            newest.lookup_to(tasks, tmp_path / "records", now=NOW, overwrite=True)
        with pytest.raises(es.ValidationError, match=r"names files of a Delta table.*give the table: '.*records'"):
            store.load(tmp_path / "records" / "orgId=org_1" / "**" / "*.parquet")
        with pytest.raises(es.ValidationError, match="need the columns createdAt, status; found entityId, field"):
            es.EnrichmentStore.scan(tasks, org_id=ORG)
    where = ["--records", str(tmp_path / "records"), "--org", ORG, "--now", NOW]
    assert main(["lookup", str(tasks), *where, "-o", str(tmp_path / "cli.csv")]) == 0
    assert set(pd.read_csv(tmp_path / "cli.csv")["status"]) == {"finished", "failed"}
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(es.ValidationError, match=r"records' is a Delta table.*pip install \"enrichstatus\[delta\]\""):
        es.EnrichmentStore.scan(tmp_path / "records", org_id=ORG)


def test_a_delta_table_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A table on S3 is given as an object of deltalake; its address alone says so, and a refusal shows no key."""
    require("deltalake")
    import deltalake

    delta(tmp_path / "records", rows(*RECORDS))
    with running() as lake:
        for path in (tmp_path / "records").rglob("*.*"):
            lake.put(f"records/{path.relative_to(tmp_path / 'records')}", path.read_bytes())
        reached = {"AWS_ENDPOINT_URL": lake.url, "AWS_ALLOW_HTTP": "true", "AWS_REGION": "us-east-1"}
        keys = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}
        table = deltalake.DeltaTable("s3://lake/records", storage_options=reached | keys)
        with es.EnrichmentStore.scan(table, org_id=ORG) as source, es.EnrichmentStore(org_id=ORG) as store:
            assert statuses(source, task(15)) == ["finished"]
            assert store.load(table).inserted == 9
            with pytest.raises(
                es.ValidationError, match=r"is a Delta table; give deltalake\.DeltaTable\('s3://lake/records'"
            ):
                store.load("s3://lake/records", storage_options=lake.options)
            lake.fault = lambda request: 403
            with pytest.raises(es.StoreError, match=r"^'s3://lake/records' cannot be read: ") as caught:
                source.lookup([task(15)])
            assert SECRET not in str(caught.value)


def test_a_table_that_vanishes_loads_nothing(tmp_path: Path):
    """Files of a table that are gone are an error; a load of such a table is undone."""
    table = delta(tmp_path / "records", rows(*RECORDS))
    shutil.rmtree(tmp_path / "records" / "orgId=org_2")
    with es.EnrichmentStore(org_id=ORG) as store:
        with pytest.raises(es.EnrichStatusError, match="records"):
            store.load(table)
        assert len(store.records()) == 0
