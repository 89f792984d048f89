"""What changed in a store since a cursor: once each, whatever happened meanwhile; and cursors that are refused."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.cli.delivery import holding
from enrichstatus.files.writing import write as writing
from enrichstatus.schema import COLUMNS
from tests.support.cases import cases
from tests.support.drawn import records, tasks
from tests.support.factory import NOW, ORG, record, task

HERE = Path(__file__).parents[2]
PENDING = {"status": "pending", "dataFound": None, "updatedAt": None}


def state(frame: Any) -> dict[str, str]:
    return dict(zip(frame["id"], frame["status"], strict=True))


def test_every_change_comes_once_to_every_cursor():
    """Whoever follows the cursors has what the store has, from wherever they begin; each row says what the record was at the cursor."""
    for seed in range(cases(1, 40)):
        drawn = random.Random(seed)
        with es.EnrichmentStore(org_id="org_1") as store:
            known: dict[str | None, dict[str, str]] = {None: {}}
            for _ in range(5):
                if drawn.random() < 0.2:  # a load that fails
                    with pytest.raises(es.ValidationError):
                        store.load([*records(drawn, 5), {"id": "bad"}])
                store.load(records(drawn, drawn.randrange(40)))
                now = state(store.records().to_pydict())
                for since, before in list(known.items()):
                    changes = store.changes(since)
                    frame = changes.frame
                    assert before | state(frame) == now
                    assert frame["id"].is_unique
                    was = frame["previousStatus"].astype(object).where(frame["previousStatus"].notna(), None)
                    assert was.tolist() == [before.get(id_) for id_ in frame["id"]]
                    known[changes.cursor] = now
                assert not len(store.changes(changes.cursor))
                assert set(frame["orgId"]) <= {"org_1"}


def test_a_store_without_history_keeps_the_present_alone(tmp_path: Path):
    """With ``history=False`` a load forgets what records were, also what was kept before; cursors and the past are refused."""
    path = tmp_path / "s.duckdb"
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.load([record(0, **PENDING)])
        cursor, before = store.changes().cursor, datetime.now(UTC)
    with es.EnrichmentStore(path, org_id=ORG, history=False) as store:
        assert len(store.changes(cursor)) == 0
        store.load([record(0), record(1)])
        assert store.lookup([task(0)], now=NOW)["status"].item() == "finished"
        assert store.lookup([task(0)], as_of=datetime.now(UTC))["status"].item() == "finished"
        assert len(store.changes()) == 2
        with pytest.raises(es.ValidationError, match="of a time that was pruned"):
            store.changes(cursor)
        with pytest.raises(es.ValidationError, match="what is known begins with a load"):
            store.lookup([task(0)], as_of=before)
    with pytest.raises(es.ValidationError, match="history"):
        es.EnrichmentStore(history="no")  # type: ignore[arg-type]


def test_changes_are_of_the_types_and_the_order_of_the_loads():
    """The columns of a record and what it was, in the order of the loads, with the dtypes of every frame, also where there is no row."""
    store = es.EnrichmentStore(org_id=ORG)
    store.load([record(n, **PENDING) for n in (1, 2)])
    cursor = store.changes().cursor
    store.load([record(3)])
    store.load([record(1), record(7, orgId="org_2")])
    changes = store.changes(cursor)
    assert changes.frame["entityId"].tolist() == [task(3)["entityId"], task(1)["entityId"]]
    assert changes.frame.columns.tolist() == [*COLUMNS, "previousStatus"]
    assert changes.frame.dtypes.equals(store.changes(changes.cursor).frame.dtypes)
    assert repr(changes) == f"Changes(1 inserted, 1 updated, cursor={changes.cursor!r})"
    with pytest.raises(es.ValidationError, match="Organization ID is missing"):
        es.EnrichmentStore().changes()


def test_a_cursor_that_says_nothing_here_is_refused(tmp_path: Path):
    """One of another store, of a copy loaded apart, of loads that are not there, of a pruned past, and what is not a cursor."""
    path, copy = tmp_path / "s.duckdb", tmp_path / "copy.duckdb"
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.load([record(1, **PENDING)])
        first = store.changes().cursor
    shutil.copy(path, copy)
    with es.EnrichmentStore(path, org_id=ORG) as store, es.EnrichmentStore(copy, org_id=ORG) as other:
        for one in (store, other):  # both go on from where they were the same
            one.load([record(1), record(2)])
            assert len(one.changes(first)) == 2
        apart = other.changes().cursor
        wrong = [
            ("17", "takes the .cursor"),
            ("", "takes the .cursor"),
            (7, "takes the .cursor"),
            (apart, "of another store, or of a copy"),
        ]
        other.load([record(3)])
        wrong += [
            (other.changes().cursor, "this file has not had"),
            (es.EnrichmentStore(org_id=ORG).changes().cursor, "another store"),
        ]
        for cursor, why in wrong:
            with pytest.raises(es.ValidationError, match=f"^since= .*{why}"):
                store.changes(cursor)
        second = store.changes().cursor
        assert store.prune(before="2020-01-01") == 0
        with pytest.raises(es.ValidationError, match=r"^before= is 2099-01-01 .* in the future"):
            store.prune(before="2099-01-01")
        assert len(store.changes(first)) == 2
        assert store.prune(before=pd.Timestamp.now("UTC")) == 1
        assert (len(store.changes(second)), len(store.changes())) == (0, 2)
        with pytest.raises(es.ValidationError, match="time that was pruned"):
            store.changes(first)
        for org in ("org_2", "ORG_1"):  # another's, or one that is misspelt, would pass over what is new
            with pytest.raises(es.ValidationError, match=rf"^since= .*another organization than '{org}'") as caught:
                store.changes(second, org_id=org)
            assert ORG not in str(caught.value)
        assert len(store.changes(second.rpartition(".")[0])) == 0  # as they were before they said whose
    with es.EnrichmentStore(path, org_id=ORG, read_only=True) as reader:
        assert len(reader.changes(second)) == 0
        with pytest.raises(es.StoreError, match="read-only"):
            reader.prune(before=NOW)
        shutil.copy(copy, tmp_path / "new")
        (tmp_path / "new").replace(path)
        assert reader.refresh()
        assert len(reader.changes(first)) == 3
        with pytest.raises(es.ValidationError, match="since="):
            reader.changes(second)


def test_as_of_an_instant_it_answers_as_a_replay_of_the_loads_until_then():
    """Every column of every task, of a frame and of files; the timeout rule is evaluated at the instant, unless another is given."""
    for seed in range(cases(1, 30)):
        drawn = random.Random(seed)
        asked, loads = tasks(drawn, 60), [records(drawn, 30) for _ in range(3)]
        with es.EnrichmentStore(org_id="org_1") as store, es.EnrichmentStore(org_id="org_1") as replayed:
            instants = []
            for load in loads:
                store.load(load)
                instants.append(datetime.now(UTC))
            for load, instant in zip(loads, instants, strict=True):
                replayed.load(load)
                for now in (None, NOW):
                    given = store.lookup(asked, columns="all", prefix="r_", as_of=instant, now=now)
                    expected = replayed.lookup(asked, columns="all", prefix="r_", now=now or instant)
                    pd.testing.assert_frame_equal(given, expected)


def test_a_past_that_is_not_known_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Before the first load, in a pruned time, in the future, of records in files; the commands have it too."""
    path, listed, output = (str(tmp_path / name) for name in ("s.duckdb", "tasks.csv", "status.csv"))
    pd.DataFrame([task(1), task(2)]).to_csv(listed, index=False)
    with es.EnrichmentStore(path, org_id=ORG) as store:
        with pytest.raises(es.ValidationError, match=r"as_of= is .* and there is no load"):
            store.lookup([task(1)], as_of=NOW)
        with pytest.raises(es.ValidationError, match=r"^as_of= is 2099-01-01 .* in the future; name one that has been"):
            store.lookup([task(1)], as_of="2099-01-01")
        before = datetime.now(UTC)
        store.load([record(1, **PENDING)])
        first = datetime.now(UTC)
        store.load([record(1), record(2)])
        with pytest.raises(es.ValidationError, match="what is known begins with a load that was done at"):
            store.lookup([task(1)], as_of=before)
        status = {"then": store.lookup(listed, as_of=first), "now": store.lookup(listed)}
        assert [state_of(frame) for frame in status.values()] == [["timeout", None], ["finished", "finished"]]
        assert len(es.diff(*status.values()).frame) > 0
    where = ["lookup", listed, "--org", ORG, "-o", output, "--as-of", first.isoformat()]
    assert main([*where, "--store", path]) == 0
    assert state_of(pd.read_csv(output)) == ["timeout", None]
    page = ["report", listed, "--org", ORG, "-o", str(tmp_path / "page.html"), "--as-of", first.isoformat()]
    for command in (where, page):
        assert main([*command, "--records", listed]) == 2
        assert "--as-of goes with --store" in capsys.readouterr().err
    monkeypatch.setattr("enrichstatus.cli.commands.report._picture", lambda *_: "")
    assert main([*page, "--store", path, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    # one record was known, and pending for longer than it may
    assert [told["reports"]["By field"][0][name] for name in ("tasks", "ended", "no record")] == [2, 1, 1]
    assert [rows[0].get("records", rows[0].get("bought")) for rows in told["reports"].values()][1:] == [1, 1]
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.prune(before=datetime.now(UTC))
        with pytest.raises(es.ValidationError, match="what is known begins with"):
            store.lookup([task(1)], as_of=first)
        assert state_of(store.lookup(listed, as_of=datetime.now(UTC))) == ["finished", "finished"]
        pq.write_table(store.records(), tmp_path / "r.parquet")
    with (
        es.EnrichmentStore.scan(tmp_path / "r.parquet", org_id=ORG) as scan,
        pytest.raises(es.ValidationError, match="no past"),
    ):
        scan.lookup([task(1)], as_of=first)


def state_of(frame: Any) -> list[Any]:
    return frame["status"].astype(object).where(frame["status"].notna(), None).tolist()


def test_a_killed_load_is_wholly_before_a_cursor_or_after_it(tmp_path: Path):
    """``kill -9`` before the commit: the cursor stands, nothing has changed; after it: all is delivered, once."""
    path = tmp_path / "s.duckdb"
    with es.EnrichmentStore(path, org_id=ORG) as store:
        store.load([record(1, **PENDING)])
        cursor = store.changes().cursor
    script = """
import os, signal, sys
import enrichstatus as es
from enrichstatus.sources.store.loading import load
from tests.support.factory import record
if sys.argv[2] == "before":
    load._COUNTS_SQL += "; select die()"
else:
    load.INDEX_SQL += "; select die()"
store = es.EnrichmentStore(sys.argv[1], org_id="org_1")
with store._cursor() as con:
    con.create_function("die", lambda: os.kill(os.getpid(), signal.SIGKILL), [], "INTEGER", side_effects=True)
    store.load([record(1), record(2)])
"""
    for moment, changed in (("before", 0), ("after", 2)):
        killed = subprocess.run([sys.executable, "-c", script, str(path), moment], check=False, cwd=HERE)
        assert killed.returncode == -9
        with es.EnrichmentStore(path, org_id=ORG) as store:
            changes = store.changes(cursor)
            assert (len(changes), len(store.changes(changes.cursor))) == (changed, 0)


def test_the_command_moves_the_cursor_only_when_the_output_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Night by night it writes what is new; where it could not be written, or the command ended before the cursor moved, it comes again."""
    monkeypatch.chdir(tmp_path)
    command = ["changes", "--store", "s.duckdb", "--org", ORG, "--since", "cursor.txt", "-o"]

    def taken() -> list[str]:
        found = sorted(pd.read_parquet("new.parquet")["entityId"])
        Path("new.parquet").unlink()
        return found

    def shipped(code: int = 0) -> list[str]:
        assert main([*command, "new.parquet"]) == code
        return taken()

    def load(*numbers: int) -> list[str]:
        with es.EnrichmentStore("s.duckdb", org_id=ORG) as store:
            store.load([record(n) for n in numbers])
        return sorted(task(n)["entityId"] for n in numbers)

    assert load(1, 2) == shipped()
    assert "2 records written to new.parquet: 2 inserted, 0 updated" in capsys.readouterr().out
    assert shipped() == []
    load(3)
    assert main([*command, "nowhere/new.parquet"]) == 2
    with monkeypatch.context() as patched:
        patched.setattr(writing, "write_text", lambda text, path: (_ for _ in ()).throw(es.EnrichStatusError("killed")))
        assert main([*command, "new.parquet"]) == 1
    load(5)
    assert main([*command, "new.parquet"]) == 0
    assert "was left by a command that was killed" in capsys.readouterr().out
    assert taken() == load(3)
    assert shipped() == load(5)
    assert shipped() == []
    capsys.readouterr()
    for arguments, why in (
        (["-"], "-o names a file"),
        (["s.duckdb"], "ending"),
        (["--since", "c.csv", "-o", "c.csv"], "one file"),
        (["--since", "s3://bucket/c.txt", "-o", "c.csv"], "a file of this machine"),
        (["--since", "nowhere/c.txt", "-o", "c.csv"], "'nowhere/c.txt' cannot be written"),
    ):
        assert main([*command, *arguments] if len(arguments) == 1 else [*command[:-3], *arguments]) == 2
        assert why in capsys.readouterr().err
    Path("cursor.txt").write_text("yesterday")
    assert main([*command, "new.csv"]) == 2
    assert "--since takes the .cursor of earlier changes, not 'yesterday'" in capsys.readouterr().err
    Path("cursor.txt").unlink()
    assert shipped() == load(1, 2, 3, 5)
    load(4)
    misspelt = ["org_l" if word == ORG else word for word in command]
    assert main([*misspelt, "new.parquet"]) == 2
    assert "--since is of the changes of another organization than 'org_l'" in capsys.readouterr().err
    assert shipped() == load(4)
    assert sorted(path.name for path in Path().iterdir()) == ["cursor.txt", "s.duckdb"]


def test_an_output_that_nobody_has_taken_is_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Its changes would be lost, as the cursor has passed them; it is replaced where the command is told that it was taken."""
    store, cursor, output = (tmp_path / name for name in ("s.duckdb", "cursor.txt", "new.csv"))
    command = ["changes", "--store", str(store), "--org", ORG, "--since", str(cursor), "-o", str(output)]
    for n in (1, 2):
        with es.EnrichmentStore(store, org_id=ORG) as opened:
            opened.load([record(n)])
        if n == 1:
            assert main(command) == 0
    before = cursor.read_text(), output.read_text()
    assert main(command) == 2
    assert (
        "may not have been taken yet. Take it away, or name another file, or pass --overwrite"
        in capsys.readouterr().err
    )
    assert (cursor.read_text(), output.read_text()) == before
    assert main([*command, "--overwrite"]) == 0
    assert pd.read_csv(output)["entityId"].tolist() == [task(2)["entityId"]]


def test_two_commands_do_not_move_one_cursor_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The second is told that another one is at work, by whatever name it has the cursor, and delivers nothing; then it goes on."""
    store, cursor, link = (str(tmp_path / name) for name in ("s.duckdb", "cursor.txt", "link.txt"))
    with es.EnrichmentStore(store, org_id=ORG) as opened:
        opened.load([record(1)])
    Path(cursor).write_text("")
    Path(link).symlink_to(cursor)
    Path(cursor).unlink()
    command = ["changes", "--store", store, "--org", ORG, "-o", str(tmp_path / "new.csv"), "--since"]
    with holding(cursor):
        for name in (cursor, link):
            assert main([*command, name]) == 1
            assert "Another `enrichstatus changes` works with the cursor" in capsys.readouterr().err
    assert not (tmp_path / "new.csv").exists()
    assert main([*command, link]) == 0
    assert Path(link).is_symlink()


def test_a_command_that_is_killed_anywhere_delivers_each_change_once(tmp_path: Path):
    """``kill -9`` at every write and every change of a name, and run again: the outputs together have each change once."""
    with es.EnrichmentStore(tmp_path / "s.duckdb", org_id=ORG) as store:
        store.load([record(1), record(2)])
    script = """
import os, signal, sys
from enrichstatus.cli import main
def die(event, arguments, left=[int(sys.argv[1])]):
    if event in ("open", "os.rename", "os.remove") and "tmpfolder" in str(arguments[0]) and "s.duckdb" not in str(arguments[0]):
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(die)
sys.exit(main(["changes", "--store", "s.duckdb", "--org", "org_1", "--since", "tmpfolder/cursor.txt", "-o", "tmpfolder/new.csv"]))
"""
    ended = []
    for moment in range(1, 10) if cases(0, 1) else (5,):
        folder = tmp_path / "tmpfolder"
        folder.mkdir()

        def run(when: int) -> int:
            return subprocess.run([sys.executable, "-c", script, str(when)], check=False, cwd=tmp_path).returncode

        ended.append(run(moment))
        moved = (folder / "cursor.txt").exists()
        # where all was done, the output has not been taken
        assert run(0) in (0, 2 if moved else 0)
        assert len(pd.read_csv(folder / "new.csv")) == 2
        assert sorted(path.name for path in folder.iterdir() if path.suffix != ".part") == ["cursor.txt", "new.csv"]
        shutil.rmtree(folder)
    assert set(ended) <= {-9, 0}
    assert -9 in ended
