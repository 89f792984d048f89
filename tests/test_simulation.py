"""The simulated service: what becomes of tasks, when, and the faults on the way."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import requests

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.server import create_app
from enrichstatus.simulation import FAILS, FAULTS, NEVER, PROFILES, SIGMA, Faults, SimulatedStore
from tests.factory import NOW, ORG, record, task, uid
from tests.serving import PATH, running

ROOT = Path(__file__).parents[1]
TASKS = pd.DataFrame([task(n, field) for n in range(2000) for field in PROFILES])


class Clock:
    """Seconds that pass when a test says so."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def test_tasks_start_pending_and_end_as_their_fields_do():
    """At first all are pending; at a field's median half have ended; in the end the shares of each fate are the declared ones."""
    clock = Clock()
    with SimulatedStore(TASKS, seed=7, clock=clock) as service:
        assert set(service.lookup(TASKS)["status"]) == {"pending"}
        for field, (median, _) in sorted(PROFILES.items(), key=lambda item: item[1]):
            clock.seconds = median
            status = service.lookup(TASKS)
            ended = (status.loc[status["field"] == field, "status"] != "pending").mean()
            assert ended == pytest.approx(0.5 * (1 - NEVER), abs=0.04), field
        clock.seconds = 60 * 2.72 ** (SIGMA * 5)
        status = service.lookup(TASKS, columns="all")
        shares = status["status"].value_counts(normalize=True)
        assert shares["pending"] == pytest.approx(NEVER, abs=0.01)
        assert shares["failed"] == pytest.approx(FAILS, abs=0.01)
        assert status.loc[status["status"] == "failed", "error"].notna().all()
        for field, (_, found) in PROFILES.items():
            finished = status[(status["field"] == field) & (status["status"] == "finished")]
            assert finished["dataFound"].mean() == pytest.approx(found, abs=0.04), field
        # by the wall clock too little time has passed for a timeout; the rule judges those that never end
        late = pd.Timestamp.now("UTC") + pd.Timedelta("801s")
        assert set(service.lookup(TASKS, now=late)["status"]) == {"finished", "failed", "timeout"}


def test_a_seed_is_one_course_of_events():
    """The same seed gives a task the same fate at the same time, whatever it is triggered with; another seed another."""

    def course(tasks: pd.DataFrame, seed: int) -> list[Any]:
        clock, seen = Clock(), []
        with SimulatedStore(tasks, seed=seed, clock=clock) as service:
            for seconds in (10, 30, 100, 1000):
                clock.seconds = seconds
                seen.append(service.lookup(TASKS[:300], columns=["id", "status", "dataFound"]).to_csv())
        return seen

    assert course(TASKS, 7) == course(TASKS[:300].iloc[::-1], 7)
    assert course(TASKS[:300], 7) != course(TASKS[:300], 8)


def test_speed_shrinks_all_times():
    """Ten times faster, a tenth of the time brings as many ends, and the rule waits a tenth as long."""
    statuses = []
    for speed, seconds in ((1, 40.0), (10, 4.0)):
        clock = Clock()
        with SimulatedStore(TASKS, seed=1, speed=speed, clock=clock) as service:
            clock.seconds = seconds
            statuses.append(service.lookup(TASKS)["status"].tolist())
    assert statuses[0] == statuses[1]
    with SimulatedStore(TASKS, speed=10, clock=Clock()) as service:
        late = pd.Timestamp.now("UTC") + pd.Timedelta("81s")
        assert set(service.lookup(TASKS, now=late)["status"]) == {"timeout"}


