"""A file of an earlier version is upgraded when it is opened to be written, wholly or not at all."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
from pathlib import Path

import duckdb
import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.schema import COLUMNS
from enrichstatus.sources.store.database.connection import VERSION
from tests.support.cases import cases
from tests.support.drawn import records, tasks
from tests.support.earlier import file_of_version_1, file_of_version_2
from tests.support.factory import NOW, record

COMMAND = [sys.executable, "-c"]
HERE = Path(__file__).parents[2]


def contents(store: es.EnrichmentStore) -> list[tuple[object, ...]]:
    with store._cursor() as con:
        return con.execute("select columns(* exclude load)::varchar from enrichments order by id, orgId").fetchall()


@pytest.mark.parametrize("index", [True, False], ids=["indexed", "not yet indexed"])
def test_an_upgraded_file_is_as_one_that_was_loaded_anew(tmp_path: Path, index: bool):
    """Its records, their winners and every answer; also where an earlier load was killed before it had made the index."""
    loaded = records(random.Random(1), 400)
    path = file_of_version_1(tmp_path / "s.duckdb", loaded, index=index)
    asked = tasks(random.Random(2), 300)
    with es.EnrichmentStore() as anew, es.EnrichmentStore(path) as store:
        anew.load(loaded)
        assert contents(store) == contents(anew)
        for org in ("org_0", "org_1"):
            answers = [one.lookup(asked, org_id=org, now=NOW, columns="all", prefix="r_") for one in (store, anew)]
            pd.testing.assert_frame_equal(*answers)
        assert store.load(loaded).unchanged == 400
        with store._cursor() as con:
            assert con.execute("select index_name from duckdb_indexes()").fetchall() == [("enrichment_probes",)]
            tables = con.execute("select table_name from duckdb_tables() order by all").fetchall()
            names = [name for (name,) in tables]
            assert names == [*(f"enrichment_{name}" for name in ("loads", "log", "version", "versions")), "enrichments"]
    with es.EnrichmentStore(path, read_only=True, org_id="org_1") as again:
        assert len(again.records()) == sum(orgId == "org_1" for *_, orgId in contents_of(loaded))


def test_a_file_of_version_2_keeps_from_then_on_what_changed(tmp_path: Path):
    """It is as it was, in content and answers; its first cursor stands after all that it had."""
    loaded, asked = records(random.Random(6), 200), tasks(random.Random(7), 100)
    path = file_of_version_2(tmp_path / "s.duckdb", loaded)
    with pytest.raises(es.StoreError, match="earlier enrichstatus"):
        es.EnrichmentStore(path, read_only=True)
    with es.EnrichmentStore(org_id="org_1") as anew, es.EnrichmentStore(path, org_id="org_1") as store:
        anew.load(loaded)
        assert contents(store) == contents(anew)
        answers = [one.lookup(asked, now=NOW, columns="all", prefix="r_") for one in (store, anew)]
        pd.testing.assert_frame_equal(*answers)
        assert len(store.changes()) == len(anew.changes()) > 0
        cursor = store.changes().cursor
        assert store.load(loaded).unchanged == 200
        assert len(store.changes(cursor)) == 0
        known = store.records().slice(0, 1).to_pylist()[0]
        store.load([record(1, orgId="org_1"), known | {"updatedAt": "2027-01-01T00:00:00Z", "status": "anew"}])
        assert sorted(store.changes(cursor).frame["previousStatus"].fillna("")) == ["", known["status"]]


def contents_of(loaded: list[dict[str, object]]) -> list[tuple[object, ...]]:
    with es.EnrichmentStore() as store:
        store.load(loaded)
        with store._cursor() as con:
            return con.execute("select id, orgId from enrichments").fetchall()


def test_fields_of_its_own_stay(tmp_path: Path):
    """A file that was made with other fields keeps them; opened with others it is refused, and stays as it was."""
    path = file_of_version_1(tmp_path / "s.duckdb", [], fields=["fax"])
    with pytest.raises(es.ValidationError, match="made with the fields fax"):
        es.EnrichmentStore(path, fields=["emails"])
    with pytest.raises(es.StoreError, match="earlier enrichstatus"):
        es.EnrichmentStore(path, read_only=True)
    with es.EnrichmentStore(path) as store:
        assert store.fields == ("fax",)


def test_readers_of_an_earlier_file_say_what_to_do(tmp_path: Path):
    """At once, in processes of their own: each says that the file has to be opened to be written, and none changes it."""
    path = file_of_version_1(tmp_path / "s.duckdb", records(random.Random(3), 50))
    before = path.read_bytes()
    script = "import sys, enrichstatus as es; es.EnrichmentStore(sys.argv[1], read_only=True)"
    readers = [
        subprocess.Popen([*COMMAND, script, str(path)], cwd=HERE, stderr=subprocess.PIPE, text=True)
        for _ in range(cases(3, 10))
    ]
    for reader in readers:
        _, said = reader.communicate()
        assert "is a store of an earlier enrichstatus" in said
        assert f"EnrichmentStore({str(path)!r}).close()" in said
    assert path.read_bytes() == before


def test_a_file_of_a_later_version_is_refused(tmp_path: Path):
    """It says which version the file has, and to update, whether it is opened to be read or to be written."""
    path = tmp_path / "s.duckdb"
    es.EnrichmentStore(path).close()
    with duckdb.connect(str(path)) as con:
        con.execute("update enrichment_version set version = 7")
    for read_only in (True, False):
        with pytest.raises(
            es.StoreError, match=f"version 7 of the file; this one knows {VERSION}.*pip install --upgrade"
        ):
            es.EnrichmentStore(path, read_only=read_only)


@pytest.mark.parametrize(
    "moment", ["before it is written into the file", "before it commits", "after it has committed"][: cases(1, 3)]
)
def test_a_killed_upgrade_leaves_a_whole_file(tmp_path: Path, moment: str):
    """``kill -9`` at any moment: the file opens as it was or as it will be, and answers alike."""
    loaded = records(random.Random(4), 400)
    path = file_of_version_1(tmp_path / "s.duckdb", loaded)
    script = textwrap.dedent(
        """
        import os, signal, sys
        from contextlib import suppress
        import enrichstatus as es
        from enrichstatus.sources.store.database import connection
        path, moment = sys.argv[1:]
        in_one, die = connection._in_one, lambda: os.kill(os.getpid(), signal.SIGKILL)
        if moment == "before it is written into the file":
            connection.INDEX_SQL = connection.INDEX_SQL + "; select die()"
        def killed(con, change):
            con.create_function("die", lambda: die(), [], "INTEGER", side_effects=True)
            if moment == "before it commits":
                in_one(con, lambda: (change(), die()))
            in_one(con, change)
            if moment == "after it has committed":
                die()
        connection._in_one = killed
        es.EnrichmentStore(path)
        """
    )
    killed = subprocess.run([*COMMAND, script, str(path), moment], check=False, cwd=HERE)
    assert killed.returncode == -9
    with es.EnrichmentStore() as anew, es.EnrichmentStore(path) as store:
        anew.load(loaded)
        assert contents(store) == contents(anew)
        assert store.load(loaded).unchanged == 400
        with store._cursor() as con:
            assert con.execute("select index_name from duckdb_indexes()").fetchall() == [("enrichment_probes",)]


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The error says which file, and the next opening upgrades it."""
    from enrichstatus.sources.store.database import connection

    loaded = records(random.Random(5), 100)
    path = file_of_version_1(tmp_path / "s.duckdb", loaded)
    with monkeypatch.context() as patched:
        patched.setattr(
            connection, "_UPGRADE_SQL", connection._UPGRADE_SQL + "; select error('No space left on device')"
        )
        with pytest.raises(es.StoreError, match=r"cannot be used as a store.*No space left"):
            es.EnrichmentStore(path)
    with pytest.raises(es.StoreError, match="earlier enrichstatus"):
        es.EnrichmentStore(path, read_only=True)
    with es.EnrichmentStore(path, org_id="org_1") as store:
        assert store.records().column_names == list(COLUMNS)
