"""Records where they lie, in Parquet: what is read, what is skipped, and what is refused."""

from __future__ import annotations

import multiprocessing
import pickle
import re
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.schema import COLUMNS
from enrichstatus.sources.store.scanning import scan as scanning
from tests.support.cases import crossed
from tests.support.factory import NOW, ORG, record, task, uid


def written(path: Path, *records: dict[str, Any], drop: tuple[str, ...] = ()) -> Path:
    """Write records to a Parquet file as text, without some columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(_table(*records).drop_columns(list(drop)), path)
    return path


def _table(*records: dict[str, Any]) -> pa.Table:
    schema = pa.schema([(name, pa.bool_() if name == "dataFound" else pa.string()) for name in COLUMNS])
    return pa.Table.from_pylist(list(records), schema)


def statuses(source: es.Source, *tasks: Any, **options: Any) -> list[Any]:
    answer = source.lookup(list(tasks), **{"now": NOW} | options)
    return [None if pd.isna(value) else value for value in answer["status"]]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Give a list that says which files were chosen to be read for the question asked last."""
    names: list[str] = []
    relation = scanning._relation

    def told(con: Any, chosen: Any) -> Any:
        names[:] = [Path(file.path).name for file in chosen]
        return relation(con, chosen)

    monkeypatch.setattr(scanning, "_relation", told)
    return names


def test_types_and_text_are_read_alike(tmp_path: Path):
    """UUIDs, instants and booleans may be typed or text, by file; naive times are UTC; an absent type is a person."""
    text = written(
        tmp_path / "1.parquet", record(0), record(1, status="pending", dataFound=None, createdAt="2026-11-16 08:55:00")
    )
    with duckdb.connect() as con:
        con.register("typed", _table(record(2), record(3, dataFound=False)).drop_columns("entityType"))
        typed = con.sql(
            "select * replace (entityId::uuid as entityId, id::uuid as id, createdAt[:-2]::timestamp as createdAt) from typed"
        )
        typed.write_parquet(str(tmp_path / "2.parquet"))
    # by name: the second file has other columns in another order
    with es.EnrichmentStore.scan([text, tmp_path / "2.parquet"], org_id=ORG, errors="reject") as source:
        # a null type in a column of types is bad; in a file of its own an absent one is a person
        assert statuses(source, task(0), task(1)) == ["finished", "pending"]
    with es.EnrichmentStore.scan(tmp_path / "2.parquet", org_id=ORG) as source:
        answer = source.lookup([task(2), task(3)], columns=["dataFound", "createdAt"], now=NOW)
    assert answer["dataFound"].tolist() == [True, False]
    assert answer["createdAt"][0] == pd.Timestamp("2026-11-16T08:00:00Z")


def test_files_of_other_organizations_are_not_read(tmp_path: Path, opened: list[str]):
    """Of folders by organization only the asking one's are read; what the folder says is whose the records are."""
    for org in ("org_1", "org_2", "a b"):
        written(
            tmp_path / f"orgId={org.replace(' ', '%20')}" / f"{org}.parquet", record(0, status=org), drop=("orgId",)
        )
    with es.EnrichmentStore.scan(tmp_path / "*/*.parquet", org_id=ORG) as source:
        assert statuses(source, task(0)) == ["org_1"]
        assert opened == ["org_1.parquet"]
        assert statuses(source, task(0), org_id="a b") == ["a b"]
        assert opened == ["a b.parquet"]
        assert statuses(source, task(0), org_id="org_3") == [None]
        assert len(opened) == 1
    nobody = written(tmp_path / "n" / "orgId=__HIVE_DEFAULT_PARTITION__" / "n.parquet", record(1), drop=("orgId",))
    with es.EnrichmentStore.scan(nobody, org_id=ORG) as source:
        assert statuses(source, task(1)) == ["finished"]
        assert statuses(source, task(1), org_id="org_2") == [None]


