"""Files elsewhere: read, scanned and written on S3 as they are here, whole or not at all, and no key is shown."""

from __future__ import annotations

import io
import multiprocessing
import os
import pickle
import sys
import traceback
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.files.reading import read as files
from enrichstatus.files.remote.remote import is_remote, shown
from enrichstatus.files.writing import write as writing
from tests.support.factory import NOW, ORG, record, task, uid
from tests.support.lake import KEY, SECRET, Lake, Request, running

pytestmark = [pytest.mark.lakes, pytest.mark.xdist_group("lakes")]

LEADS = f"lead_id,name\n{uid(0)},Zoë\n{uid(1)},Ada\n".encode()


@pytest.fixture(scope="module")
def server() -> Iterator[Lake]:
    with running() as lake:
        yield lake


@pytest.fixture
def lake(server: Lake, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lake]:
    """Give an empty bucket, which the environment says how to reach; what fails is tried once."""
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)
    for name, value in {"ACCESS_KEY_ID": KEY, "SECRET_ACCESS_KEY": SECRET, "ENDPOINT_URL": server.url}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    yield server
    server.fault = lambda request: None
    server.empty()


def parquet(*records: dict[str, Any], drop: tuple[str, ...] = ()) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(records)).drop_columns(list(drop)), file)
    return file.getvalue()


def statuses(source: es.Source, *tasks: Any, **options: Any) -> list[Any]:
    answer = source.lookup(list(tasks), now=NOW, **options)
    return [None if pd.isna(value) else value for value in answer["status"]]


def is_read(request: Request) -> bool:
    """Whether a request reads a file, and does not list them."""
    return request.method == "GET" and request.path.count("/") > 1


def refused(call: Callable[[], object], words: str, kind: type[Exception] = es.ValidationError) -> None:
    """Check that a call is refused in these words, and that nothing of the error shows a key."""
    with pytest.raises(kind, match=words) as caught:
        call()
    told = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert KEY not in told
    assert SECRET not in told


def test_a_store_loads_what_an_address_names_in_any_format(lake: Lake):
    """Parquet in folders by organization, CSV, JSON and compressed files; a load names each file as it was given."""
    for org in ("org_1", "org_2"):
        lake.put(f"e/orgId={org}/day=1/r.parquet", parquet(record(0, status=org), drop=("orgId",)))
    lake.put("r.csv", pd.DataFrame([record(1)]).to_csv(index=False).encode())
    lake.put("r.ndjson.gz", pd.DataFrame([record(2)]).to_json(orient="records", lines=True).encode(), compressed=True)
    lake.put("bad.csv", b"entityId,field,status,createdAt\nnonsense,emails,finished,2026-11-16T08:00:00Z\n")
    with es.EnrichmentStore(org_id=ORG) as store:
        lake.requests.clear()
        assert store.load("s3://lake/e/**/*.parquet").inserted == 2
        assert len(lake.requests) == 3  # one to list them
        assert store.load(["s3://lake/r.csv", "s3://lake/*.ndjson.gz"], storage_options=lake.options).inserted == 2
        assert statuses(store, task(0), task(1), task(2)) == ["org_1", "finished", "finished"]
        assert statuses(store, task(0), org_id="org_2") == ["org_2"]
        with pytest.raises(es.ValidationError, match=r"row 0 of s3://lake/bad\.csv: entityId 'nonsense'") as caught:
            store.load(["s3://lake/r.csv", "s3://lake/bad.csv"])
        assert set(caught.value.problems["file"]) == {"s3://lake/bad.csv"}
        report = store.load(["s3://lake/r.csv", "s3://lake/bad.csv"], errors="reject")
        assert set(report.rejects["file"]) == {"s3://lake/bad.csv"}
        # a file that was loaded is not written over
        lake.put("l.csv", LEADS)
        with pytest.raises(es.ValidationError, match=r"would replace 's3://lake/r\.csv', which holds the records"):
            store.lookup_to("s3://lake/l.csv", "s3://lake/r.csv", overwrite=True)