def test_unusable_settings_are_refused():
    """Bad tasks, a speed of nothing, a strange fault or rate: each says what it takes."""
    with pytest.raises(es.ValidationError, match="2 bad tasks"):
        SimulatedStore([task(0, "fax"), {"entityId": "x", "field": "emails"}])
    with pytest.raises(es.ValidationError, match="speed="):
        SimulatedStore([task(0)], speed=0)
    with pytest.raises(es.ValidationError, match="429, 500, slow, cut, not 404"):
        Faults(None, rate=0.1, kinds=["404"])  # type: ignore[arg-type]
    with pytest.raises(es.ValidationError, match="from 0 to 1"):
        Faults(None, rate=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_met_and_outlived(store: es.EnrichmentStore, kind: str):
    """A client that repeats gets the whole answer from a service half of whose answers are this fault."""
    store.load([record(n) for n in range(2000)])
    tasks = pd.DataFrame([task(n) for n in range(2000)])
    app = Faults(create_app(store, {"token": ORG}), rate=0.5, kinds=[kind], seed=3, pause=0.05)
    with (
        running(app) as url,
        es.EnrichmentClient(url, token="token", retries=20, backoff=0.01, max_retry_after=0.01) as client,
    ):
        pd.testing.assert_frame_equal(client.lookup(tasks), store.lookup(tasks))
        seen = [_met(url) for _ in range(20)]
    assert {"429": 429, "500": 500, "slow": 200, "cut": "cut"}[kind] in seen
    assert 200 in seen


def _met(url: str) -> Any:
    try:
        answer = requests.post(
            url + PATH, json={"tasks": [task(0)]}, headers={"Authorization": "Bearer token"}, timeout=9
        )
    except requests.RequestException:
        return "cut"
    if answer.status_code == 429:
        assert answer.headers["Retry-After"] == "1"
    return answer.status_code


def test_faults_are_drawn_by_the_seed(store: es.EnrichmentStore):
    """The same seed gives the same requests the same faults."""
    courses = []
    for seed in (1, 1, 2):
        app = Faults(create_app(store, {"token": ORG}), rate=0.5, kinds=["429", "500"], seed=seed)
        with running(app) as url:
            courses.append([_met(url) for _ in range(20)])
    assert courses[0] == courses[1] != courses[2]
    assert {200, 429, 500} <= set(courses[0])


@contextmanager
def command(*arguments: str, stop: int = signal.SIGTERM) -> Iterator[str]:
    """Run ``enrichstatus serve`` in a process of its own; gives its base URL, and wants it to stop well."""
    process = subprocess.Popen(
        [sys.executable, "-m", "enrichstatus", "serve", "--port", "0", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line + (process.communicate(timeout=20)[1])
        yield found[0]
        process.send_signal(stop)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out) == (0, ""), err
        assert "Traceback" not in err
    finally:
        process.kill()
        process.communicate()


def test_the_simulated_service_is_served_and_asked_at_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """``serve --simulate`` over the sample leads answers ``lookup --url``, and stops at SIGINT with exit code 0."""
    leads = ["--entity-id", "lead_id", "--fields", "emails,phones"]
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "simulated")
    with command("--simulate", "--seed", "7", "--tasks", "data/leads.csv", *leads, stop=signal.SIGINT) as url:
        assert main(["lookup", str(ROOT / "data" / "leads.csv"), *leads, "--url", url]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"4,000 tasks answered by {url}\n")
    assert re.search(r"emails  2,000 +[\d,]+", out)
    assert "pending" in out


def test_a_store_is_served_with_tokens_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """``token new`` and ``serve --store`` give an endpoint that ``lookup --url`` asks; it judges by its own clock, or by ``--now``."""
    path, tokens, asked = tmp_path / "leads.duckdb", tmp_path / "tokens.toml", tmp_path / "tasks.csv"
    with es.EnrichmentStore(path) as store:
        store.load([record(0), record(1, status="pending", dataFound=None), record(2, orgId="org_2")])
    pd.DataFrame([task(n) for n in range(3)]).to_csv(asked, index=False)
    assert main(["token", "new", "--org", ORG, "--tokens", str(tokens)]) == 0
    token = capsys.readouterr().out.splitlines()[-1]
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", token)
    with command("--store", str(path), "--tokens", str(tokens), "--max-processing-time", "99999d") as url:
        counts = []
        for now in ([], ["--now", NOW], ["--now", "2026-11-16T08:00:01Z"]):
            assert main(["lookup", str(asked), "--url", url, *now]) == 0
            counts.append(capsys.readouterr().out.splitlines()[2].split()[1:-2])
        assert counts[0] == ["pending", "finished", "no", "record"]
        assert counts[1] == ["timeout", "finished", "no", "record"] or counts[1] == [
            "finished",
            "timeout",
            "no",
            "record",
        ]
        assert counts[2] == counts[0]
        monkeypatch.setenv("ENRICHSTATUS_TOKEN", "another")
        assert main(["lookup", str(asked), "--url", url]) == 1
        assert "The token is not known." in capsys.readouterr().err


def test_a_tokens_file_holds_digests_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Tokens are added one by one, for any organization's name; the file is its owner's, and what it holds is no token."""
    tokens = tmp_path / "tokens.toml"
    made = []
    for org in ("org_1", 'o"r\\g\n', "Ümläut 🙂", "org_1"):
        assert main(["token", "new", "--org", org, "--tokens", str(tokens)]) == 0
        made.append(capsys.readouterr().out.splitlines()[-1])
    assert len(set(made)) == 4
    assert all(token not in tokens.read_text() for token in made)
    assert oct(os.stat(tokens).st_mode & 0o777) == "0o600"
    assert [entry["org"] for entry in tomllib.loads(tokens.read_text())["token"]] == [
        "org_1",
        'o"r\\g\n',
        "Ümläut 🙂",
        "org_1",
    ]


def test_serve_and_token_say_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Bad input is one line on stderr and exit code 2."""
    (tmp_path / "broken.toml").write_text("[[token]\n")
    (tmp_path / "wrong.toml").write_text('[[token]]\nsha256 = "abc"\norg = "o"\n')
    with es.EnrichmentStore(tmp_path / "s.duckdb") as store:
        store.load([record(0)])
    stored = ["serve", "--store", str(tmp_path / "s.duckdb")]
    cases = [
        (["serve", "--simulate"], "--tasks"),
        (["serve", "--simulate", "--tasks", str(ROOT / "data" / "leads.csv")], "need the column entityId"),
        (stored, "--tokens"),
        ([*stored, "--tokens", str(tmp_path / "none.toml")], "cannot be read"),
        ([*stored, "--tokens", str(tmp_path / "broken.toml")], "no TOML"),
        ([*stored, "--tokens", str(tmp_path / "wrong.toml")], "64 hexadecimal digits"),
        (["serve", "--store", str(tmp_path / "none.duckdb"), "--tokens", "x"], "no store"),
        (["token", "new", "--org", " ", "--tokens", str(tmp_path / "t.toml")], "name it"),
        (["token", "new", "--org", "o", "--tokens", str(tmp_path / "broken.toml")], "no TOML"),
        (["token", "new", "--org", "o", "--tokens", str(tmp_path / "nowhere" / "t.toml")], "cannot be written"),
        (["lookup", "x.csv", "--url", "http://example.com"], "everybody on the way"),
        (["lookup", "x.csv", "--url", "https://example.com", "--org", "o"], "--org goes with"),
    ]
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "for-the-last-two")
    for arguments, message in cases:
        assert main(arguments) == 2, arguments
        err = capsys.readouterr().err
        assert message in err, (arguments, err)
        assert err.count("\n") == 1, err


def test_without_now_the_clock_of_the_service_judges(store: es.EnrichmentStore):
    """A client that is given no instant passes on what the service says, which goes by its own clock."""
    store.load([record(0, status="pending", dataFound=None, createdAt="2020-01-01")])
    with running(create_app(store, {"token": ORG})) as url, es.EnrichmentClient(url, token="token") as client:
        answer = client.lookup([task(0), task(1), {"entityId": uid(0), "field": "emails", "entityType": "company"}])
    assert [None if pd.isna(one) else one for one in answer["status"]] == ["timeout", None, None]