@pytest.mark.parametrize(
    ("name", "where"),
    crossed(["orgid", "ORGID", "OrgId", "org_ID", " org_id", "\ufefforgId"], ["in a folder", "in a column"]),
)
def test_an_organization_spelled_otherwise_is_nobody_elses(tmp_path: Path, name: str, where: str):
    """A folder or a column that folds to orgId is the organization, in a scan as in a load, and no record becomes the asker's."""
    folder = written(tmp_path / f"{name}=org_2" / "r.parquet", record(0), drop=("orgId",))
    path = folder if where == "in a folder" else tmp_path / "column.parquet"
    if where == "in a column":
        pq.write_table(pq.read_table(folder, partitioning=None).append_column(name, pa.array(["org_2"])), path)
    loaded = es.EnrichmentStore(org_id=ORG)
    loaded.load(path)
    with es.EnrichmentStore.scan(path, org_id=ORG) as scanned:
        for source in (loaded, scanned):
            assert statuses(source, task(0)) == [None]
            assert statuses(source, task(0), org_id="org_2") == ["finished"]


WRITERS: dict[str, Any] = {
    ".csv": lambda frame, path: frame.to_csv(path, index=False),
    ".json": lambda frame, path: frame.to_json(path, orient="records"),
    ".ndjson": lambda frame, path: frame.to_json(path, orient="records", lines=True),
    ".parquet": lambda frame, path: frame.to_parquet(path),
}


@pytest.mark.parametrize(("folder", "ending"), crossed(["0x1F", "007", "1e3", "a b", "null", "2026-11-01"], WRITERS))
def test_a_folder_of_an_organization_binds_as_text_in_every_format(tmp_path: Path, folder: str, ending: str):
    """orgId=0x1F is not 31, whatever lies in it; and a record that disagrees with its folder is refused."""
    place = tmp_path / f"orgId={quote(folder)}"
    place.mkdir()
    wrong = pd.DataFrame([record(0)])
    nameless = wrong.drop(columns="orgId")
    WRITERS[ending](nameless, place / f"r{ending}")
    WRITERS[ending](wrong, place / f"wrong{ending}")
    store = es.EnrichmentStore(org_id=ORG)
    store.load(place / f"r{ending}")
    assert statuses(store, task(0)) == [None]
    assert statuses(store, task(0), org_id=folder) == ["finished"]
    with pytest.raises(es.ValidationError, match="orgId stands there more than once, and differs") as caught:
        store.load(place / f"wrong{ending}")
    assert ORG not in str(caught.value)
    nameless.to_parquet(place / "r.parquet")
    wrong.to_parquet(place / "wrong.parquet")
    with es.EnrichmentStore.scan(place / "r.parquet", org_id=ORG) as source:
        assert statuses(source, task(0)) == [None]
        assert statuses(source, task(0), org_id=folder) == ["finished"]
    with (
        es.EnrichmentStore.scan(place / "wrong.parquet", org_id=folder) as source,
        pytest.raises(es.ValidationError, match="orgId stands there more than once, and differs"),
    ):
        statuses(source, task(0))


def test_folders_tell_the_same_however_a_path_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """From within a folder by organization a relative path says whose the records are too; two = in one are refused."""
    written(tmp_path / "orgId=org_2" / "e" / "r.parquet", record(0), drop=("orgId",))
    monkeypatch.chdir(tmp_path / "orgId=org_2")
    with es.EnrichmentStore.scan("e/r.parquet", org_id=ORG) as source:
        assert statuses(source, task(0)) == [None]
    path = written(tmp_path / "orgId=a=b" / "r.parquet", record(0), drop=("orgId",))
    with pytest.raises(es.ValidationError, match="holds two ="):
        es.EnrichmentStore.scan(path, org_id=ORG)
    both = written(tmp_path / "orgId=org_1" / "r.parquet", record(0))
    with es.EnrichmentStore.scan(both, org_id=ORG) as source:
        assert statuses(source, task(0)) == ["finished"]


def test_since_skips_days_and_older_records(tmp_path: Path, opened: list[str]):
    """Records created before `since` are left out, and files of earlier days, less one for other time zones, not read."""
    for day in (11, 14, 15, 16):
        made = record(day, createdAt=f"2026-11-{day}T12:00:00Z")
        written(tmp_path / f"day=2026-11-{day}" / f"{day}.parquet", made)
    with es.EnrichmentStore.scan(tmp_path / "**/*.parquet", org_id=ORG, since="2026-11-15T13:00:00Z") as source:
        assert statuses(source, *(task(day) for day in (11, 14, 15, 16))) == [None, None, None, "finished"]
    assert opened == ["14.parquet", "15.parquet", "16.parquet"]


