"""The store itself: opening, sharing, failing, and what it says of itself."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.files.scratch import scratch
from enrichstatus.schema import COLUMNS, SCHEMA
from tests.support.cases import cases
from tests.support.factory import NOW, ORG, record, task, uid


def test_a_file_keeps_what_was_loaded(tmp_path: Path):
    """Closed and opened again, also read-only, a store answers the same."""
    path = tmp_path / "leads.duckdb"
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.load([record(0)])
    for read_only in (False, True):
        with es.EnrichmentStore(path, org_id=ORG, read_only=read_only) as store:
            assert store.lookup([task(0)], now=NOW)["status"].tolist() == ["finished"]


def test_a_read_only_store_cannot_load_and_says_so(tmp_path: Path):
    """Loading into a read-only store, or a closed one, is an error that says what to do."""
    es.EnrichmentStore(tmp_path / "s.duckdb").close()
    with (
        es.EnrichmentStore(tmp_path / "s.duckdb", read_only=True) as store,
        pytest.raises(es.StoreError, match="without read_only=True"),
    ):
        store.load([record(0)])
    with pytest.raises(es.StoreError, match="is closed; open it again"):
        store.lookup([task(0)], org_id=ORG)
    assert "closed" in repr(store)
    store.close()  # twice is once


def test_other_fields_can_be_allowed_when_a_store_is_made(tmp_path: Path):
    """``fields=`` is fixed with the file: kept when it is opened again, refused when it differs."""
    path = tmp_path / "s.duckdb"
    with es.EnrichmentStore(path, org_id=ORG, fields=["emails", "linkedin"]) as store:
        store.load([record(0, field="linkedin")])
        with pytest.raises(es.ValidationError, match="is not one of emails, linkedin"):
            store.load([record(1, field="phones")])
    with es.EnrichmentStore(path, org_id=ORG) as store:
        assert store.fields == ("emails", "linkedin")
        assert store.lookup([task(0, "linkedin")], now=NOW)["status"].tolist() == ["finished"]
    with pytest.raises(es.ValidationError, match="was made with the fields emails, linkedin"):
        es.EnrichmentStore(path, fields=["emails"])


@pytest.mark.parametrize(
    "options",
    [
        {"max_processing_time": "800"},
        {"max_processing_time": "soon"},
        {"max_processing_time": 0},
        {"max_processing_time": -5},
        {"max_processing_time": True},
        {"max_processing_time": float("nan")},
        {"max_processing_time": {"fax": "5min"}},
        {"max_processing_time": {"emails": "5 apples"}},
        {"fields": []},
        {"fields": ["a", "a"]},
        {"fields": [" a"]},
        {"fields": [1]},
    ],
    ids=str,
)
def test_an_unusable_setting_says_what_is_expected(options: dict[str, Any]):
    """Settings are evaluated when the store is opened, and named in the error."""
    with pytest.raises(es.ValidationError, match=next(iter(options)) + "="):
        es.EnrichmentStore(**options)


def test_what_is_no_store_is_refused_and_left_alone(tmp_path: Path):
    """A file that is no database, somebody else's database, and folders that are not there each have their own message."""
    noise = tmp_path / "noise.duckdb"
    noise.write_bytes(b"this is no database" * 100)
    with pytest.raises(es.StoreError, match="is not a DuckDB database"):
        es.EnrichmentStore(noise)
    assert noise.read_bytes() == b"this is no database" * 100
    theirs = tmp_path / "theirs.duckdb"
    with duckdb.connect(str(theirs)) as con:
        con.execute("create table leads (something int)")
    with pytest.raises(es.StoreError, match="is a database, but not a store"):
        es.EnrichmentStore(theirs)
    with duckdb.connect(str(theirs)) as con:
        assert con.execute("select table_name from duckdb_tables()").fetchall() == [("leads",)]
    with duckdb.connect(str(tmp_path / "empty.duckdb")) as con:
        con.execute("select 1")
    with pytest.raises(es.StoreError, match="is a database, but not a store"):
        es.EnrichmentStore(tmp_path / "empty.duckdb", read_only=True)
    with pytest.raises(es.StoreError, match="There is no folder"):
        es.EnrichmentStore(tmp_path / "nowhere" / "s.duckdb")
    with pytest.raises(es.StoreError, match="There is no store"):
        es.EnrichmentStore(tmp_path / "new.duckdb", read_only=True)
    with pytest.raises(es.StoreError):
        es.EnrichmentStore(tmp_path)


