"""A store in a notebook's life: cells that run twice, files that are replaced under it, forks, pickles, and kills."""

from __future__ import annotations

import gc
import multiprocessing
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from pathlib import Path
from textwrap import dedent
from typing import Any

import duckdb
import pytest

import enrichstatus as es
from enrichstatus.lookup.lazy import lazy
from enrichstatus.simulation import SimulatedStore
from enrichstatus.sources.store.loading import load as loading
from tests.support.cases import cases
from tests.support.factory import NOW, ORG, record, task

ROOT = Path(__file__).parents[2]
FORK = multiprocessing.get_context("fork")


def opened(path: Path | str, **options: bool) -> es.EnrichmentStore:
    return es.EnrichmentStore(path, org_id=ORG, **options)


def made(path: Path, *numbers: int, status: str = "finished") -> Path:
    """Make a store of these records, and close it."""
    with opened(path) as store:
        store.load([record(number, status=status) for number in numbers])
    return path


def statuses(store: es.EnrichmentStore, *numbers: int) -> list[str]:
    return store.lookup([task(number) for number in numbers], now=NOW)["status"].fillna("-").tolist()


@pytest.fixture(scope="module", autouse=True)
def another_process() -> Iterator[None]:
    """Start a process that shares nothing with this one, for `elsewhere`."""
    global _another
    with multiprocessing.get_context("spawn").Pool(1) as _another:
        yield


_another: Any = None


def elsewhere(path: Path, *, read_only: bool = False) -> str:
    """Say what another process meets that opens the file: the number of records, or an error."""
    return str(_another.apply(_met, (path, read_only)))


def _met(path: Path, read_only: bool) -> str:
    try:
        with opened(path, read_only=read_only) as store:
            return str(len(store.records()))
    except es.EnrichStatusError as error:
        return f"{type(error).__name__}: {error}"


def other_names(path: Path) -> dict[str, Path | str]:
    """Give a file more names."""
    (folder := path.parent / "linked").symlink_to(path.parent)
    (link := path.parent / "link.duckdb").symlink_to(path)
    (hard := path.parent / "hard.duckdb").hardlink_to(path)
    return {
        "the same": path,
        "relative": os.path.relpath(path),
        "symbolic": link,
        "hard": hard,
        "through a linked folder": folder / path.name,
        "roundabout": path.parent / ".." / path.parent.name / path.name,
    }


@pytest.mark.parametrize("read_only", [False, True], ids=["to be written", "read-only"])
def test_a_file_opened_again_in_a_process_stays_locked(tmp_path: Path, read_only: bool):
    """Whatever name a file is opened by again, closed or forgotten, others stay locked out as long as one store is open."""
    path = made(tmp_path / "a b – ü.duckdb", 0)
    first = opened(path, read_only=read_only)
    for name in other_names(path).values():
        second = opened(name, read_only=read_only)
        assert statuses(second, 0) == ["finished"]
        second.close()
        forgotten = opened(name, read_only=read_only)
        del forgotten
        gc.collect()
        with pytest.raises(es.StoreLockedError, match="is open in this process already"):
            opened(name, read_only=not read_only)
    # who would be let in if the lock were gone
    assert "StoreLockedError" in elsewhere(path, read_only=not read_only)
    first.close()
    assert elsewhere(path, read_only=not read_only) == "1"