def test_what_cannot_be_read_is_said_and_nothing_is_loaded(lake: Lake):
    """A bucket, file or permission that is missing, a file that vanishes, a download that is cut off: named, without a key or half a load."""
    for name in ("e/1.csv", "e/2.csv", "e/3.csv"):
        lake.put(name, pd.DataFrame([record(int(name[2]))]).to_csv(index=False).encode())
    lake.put("empty.csv", b"")
    with es.EnrichmentStore(org_id=ORG) as store:
        for address, words in {
            "s3://nobody/e.csv": "'s3://nobody/e.csv' cannot be read: there is no such bucket",
            "s3://nobody/*.csv": "'s3://nobody' cannot be read: there is no such bucket",
            "s3://lake/4.csv": "'s3://lake/4.csv' cannot be read: there is no such file",
            "s3://lake/e/*.json": r"'s3://lake/e/\*\.json' matches no file",
            "s3://lake/e": "'s3://lake/e' is a folder; name its files, e.g.",
            "s3://lake/empty.csv": "'s3://lake/empty.csv' is empty",
            "nowhere://lake/e.csv": "Protocol not known: nowhere. .*begin with s3://",
        }.items():
            refused(lambda address=address: store.load(address), words)  # type: ignore[misc]
        refused(lambda: store.load("s3://lake/e/1.csv", storage_options={"kee": SECRET}), "storage_options= .* 'kee'")
        refused(
            lambda: store.load([record(0)], storage_options=lake.options), "storage_options= says how files elsewhere"
        )
        faults: dict[str, tuple[int | float, type[Exception]]] = {
            r"'s3://lake/e/.\.csv' cannot be read: access was refused": (403, es.ValidationError),
            r"'s3://lake/e/2\.csv' cannot be read: there is no such file, or none any more": (404, es.ValidationError),
            r"'s3://lake/e/2\.csv' cannot be read: .*(payload|bytes)": (0.5, es.EnrichStatusError),
        }
        for words, (fault, kind) in faults.items():
            lake.fault = lambda request, fault=fault: (  # type: ignore[misc]
                fault if is_read(request) and (fault == 403 or request.path.endswith("2.csv")) else None
            )
            refused(lambda: store.load("s3://lake/e/*.csv", storage_options=lake.options), words, kind)
            lake.fault = lambda request: None
            assert len(store.records()) == 0
        gone = lake.options | {"endpoint_url": "http://127.0.0.1:9", "config_kwargs": {"retries": {"max_attempts": 0}}}
        refused(
            lambda: store.load("s3://lake/e/1.csv", storage_options=gone),
            "cannot be read: .*http://127.0.0.1:9.* Try again",
            es.EnrichStatusError,
        )
        assert store.load("s3://lake/e/*.csv").inserted == 3


def test_a_scan_reads_only_what_a_lookup_needs(lake: Lake):
    """Of folders by organization and day the others are not read; what was read once is not read again; a new version is."""
    for day in (11, 15, 16):
        for org in ("org_1", "org_2"):
            made = record(day, createdAt=f"2026-11-{day}T08:00:00Z")
            lake.put(f"e/orgId={org}/day=2026-11-{day}/r.parquet", parquet(made, drop=("orgId",)))
    lake.put("e/notes.txt", b"no records")
    with es.EnrichmentStore.scan("s3://lake/e/*/*/*.parquet", org_id=ORG, since="2026-11-14") as source:
        assert "6 records in 6 files" in repr(source)
        assert all(SECRET not in text for text in (repr(source), source._repr_html_()))
        lake.requests.clear()
        assert statuses(source, task(11), task(15), task(16)) == [None, "finished", "finished"]
        assert sum(map(is_read, lake.requests)) == 0  # so small a file was read whole when its end was
        newer = record(16, status="failed", createdAt="2026-11-16T08:00:00Z")
        lake.put("e/orgId=org_1/day=2026-11-16/r.parquet", parquet(newer, drop=("orgId",)))
        lake.requests.clear()
        assert statuses(source, task(15), task(16)) == ["finished", "failed"]
        assert {request.path for request in lake.requests if is_read(request)} == {
            "/lake/e/orgId=org_1/day=2026-11-16/r.parquet"
        }
        lake.put("e/orgId=org_1/day=2026-11-17/r.parquet", parquet(record(17), drop=("orgId",)))
        assert statuses(source, task(17)) == ["finished"]
        assert "7 records in 7 files" in repr(source)


