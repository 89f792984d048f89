"""A snapshot (``preload=True``): it answers as ``lookup.sql`` does, of the same file, whatever lies in it, and needs no DuckDB for it."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.schema import COLUMNS, EXPLANATION
from enrichstatus.sources.store.snapshot import layout, snapshot
from tests.support.cases import cases, crossed
from tests.support.factory import NOW, ORG, record, task, uid

MOMENT = datetime.fromisoformat(NOW)
FIELDS = (*(f"field {number}" for number in range(39)), 'of "quotes"')
LIMITS = {"field 0": "1s", "field 1": "30min", "field 2": timedelta(days=400)}
ORGS = ("org_1", "org_2", 'org "3"', "org\\4\n", "org ☃ \U0001f600")
#: Text that JSON has to escape, or must not.
TEXTS = (
    None,
    "",
    "plain",
    '"',
    "\\",
    "\\u0041",
    "\b\f\n\r\t",
    "\0",
    "\x01\x1f\x7f",
    "é ☃ \U0001f600 \u2028",
    "</a>",
    "null",
)
WORDS = ("pending", "finished", "timeout", "failed", "Pending", "in_progress", "unheard of", 'of "quotes"\n', "☃")
STATUSES = {"in_progress": "pending", "done": "finished"}
ALL = tuple(name for name in (*COLUMNS, *EXPLANATION.names) if name not in snapshot._COLUMNS)


def instants(draw: random.Random) -> str:
    """Draw an instant: at a limit, or beside it, or far away."""
    limit = draw.choice([800, 1, 1800, 400 * 86400, 0])
    beside = draw.choice([-1000, -1, 0, 0, 1, 1000, 10**6 * 3600, -(10**6) * 3600])
    moment = MOMENT - timedelta(seconds=limit) + timedelta(microseconds=beside)
    far = (
        "0001-01-01T00:00:00.000001Z",
        "1969-12-31T23:59:59.999999Z",
        "1969-12-31T23:59:59.5Z",
        "9999-12-31T23:59:59.999999Z",
    )
    return draw.choice([moment.isoformat()] * 8 + list(far))


def drawn(draw: random.Random, count: int) -> list[dict[str, Any]]:
    """Draw records of few keys, so that many are of one: versions of one record, ties, and what is alike in other organizations."""
    return [
        {
            "id": uid(draw.randrange(count)),
            "createdAt": instants(draw),
            "updatedAt": draw.choice([None, instants(draw)]),
            "entityId": uid(draw.randrange(count // 20)),
            "entityType": draw.choice(["person", "company"]),
            "field": draw.choice(FIELDS[:2] + FIELDS[-1:] if draw.random() < 0.9 else FIELDS),
            "status": draw.choice(WORDS),
            "error": draw.choice(TEXTS),
            "dataFound": draw.choice([None, True, False]),
            "createdBy": draw.choice(TEXTS),
            "orgId": draw.choice(ORGS),
            "globalEnrichmentId": draw.choice(TEXTS),
            "creditTransactionId": draw.choice(TEXTS),
        }
        for _ in range(count)
    ]


def tasks(draw: random.Random, entities: int, count: int) -> list[dict[str, str]]:
    """Draw tasks, of which some have no record and some come twice."""
    return [
        {
            "entityId": draw.choice([str.lower, str.upper])(uid(draw.randrange(entities + 5))),
            "entityType": draw.choice(["person", "company"]),
            "field": draw.choice(FIELDS[:2] + FIELDS[-1:] if draw.random() < 0.9 else FIELDS),
        }
        for _ in range(count)
    ]


def both(path: Path, **options: Any) -> Iterator[es.EnrichmentStore]:
    """Open a store with a snapshot, and without."""
    for preload in (True, False):
        yield es.EnrichmentStore(path, read_only=True, preload=preload, **options)


def test_a_snapshot_answers_as_the_query_does(tmp_path: Path):
    """100,000 random cases (2,000 unless all are run): ties, nulls, versions, organizations, words, limits, text of all kinds."""
    draw, count = random.Random(1), cases(2_000, 100_000)
    with es.EnrichmentStore(tmp_path / "s.duckdb", fields=FIELDS, statuses=STATUSES) as store:
        store.load(drawn(draw, 4_000))
    fast, slow = both(tmp_path / "s.duckdb", max_processing_time=LIMITS)
    names = [name for name in (*COLUMNS, *EXPLANATION.names) if name not in ALL]
    with fast, slow:
        for org in (*ORGS, "org_unknown"):
            frame = pd.DataFrame(tasks(draw, 200, count // len(ORGS)))
            for moment in (NOW, (MOMENT + timedelta(microseconds=1)).isoformat()):
                options: dict[str, Any] = {"org_id": org, "now": moment, "prefix": "r_", "columns": names}
                assert_same(fast, slow, frame, options)
            assert_same(fast, slow, frame.head(500), options | {"how": "inner", "columns": "all"})
            for start in range(0, len(frame), 200):
                body = {"tasks": frame.iloc[start : start + 200].to_dict("records")}
                expected = slow.query(body, org_id=org, now=NOW)
                assert fast.query(body, org_id=org, now=NOW) == expected
                assert fast.query_at_once(body, org_id=org, now=NOW) is not None


def assert_same(
    fast: es.EnrichmentStore, slow: es.EnrichmentStore, frame: pd.DataFrame, options: dict[str, Any]
) -> None:
    pd.testing.assert_frame_equal(fast.lookup(frame, **options), slow.lookup(frame, **options), check_exact=True)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of a few records, one of which is pending and one of another organization."""
    path = tmp_path_factory.mktemp("snapshot") / "s.duckdb"
    with es.EnrichmentStore(path) as store:
        store.load([*map(record, range(50)), record(60, status="pending"), record(70, orgId="org_2", entityId=uid(1))])
    return path


