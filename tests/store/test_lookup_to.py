"""The lookup from files to files: the same answer as of a frame, whole or not at all, in bounded memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.files.writing import write as writing
from enrichstatus.frames import frames
from enrichstatus.schema import PANDAS_TYPES
from enrichstatus.sources.store.answering import lookup_files as streaming
from tests.support.cases import cases, crossed
from tests.support.factory import NOW, ORG, record, task, uid

ROOT = Path(__file__).parents[2]
RECORDS = [
    *(record(n, dataFound=n % 2 == 0) for n in range(0, 40, 2)),
    *(record(n, status="pending", dataFound=None, createdAt="2026-11-16T08:59:00Z") for n in range(1, 40, 4)),
]
MakeInput = Callable[[str], Path]


@pytest.fixture
def source(store: es.EnrichmentStore) -> es.EnrichmentStore:
    store.load(RECORDS)
    return store


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pieces and parts be so small that a short list has many."""
    monkeypatch.setattr(streaming, "PIECE", 7)
    monkeypatch.setattr(writing, "PART_ROWS", 50)


def tasks(count: int = 200) -> pd.DataFrame:
    draw = np.random.default_rng(3)
    numbers = draw.integers(0, 60, count).tolist()
    rows = [task(n) | {"name": f"Ada, {n}" if n % 3 else None, "score": str(n)} for n in numbers]
    return pd.DataFrame(rows)


def write(frame: pd.DataFrame, path: Path) -> Path:
    writing.write(pa.Table.from_pandas(frame, preserve_index=False), path)
    return path


def read(path: Any) -> pd.DataFrame:
    """Read what was written, with the dtypes that a lookup gives."""
    if str(path).endswith(".parquet") and "*" not in str(path) and not isinstance(path, list):
        return pq.read_table(path).to_pandas(types_mapper=PANDAS_TYPES.get)
    return frames.read(path).assign(pa.table({}))


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize(
    ("ending", "how", "columns"),
    crossed(
        ["csv", "tsv", "parquet", "json", "ndjson"],
        ["left", "inner"],
        [("status", "dataFound"), "all", ("reason", "expiresIn")],
    ),
    ids=str,
)
def test_the_files_are_what_a_lookup_gives(
    source: es.EnrichmentStore, tmp_path: Path, ending: str, how: Any, columns: Any
):
    """In every format, for every column, row i is task i; what is counted and shown are the rows."""
    path = write(tasks(), tmp_path / f"tasks.{ending}")
    expected = source.lookup(path, columns=columns, how=how, now=NOW)
    report = source.lookup_to(path, tmp_path / "out.parquet", columns=columns, how=how, now=NOW)
    pd.testing.assert_frame_equal(read(tmp_path / "out.parquet"), expected.reset_index(drop=True))
    assert (report.tasks, report.rows, report.files) == (200, len(expected), [str(tmp_path / "out.parquet")])
    pd.testing.assert_frame_equal(report.head, expected.head(8).reset_index(drop=True))
    status = source.lookup(path, how=how, now=NOW)
    by = status.groupby(["field", "status", "dataFound"], dropna=False).size()
    assert report.counts.set_index(["field", "status", "dataFound"])["tasks"].to_dict() == by.to_dict()
    assert sorted(os.listdir(tmp_path)) == ["out.parquet", path.name]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("ending", ["csv", "tsv", "json", "ndjson"])
def test_text_formats_are_written_piece_by_piece_as_they_are_whole(
    source: es.EnrichmentStore, tmp_path: Path, ending: str
):
    """A file written in pieces is byte for byte the one that is written whole."""
    path = write(tasks(), tmp_path / "tasks.parquet")
    for how in ("left", "inner"):
        expected = source.lookup(path, columns=("status", "createdAt"), how=how, now=NOW)
        write(expected, tmp_path / f"whole.{ending}")
        out = tmp_path / f"out.{ending}"
        source.lookup_to(path, out, columns=("status", "createdAt"), how=how, now=NOW, overwrite=True)
        assert out.read_bytes() == (tmp_path / f"whole.{ending}").read_bytes()