@pytest.mark.parametrize("name", ["", ".", ":memory:x", "leads.csv", "leads.json"])
def test_a_path_that_would_not_be_a_file_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Names that DuckDB reads as something else than its file, and then keeps nothing in, are refused."""
    monkeypatch.chdir(tmp_path)
    for content in (None, "", "lead_id\nx\n"):
        if content is not None and name.startswith("leads"):
            Path(name).write_text(content)
        with pytest.raises(es.StoreError):
            es.EnrichmentStore(name)
    es.EnrichmentStore("md:odd name'\".duckdb").close()
    assert (tmp_path / "md:odd name'\".duckdb").exists()


def test_an_organization_that_is_no_text_is_refused():
    """A number for an organization is an error that says so, wherever it is given."""
    with pytest.raises(es.ValidationError, match="org_id= is text, not int"):
        es.EnrichmentStore(org_id=17)  # type: ignore[arg-type]
    with pytest.raises(es.ValidationError, match="org_id= is text, not int"):
        es.EnrichmentStore().load([record(0)], org_id=17)  # type: ignore[arg-type]


def test_a_locked_file_says_who_holds_it(tmp_path: Path):
    """While another process writes to a file, opening it names that process and the ways out."""
    path = tmp_path / "s.duckdb"
    hold = "import sys, enrichstatus as es; s = es.EnrichmentStore(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        for read_only in (False, True):
            with pytest.raises(es.StoreLockedError, match=rf"is held by process {other.pid} .*read_only=True"):
                es.EnrichmentStore(path, read_only=read_only)
        other.communicate()
    es.EnrichmentStore(path).close()


def test_one_process_cannot_open_a_file_both_ways(tmp_path: Path):
    """Opened to write and read-only at once within a process is a StoreLockedError too, not DuckDB's."""
    with (
        es.EnrichmentStore(tmp_path / "s.duckdb"),
        pytest.raises(es.StoreLockedError, match="open in this process already"),
    ):
        es.EnrichmentStore(tmp_path / "s.duckdb", read_only=True)


def test_a_read_only_folder_says_so():
    """A file cannot be made where this user may not write; root, who may everywhere, asks as nobody."""
    script = textwrap.dedent(
        """
        import os, sys
        import enrichstatus as es
        es.EnrichmentStore().close()  # with all it imports, which nobody else may read
        if os.geteuid() == 0:
            os.setuid(65534)
        try:
            es.EnrichmentStore(os.path.join(sys.argv[1], "s.duckdb"))
        except es.StoreError as error:
            print(error)
        """
    )
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o555)
        done = subprocess.run([sys.executable, "-c", script, folder], check=True, capture_output=True, text=True)
    assert "Permission denied" in done.stdout


def test_a_failed_load_leaves_the_store_as_it_was(store: es.EnrichmentStore, monkeypatch: pytest.MonkeyPatch):
    """When DuckDB fails in the middle of the transaction, nothing of the load is there, and the next one works."""
    from enrichstatus.sources.store.loading import load as loading

    store.load([record(0)])
    with monkeypatch.context() as patch:
        patch.setattr(loading, "_COUNTS_SQL", "select error('the disk is full')")
        with pytest.raises(es.StoreError, match="the disk is full"):
            store.load([record(0, status="failed", updatedAt="2026-11-17"), record(1)])
    assert store.lookup([task(0), task(1)], now=NOW)["status"].fillna("-").tolist() == ["finished", "-"]
    assert store.load([record(1)]).inserted == 1