def test_of_several_versions_of_a_record_the_newest_speaks(tmp_path: Path):
    """Exports overlap: the newest version of a record is the one that counts, in a lookup and in the history."""
    versions = [
        record(0, status="pending", dataFound=None, updatedAt=None),
        record(0, status="finished", updatedAt="2026-11-16T08:03:00Z"),
        record(0, status="failed", dataFound=None, updatedAt="2026-11-16T08:02:00Z"),
        record(1, status="pending", dataFound=None, updatedAt=None),
        record(1, status="failed", dataFound=None, updatedAt=None),
    ]
    for number, version in enumerate(versions):
        written(tmp_path / f"{number}.parquet", version)
    store = es.EnrichmentStore(org_id=ORG)
    store.load(versions)
    with es.EnrichmentStore.scan(tmp_path / "*.parquet", org_id=ORG) as source:
        assert statuses(source, task(0), task(1)) == statuses(store, task(0), task(1)) == ["finished", "failed"]
        assert sorted(source.records(("id", "status")).to_pylist(), key=str) == sorted(
            store.records(("id", "status")).to_pylist(), key=str
        )
        assert es.waste(source).frame.equals(es.waste(store).frame)


def test_an_older_version_answers_no_task_also_of_another_key_or_instant(tmp_path: Path):
    """A record whose newest version is of another entity or another createdAt answers as in a store that loaded the files."""
    newer = {"updatedAt": "2026-11-16T08:30:00Z"}
    same = record(4, status="failed", dataFound=None, error=None)
    versions = [
        record(0),
        record(0, entityId=record(1)["entityId"], **newer),  # moved
        record(2, createdAt="2026-11-16T08:20:00Z", updatedAt="2026-11-16T08:21:00Z"),
        record(2, createdAt="2026-11-16T08:00:00Z", status="failed", dataFound=None, **newer),  # began earlier
        same,
        same | {"error": "no credits"},
    ]
    for number, version in enumerate(versions):
        written(tmp_path / f"{number}.parquet", version)
    tasks = [task(number) for number in (0, 1, 2, 4)]
    with es.EnrichmentStore(org_id=ORG) as store, es.EnrichmentStore.scan(tmp_path / "*.parquet", org_id=ORG) as source:
        store.load(versions)
        expected = store.lookup(tasks, columns="all")
        assert expected["status"].isna().tolist() == [True, False, False, False]
        assert expected["status"].tolist()[1:] == ["finished", "failed", "failed"]
        assert expected["error"].tolist()[3] == "no credits"
        pd.testing.assert_frame_equal(source.lookup(tasks, columns="all"), expected)


def test_everything_that_reads_a_store_reads_a_scan(tmp_path: Path):
    """plan, timing, query and the repr work over it; there is nothing to load into, and a poll does not remember in it."""
    written(tmp_path / "r.parquet", record(0), record(1, field="phones", status="pending", dataFound=None))
    source = es.EnrichmentStore.scan(tmp_path / "r.parquet", org_id=ORG)
    assert es.plan(source, [task(0), task(7)], now=NOW).frame["action"].tolist() == ["have", "trigger"]
    assert [one["status"] for one in source.query({"tasks": [task(0)]}, now=NOW)] == ["finished"]
    assert len(es.timing(source, now=NOW).frame) == 2
    assert re.search(
        r"EnrichmentStore\.scan\('.*r\.parquet', org_id='org_1'\)\n2 records in 1 file of .* read where", repr(source)
    )
    assert not hasattr(source, "load")
    with pytest.raises(es.ValidationError, match="into= takes an EnrichmentStore"):
        es.wait(es.EnrichmentStore(org_id=ORG), [task(0)], into=source, progress=False)
    source.close()
    assert "closed" in repr(source)
    with pytest.raises(es.StoreError, match="closed"):
        source.lookup([task(0)])