@pytest.mark.usefixtures("small_pieces")
def test_many_files_go_to_a_folder_in_the_order_of_the_tasks(source: es.EnrichmentStore, tmp_path: Path):
    """A glob is read in the order of names, and written as parts, whose names sort in the same order."""
    (tmp_path / "tasks").mkdir()
    for part in range(4):
        write(tasks().iloc[part * 50 : part * 50 + 50], tmp_path / "tasks" / f"{part}.parquet")
    report = source.lookup_to(str(tmp_path / "tasks" / "*.parquet"), f"{tmp_path}/out/", now=NOW)
    assert [Path(file).name for file in report.files] == [f"part-{n:05d}.parquet" for n in range(len(report.files))]
    assert sorted(os.listdir(tmp_path / "out")) == [".enrichstatus", *(Path(file).name for file in report.files)]
    assert len(report.files) == 4
    pd.testing.assert_frame_equal(read(report.files), source.lookup(tasks(), now=NOW).astype(read(report.files).dtypes))
    assert f"200 tasks read, 200 rows written to 4 files, from {report.files[0]} on" in str(report)


def test_leads_become_tasks_on_the_way(source: es.EnrichmentStore, tmp_path: Path):
    """With `entity_id` a lead list is read, and its bad leads are named by their row and column."""
    leads = pd.DataFrame({"lead": [uid(0), uid(1), uid(9)], "name": ["Ada", "Bob", "Cy"]}).astype("str")
    path = write(leads, tmp_path / "leads.csv")
    expected = source.lookup(es.tasks_from_leads(leads, entity_id="lead", fields=["emails", "phones"]), now=NOW)
    source.lookup_to(path, tmp_path / "o.parquet", entity_id="lead", fields=["emails", "phones"], now=NOW)
    answer = read(tmp_path / "o.parquet")
    pd.testing.assert_frame_equal(answer, expected.astype(answer.dtypes))  # the text of a lead may be of another type
    write(leads.assign(lead=["x", uid(1), "y"]), path)
    with pytest.raises(es.ValidationError, match="2 bad leads:\n  row 0: lead 'x' is not a UUID\n  row 2: lead 'y'"):
        source.lookup_to(path, tmp_path / "o2.parquet", entity_id="lead", fields=["emails", "phones"])
    with pytest.raises(es.ValidationError, match="entity_id= names the column 'id', but the leads have lead, name"):
        source.lookup_to(path, tmp_path / "o2.parquet", entity_id="id")
    with pytest.raises(
        es.ValidationError, match="fields= is for a lead list; this one has the columns entityId and field"
    ):
        source.lookup_to(write(tasks(), tmp_path / "t.csv"), tmp_path / "o2.parquet", fields="emails")
    # the only column that holds UUIDs is found, and with it that the list is one of leads
    write(leads, path)
    source.lookup_to(path, tmp_path / "o3.parquet", fields=["emails", "phones"], now=NOW)
    pd.testing.assert_frame_equal(read(tmp_path / "o3.parquet"), answer)


@pytest.mark.usefixtures("small_pieces")
def test_bad_tasks_are_named_or_get_nulls(source: es.EnrichmentStore, tmp_path: Path):
    """All bad tasks of all pieces are named with their rows and nothing is written; with coerce they get nulls, and a reason."""
    frame = tasks()
    frame.loc[[0, 33, 199], "entityId"] = ["nonsense", None, "17"]
    path = write(frame, tmp_path / "tasks.parquet")
    with pytest.raises(es.ValidationError, match="3 bad tasks:\n  row 0: entityId 'nonsense' is not a UUID") as caught:
        source.lookup_to(path, tmp_path / "o.parquet")
    assert caught.value.problems is not None
    assert caught.value.problems["row"].tolist() == [0, 33, 199]
    assert os.listdir(tmp_path) == ["tasks.parquet"]
    for how in ("left", "inner"):
        options: dict[str, Any] = {"columns": ("status", "reason"), "errors": "coerce", "how": how, "now": NOW}
        report = source.lookup_to(path, tmp_path / "o.parquet", **options, overwrite=True)
        assert report.problems["row"].tolist() == [0, 33, 199]
        bad = report.counts.loc[report.counts["label"] == "bad row", "tasks"].sum()
        assert (report.problem_count, bad) == (3, 3 if how == "left" else 0)
        pd.testing.assert_frame_equal(
            read(tmp_path / "o.parquet"), source.lookup(path, **options).reset_index(drop=True)
        )


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_no_tasks_are_no_rows(source: es.EnrichmentStore, tmp_path: Path, ending: str):
    """An empty list is answered by a file without rows, with all its columns."""
    path = tmp_path / f"tasks.{ending}"
    path.write_text("[]") if ending == "json" else write(
        tasks(0).reindex(columns=["entityId", "field"]).astype("str"), path
    )
    report = source.lookup_to(path, tmp_path / "o.parquet")
    assert (report.tasks, report.rows, len(report.counts)) == (0, 0, 0)
    assert pq.read_schema(tmp_path / "o.parquet").names[-2:] == ["status", "dataFound"]
    assert "0 rows written" in str(report)