SPELLINGS = {
    "braces": lambda text: "{" + text + "}",
    "no dashes": lambda text: text.replace("-", ""),
    "white space": lambda text: f" {text}\u2003",
    "wide digits": lambda text: text[:-1] + "\uff11",
    "a dash too many": lambda text: text[:8] + "--" + text[10:],
    "a letter too many": lambda text: text[:-1] + "g",
    "short": lambda text: text[:-1],
    "half a surrogate": lambda text: text[:-1] + "\ud800",
    "a nul": lambda text: text[:-1] + "\0",
    "a sign": lambda text: text[:-2] + "+1",
    "nothing": lambda text: "",
}


@pytest.mark.parametrize(("name", "place"), crossed(SPELLINGS, [0, 1, 2]))
def test_what_is_spelled_otherwise_is_read_or_refused_as_without(path: Path, name: str, place: int):
    """An id in another spelling, or one that is bad, wherever it stands among others, has the answer or the error that it has otherwise."""
    body: dict[str, Any] = {"tasks": [task(1), task(2), task(3)]}
    body["tasks"][place]["entityId"] = SPELLINGS[name](uid(1))
    fast, slow = both(path, org_id=ORG)
    with fast, slow:
        for call in ("query", "lookup"):
            answers = [
                outcome(getattr(store, call), body if call == "query" else body["tasks"]) for store in (fast, slow)
            ]
            assert answers[0] == answers[1]


def outcome(call: Any, given: Any) -> Any:
    try:
        answer = call(given)
    except es.EnrichStatusError as error:
        return type(error), str(error)
    return answer if isinstance(answer, list) else answer.to_csv()


def test_an_id_that_borrows_from_its_neighbour_is_not_read(path: Path):
    """Two bad ids that are good when put together are bad."""
    first, second = uid(1), uid(2)
    bad = [{"entityId": first[:-1], "field": "emails"}, {"entityId": first[-1] + second, "field": "emails"}]
    with es.EnrichmentStore(path, read_only=True, preload=True, org_id=ORG) as store:
        with pytest.raises(es.ValidationError, match="row 0"):
            store.query({"tasks": bad})
        with pytest.raises(es.ValidationError, match="row 0"):
            store.lookup(bad)


@pytest.mark.parametrize(
    "tasks",
    [
        pd.DataFrame([task(n) for n in range(40)], dtype="category"),
        pd.DataFrame([task(n) for n in range(40)], dtype=object),
        pd.DataFrame([task(n) for n in range(40)]).iloc[5:30:3],
        pd.DataFrame([task(n) for n in range(40)]).head(0),
    ],
    ids=["categories", "objects", "a part", "none"],
)
def test_any_frame_is_answered(path: Path, tasks: pd.DataFrame):
    """However its columns are stored."""
    fast, slow = both(path, org_id=ORG)
    with fast, slow:
        pd.testing.assert_frame_equal(fast.lookup(tasks), slow.lookup(tasks))