def test_a_scan_of_a_large_file_reads_some_of_it(lake: Lake):
    """Columns that no lookup needs are not fetched."""
    lake.put("r.parquet", data := parquet(*(record(n, error=os.urandom(500).hex()) for n in range(4_000))))
    lake.requests.clear()
    with es.EnrichmentStore.scan("s3://lake/r.parquet", org_id=ORG) as source:
        assert statuses(source, task(0), task(3_999)) == ["finished"] * 2
        ranges = [request.range.removeprefix("bytes=").split("-") for request in lake.requests if request.range]
        assert 0 < sum(int(end) - int(start) for start, end in ranges) < len(data) / 2
        lake.requests.clear()
        assert statuses(source, task(0), task(3_999)) == ["finished"] * 2
        assert sum(map(is_read, lake.requests)) == 0


def test_a_scan_says_what_has_become_of_a_file(lake: Lake):
    """No Parquet, cut off, refused, changed while it is read or gone: the file is named, and an answer is never of half of it."""
    lake.put("r.parquet", parquet(record(0)))
    with es.EnrichmentStore.scan("s3://lake/*.parquet", org_id=ORG, storage_options=lake.options) as source:
        for fault, words in {
            403: r"'s3://lake/r\.parquet' cannot be read: access was refused",
            404: r"'s3://lake/r\.parquet' cannot be read: there is no such file",
            0.5: r"'s3://lake/r\.parquet' cannot be read",
        }.items():
            lake.put("r.parquet", parquet(record(0, status=str(fault))))
            lake.fault = lambda request, fault=fault: fault if is_read(request) else None  # type: ignore[misc]
            refused(lambda: source.lookup([task(0)], now=NOW), words, es.StoreError)
            lake.fault = lambda request: None
            assert statuses(source, task(0)) == [str(fault)]
        lake.put("r.parquet", b"PAR1 this is none")
        refused(lambda: source.lookup([task(0)]), r"s3://lake/r\.parquet", es.StoreError)
        versions = count()

        def changing(request: Request) -> None:
            if is_read(request):
                lake.put("r.parquet", parquet(record(0, status=f"version {next(versions)}")))

        lake.put("r.parquet", parquet(record(0)))
        lake.fault = changing
        refused(lambda: source.lookup([task(0)], now=NOW), "changed while they were read|cannot be read", es.StoreError)
        lake.fault = lambda request: None
        lake.empty()
        refused(lambda: source.lookup([task(0)]), "matches no file|there is no such file", es.StoreError)


def test_a_scan_elsewhere_goes_to_another_process(lake: Lake):
    """Pickled, and in a forked child, it reads the same files; a lookup from files to files reads them too."""
    lake.put("r.parquet", parquet(record(0)))
    lake.put("t.csv", pd.DataFrame([task(0)]).to_csv(index=False).encode())
    with es.EnrichmentStore.scan("s3://lake/r.parquet", org_id=ORG, storage_options=lake.options) as source:
        with pickle.loads(pickle.dumps(source)) as other:
            assert statuses(other, task(0)) == ["finished"]
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(statuses, (source, task(0))) == ["finished"]
        source.lookup_to("s3://lake/t.csv", "s3://lake/o.csv", now=NOW, storage_options=lake.options)
        assert b"finished" in lake.body("o.csv")
        with pytest.raises(es.ValidationError, match=r"would replace 's3://lake/r\.parquet', which holds the records"):
            source.lookup_to("s3://lake/t.csv", "s3://lake/r.parquet", overwrite=True, storage_options=lake.options)


