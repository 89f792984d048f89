"""Whose a record is: whatever the spelling, the format and the source, no record is ever another organization's."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import enrichstatus as es
from enrichstatus.schema import COLUMNS, snake
from tests.support.cases import cases
from tests.support.factory import NOW, ORG, record, task

ORGS = (ORG, "rival", "007", "Org_1", "ORG_1", "0x1F")
SPACES = ("", " ", "\t", "\u00a0", " \n")
Records = list[dict[str, Any]]


@st.composite
def spelled(draw: st.DrawFn) -> tuple[Records, list[str]]:
    """Give records, each with spellings of its names and its organization of its own, and whose each is."""
    records, owners = [], []
    for number in range(draw(st.integers(1, 4))):
        whose = draw(st.sampled_from(ORGS))
        given_names = {}
        for name, value in record(
            number, orgId=draw(st.sampled_from(SPACES)) + whose + draw(st.sampled_from(SPACES))
        ).items():
            shape = draw(
                st.sampled_from(
                    [str, str, snake, str.upper, str.lower, lambda text: f" {text}", lambda text: f"\ufeff{text}"]
                )
            )
            # at the beginning of a CSV file a byte order mark is none of the header
            given_names[name if name == "id" else shape(name)] = value
        records.append(given_names)
        owners.append(whose)
    return records, owners


def written(records: Records, folder: Path) -> dict[str, Any]:
    """Give the same records in every format that can hold them."""
    names = list(dict.fromkeys(name for one in records for name in one))
    rows = [{name: one.get(name) for name in names} for one in records]
    text = [{name: None if value is None else str(value) for name, value in row.items()} for row in rows]
    table = pa.table({name: pa.array([row[name] for row in text], pa.string()) for name in names})
    (folder / "r.json").write_text(json.dumps(records))
    (folder / "r.ndjson").write_text("\n".join(map(json.dumps, records)))
    table.to_pandas().to_csv(folder / "r.csv", index=False)
    pq.write_table(table, folder / "r.parquet")
    return {
        "list": records,
        "pandas": pd.DataFrame(rows),
        "polars": pl.from_arrow(table),
        "arrow": table,
        **{ending: folder / f"r.{ending}" for ending in ("json", "ndjson", "csv", "parquet")},
    }


@settings(max_examples=cases(2, 100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(spelled())
def test_every_format_gives_the_same_store_and_nobody_sees_anothers_records(given_records: tuple[Records, list[str]]):
    """Each organization finds its records and no other's, whoever opened the store, from every format, loaded or scanned."""
    records, owners = given_records
    tasks = [task(number) for number in range(len(records))]
    with TemporaryDirectory() as folder:
        for kind, data in written(records, Path(folder)).items():
            with es.EnrichmentStore(org_id=ORG) as store:
                store.load(data)
                _check(store, tasks, owners, kind)
        names = {name for one in records for name in one}
        if len(set(map(str.casefold, names))) < len(names):
            with pytest.raises(es.ValidationError, match="cannot distinguish"):
                es.EnrichmentStore.scan(Path(folder) / "r.parquet", org_id=ORG)
        else:
            with es.EnrichmentStore.scan(Path(folder) / "r.parquet", org_id=ORG) as scan:
                _check(scan, tasks, owners, "scan")


def _check(source: Any, tasks: Any, owners: list[str], kind: str) -> None:
    for org in ORGS:
        found = source.lookup(tasks, columns=["status", "orgId"], org_id=f" {org}", now=NOW)
        assert found["orgId"].dropna().isin([org]).all(), kind
        assert found["status"].notna().tolist() == [owner == org for owner in owners], kind
        rows = source.records(COLUMNS, org_id=org).to_pylist()
        assert sorted(row["entityId"] for row in rows) == sorted(
            one["entityId"] for one, owner in zip(tasks, owners, strict=True) if owner == org
        ), kind


@pytest.mark.parametrize(
    "name", ["customerOrg", "owner_org", "parent-organization_id", "\uff4f\uff52\uff47\uff29\uff44", "myTenant"]
)
def test_what_looks_like_the_organization_is_not_left_aside(name: str):
    """With a word before it, too; a word that only ends alike is something else, and so is an account of another kind."""
    plain = {key: value for key, value in record(0).items() if key != "orgId"}
    with es.EnrichmentStore(org_id=ORG) as store:
        with pytest.raises(es.ValidationError, match=f"{name} looks like the organization"):
            store.load([plain | {name: "org_2"}])
        assert store.load([plain | {name: "org_2"}], columns={name: "orgId"}).inserted == 1
        with pytest.warns(es.OrganizationWarning):
            assert store.lookup([task(0)])["status"].isna().all()
    with es.EnrichmentStore(org_id=ORG) as store:
        assert store.load([plain | {"cyborg": "x", "bankAccount": "y"}]).inserted == 1


def test_a_file_in_folders_of_two_organizations_is_refused(tmp_path: Path):
    """Neither of ``orgId=a/orgId=b`` wins, whoever reads; one that stands twice alike is one."""
    for inner, fits in (("org_2", False), ("org_1", True)):
        folder = tmp_path / inner / "orgId=org_1" / f"orgId={inner}"
        folder.mkdir(parents=True)
        pq.write_table(pa.Table.from_pylist([record(0, orgId=None)]), path := folder / "r.parquet")
        with es.EnrichmentStore() as store:
            if fits:
                assert store.load(path).inserted == 1
                continue
            for read in (store.load, es.EnrichmentStore.scan):
                with pytest.raises(es.ValidationError, match=r"two folders orgId=…, and they differ") as caught:
                    read(path)
                assert "org_2" not in str(caught.value)


@pytest.mark.parametrize("path", [None, 3, b"x.duckdb"])
def test_a_path_that_is_none_is_refused(path: Any):
    """By the name of the argument, not by an error of Python's."""
    with pytest.raises(es.ValidationError, match=r"path= takes the name of a file"):
        es.EnrichmentStore(path)


@pytest.mark.parametrize("nested", [{"id": "org_2"}, ["org_2"], {}, []])
def test_an_object_is_no_organization(tmp_path: Path, nested: object):
    """In a file, a list and a frame: a record whose organization or status is an object or a list is bad, and nobody's."""
    for column in ("orgId", "status"):
        rows = [record(0), record(1) | {column: nested}]
        (tmp_path / "r.json").write_text(json.dumps(rows))
        for records in (
            tmp_path / "r.json",
            rows,
            pa.table({name: pa.array([row[name] for row in rows[1:]]) for name in rows[0]}),
        ):
            with es.EnrichmentStore(org_id=ORG) as store:
                with pytest.raises(es.ValidationError, match=f"{column} .*is not text"):
                    store.load(records)
                assert store.load(records, errors="reject").rejected == 1