def test_columns_under_other_names(tmp_path: Path):
    """Renames and snake_case are understood; what is not there is said by file."""
    table = pa.table(
        {"contact": [uid(0)], "field": ["emails"], "status": ["finished"], "created_at": ["2026-11-16T08:00:00Z"]}
    )
    pq.write_table(table, tmp_path / "r.parquet")
    with es.EnrichmentStore.scan(tmp_path / "r.parquet", org_id=ORG, columns={"contact": "entityId"}) as source:
        assert statuses(source, task(0)) == ["finished"]
    with pytest.raises(
        es.ValidationError, match=r"r\.parquet' does not fit: Records need the column entityId; found contact"
    ):
        es.EnrichmentStore.scan(tmp_path / "r.parquet", org_id=ORG)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "entityId": ({"entityId": "nonsense"}, "entityId 'nonsense' is not a UUID"),
    "no entityId": ({"entityId": None}, "entityId is missing"),
    "field": ({"field": "fax"}, "field 'fax' is not one of emails, phones, summary"),
    "entityType": ({"entityType": "robot"}, "entityType 'robot' is not one of person, company"),
    "createdAt": ({"createdAt": "yesterday"}, "createdAt 'yesterday' is not an ISO 8601 timestamp"),
    "no createdAt": ({"createdAt": None}, "createdAt is missing"),
    "updatedAt": ({"updatedAt": "soon"}, "updatedAt 'soon' is not an ISO 8601 timestamp"),
    "status": ({"status": " "}, "status is missing"),
    "id": ({"id": "17"}, "id '17' is not a UUID"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_record_is_named_or_left_out(tmp_path: Path, bad: str):
    """A bad record of the organization of the request is an error that names it and its file, or is left out; another's is no business of ours."""
    members, message = BAD[bad]
    written(tmp_path / "r.parquet", record(0), record(1, **members))
    with es.EnrichmentStore.scan(tmp_path / "r.parquet", org_id=ORG) as source:
        with pytest.raises(es.ValidationError, match=re.escape(message)) as caught:
            source.lookup([task(0)], now=NOW)
        assert "r.parquet" in str(caught.value)
        assert 'errors="reject"' in str(caught.value)
        assert statuses(source, task(0), org_id="org_2") == [None]
    with es.EnrichmentStore.scan(tmp_path / "r.parquet", org_id=ORG, errors="reject") as source:
        assert statuses(source, task(0), task(1)) == ["finished", None]
        assert source.records("id").num_rows == 1


def test_files_that_are_no_records_are_refused_by_name(tmp_path: Path):
    """A truncated file, an empty one, one of another schema, another format, none, and folders of two kinds."""
    good = written(tmp_path / "good.parquet", record(0))
    whole = good.read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(es.ValidationError, match=r"cannot be read.*cut\.parquet"):
        es.EnrichmentStore.scan(tmp_path / "*.parquet", org_id=ORG)
    (tmp_path / "cut.parquet").write_bytes(b"")
    with pytest.raises(es.ValidationError, match=r"cut\.parquet' is empty \(0 bytes\)"):
        es.EnrichmentStore.scan(tmp_path / "*.parquet", org_id=ORG)
    pq.write_table(pa.table({"name": ["Ada"]}), tmp_path / "cut.parquet")
    with pytest.raises(es.ValidationError, match=r"cut\.parquet' does not fit: Records need the column"):
        es.EnrichmentStore.scan(tmp_path / "*.parquet", org_id=ORG)
    (tmp_path / "r.csv").write_text("id\n")
    with pytest.raises(es.ValidationError, match="is not a Parquet file"):
        es.EnrichmentStore.scan(tmp_path / "r.csv", org_id=ORG)
    with pytest.raises(es.ValidationError, match="matches no file"):
        es.EnrichmentStore.scan(tmp_path / "none*.parquet", org_id=ORG)
    with pytest.raises(es.ValidationError, match=r"not DataFrame.*load"):
        es.EnrichmentStore.scan(pd.DataFrame([record(0)]), org_id=ORG)  # type: ignore[arg-type]
    within = written(tmp_path / "day=2026-11-16" / "r.parquet", record(1))
    with pytest.raises(es.ValidationError, match=r"lies in folders by nothing.*by day"):
        es.EnrichmentStore.scan([good, within], org_id=ORG)


def test_no_records_are_no_error(tmp_path: Path):
    """A Parquet file without rows is an empty data set."""
    with es.EnrichmentStore.scan(written(tmp_path / "r.parquet"), org_id=ORG) as source:
        assert statuses(source, task(0)) == [None]
        assert "0 records" in repr(source)


def test_a_file_that_goes_away_is_an_error_that_names_it(tmp_path: Path):
    """What is removed or cut off while the source is open is reported, not answered as no record."""
    path = written(tmp_path / "r.parquet", *(record(n) for n in range(100)))
    with es.EnrichmentStore.scan(path, org_id=ORG) as source:
        path.write_bytes(path.read_bytes()[:-200])
        with pytest.raises(es.StoreError, match=r"r\.parquet"):
            source.lookup([task(0)])
        path.unlink()
        with pytest.raises(es.StoreError, match=r"r\.parquet"):
            source.lookup([task(0)])


def test_files_that_arrive_change_or_go_are_seen_by_the_next_question(tmp_path: Path):
    """A scan that stays open answers from what its names lead to when it is called, in every kind of question."""
    written(tmp_path / "1.parquet", record(0))
    with es.EnrichmentStore.scan(tmp_path / "*.parquet", org_id=ORG) as source:
        assert statuses(source, task(0), task(1)) == ["finished", None]
        written(tmp_path / "2.parquet", record(1, status="failed"))
        assert statuses(source, task(0), task(1)) == ["finished", "failed"]
        assert es.plan(source, [task(1)], now=NOW).frame["action"].tolist() == ["retry"]
        assert "2 records in 2 files" in repr(source)
        written(tmp_path / "3.parquet", record(1, createdAt="2026-11-16T08:30:00Z", id=uid(77)))
        assert len(source.records()) == 3
        pd.DataFrame([task(0), task(1)]).to_csv(tmp_path / "tasks.csv", index=False)
        written(tmp_path / "1.parquet", record(0, status="failed"), record(2))
        source.lookup_to(tmp_path / "tasks.csv", tmp_path / "out.csv", now=NOW)
        assert pd.read_csv(tmp_path / "out.csv")["status"].tolist() == ["failed", "finished"]
        (tmp_path / "3.parquet").unlink()
        assert statuses(source, task(0), task(1)) == ["failed", "failed"]
        assert "3 records in 2 files" in repr(source)
        (tmp_path / "4.parquet").write_bytes(b"PAR1 this is none")
        with pytest.raises(es.StoreError, match=r"4\.parquet"):
            source.lookup([task(0)])


def test_one_question_sees_one_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where a file is replaced or removed while it is read, the question is answered anew, of the state it then finds."""
    paths = [written(tmp_path / f"{n}.parquet", record(n)) for n in range(2)]
    relation = scanning._relation
    changes = [
        lambda: written(paths[0], record(0, status="failed"), record(2)),
        paths[1].unlink,
        *[lambda n=n: written(paths[0], *(record(0) for _ in range(n + 3))) for n in range(4)],  # type: ignore[misc]
    ]

    def meanwhile(con: Any, chosen: Any) -> Any:
        made = relation(con, chosen)
        changes.pop(0)()
        return made

    with es.EnrichmentStore.scan(tmp_path / "*.parquet", org_id=ORG) as source:
        monkeypatch.setattr(scanning, "_relation", meanwhile)
        with pytest.raises(es.StoreError, match="were changed while they were read"):
            source.records()
        assert len(changes) == 5
        with pytest.raises(es.StoreError, match=r"1\.parquet|were changed while"):
            source.records()
        with pytest.raises(es.StoreError, match="were changed while they were read; look up again"):
            source.lookup([task(0)], now=NOW)
        assert changes == []
        changes[:] = [lambda: written(paths[0], record(0, status="failed")), lambda: None]
        assert statuses(source, task(0)) == ["failed"]
        assert changes == []


def test_a_scan_is_sent_to_another_process_and_outlives_a_fork(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pickled it reads the same files by the same settings, wherever the program has gone; a forked child reads them afresh."""
    written(tmp_path / "1.parquet", record(0), record(1, orgId="org_2"))
    monkeypatch.chdir(tmp_path)
    with es.EnrichmentStore.scan("*.parquet", org_id=ORG, since="2026-01-01") as source:
        monkeypatch.chdir("/")
        with pickle.loads(pickle.dumps(source)) as other:
            assert statuses(other, task(0), task(1)) == ["finished", None]
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(statuses, (source, task(0))) == ["finished"]
        assert statuses(source, task(0)) == ["finished"]