def test_keys_whose_digests_are_the_same_are_told_apart(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Even if all digests were one, each task would have its own record, and no organization another's."""

    def one(high: Any, *_: Any) -> npt.NDArray[np.uint64]:
        return np.full(len(high), 2**63 + 5, np.uint64)

    slow = es.EnrichmentStore(path, read_only=True)
    monkeypatch.setattr(layout, "digests", one)
    monkeypatch.setattr(snapshot, "digests", one)
    asked = {"tasks": [task(n) for n in range(80)]}
    with slow, es.EnrichmentStore(path, read_only=True, preload=True) as fast:
        for org in (ORG, "org_2", "org_3"):
            assert fast.query(asked, org_id=org, now=NOW) == slow.query(asked, org_id=org, now=NOW)


def test_a_request_that_is_well_formed_takes_no_duckdb(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where DuckDB would fail, it is answered; what is for DuckDB fails."""
    with es.EnrichmentStore(path, read_only=True, preload=True, org_id=ORG) as store:
        monkeypatch.setattr(store, "_cursor", None)
        assert len(store.query({"tasks": [task(n) for n in range(60)]})) == 50
        with pytest.raises(TypeError):
            store.query({"tasks": [{"entityId": "{" + uid(1) + "}", "field": "emails"}]})


def test_ten_thousand_organizations_and_an_empty_store(tmp_path: Path):
    """Each organization has its own record of the one key that all have; a store without records answers nothing."""
    for count in (10_000, 0):
        with es.EnrichmentStore(tmp_path / f"{count}.duckdb") as store:
            made = pd.DataFrame([record(n, entityId=uid(0), orgId=f"org_{n}") for n in range(count)], columns=COLUMNS)
            store.load(made)
        with es.EnrichmentStore(tmp_path / f"{count}.duckdb", read_only=True, preload=True) as store:
            for number in (0, 7, 9_999):
                found = store.query({"tasks": [task(0)]}, org_id=f"org_{number}")
                assert [one["id"] for one in found] == [uid(1_000_000 + number)] * min(count, 1)
            assert store.lookup([task(0)], org_id="org_x")["status"].isna().all()


# --- the file of a snapshot -----------------------------------------------------------------------------------------------------


def test_a_full_disk_is_an_error_that_says_what_to_do(path: Path):
    """And not half a snapshot, nor the end of the process."""
    code = """
import resource, sys
import enrichstatus as es
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    es.EnrichmentStore(sys.argv[1], read_only=True, preload=True)
except es.StoreError as error:
    print(error)
"""
    command = [sys.executable, "-c", code, str(path)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2]).stdout
    assert "cannot be written to the temporary folder" in said
    assert "TMPDIR" in said


def test_a_temporary_folder_that_is_gone(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Where it is gone before, that is an error which says so; where it goes afterwards, the snapshot stays."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    with pytest.raises(es.StoreError, match="TMPDIR"):
        es.EnrichmentStore(path, read_only=True, preload=True)
    (tmp_path / "scratch").mkdir()
    with es.EnrichmentStore(path, read_only=True, preload=True, org_id=ORG) as store:
        assert list((tmp_path / "scratch").iterdir()) == []
        shutil.rmtree(tmp_path / "scratch")
        assert len(store.query({"tasks": [task(n) for n in range(60)]})) == 50


def test_a_swap_among_many_requests(tmp_path: Path):
    """While `refresh` takes up other files, each request has the answer of one of them, whole, and never of one before again."""
    path = tmp_path / "s.duckdb"

    def put(version: int) -> None:
        with es.EnrichmentStore(tmp_path / "next") as store:
            store.load([record(n, createdBy=str(version)) for n in range(50)])
        os.replace(tmp_path / "next", path)

    put(0)
    body, stop = {"tasks": [task(n) for n in range(50)]}, threading.Event()
    seen: list[list[int]] = [[], []]
    with es.EnrichmentStore(path, read_only=True, preload=True, org_id=ORG) as store:

        def ask(versions: list[int]) -> None:
            while not stop.is_set():
                (version,) = {one["createdBy"] for one in store.query(body)}
                versions.append(int(version))

        threads = [threading.Thread(target=ask, args=(versions,)) for versions in seen]
        for thread in threads:
            thread.start()
        try:
            for version in (1, 2, 3):
                put(version)
                assert store.refresh()
                assert {one["createdBy"] for one in store.query(body)} == {str(version)}
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    for versions in seen:
        assert versions == sorted(versions)


def test_the_json_is_what_the_encoder_gives(path: Path):
    """Byte for byte. Of a task that comes twice there is one object, and a record that is pending too long has timed out."""
    with es.EnrichmentStore(path, read_only=True, preload=True, org_id=ORG) as store:
        found = store.query_at_once({"tasks": [task(60), task(1), task(60)]}, now=datetime(2030, 1, 1, tzinfo=UTC))
    assert found is not None
    assert found == msgspec.json.encode(json.loads(found))
    assert [(one["entityId"], one["status"], one["dataFound"]) for one in json.loads(found)] == [
        (uid(60), "timeout", None),
        (uid(1), "finished", True),
    ]


def test_odd_text_comes_back_as_it_was(tmp_path: Path):
    """Quotes, control characters, what is beyond 16 bits, and a status that nobody knows; half a surrogate is no text, and is refused."""
    odd = ['"', "\\", "\x01\x1f\x7f", "\r\n\t", "</script>", "\u2028", "\U0001d4b3", "%s{}$0"]
    rows = [record(n, error=text, createdBy=text, creditTransactionId=text) for n, text in enumerate(odd)]
    rows[0]["status"] = 'said "no"'
    with es.EnrichmentStore(tmp_path / "odd.duckdb", org_id=ORG) as store:
        store.load(rows)
        expected = store.query({"tasks": [task(n) for n in range(len(odd))]}, now=NOW)
        with pytest.raises(es.ValidationError, match=r"Unicode|surrogates"):
            store.load([record(0, error="\ud800")])
    with es.EnrichmentStore(tmp_path / "odd.duckdb", read_only=True, preload=True, org_id=ORG) as store:
        found = store.query_at_once({"tasks": [task(n) for n in range(len(odd))]}, now=NOW)
    assert found is not None
    assert json.loads(found) == expected
    assert [one["error"] for one in expected] == odd
