"""The endpoint scaled out: several processes serve one file, and each takes up the next by itself."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

import enrichstatus as es
from enrichstatus.sources.store.snapshot import layout
from tests.support.factory import ORG, record, task
from tests.support.serving import PATH, write_tokens
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]
# Long, for a busy machine: every wait is for a condition, so that only a failure takes this long.
SECONDS = 30
RECORDS = 50


@dataclass
class Worker:
    """A process that serves; what it logs is in a file, since a pipe that nobody reads would fill up and stop it."""

    process: subprocess.Popen[str]
    url: str
    log: Path

    def ask(self, session: requests.Session) -> str:
        """Ask for every record, and tell the version that all of them bear."""
        body = {"tasks": [task(number) for number in range(RECORDS)]}
        answer = session.post(self.url + PATH, json=body, headers={"Authorization": "Bearer token"}, timeout=SECONDS)
        assert answer.status_code == 200, answer.text
        found = [one["createdBy"] for one in answer.json()]
        assert len(found) == RECORDS
        (version,) = set(found)
        return str(version)


@dataclass
class Answer:
    """When it was requested and when it was there, and the version that it was of."""

    asked: float
    there: float
    version: str


@contextmanager
def worker(folder: Path, name: str) -> Iterator[Worker]:
    """Serve the store of a folder in a process of its own, which ends with the test."""
    log = folder / f"{name}.log"
    (scratch := folder / "scratch").mkdir(exist_ok=True)
    options = ["--store", str(folder / "leads.duckdb"), "--tokens", str(folder / "tokens.toml"), "--port", "0"]
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "enrichstatus", "serve", *options],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            cwd=ROOT,
            env=os.environ | {"TMPDIR": str(scratch)},
        )
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found, log.read_text()
        yield Worker(process, found[0], log)
    finally:
        process.kill()
        process.communicate()


def put(folder: Path, version: str) -> None:
    """Put a store whose records all bear a version in the place of the last, as a nightly job does."""
    beside = folder / f"{version}.duckdb"
    with es.EnrichmentStore(beside) as store:
        store.load([record(number, createdBy=version) for number in range(RECORDS)])
    os.replace(beside, folder / "leads.duckdb")


@contextmanager
def session() -> Iterator[requests.Session]:
    with requests.Session() as made:
        made.trust_env = False  # whatever proxy the environment names
        yield made


@pytest.mark.slow
def test_two_workers_of_one_file_take_up_the_next_without_a_failed_request(tmp_path: Path):
    """Each answers all the while, whole answers of the old file or the new, never of the old again; one that is killed costs only itself."""
    put(tmp_path, "v0")
    write_tokens(tmp_path / "tokens.toml", {"token": ORG})
    stop = threading.Event()
    with ExitStack() as stack:
        workers = [stack.enter_context(worker(tmp_path, name)) for name in ("one", "two")]
        mine = stack.enter_context(session())
        answers: list[list[Answer]] = [[] for _ in workers]

        def keep_asking(place: int) -> None:
            """Ask a worker until told to stop, a bounded number of times."""
            with session() as asker:
                for _ in range(20_000):
                    asked = time.monotonic()
                    version = workers[place].ask(asker)
                    answers[place].append(Answer(asked, time.monotonic(), version))
                    if stop.is_set():
                        break

        with ThreadPoolExecutor(4) as threads:
            asking = [threads.submit(keep_asking, place) for place in (0, 1, 0, 1)]
            try:
                until(lambda: all(answers) or any(one.done() for one in asking))
                for version in ("v1", "v2"):
                    put(tmp_path, version)
                    for one, seen in zip(workers, answers, strict=True):
                        until(lambda one=one, version=version: one.ask(mine) == version)
                        until(
                            lambda seen=seen, version=version: (
                                seen[-1].version == version or any(one.done() for one in asking)
                            )
                        )
            finally:
                stop.set()
        for one in asking:
            one.result()  # none has failed
        for seen in answers:
            assert {answer.version for answer in seen} == {"v0", "v1", "v2"}
            check_never_back(seen)
        for one in workers:
            assert '"event":"not reloaded"' not in one.log.read_text()

        first, second = workers
        first.process.kill()
        first.process.wait(SECONDS)
        with pytest.raises(requests.ConnectionError):
            first.ask(mine)
        assert second.ask(mine) == "v2"
        put(tmp_path, "v3")
        until(lambda: second.ask(mine) == "v3")
        # what the killed one had is gone with it: its snapshot has no name, and the store no second one
        assert {path.name for path in tmp_path.iterdir()} == {
            "leads.duckdb",
            "tokens.toml",
            "scratch",
            "one.log",
            "two.log",
        }
        assert not list((tmp_path / "scratch").iterdir())


def check_never_back(seen: list[Answer]) -> None:
    """What was requested after an answer of some version was there is of that version, or of a later one."""
    for version in {answer.version for answer in seen}:
        since = min(answer.there for answer in seen if answer.version == version)
        assert {answer.version for answer in seen if answer.asked > since and answer.version < version} == set()


def test_a_store_that_takes_long_to_read_draws_no_bar_on_stdout():
    """Nor where Python was told what to run by ``-m`` or ``-c``, which DuckDB takes for somebody at a terminal."""
    code = "import enrichstatus as es\nwith es.EnrichmentStore()._cursor() as con: print(con.execute(\"select current_setting('enable_progress_bar')\").fetchall())"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, cwd=ROOT).stdout
    assert told == "[(False,)]\n"


def test_a_worker_that_is_killed_while_it_reads_leaves_no_copy_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """What a snapshot is written to has no name in the temporary folder, where nobody would clear it away."""
    put(tmp_path, "v0")
    (scratch := tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    rows, found = layout._rows, []

    def watched(*arguments: Any) -> Any:
        found.append(list(scratch.iterdir()))
        return rows(*arguments)

    monkeypatch.setattr(layout, "_rows", watched)
    with es.EnrichmentStore(tmp_path / "leads.duckdb", org_id=ORG, read_only=True, preload=True) as store:
        assert found == [[]]
        assert store.lookup([task(0)])["status"].tolist() == ["finished"]