def test_what_exists_is_not_overwritten_unless_told(source: es.EnrichmentStore, tmp_path: Path):
    """A file or folder that is there is kept, unless overwrite=True; a folder with other things in it is kept always."""
    path = write(tasks(), tmp_path / "tasks.parquet")
    out, folder = tmp_path / "o.csv", tmp_path / "out"
    out.write_text("mine")
    with pytest.raises(es.ValidationError, match="is there already; name another place, or pass overwrite=True"):
        source.lookup_to(path, out)
    assert out.read_text() == "mine"
    source.lookup_to(path, out, overwrite=True, now=NOW)
    assert len(read(out)) == 200
    folder.mkdir()
    source.lookup_to(path, folder, now=NOW)
    with pytest.raises(es.ValidationError, match="is not empty"):
        source.lookup_to(path, folder, now=NOW)
    source.lookup_to(write(tasks(10), tmp_path / "few.parquet"), folder, overwrite=True, now=NOW)
    assert len(read(folder / "part-00000.parquet")) == 10
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(es.ValidationError, match=r"is not replaced: notes\.txt in it was not written by a lookup"):
        source.lookup_to(path, folder, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["few.parquet", "o.csv", "out", "tasks.parquet"]


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("o.ods", "has no known ending to write"),
        ("nowhere/o.parquet", "no such folder"),
        ("nowhere/out/", "there is no folder to make it in"),
        ("tasks.parquet/", "it is a file"),
        ("", "path of a file or a folder"),
        (17, "path of a file or a folder"),
        ("nul\0.csv", "path of a file or a folder"),
        ("o" * 300 + ".csv", "cannot be written: File name too long"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(
    source: es.EnrichmentStore, tmp_path: Path, output: Any, message: str
):
    """An output that cannot be made is refused with the reason."""
    path = write(tasks(), tmp_path / "tasks.parquet")
    with pytest.raises(es.ValidationError, match=message):
        source.lookup_to(path, f"{tmp_path}/{output}" if output and isinstance(output, str) else output)


def test_options_are_judged_before_the_work(source: es.EnrichmentStore, tmp_path: Path):
    """Frames, files of two formats, sizes that are none, names that clash and lists that fall short are refused; nothing is written."""
    path = write(tasks(), tmp_path / "tasks.parquet")
    out = tmp_path / "o.parquet"
    other = write(tasks(), tmp_path / "tasks.csv")
    refused: list[tuple[Any, dict[str, Any], str]] = [
        (tasks(), {}, "not DataFrame; a frame is looked up with lookup"),
        ([path, other], {}, "of one format, not of csv, parquet"),
        (path, {"memory_limit": "much"}, "memory_limit= takes a size"),
        (path, {"memory_limit": 6}, "memory_limit= takes a size"),
        (path, {"how": "outer"}, "how="),
        (path, {"columns": "x"}, "columns="),
        (path, {"org_id": ""}, "Organization ID is missing"),
        (path, {"require": {"ended": 98}}, "ended= takes a share"),
        (path, {"require": {"done": 1}}, "require= takes some of ended, failed, tasks"),
        (path, {"require": "ended=1"}, "require= takes some of"),
        (path, {"columns": None}, "columns="),
        (path, {"entity_id": "entityId", "fields": 1}, "fields="),
        ("x" * 5000, {}, "is not a path that can be looked at"),
        (write(tasks().assign(status="mine"), tmp_path / "clash.csv"), {}, "already have the column status.*prefix="),
        (write(tasks()[["name"]], tmp_path / "none.csv"), {}, "need the columns entityId, field; found name"),
    ]
    for given, options, message in refused:
        with pytest.raises(es.ValidationError, match=message):
            source.lookup_to(given, out, **options)
    with pytest.raises(es.RequirementError, match="98 % are required") as caught:
        source.lookup_to(path, out, require={"ended": 0.98}, now=NOW)
    assert caught.value.report.counts["tasks"].sum() == 200
    source.lookup_to(tmp_path / "clash.csv", out, prefix="new_", require={"ended": 0.1}, now=NOW)
    with pytest.raises(es.RequirementError) as counted:  # the tasks, whichever of them are written
        source.lookup_to(path, out, how="inner", require={"ended": 0.98}, now=NOW, overwrite=True)
    assert counted.value.figures == caught.value.figures
    assert "new_status" in read(out).columns


def test_files_that_break_off_leave_nothing(source: es.EnrichmentStore, tmp_path: Path):
    """A truncated or an empty file among the tasks, or one of another schema, is refused, and nothing is written."""
    (tmp_path / "t").mkdir()
    write(tasks(), tmp_path / "t" / "1.parquet")
    whole = (tmp_path / "t" / "1.parquet").read_bytes()
    for content in (whole[:-100], b""):
        (tmp_path / "t" / "2.parquet").write_bytes(content)
        with pytest.raises(es.ValidationError, match=r"2\.parquet"):
            source.lookup_to(str(tmp_path / "t" / "*.parquet"), tmp_path / "o.parquet")
    pq.write_table(pa.table({"name": ["Ada"]}), tmp_path / "t" / "2.parquet")
    with pytest.raises(es.ValidationError, match="row 200: entityId is missing"):
        source.lookup_to(str(tmp_path / "t" / "*.parquet"), tmp_path / "o.parquet")
    assert os.listdir(tmp_path) == ["t"]


def test_the_memory_limit_holds_for_the_call_alone(source: es.EnrichmentStore, tmp_path: Path):
    """The engine's bound is what it was when the call is over, also when it failed, and when two overlapped."""
    path = write(tasks(), tmp_path / "tasks.parquet")

    def limit() -> str:
        with source._cursor() as con:
            return str(con.execute("select current_setting('memory_limit')").fetchall()[0][0])

    usual = limit()
    source.lookup_to(path, tmp_path / "1.parquet", memory_limit="1GB")
    with source._limited("2GB"):
        source.lookup_to(path, tmp_path / "2.parquet", memory_limit="1GB")
        assert limit() != usual
    assert limit() == usual
    with pytest.raises(es.StoreError, match="memory"):
        source.lookup_to(path, tmp_path / "3.parquet", memory_limit="1KB")
    assert limit() == usual
    assert not (tmp_path / "3.parquet").exists()


def test_threads_write_their_own_files(source: es.EnrichmentStore, tmp_path: Path):
    """Calls at once, in one store, do not meet."""
    path = write(tasks(), tmp_path / "tasks.parquet")
    threads = [
        threading.Thread(
            target=source.lookup_to, args=(path, tmp_path / f"{n}.parquet"), kwargs={"now": NOW, "memory_limit": "1GB"}
        )
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expected = source.lookup(path, now=NOW)
    for n in range(8):
        pd.testing.assert_frame_equal(read(tmp_path / f"{n}.parquet"), expected)


def test_what_is_read_is_not_written_over(source: es.EnrichmentStore, tmp_path: Path):
    """An output that is the tasks' file or the records', or the folder of either, is refused, overwrite=True or not."""
    path = Path(source.lookup_to(write(tasks(), tmp_path / "tasks.parquet"), f"{tmp_path}/in/", now=NOW).files[0])
    pq.write_table(source.records(), tmp_path / "records.parquet")
    with es.EnrichmentStore.scan(tmp_path / "records.parquet", org_id=ORG) as scanned:
        for output in (path, path.parent, tmp_path / "records.parquet"):
            with pytest.raises(es.ValidationError, match=r"would replace .*, which holds the (tasks|records)"):
                scanned.lookup_to(path, output, overwrite=True)


def test_a_folder_of_somebody_else_is_kept_whatever_its_files_are_called(source: es.EnrichmentStore, tmp_path: Path):
    """Only what the marker of a lookup names is replaced: parts of Spark, and a part that was added to ours, are not."""
    path, folder = write(tasks(), tmp_path / "tasks.parquet"), tmp_path / "out"
    folder.mkdir()
    (folder / "part-00000.parquet").write_bytes(path.read_bytes())
    with pytest.raises(es.ValidationError, match=r"part-00000\.parquet in it was not written by a lookup"):
        source.lookup_to(path, folder, now=NOW, overwrite=True)
    (folder / "part-00000.parquet").unlink()
    for _ in range(2):
        source.lookup_to(path, folder, now=NOW, overwrite=True)
    (folder / "part-00001.parquet").write_bytes(path.read_bytes())
    with pytest.raises(es.ValidationError, match=r"part-00001\.parquet in it was not written by a lookup"):
        source.lookup_to(path, folder, now=NOW, overwrite=True)


@pytest.mark.usefixtures("small_pieces")
def test_two_that_write_one_output_are_told_apart(source: es.EnrichmentStore, tmp_path: Path):
    """Of two calls at once with one output the later replaces the other's whole, or is refused where it may not."""
    paths = [write(tasks(count), tmp_path / f"{count}.parquet") for count in (200, 300)]
    for overwrite in (True, False):
        out = tmp_path / f"{overwrite}.csv"
        failed: list[Exception] = []

        def call(path: Path, out: Path = out, overwrite: bool = overwrite, failed: list[Exception] = failed) -> None:
            try:
                source.lookup_to(path, out, overwrite=overwrite, now=NOW)
            except es.ValidationError as error:
                failed.append(error)

        threads = [threading.Thread(target=call, args=(path,)) for path in paths]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(read(out)) in (200, 300)
        assert len(failed) == (0 if overwrite else 1)
    assert sorted(os.listdir(tmp_path)) == ["200.parquet", "300.parquet", "False.csv", "True.csv"]


def test_pandas_reads_the_types_of_a_lookup(source: es.EnrichmentStore, tmp_path: Path):
    """Of a Parquet output pandas makes the nullable booleans of a lookup, whether there are nulls or not."""
    for count in (0, 1, 200):
        path = write(tasks(count).reindex(columns=["entityId", "field"]).astype("str"), tmp_path / "tasks.parquet")
        source.lookup_to(path, tmp_path / "o.parquet", now=NOW, overwrite=True)
        assert pd.read_parquet(tmp_path / "o.parquet")["dataFound"].dtype == pd.BooleanDtype()


def test_a_column_that_the_format_cannot_hold_is_named(source: es.EnrichmentStore, tmp_path: Path):
    """A nested column, or bytes that are no text, cannot go to CSV: that is said, and nothing is left."""
    table = pa.Table.from_pandas(tasks(3)).append_column("nested", pa.array([{"a": 1}] * 3))
    pq.write_table(table, tmp_path / "tasks.parquet")
    with pytest.raises(es.ValidationError, match=r"o\.csv' cannot be written: .*struct.*name another format"):
        source.lookup_to(tmp_path / "tasks.parquet", tmp_path / "o.csv")
    source.lookup_to(tmp_path / "tasks.parquet", tmp_path / "o.parquet")
    assert read(tmp_path / "o.parquet")["nested"][0] == {"a": 1}
    assert sorted(os.listdir(tmp_path)) == ["o.parquet", "tasks.parquet"]


def test_a_link_leads_to_what_is_written(source: es.EnrichmentStore, tmp_path: Path):
    """An output behind a link is made where the link leads, and the link stays."""
    path = write(tasks(), tmp_path / "tasks.parquet")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    source.lookup_to(path, f"{tmp_path}/link/", now=NOW)
    assert (tmp_path / "link").is_symlink()
    assert len(read(tmp_path / "real" / "part-00000.parquet")) == 200


# ------------------------------------------------------------------------------- what is larger than a test would be


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a folder with 600,000 records and as many tasks in Parquet."""
    folder = tmp_path_factory.mktemp("large")
    with duckdb.connect() as con:
        con.execute(
            "create table records as select md5(n::varchar)::uuid as entityId, 'emails' as field, 'org_1' as orgId, "
            "['finished', 'failed'][1 + n % 2] as status, timestamptz '2026-11-16 08:00:00Z' as createdAt from range(600000) r(n)"
        )
        con.table("records").write_parquet(str(folder / "records.parquet"))
        con.sql("select entityId, field, md5(entityId::varchar) as name from records").write_parquet(
            str(folder / "tasks.parquet")
        )
    return folder


_RUN = """
import sys, enrichstatus as es
source = es.EnrichmentStore.scan(sys.argv[1] + "/records.parquet", org_id="org_1")
print(source.lookup_to(sys.argv[1] + "/tasks.parquet", sys.argv[2], columns="all", memory_limit=sys.argv[3]))
"""


def begin(large: Path, output: Path, limit: str = "1GB", **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _RUN, str(large), str(output), limit],
        cwd=ROOT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("output", "stop"),
    [
        ("o.csv", signal.SIGKILL),
        ("out/", signal.SIGINT),
        ("o.csv", signal.SIGINT),
        ("out/", signal.SIGKILL),
    ][: cases(1, 4)],
)
def test_stopped_halfway_there_is_nothing_under_its_name(
    large: Path, tmp_path: Path, stop: signal.Signals, output: str
):
    """Killed or interrupted while it writes, a lookup leaves no output; begun again it gives all of it."""
    target = Path(f"{tmp_path}/{output}")
    process = begin(large, f"{tmp_path}/{output}")  # type: ignore[arg-type]
    wait_for(
        lambda: (
            any(part.is_dir() or part.stat().st_size for part in tmp_path.glob(".*.part")) or process.poll() is not None
        )
    )
    process.send_signal(stop)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0, errors
    assert not target.exists()
    if stop == signal.SIGINT:
        assert "KeyboardInterrupt" in errors
        assert os.listdir(tmp_path) == []
    process = begin(large, f"{tmp_path}/{output}")  # type: ignore[arg-type]
    told, errors = process.communicate(timeout=120)
    assert "600,000 tasks read, 600,000 rows written" in told, errors
    rows = duckdb.read_csv(target) if target.is_file() else duckdb.read_parquet(str(target / "*.parquet"))
    assert rows.count("*").fetchall() == [(600_000,)]


@pytest.mark.slow
def test_told_to_stop_the_command_cleans_up(large: Path, tmp_path: Path):
    """SIGTERM, as schedulers send it, ends the command with 143, and nothing of what was begun is left."""
    command = ["lookup", str(large / "tasks.parquet"), "--records", str(large / "records.parquet"), "--org", ORG]
    process = subprocess.Popen(
        [sys.executable, "-m", "enrichstatus", *command, "--columns", "all", "-o", str(tmp_path / "o.csv")],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: any(tmp_path.glob(".*.part")) or process.poll() is not None)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "enrichstatus: interrupted; nothing was written\n")
    assert os.listdir(tmp_path) == []


@pytest.fixture
def full(tmp_path: Path) -> Iterator[Path]:
    """Mount a file system of two megabytes."""
    folder = tmp_path / "full"
    folder.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_full_disk_is_told_and_nothing_is_left(large: Path, full: Path, tmp_path: Path):
    """Where the output finds no room, and where what exceeds the memory finds none, that is said, and what was begun is gone."""
    for output in ("out/", "o.csv", "o.parquet")[: cases(1, 3)]:  # a folder's parts are Parquet too
        _, errors = begin(large, f"{full}/{output}").communicate(timeout=60)  # type: ignore[arg-type]
        last = errors.strip().splitlines()[-1]
        assert "EnrichStatusError" in last, errors
        assert "No space left on device" in last, errors
        assert "make room" in last, errors
        assert os.listdir(full) == []
    _, errors = begin(large, tmp_path / "o.parquet", "70MB", TMPDIR=str(full)).communicate(timeout=60)
    last = errors.strip().splitlines()[-1]
    assert "StoreError" in last, errors
    assert "memory_limit=" in last, errors
    assert "TMPDIR" in last, errors
    assert sorted(os.listdir(tmp_path)) == ["full"]


@pytest.mark.slow
def test_little_memory_is_enough(large: Path, tmp_path: Path):
    """With a bound far below what the records and answers take, the work is done all the same."""
    told, errors = begin(large, tmp_path / "o.parquet", "100MB").communicate(timeout=120)
    assert "600,000 rows written" in told, errors
    found = duckdb.read_parquet(str(tmp_path / "o.parquet")).aggregate("status, count(*)", "status")
    assert dict(found.fetchall()) == {"finished": 300_000, "failed": 300_000}


def test_an_output_does_not_replace_what_was_loaded(tmp_path: Path):
    """A file that this store has loaded, by a glob or a link of it, is not written over, whatever `overwrite` says."""
    path, link = tmp_path / "r.json", tmp_path / "link.json"
    path.write_text(json.dumps([record(0)]))
    link.symlink_to(path)
    pd.DataFrame([task(0)]).to_csv(tmp_path / "t.csv", index=False)
    store = es.EnrichmentStore(org_id=ORG)
    store.load(tmp_path / "r*.json")
    for output in (path, link):
        with pytest.raises(es.ValidationError, match=r"would replace .*r\.json', which holds the records"):
            store.lookup_to(tmp_path / "t.csv", output, overwrite=True)
    assert json.loads(path.read_text())[0]["id"] == record(0)["id"]
    assert store.lookup_to(tmp_path / "t.csv", tmp_path / "o.json").rows == 1


def test_a_folder_whose_files_were_changed_is_not_replaced(tmp_path: Path):
    """A file of a lookup that somebody has edited is theirs; a folder of an earlier version, which noted names alone, is replaced."""
    (tmp_path / "t.csv").write_text(f"entityId,field\n{uid(0)},emails\n")
    folder, store = tmp_path / "out", es.EnrichmentStore(org_id=ORG)
    for _ in range(2):
        store.lookup_to(tmp_path / "t.csv", f"{folder}/", overwrite=True)
    part = folder / "part-00000.parquet"
    part.write_bytes(part.read_bytes() + b"theirs")
    with pytest.raises(es.ValidationError, match="in it was not written by a lookup, or has changed since"):
        store.lookup_to(tmp_path / "t.csv", folder, overwrite=True)
    (folder / ".enrichstatus").write_text("part-00000.parquet")
    assert store.lookup_to(tmp_path / "t.csv", folder, overwrite=True).rows == 1


def test_a_copy_of_our_folder_is_ours_and_a_changed_copy_is_not(tmp_path: Path):
    """A copied or restored folder has new times, and is known by what is in its files; one letter that differs makes it somebody's."""
    (tmp_path / "t.csv").write_text(f"entityId,field\n{uid(0)},emails\n")
    store, copy = es.EnrichmentStore(org_id=ORG), tmp_path / "copy"
    store.lookup_to(tmp_path / "t.csv", f"{tmp_path}/out/")
    for damage in (False, True):
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tmp_path / "out", copy, copy_function=shutil.copyfile)
        part = copy / "part-00000.parquet"
        data = part.read_bytes()
        os.utime(part, ns=(1, 1))
        if damage:
            part.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
            with pytest.raises(es.ValidationError, match="in it was not written by a lookup, or has changed since"):
                store.lookup_to(tmp_path / "t.csv", copy, overwrite=True)
            assert part.exists()
        else:
            assert store.lookup_to(tmp_path / "t.csv", copy, overwrite=True).rows == 1