def test_an_output_elsewhere_is_whole_or_not_there(lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What is there is kept unless it may be replaced; nothing is sent of a lookup that fails; of a folder nothing stays when a file fails."""
    monkeypatch.setattr(writing, "PART_ROWS", 1)
    monkeypatch.setattr(files, "BATCH", 1)
    pd.DataFrame([task(n) for n in range(3)]).to_parquet(tmp_path / "t.parquet")
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load([record(0)])

        def written(address: str, tasks: Any = tmp_path / "t.parquet", **options: Any) -> es.LookupReport:
            return store.lookup_to(tasks, address, now=NOW, storage_options=lake.options, **options)

        assert written("s3://lake/o.parquet").files == ["s3://lake/o.parquet"]
        first = lake.body("o.parquet")
        refused(lambda: written("s3://lake/o.parquet"), "'s3://lake/o.parquet' is there already; .*overwrite=True")
        assert written("s3://lake/o.parquet", overwrite=True, columns="all").rows == 3
        assert lake.body("o.parquet") != first
        with pytest.raises(es.RequirementError):
            written("s3://lake/p.csv", require={"ended": 1.0})
        refused(lambda: written("s3://nobody/p.csv"), "there is no such bucket")
        refused(lambda: written("s3://lake/p.doc"), "no known ending to write")
        refused(lambda: written("https://127.0.0.1/p.csv"), "a web server takes no files")

        def late(request: Request) -> None:
            if request.method == "PUT":
                lake.fault = lambda request: None
                lake.put("p.csv", b"another's")

        lake.fault = late
        refused(lambda: written("s3://lake/p.csv"), "'s3://lake/p.csv' is there already")
        assert lake.body("p.csv") == b"another's"

        lake.fault = lambda request: 403 if request.method == "PUT" and "00002" in request.path else None
        refused(lambda: written("s3://lake/parts/"), "'s3://lake/parts/' cannot be written: access was refused")
        assert lake.names("parts/") == []
        lake.fault = lambda request: None
        assert written("s3://lake/parts/").files == [f"s3://lake/parts/part-0000{n}.parquet" for n in range(3)]
        assert lake.names("parts/") == [f"parts/part-0000{n}.parquet" for n in range(3)]
        refused(lambda: written("s3://lake/parts/", overwrite=True), "a folder elsewhere is not replaced")
        lake.put("bad.csv", b"entityId,field\nx,emails\n")
        refused(lambda: written("s3://lake/q.csv", "s3://lake/bad.csv"), "row 0: entityId 'x'")
        assert lake.names("q") == []


def test_commands_take_addresses(lake: Lake, capsys: pytest.CaptureFixture[str]):
    """Tasks, records and outputs of the command line may lie elsewhere; the environment says how they are reached."""
    lake.put("l.csv", LEADS)
    lake.put("r.parquet", parquet(record(0)))
    lake.put("r.csv", pd.DataFrame([record(0)]).to_csv(index=False).encode())
    for records in ("s3://lake/r.parquet", "s3://lake/r.csv"):
        where = ["s3://lake/l.csv", "--records", records, "--org", ORG, "--fields", "emails", "--now", NOW]
        assert main(["lookup", *where, "-o", "s3://lake/o.csv"]) == 0
        assert "rows written to s3://lake/o.csv" in capsys.readouterr().out
        assert b"Zo\xc3\xab" in lake.body("o.csv")
    assert main(["plan", *where, "-o", "s3://lake/p.csv"]) == 0
    assert lake.names("p") == ["p.csv"]
    assert main(["lookup", *where, "-o", "s3://lake/l.csv"]) == 2
    assert "would replace 's3://lake/l.csv'" in capsys.readouterr().err


def test_an_address_is_shown_without_its_keys(monkeypatch: pytest.MonkeyPatch):
    """Neither what follows a question mark nor a password; without the extra the message says what to install."""
    assert shown("https://me:pw@host/a.csv?X-Amz-Signature=1#2") == "https://host/a.csv"
    assert shown("sftp://me:pw@host/a.csv") == "sftp://host/a.csv"
    assert shown("abfs://box@account.dfs.core.windows.net/a.csv") == "abfs://box@account.dfs.core.windows.net/a.csv"
    assert not is_remote("C:\\a.csv")
    with pytest.raises(es.ValidationError, match="has lost a slash in a Path; give an address as text"):
        es.EnrichmentStore(org_id=ORG).load(Path("s3://lake/r.csv"))
    monkeypatch.setitem(sys.modules, "fsspec.core", None)
    signed = f"https://127.0.0.1:9/r.parquet?sig={SECRET}"
    for call in (
        lambda: es.EnrichmentStore(org_id=ORG).load(signed),
        lambda: es.EnrichmentStore.scan(signed, org_id=ORG),
        lambda: es.tasks_from_leads(signed, entity_id="lead_id"),
    ):
        refused(call, r"'https://127.0.0.1:9/r.parquet' lies elsewhere.*pip install \"enrichstatus\[remote\]\"")


def test_a_web_server_is_read_and_its_signatures_are_not_shown(lake: Lake):
    """Files at http:// are loaded, scanned by range and looked up; what is signed shows in no message, repr or report."""
    lake.put("orgId=org_1/r.parquet", parquet(record(0), drop=("orgId",)))
    lake.put("bad.csv", b"entityId,field,status,createdAt\nx,emails,finished,2026-11-16T08:00:00Z\n")
    lake.put("l.csv", LEADS)
    twice = es.tasks_from_leads(["s3://lake/l*.csv", "s3://lake/l.csv"], entity_id="lead_id", fields="emails")
    assert len(twice) == 2
    signed = f"{lake.url}/lake/{{}}?X-Amz-Signature={SECRET}"
    with es.EnrichmentStore(org_id=ORG) as store:
        assert store.load(signed.format("orgId=org_1/r.parquet")).inserted == 1
        assert len(es.tasks_from_leads(signed.format("l.csv"), entity_id="lead_id", fields="emails")) == 2
        refused(
            lambda: store.load(signed.format("bad.csv")),
            r"row 0 of http://127\.0\.0\.1:\d+/lake/bad\.csv: entityId 'x'",
        )
        refused(
            lambda: store.load(signed.format("none.csv")), r"/lake/none\.csv' cannot be read: there is no such file"
        )
        refused(lambda: store.load(signed.format("*.csv")), "a web server does not list its files")
        with es.EnrichmentStore.scan(signed.format("orgId=org_1/r.parquet"), org_id=ORG) as source:
            assert statuses(source, task(0)) == ["finished"]
            assert SECRET not in repr(source)
            lake.put("orgId=org_1/r.parquet", parquet(record(0, status="failed"), drop=("orgId",)))
            assert statuses(source, task(0)) == ["failed"]
            lake.fault = lambda request: 403
            refused(
                lambda: source.lookup([task(0)]),
                "access was refused .*anywhere else give a frame",
                es.EnrichStatusError,
            )
        refused(lambda: store.load(signed.format("l.csv")), "cannot be read: access was refused")
        lake.fault = lambda request: 0.5 if request.method == "GET" else None
        refused(lambda: store.load(signed.format("bad.csv")), "bad.csv' cannot be read", es.EnrichStatusError)
        two = [signed.format("l.csv"), signed.format("l.csv") + "2"]
        refused(lambda: es.EnrichmentStore.scan(two, org_id=ORG), "differ after their question mark alone")


def test_a_file_whose_version_is_not_known_is_not_scanned(lake: Lake, monkeypatch: pytest.MonkeyPatch):
    """What is kept of a file could be that of another version; it is loaded instead."""
    from fsspec.implementations.http import HTTPFileSystem

    lake.put("r.parquet", parquet(record(0)))
    signed = f"{lake.url}/lake/r.parquet?X-Amz-Signature={SECRET}"
    HTTPFileSystem.clear_instance_cache()  # each has a function of its own
    monkeypatch.setattr(HTTPFileSystem, "info", lambda self, path: {"name": path, "type": "file", "size": None})
    with es.EnrichmentStore(org_id=ORG) as store:
        assert store.load(signed).inserted == 1
    refused(
        lambda: es.EnrichmentStore.scan(signed, org_id=ORG),
        "does not say how long it is.*load it",
    )