def test_stores_of_one_file_share_what_is_loaded(tmp_path: Path):
    """Two variables of one file see each other's records, also when both load at once, and the last to close closes it."""
    path = made(tmp_path / "s.duckdb", 0)
    stores = [opened(name) for name in other_names(path).values()]
    threads = [
        threading.Thread(target=store.load, args=([record(n) for n in range(number * 5, number * 5 + 10)],))
        for number, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = 5 * len(stores) + 5
    for store in stores:
        assert len(store.records()) == count
        store.close()
        with pytest.raises(es.StoreError, match="is closed"):
            store.records()
    assert elsewhere(path) == str(count)


def test_a_file_that_duckdb_itself_has_open_keeps_its_lock(tmp_path: Path):
    """A connection of the user's own to the file shares it, and is not robbed of its lock by a store that comes and goes."""
    path = made(tmp_path / "s.duckdb", 0)
    with duckdb.connect(str(path)) as con:
        with opened(path) as store:
            assert store.load([record(1)]).inserted == 1
        assert con.execute("select count(*) from enrichments").fetchall() == [(2,)]
        assert "StoreLockedError" in elsewhere(path)
        path.unlink()
        with pytest.raises(es.StoreError, match="still has a file open"):
            opened(path)
    made(path, 2)


def removed(path: Path, other: Path) -> None:
    path.unlink()


def replaced(path: Path, other: Path) -> None:
    other.replace(path)


def renamed(path: Path, other: Path) -> None:
    path.rename(path.with_name("renamed.duckdb"))


def exchanged(path: Path, other: Path) -> None:
    renamed(path, other)
    other.rename(path)


def copied_over(path: Path, other: Path) -> None:
    shutil.copyfile(other, path)


def emptied(path: Path, other: Path) -> None:
    path.write_bytes(b"")


def folder_removed(path: Path, other: Path) -> None:
    shutil.rmtree(path.parent)


def folder_exchanged(path: Path, other: Path) -> None:
    path.parent.rename(path.parent.with_name("moved"))
    path.parent.mkdir()
    (path.parent.with_name("moved") / other.name).rename(path)


CHANGES = [removed, replaced, renamed, exchanged, copied_over, emptied, folder_removed, folder_exchanged]
OTHER = (replaced, exchanged, copied_over, folder_exchanged)


@pytest.mark.parametrize("change", CHANGES)
def test_another_file_under_the_name_is_never_taken_for_the_open_one(
    tmp_path: Path, change: Callable[[Path, Path], None]
):
    """Removed, replaced, renamed or written over: the open store says so, and a new one opens what is there now."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path, other = made(folder / "leads.duckdb", 0, 1), made(folder / "other.duckdb", 1, 2, status="failed")
    first = opened(path)
    first.load([record(3)])
    change(path, other)
    with pytest.raises(es.StoreError, match=r"leads\.duckdb' was .* while this store had it open; open it again"):
        first.load([record(4)])
    with pytest.raises(es.StoreError, match=r"was .* while this store had it open"):
        statuses(first, 0)
    assert "leads.duckdb" in repr(first)
    folder.mkdir(exist_ok=True)
    if change is emptied:
        with pytest.raises(es.StoreError, match="is empty; name another file, or remove it"):
            opened(path)
        path.unlink()
    second = opened(path)
    assert statuses(second, 0, 1, 2, 3) == (["-", "failed", "failed", "-"] if change in OTHER else ["-"] * 4)
    assert second.load([record(5)]).inserted == 1
    first.close()
    assert "StoreLockedError" in elsewhere(path)
    assert second.load([record(6)]).inserted == 1
    second.close()
    assert elsewhere(path) == ("4" if change in OTHER else "2")
    if change in (renamed, exchanged):
        assert elsewhere(folder / "renamed.duckdb") == "3"


@pytest.mark.parametrize("change", CHANGES)
def test_a_reader_goes_on_with_the_file_it_opened_or_says_that_it_cannot(
    tmp_path: Path, change: Callable[[Path, Path], None]
):
    """A read-only store answers from the file it opened until it is refreshed, but never from one that was written over."""
    folder = tmp_path / "folder"
    folder.mkdir()
    path, other = made(folder / "leads.duckdb", 0, 1), made(folder / "other.duckdb", 1, 2, status="failed")
    first = opened(path, read_only=True)
    change(path, other)
    if change in (copied_over, emptied):
        with pytest.raises(es.StoreError, match="was written over by another program while this store had it open"):
            statuses(first, 0)
    else:
        assert statuses(first, 0, 2) == ["finished", "-"]
    if change in OTHER:
        with opened(path, read_only=True) as second:
            assert statuses(second, 0, 1) == ["-", "failed"]
            assert first.refresh()
            assert statuses(first, 0, 1) == ["-", "failed"]
        assert "StoreLockedError" in elsewhere(path)
    elif change is not emptied:
        assert not first.refresh()
    folder.mkdir(exist_ok=True)
    first.close()
    if change is emptied:
        path.unlink()
    with opened(path) as third:
        third.load([record(5)])
    assert elsewhere(path) == ("3" if change in OTHER else "1")


def test_a_file_that_is_no_database_is_refused_and_the_open_store_says_so(tmp_path: Path):
    """Where text was written over an open store, a new one is refused for what it is, and the lock of others is left alone."""
    path = made(tmp_path / "s.duckdb", 0)
    first = opened(path)
    path.write_text("lead_id,email\n" * 1000)
    with pytest.raises(es.StoreError, match="is not a DuckDB database"):
        opened(path)
    with pytest.raises(es.StoreError, match="was written over"):
        first.load([record(1)])
    first.close()
    assert path.read_text() == "lead_id,email\n" * 1000


def test_what_was_loaded_is_in_the_file_alone(tmp_path: Path):
    """A copy of the file that is made after a load has all its records, while the store is open."""
    path = tmp_path / "s.duckdb"
    with opened(path) as store, opened(path) as reader:
        for number in range(3):
            store.load([record(number)])
            assert statuses(reader, number) == ["finished"]
            check_copy(path, number + 1)
        next(iter(es.poll(SimulatedStore([task(3)], org_id=ORG), [task(3)], into=store)))
        check_copy(path, 4)


def check_copy(path: Path, count: int) -> None:
    """Copy a file with another program, as one's hand would, and count what is in it."""
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    copy = path.with_name("copy.duckdb")
    subprocess.run(["cp", path, copy], check=True)
    with opened(copy, read_only=True) as store:
        assert len(store.records()) == count
    copy.unlink()


def test_what_a_reader_held_up_is_in_the_file_when_it_ends(tmp_path: Path):
    """While a long lookup reads, a load waits for it a moment, and is in the file at the latest when the lookup ends."""
    path = made(tmp_path / "s.duckdb", 0)
    with opened(path) as store:
        with store._cursor() as con:
            con.begin()
            con.execute("from enrichments").fetchall()
            assert store.load([record(0, updatedAt="2026-11-17"), record(1)]).updated == 1
            assert path.with_name("s.duckdb.wal").exists()
        check_copy(path, 2)
        assert store.load([record(2)]).inserted == 1
        check_copy(path, 3)


def test_a_store_that_goes_elsewhere_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A store named by a relative path is the same file after the program has changed its folder."""
    monkeypatch.chdir(tmp_path)
    with opened("s.duckdb") as store:
        (tmp_path / "sub").mkdir()
        monkeypatch.chdir(tmp_path / "sub")
        assert store.load([record(0)]).inserted == 1
        assert statuses(store, 0) == ["finished"]


def in_fork(call: Callable[[], Any]) -> Any:
    """Give what a call gives, or its error's words, in a child that is forked now and inherits everything."""
    receiver, sender = FORK.Pipe(duplex=False)

    def run() -> None:
        try:
            sender.send(call())
        except Exception as error:
            sender.send(f"{type(error).__name__}: {error}")

    child = FORK.Process(target=run)
    child.start()
    try:
        assert receiver.poll(60), "the child hangs"
        return receiver.recv()
    finally:
        child.join(20)
        child.kill()
        assert child.exitcode == 0


def test_a_poll_goes_on_in_one_process_when_it_is_forked():
    """A child that inherits a dashboard is not waited in for ever, and says what goes on where; freeing a poll does not crash it."""
    tasks = [task(number) for number in range(5)]
    held = [es.poll(SimulatedStore(tasks, speed=1e-3), tasks)]
    next(held[0])
    dashboard = es.Dashboard(SimulatedStore(tasks, speed=1e-3), tasks, show="lines")
    dashboard.start()
    try:
        assert in_fork(held.clear) is None
        assert "goes on in process" in in_fork(dashboard.wait)
        assert in_fork(lambda: (dashboard.start(), dashboard.phase)[1]) in ("waiting", "asking")
        assert dashboard.phase in ("waiting", "asking")
    finally:
        dashboard.stop()


def test_a_fork_does_not_wait_for_what_a_thread_computes():
    """What a thread of the parent computes at the moment of the fork, no thread will finish in the child."""
    begun, over = threading.Event(), threading.Event()

    class Update:
        def __init__(self, computing: bool):
            self.computing = computing

        @lazy
        def frame(self) -> int:
            if self.computing:
                begun.set()
                over.wait(60)
            return 1

    thread = threading.Thread(target=lambda: Update(True).frame)
    thread.start()
    assert begun.wait(20)
    try:
        assert in_fork(lambda: Update(False).frame) == 1
    finally:
        over.set()
        thread.join()


def test_a_forked_child_does_not_write_to_its_parents_file(tmp_path: Path):
    """A store that writes, inherited by a fork, says what to do instead, whichever call; the parent's goes on unharmed."""
    path = made(tmp_path / "s.duckdb", 0)
    with opened(path) as store:
        calls: list[Callable[[], Any]] = [
            lambda: store.load([record(1)]),
            lambda: statuses(store, 0),
            store.records,
            lambda: store.query({"tasks": [task(0)]}),
            lambda: next(iter(es.poll(SimulatedStore(org_id=ORG), [task(0)], into=store))),
            lambda: es.plan(store, [task(0)]),
        ]
        for call in calls:
            assert re.search(
                "is open to be written in process .* read_only=True before the fork, or use .*spawn", in_fork(call)
            )
        assert "is open to be written" in in_fork(lambda: repr(store))
        for read_only in (False, True):
            assert in_fork(lambda r=read_only: opened(path, read_only=r)).startswith("StoreLockedError")  # type: ignore[misc]
        assert in_fork(store.close) is None
        assert in_fork(lambda: _met(made(tmp_path / "own.duckdb", 1), True)) == "1"
        store.load([record(4)])
        assert "StoreLockedError" in elsewhere(path)
    assert elsewhere(path) == "2"


def test_a_store_in_memory_is_not_used_by_a_fork(store: es.EnrichmentStore):
    """A forked child has no part in what is in its parent's memory, and is told so."""
    store.load([record(0)])
    assert "is in memory in process" in in_fork(lambda: statuses(store, 0))
    assert in_fork(lambda: statuses(es.EnrichmentStore(org_id=ORG), 0)) == ["-"]
    assert statuses(store, 0) == ["finished"]


@pytest.mark.parametrize("preload", [False, True])
def test_a_reader_starts_afresh_in_a_fork(tmp_path: Path, preload: bool):
    """A read-only store, inherited by a fork, opens its file for itself, in children of children too."""
    path = made(tmp_path / "s.duckdb", 0)
    with es.EnrichmentStore(path, org_id=ORG, read_only=True, preload=preload) as store:
        assert in_fork(lambda: statuses(store, 0, 1)) == ["finished", "-"]
        assert in_fork(lambda: in_fork(lambda: statuses(store, 0))) == ["finished"]
        assert in_fork(lambda: statuses(store, 0) + in_fork(lambda: statuses(store, 0))) == ["finished"] * 2
        made(tmp_path / "next.duckdb", 1).replace(path)
        assert in_fork(lambda: statuses(store, 0, 1)) == ["-", "finished"]
        assert statuses(store, 0, 1) == ["finished", "-"]


def test_a_fork_while_threads_are_at_work_does_not_hang(tmp_path: Path):
    """Forked while threads load, look up and open, which hold locks, a child can open, load and look up for itself."""
    path, other = made(tmp_path / "s.duckdb", 0), made(tmp_path / "other.duckdb", 0)
    done = threading.Event()

    def work(call: Callable[[], Any]) -> None:
        while not done.is_set():
            call()

    with opened(path) as writer, opened(other, read_only=True) as reader:
        calls: list[Callable[[], Any]] = [
            lambda: writer.load([record(n) for n in range(50)]),
            lambda: opened(other, read_only=True).close(),
            lambda: statuses(reader, *range(50)),
        ]
        threads = [threading.Thread(target=work, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        try:
            for number in range(cases(5, 100)):
                assert "is open to be written" in in_fork(lambda: writer.load([record(1)]))
                assert in_fork(lambda: statuses(reader, 0)) == ["finished"]
                own = tmp_path / f"{number}.duckdb"
                assert in_fork(lambda own=own: made(own, 1) and "made") == "made"  # type: ignore[misc]
        finally:
            done.set()
            for thread in threads:
                thread.join()


def test_a_forked_child_that_ends_in_order_leaves_the_file_alone(tmp_path: Path):
    """A child that drops its stores and ends as a program does neither hangs, crashes, nor writes to the parent's file."""
    script = """
        import gc, os, sys
        import enrichstatus as es
        from tests.support.factory import record
        stores = [es.EnrichmentStore(sys.argv[1], org_id="org_1"), es.EnrichmentStore(), es.EnrichmentStore()]
        stores[0].load([record(n) for n in range(3000)])
        if not os.fork():
            stores.pop().close()
            del stores
            gc.collect()
            sys.exit(0)
        print(os.wait()[1])
        stores[0].load([record(n) for n in range(2000, 4000)])
    """
    path = tmp_path / "s.duckdb"
    done = subprocess.run(
        [sys.executable, "-c", dedent(script), path], check=True, capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.stdout == "0\n"
    assert "Error" not in done.stderr  # an old DuckDB lists there what the child has not freed, which is on purpose
    assert elsewhere(path) == "4000"


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_store_of_a_file_is_sent_to_workers_and_reads_there(tmp_path: Path, method: str):
    """Pickled, a store is opened read-only where it arrives, with what it was opened with; a held file says who holds it."""
    path = made(tmp_path / "s.duckdb", 0)
    options: dict[str, Any] = {"org_id": ORG, "max_processing_time": {"emails": "1 h"}}
    with (
        es.EnrichmentStore(path, read_only=True, **options) as store,
        ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method)) as pool,
    ):
        assert list(pool.map(statuses, [store] * 4, range(4))) == [["finished"], ["-"], ["-"], ["-"]]
    other = pickle.loads(pickle.dumps(store))
    assert (other.read_only, other.org_id, other.max_processing_time) == (True, ORG, store.max_processing_time)
    other.close()
    with opened(path) as writer:
        sent = pickle.dumps(writer)
    with pickle.loads(sent) as reader, pytest.raises(es.StoreError, match="was opened read-only"):
        reader.load([record(1)])


def killed(script: str, *arguments: object, moments: random.Random) -> list[str]:
    """Run a program that says ``ready``, and then what it has done; kill it at some moment, and give what it said."""
    with subprocess.Popen(
        [sys.executable, "-c", dedent(script), *map(str, arguments)], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        said = [child.stdout.readline() for _ in range(moments.randint(1, 4))]
        assert said[0] == "ready\n"
        with suppress(subprocess.TimeoutExpired):
            child.wait(moments.uniform(0, 0.1))
        assert child.poll() is None
        child.kill()
        said += child.stdout.read().splitlines(keepends=True)
    return [line for line in said[1:] if line.endswith("\n")]


def test_a_wal_of_another_file_says_what_to_do(tmp_path: Path):
    """Where a killed program left a WAL, and another file took the name, nothing is mixed up: the message says what to do."""
    script = """
        import os, sys
        import enrichstatus as es
        with es.EnrichmentStore(sys.argv[1])._cursor() as con:
            con.execute("update enrichments set error = 'in the WAL'")
            os.kill(os.getpid(), 9)
    """
    path = made(tmp_path / "s.duckdb", 0)
    backup = shutil.copy(path, tmp_path / "backup.duckdb")
    with opened(path) as store:
        store.load([record(0, updatedAt="2026-11-17")])
    subprocess.run([sys.executable, "-c", dedent(script), path], check=False, cwd=ROOT)
    wal = path.with_name("s.duckdb.wal")
    assert wal.exists()
    left = shutil.copytree(tmp_path, tmp_path.with_name(tmp_path.name + "-left"))
    with opened(path) as store:
        assert store.records()["error"].to_pylist() == ["in the WAL"]
    os.remove(path)
    shutil.copy(left / wal.name, wal)
    with opened(path) as store:  # a file that was removed is not brought back
        assert store.records().num_rows == 0
    for other in (backup, made(tmp_path / "other.duckdb", 1)):
        shutil.copy(left / wal.name, wal)
        shutil.copy(other, path)
        for read_only in (False, True):
            with pytest.raises(
                es.StoreError, match=r"s\.duckdb\.wal' was left, .* move the \.wal away to open this one"
            ):
                opened(path, read_only=read_only)
    wal.unlink()
    assert elsewhere(path) == "1"


def test_a_file_that_is_replaced_while_it_is_loaded_into_is_not_reported_as_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """What went into a file that has lost its name meanwhile is an error, and the file of that name is as it came."""
    path, other = made(tmp_path / "s.duckdb", 0), made(tmp_path / "other.duckdb", 1)
    merge = loading._store
    monkeypatch.setattr(loading, "_store", lambda con, *more: (other.replace(path), merge(con, *more))[1])
    with opened(path) as store, pytest.raises(es.StoreError, match="was replaced by another file"):
        store.load([record(2)])
    monkeypatch.undo()
    with opened(path) as store:
        assert statuses(store, 0, 1, 2) == ["-", "finished", "-"]
    assert [file.name for file in tmp_path.iterdir()] == ["s.duckdb"]


@pytest.mark.slow
def test_a_load_killed_at_any_moment_keeps_all_that_was_reported(tmp_path: Path):
    """Killed while it loads, checkpoints or opens, again and again on one file: nothing reported is gone, nothing is half there."""
    script = """
        import sys
        import enrichstatus as es
        from tests.support.factory import record
        print("ready", flush=True)
        start = int(sys.argv[2])
        store = es.EnrichmentStore(sys.argv[1], org_id="org_1")
        for part in range(start, start + 1_000_000, 20):
            store.load([record(n) for n in range(part, part + 20)])
            print(part, flush=True)
    """
    path, moments = tmp_path / "s.duckdb", random.Random(13)
    reported: set[str] = set()
    for number in range(cases(4, 100)):
        said = killed(script, path, number * 1_000_000, moments=moments)
        reported |= {task(int(part) + n)["entityId"] for part in said for n in range(20)}
        with opened(path, read_only=True) if path.exists() else opened(path) as store:
            found = store.records()["entityId"].to_pylist()
            assert reported <= set(found)
            assert len(found) % 20 == 0
    assert reported


@pytest.mark.slow
def test_a_swap_or_refresh_killed_at_any_moment_leaves_a_store(tmp_path: Path):
    """Killed while it makes the next file, puts it in place, or takes it up: under the name there is always a whole store."""
    script = """
        import os, sys
        import enrichstatus as es
        from tests.support.factory import record
        path, start = sys.argv[1], int(sys.argv[2])
        print("ready", flush=True)
        with es.EnrichmentStore(path, org_id="org_1", read_only=True, preload=start % 2 == 1) as store:
            for version in range(start, start + 1000):
                with es.EnrichmentStore(path + ".next", org_id="org_1") as following:
                    following.load([record(0, error=f"v{version}", updatedAt=f"{2027 + version // 1000}-01-01T00:{version // 60 % 60:02}:{version % 60:02}Z")])
                os.replace(path + ".next", path)
                store.refresh()
                print(version, flush=True)
    """
    path, moments = made(tmp_path / "s.duckdb", 0), random.Random(14)
    for number in range(cases(4, 100)):
        said = killed(script, path, number * 1000, moments=moments)
        for leftover in tmp_path.glob("*.next*"):
            leftover.unlink()
        with opened(path, read_only=True) as store:
            [version] = store.records()["error"].to_pylist()
        if said:
            assert int(version[1:]) >= int(said[-1])
        assert [file.name for file in tmp_path.iterdir()] == ["s.duckdb"]