def test_ctrl_c_is_a_keyboard_interrupt_and_the_store_goes_on(store: es.EnrichmentStore):
    """Interrupted in the middle of a query, a store raises what Python raises, and answers the next question."""
    store.load([record(0)])
    tasks = pd.DataFrame([task(n) for n in range(1000)] * 500)
    main = threading.get_ident()
    looking = threading.Event()

    def interrupt() -> None:
        looking.wait()
        signal.pthread_kill(main, signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012  until it comes
        while True:
            looking.set()
            store.lookup(tasks, now=NOW)
    assert store.lookup([task(0)], now=NOW)["status"].tolist() == ["finished"]


@pytest.mark.parametrize(("text", "raised"), [("Query interrupted", KeyboardInterrupt), ("another", RuntimeError)])
def test_ctrl_c_is_a_keyboard_interrupt_where_no_store_is(text: str, raised: type[BaseException]):
    """So is what DuckDB makes of Ctrl-C in all else that passes through it: plans, and files that are read or written."""
    with pytest.raises(raised), scratch():
        raise RuntimeError(text)


def test_a_killed_load_leaves_the_file_as_it_was(tmp_path: Path):
    """``kill -9`` in the middle of a load loses that load and nothing else."""
    path = tmp_path / "s.duckdb"
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.load([record(n) for n in range(50)])
    script = textwrap.dedent(
        """
        import os, signal, sys
        import enrichstatus as es
        store = es.EnrichmentStore(sys.argv[1])
        with store._cursor() as con:
            con.begin()
            con.execute("update enrichments set status = 'lost'")
            con.execute("delete from enrichments where probe % 2 = 0")
            os.kill(os.getpid(), signal.SIGKILL)
        """
    )
    killed = subprocess.run([sys.executable, "-c", script, str(path)], check=False, cwd=Path(__file__).parents[2])
    assert killed.returncode == -9
    with es.EnrichmentStore(path, org_id=ORG) as store:
        assert store.lookup([task(n) for n in range(50)], now=NOW)["status"].eq("finished").all()
        assert store.load([record(n) for n in range(50)]).unchanged == 50


def test_updates_are_found_through_the_index(tmp_path: Path):
    """Loaded, updated and loaded again over several sessions, few tasks and many still get the same answer."""
    path = tmp_path / "s.duckdb"
    tasks = pd.DataFrame([task(n) for n in range(300)])
    for version in range(4):
        with es.EnrichmentStore(path, org_id=ORG) as store:
            store.load(
                [
                    record(n, status=f"v{version}", updatedAt=f"2026-11-16T08:0{version}:00Z")
                    for n in range(version, 300, version + 1)
                ]
            )
            whole = pd.concat([tasks] * 4)
            assert (
                store.lookup(whole, now=NOW)["status"].tolist() == store.lookup(tasks, now=NOW)["status"].tolist() * 4
            )


def test_two_loads_at_once_both_arrive():
    """Two threads that load the same and different records into one store leave each record once."""
    with es.EnrichmentStore(org_id=ORG) as store, ThreadPoolExecutor(8) as pool:
        reports = list(
            pool.map(lambda part: store.load([record(n) for n in range(part, part + 400)]), range(0, 800, 100))
        )
        assert sum(report.inserted for report in reports) == 1100
        assert "1,100 records" in repr(store)


def test_two_stores_on_one_file_in_one_process_load_at_once(tmp_path: Path):
    """Two store objects on one file, as two cells or two threads make them, do not store a record twice either."""
    path = tmp_path / "s.duckdb"

    def run(part: int) -> int:
        with es.EnrichmentStore(path, org_id=ORG) as store:
            return store.load([record(n) for n in range(part, part + 300)]).inserted

    with ThreadPoolExecutor(6) as pool:
        inserted = sum(pool.map(run, range(0, 600, 100)))
    with es.EnrichmentStore(path) as store:
        assert inserted == 800
        assert "800 records" in repr(store)


@pytest.mark.slow
def test_threads_that_look_up_while_one_loads_see_before_or_after():
    """Eight threads (32 with all cases) that look up while one loads: each answer is that of one moment, never of half a load."""
    versions, threads = cases(4, 12), cases(8, 32)
    tasks = pd.DataFrame([task(n) for n in range(150)])
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load([record(n, status="v00") for n in range(150)])
        done = threading.Event()

        def look(_: int) -> list[set[str]]:
            seen = []
            while not done.is_set() or not seen:
                seen.append(set(store.lookup(tasks, now=NOW)["status"]))
            return seen

        with ThreadPoolExecutor(threads) as pool:
            looks = [pool.submit(look, n) for n in range(threads)]
            for version in range(1, versions):
                store.load(
                    [
                        record(n, status=f"v{version:02}", updatedAt=f"2026-11-16T08:{version:02}:30Z")
                        for n in range(150)
                    ]
                )
            done.set()
            answers = [one.result() for one in looks]
    assert all(len(statuses) == 1 for seen in answers for statuses in seen)
    # time does not run backwards for anybody
    assert all(order == sorted(order) for order in ([next(iter(statuses)) for statuses in seen] for seen in answers))
    assert len({min(statuses) for seen in answers for statuses in seen}) > 1


def test_a_store_says_what_it_holds(store: es.EnrichmentStore, tmp_path: Path):
    """The repr names the file, the organizations and the records by field and status."""
    assert repr(store) == "EnrichmentStore(':memory:', org_id='org_1')\n0 records"
    store.load([record(0), record(1, field="phones"), record(2, status="pending", dataFound=None)])
    assert repr(store).splitlines() == [
        "EnrichmentStore(':memory:', org_id='org_1')",
        "3 records of org_1",
        "       pending finished total",
        "emails       1        1     2",
        "phones       0        1     1",
    ]
    with es.EnrichmentStore(tmp_path / "s.duckdb") as several:
        several.load([record(0), record(1, orgId="org_2"), record(2, orgId="org_2")])
        assert "3 records of org_2, org_1" in repr(several)


def test_a_store_opened_for_an_organization_does_not_tell_of_others(store: es.EnrichmentStore):
    """What a store says of itself keeps to the organization it was opened for."""
    store.load([record(0), record(1, orgId="org_secret", status="failed")])
    for text in (repr(store), store._repr_html_()):
        assert "secret" not in text
        assert "failed" not in text


def test_html_of_a_store_shows_names_and_never_runs_them(store: es.EnrichmentStore):
    """A status or an organization that is HTML is shown as text in a notebook."""
    store.load([record(0, status="<script>alert(1)</script>")])
    html = store._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "EnrichmentStore" in es.EnrichmentStore()._repr_html_()


def test_the_table_has_the_columns_of_the_schema(store: es.EnrichmentStore):
    """The engine's table and the schema name the same columns, in the same order, and come out as the schema's types."""
    with store._cursor() as con:
        names = [name for (name,) in con.execute("select name from pragma_table_info('enrichments')").fetchall()]
        assert names == [*COLUMNS, "probe", "superseded", "load"]
        assert con.table("enrichments").select(*COLUMNS).to_arrow_table().cast(SCHEMA).schema == SCHEMA


def test_a_store_in_memory_cannot_be_pickled(store: es.EnrichmentStore):
    """A store in memory cannot be sent to another process: that fails at once, and says why."""
    with pytest.raises(TypeError, match="is in the memory of this process"):
        pickle.dumps(store)


def test_lookups_leave_nothing_behind(store: es.EnrichmentStore):
    """What a call makes on the way is gone after it, also when it fails."""
    store.load([record(0)])
    for tasks in (
        [task(0)],
        [{"entityId": "nonsense", "field": "emails"}],
        pd.DataFrame([task(n) for n in range(2000)]),
    ):
        with pytest.MonkeyPatch.context():
            try:
                store.lookup(tasks, now=NOW)
            except es.ValidationError:
                assert tasks[0]["entityId"] == "nonsense"
    with store._cursor() as con:
        names = {
            name
            for (name,) in con.execute(
                "select table_name from duckdb_tables() union select view_name from duckdb_views() where not internal"
            ).fetchall()
        }
        beside = ("winners", "version", "versions", "loads", "log")
        assert names == {"enrichments", *(f"enrichment_{name}" for name in beside)}
    assert uid(0) in store.lookup([task(0)], now=NOW)["entityId"].tolist()


def test_a_call_can_name_another_organization(store: es.EnrichmentStore):
    """``org_id=`` of a call goes before the one the store was opened with."""
    store.load([record(0), record(1, orgId="org_2")])
    answer = store.lookup([task(0), task(1)], org_id="org_2", now=NOW)
    assert answer["status"].isna().tolist() == [True, False]
    for org_id in ("", "  "):  # a caller's empty one is a mistake, and not the store's
        with pytest.raises(es.ValidationError, match=r"^Organization ID is missing$"):
            store.lookup([task(0)], org_id=org_id)
    with pytest.raises(es.ValidationError, match="org_id="):
        store.lookup([task(0)], org_id=17)  # type: ignore[arg-type]


def test_without_now_the_clock_judges(store: es.EnrichmentStore):
    """Unless ``now=`` is given, the timeout rule is evaluated by the clock."""
    just_now = datetime.now(UTC).isoformat()
    store.load(
        [record(n, status="pending", dataFound=None, createdAt=made) for n, made in enumerate(["2020-01-01", just_now])]
    )
    assert store.lookup([task(0), task(1)])["status"].tolist() == ["timeout", "pending"]


@pytest.mark.parametrize("linked", [True, False], ids=["by a name of its own", "where the folder cannot be written"])
def test_a_replaced_file_is_taken_up_by_refresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool):
    """``refresh`` opens the file that took the place of the open one, and leaves nothing beside it; else it does nothing."""
    if not linked:
        monkeypatch.setattr("os.link", lambda *names: (_ for _ in ()).throw(PermissionError()))
    path, beside = tmp_path / "leads.duckdb", tmp_path / "next"
    for file, status in ((path, "failed"), (beside, "finished")):
        with es.EnrichmentStore(file) as store:
            store.load([record(0, status=status)])
    with es.EnrichmentStore(path, org_id=ORG, read_only=True) as store:
        assert not store.refresh()
        beside.replace(path)
        assert store.lookup([task(0)])["status"].tolist() == ["failed"]
        assert store.refresh()
        assert not store.refresh()
        assert store.lookup([task(0)])["status"].tolist() == ["finished"]
        beside.write_text("no store at all")
        beside.replace(path)
        with pytest.raises(es.StoreError, match=r"leads\.duckdb' is not a DuckDB database"):
            store.refresh()
        assert store.lookup([task(0)])["status"].tolist() == ["finished"]
        with es.EnrichmentStore(beside) as new:
            new.load([record(0, status="timeout")])
        beside.replace(path)
        assert store.refresh()
        assert store.lookup([task(0)])["status"].tolist() == ["timeout"]
    assert [file.name for file in tmp_path.iterdir()] == ["leads.duckdb"]
    assert not store.refresh()


def test_all_records_of_an_organization_can_be_had(store: es.EnrichmentStore):
    """`records` gives what was loaded, each record of a key and none of another organization, with the types of an answer."""
    store.load([record(0), record(1, entityId=uid(0), status="failed"), record(2, orgId="org_2")])
    table = store.records()
    assert table.schema == SCHEMA
    assert sorted(table["id"].to_pylist()) == sorted([record(0)["id"], record(1)["id"]])
    assert store.records(("status", "field"), org_id="org_2").to_pylist() == [{"status": "finished", "field": "emails"}]
    with pytest.raises(es.ValidationError, match="columns= takes"):
        store.records(("reason",))
    with pytest.raises(es.ValidationError, match="Organization ID is missing"):
        es.EnrichmentStore().records()


@pytest.mark.parametrize("kind", ["store", "scan"])
def test_an_organization_without_records_among_others_is_warned_of(tmp_path: Path, kind: str):
    """Where nothing is found and nothing could be, a lookup says so, and names nobody else; one that has records is not warned."""
    path = tmp_path / "r.parquet"
    pd.DataFrame([record(0)]).to_parquet(path)
    store = es.EnrichmentStore(org_id="org_l") if kind == "store" else es.EnrichmentStore.scan(path, org_id="org_l")
    if kind == "store":
        assert store.lookup([task(0)], now=NOW)["status"].isna().all()  # no records at all are none of others
        store.load(path)
    with pytest.warns(es.OrganizationWarning, match="none of the organization 'org_l'") as caught:
        store.lookup([task(0)], now=NOW)
    assert ORG not in str(caught[0].message)
    assert caught[0].filename == __file__
    tasks = tmp_path / "tasks.csv"
    pd.DataFrame([task(0)]).to_csv(tasks, index=False)
    with pytest.warns(es.OrganizationWarning, match="org_l"):
        store.lookup_to(tasks, tmp_path / "o.csv", now=NOW)
    assert store.lookup([task(7)], org_id=ORG, now=NOW)["status"].isna().all()
    assert store.lookup([task(0)], org_id=f" {ORG}", now=NOW)["status"].notna().all()


def test_the_command_line_says_that_an_organization_has_no_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """One line on stderr; the exit code and the answer are those of a list of which nothing is known."""
    with es.EnrichmentStore(tmp_path / "s.duckdb", org_id=ORG) as store:
        store.load([record(0)])
    leads = tmp_path / "l.csv"
    leads.write_text(f"id\n{task(0)['entityId']}\n")
    options = ["--entity-id", "id", "--fields", "emails", "--store", str(tmp_path / "s.duckdb"), "--org", "org_l"]
    assert main(["lookup", str(leads), *options]) == 0
    said = capsys.readouterr().err
    assert said.startswith("enrichstatus: There are records here, but none of the organization 'org_l'.")
    assert said.count("\n") == 1
    assert ORG not in said
