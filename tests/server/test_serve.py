"""The commands ``serve`` and ``token``, as a person or a script calls them, and a lookup in a service."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
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
from enrichstatus.server import Background, create_app
from enrichstatus.server import run as serving
from enrichstatus.server.openapi import TRIGGER_PATH
from enrichstatus.server.tokens import read_tokens
from tests.support.factory import NOW, ORG, record, task, uid
from tests.support.serving import PATH, running
from tests.support.waiting import until

ROOT = Path(__file__).parents[2]


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


def test_a_simulated_service_without_tasks_is_triggered():
    """``serve --simulate`` alone starts empty, and answers what was triggered at it; --json tells the address, and nothing else."""
    with command("--simulate", "--seed", "7", "--json") as url, es.EnrichmentClient(url, token="simulated") as client:
        assert client.lookup([task(0)])["status"].isna().all()
        answer = requests.post(
            url + TRIGGER_PATH,
            json={"personIds": [uid(0)], "field": "emails"},
            headers={"Authorization": "Bearer simulated"},
            timeout=20,
        )
        assert [one["status"] for one in answer.json()] == ["pending"]
        assert client.lookup([task(0)], columns=["id"])["id"].tolist() == [answer.json()[0]["id"]]


def test_a_store_is_served_with_tokens_of_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """``token new`` and ``serve --store`` give an endpoint that ``lookup --url`` asks; it goes by its own clock, or by ``--now``."""
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
            counts.append(
                re.findall("with data(?!,)|timeout|pending|no record", capsys.readouterr().out.splitlines()[2])
            )
        assert counts[0] == counts[2] == ["with data", "pending", "no record"]
        assert counts[1] == ["with data", "timeout", "no record"]
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
        'o"r\\g',  # without the white space around it
        "Ümläut 🙂",
        "org_1",
    ]


def test_serve_and_token_say_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Bad input is one line on stderr and exit code 2."""
    (tmp_path / "names.csv").write_text("name\nAda\n")
    (tmp_path / "broken.toml").write_text("[[token]\n")
    (tmp_path / "wrong.toml").write_text('[[token]]\nsha256 = "abc"\norg = "o"\n')
    with es.EnrichmentStore(tmp_path / "s.duckdb") as store:
        store.load([record(0)])
    stored = ["serve", "--store", str(tmp_path / "s.duckdb")]
    cases = [
        (["serve", "--simulate", "--tasks", str(tmp_path / "names.csv")], "need the columns entityId"),
        (stored, "--tokens"),
        ([*stored, "--tokens", str(tmp_path / "none.toml")], "cannot be read"),
        ([*stored, "--tokens", str(tmp_path / "broken.toml")], "is not TOML"),
        ([*stored, "--tokens", str(tmp_path / "wrong.toml")], "64 hexadecimal digits"),
        (["serve", "--store", str(tmp_path / "none.duckdb"), "--tokens", "x"], "no store"),
        (["token", "new", "--org", " ", "--tokens", str(tmp_path / "t.toml")], "name it"),
        (["token", "new", "--org", "o", "--tokens", str(tmp_path / "broken.toml")], "is not TOML"),
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


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Run a command of which at most one line is expected on stderr."""
    code = main(arguments)
    captured = capsys.readouterr()
    assert captured.err.count("\n") <= 1, captured.err
    return code, captured.out, captured.err


SIMULATED = ("serve", "--simulate", "--tasks", "tasks.csv")
STORED = ("serve", "--store", "s.duckdb", "--tokens", "tokens.toml")
REMOTE = ("lookup", "tasks.csv", "--url", "https://example.com")

MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "empty url": (("lookup", "tasks.csv", "--url", ""), "--url is empty"),
    "empty records": (("lookup", "tasks.csv", "--records", ""), "--records is empty"),
    "empty store": (("lookup", "tasks.csv", "--store", ""), "--store is empty"),
    "empty tasks": (("lookup", "", "--store", "s.duckdb"), "TASKS is empty"),
    "empty output": (("lookup", "tasks.csv", "--store", "s.duckdb", "-o", ""), "--output is empty"),
    "empty host": ((*SIMULATED, "--host", ""), "--host is empty"),
    "empty tokens": ((*SIMULATED, "--tokens", ""), "--tokens is empty"),
    "empty faults": ((*SIMULATED, "--fault-rate", "1", "--faults", ""), "--faults is empty"),
    "a host that is none": ((*SIMULATED, "--host", "é..x"), "The host 'é..x' is not an address"),
    "an unknown host": ((*SIMULATED, "--host", "no.such.host.invalid"), "The host 'no.such.host.invalid' is not an address"),
    "another's address": ((*SIMULATED, "--host", "192.0.2.1"), "'192.0.2.1' is not an address of this machine"),
    "infinite speed": ((*SIMULATED, "--speed", "inf"), "--speed is from 0.001 to 1,000,000, not inf"),
    "no speed": ((*SIMULATED, "--speed", "nan"), "--speed is from 0.001 to 1,000,000, not nan"),
    "too slow": ((*SIMULATED, "--speed", "1e-300"), "--speed is from 0.001 to 1,000,000, not 1e-300"),
    "too fast": ((*SIMULATED, "--speed", "1e300"), "--speed is from 0.001 to 1,000,000, not 1e+300"),
    "a rate that is none": ((*SIMULATED, "--fault-rate", "nan"), "--fault-rate is from 0 to 1, not nan"),
    "a fault that is none": ((*SIMULATED, "--fault-rate", "1", "--faults", ","), "--faults takes some of 429, 500, slow, cut, lost, 500-after, not ''"),
    "a field that is none": (("serve", "--simulate", "--tasks", "leads.csv", "--entity-id", "lead_id", "--fields", "fax"), "--fields names fax; the fields are"),
    "speed of a store": ((*STORED, "--speed", "3"), "--speed goes with --simulate"),
    "faults of a store": (
        (*STORED, "--fault-rate", "1", "--seed", "0", "--faults", "cut"),
        "--seed, --fault-rate, --faults go with --simulate",
    ),
    "time of a simulation": ((*SIMULATED, "--max-processing-time", "5s"), "--max-processing-time goes with --store"),
    "writing a simulation": ((*SIMULATED, "--writable"), "--writable goes with --store"),
    "leads of no list": (("serve", "--simulate", "--entity-id", "lead_id"), "--entity-id goes with --tasks"),
    "fields of no list": (("serve", "--simulate", "--fields", "emails"), "--fields goes with --tasks"),
    "fields of tasks": ((*SIMULATED, "--fields", "emails"), "--fields is for a lead list"),
    "faults without a rate": ((*SIMULATED, "--faults", "cut"), "--faults goes with --fault-rate"),
    "time of a service": ((*REMOTE, "--max-processing-time", "5s"), "--max-processing-time goes with --now"),
    "plain http to a store": (("lookup", "tasks.csv", "--store", "s.duckdb", "--allow-http"), "--allow-http goes with --url"),
    "failed tasks of a store": (
        ("lookup", "tasks.csv", "--store", "s.duckdb", "-o", "o.csv", "--failed", "f.csv"),
        "--failed goes with --url",
    ),
    "failed tasks alone": ((*REMOTE, "--failed", "f.csv"), "--failed goes with -o"),
    "failed tasks in place of the tasks": ((*REMOTE, "-o", "o.csv", "--failed", "./tasks.csv"), "--failed would replace"),
    "failed tasks in place of the answered": ((*REMOTE, "-o", "o.csv", "--failed", "o.csv"), "--failed would replace"),
    "failed tasks in no format": ((*REMOTE, "-o", "o.csv", "--failed", "f.txt"), "no known ending"),
    "an address that is none": (("lookup", "tasks.csv", "--url", "nonsense"), ": --url is an address such as"),
    "plain http": (("lookup", "tasks.csv", "--url", "http://example.com"), "Use https, or pass --allow-http to send it"),
    "a token in the address": (("lookup", "tasks.csv", "--url", "https://u:p@example.com"), "goes in ENRICHSTATUS_TOKEN"),
}  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tasks, leads, a store and a tokens file, to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "token")
    pd.DataFrame([task(n) for n in range(500)]).to_csv("tasks.csv", index=False)
    pd.DataFrame({"lead_id": [uid(n) for n in range(500)], "zip": "00123"}).to_csv("leads.csv", index=False)
    with es.EnrichmentStore("s.duckdb") as store:
        store.load([record(0)])
    Path("tokens.toml").touch()
    return tmp_path


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_in_the_words_of_the_command_line(name: str, capsys: pytest.CaptureFixture[str]):
    """What is empty, of no use or without effect is refused with exit code 2, before anything is served, sent or written."""
    arguments, message = MISTAKES[name]
    before = sorted(Path().iterdir())
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, ""), err
    assert message in err
    assert not re.search(r"--base-url|_http|=True|Choose another", err), err
    assert sorted(Path().iterdir()) == before


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (STORED, "s.duckdb"),
        (SIMULATED, "a simulated service over tasks.csv, token simulated of org_simulated,"),
        ((*SIMULATED, "--tokens", "tokens.toml"), "a simulated service over tasks.csv"),
        (("serve", "--simulate"), "a simulated service that waits to be triggered, token simulated of org_simulated,"),
    ],
)
def test_what_is_served_is_said(
    arguments: tuple[str, ...], what: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """The one line says what is served, and the token where none were given."""
    monkeypatch.setattr(serving, "serve", lambda app, *, host, port, ready: ready("URL"))
    assert run(capsys, *arguments) == (0, f"serving {what} at URL (Ctrl-C stops)\n", "")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("port", ["70000", "-1"])
def test_a_port_beyond_the_range_is_refused(port: str, capsys: pytest.CaptureFixture[str]):
    """A port beyond the range is refused with what a port is."""
    code, out, err = run(capsys, *SIMULATED, f"--port={port}")
    assert (code, out, err) == (2, "", f"enrichstatus: --port takes a whole number from 0 to 65535, not {port}.\n")


@pytest.mark.usefixtures("folder")
def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str]):
    """Where another program listens the command fails, with exit code 1, and says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        code, out, err = run(capsys, *SIMULATED, "--port", port)
    assert (code, out) == (1, "")
    assert f"127.0.0.1 port {port} cannot be listened on: Address already in use" in err
    assert "Choose another --port" in err


@pytest.mark.usefixtures("folder")
def test_the_token_of_a_lookup_is_that_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """No token, an empty one or one with a line end is bad input, named by the variable it is in and not shown."""
    for found, message in (
        (None, "There is no ENRICHSTATUS_TOKEN in the environment"),
        ("", "There is no ENRICHSTATUS_TOKEN in the environment"),
        ("secret\n", "ENRICHSTATUS_TOKEN is text of printable ASCII"),
    ):
        monkeypatch.delenv("ENRICHSTATUS_TOKEN", raising=False)
        if found is not None:
            monkeypatch.setenv("ENRICHSTATUS_TOKEN", found)
        code, _, err = run(capsys, *REMOTE)
        assert (code, message in err) == (2, True), err
        assert "secret" not in err
        assert "strip" not in err
        assert "--token" not in err


@pytest.mark.usefixtures("folder")
def test_bad_leads_of_a_simulation_are_counted_as_leads(capsys: pytest.CaptureFixture[str]):
    """``serve --simulate`` names bad leads as ``lookup`` does, and bad tasks too, without an option that it has not."""
    leads = str(ROOT / "data" / "bad_leads.csv")
    code, _, err = run(capsys, "serve", "--simulate", "--tasks", leads, "--entity-id", "lead_id")
    assert (code, "--errors" in err) == (2, False)
    assert "3 bad leads: row 3: lead_id is missing; row 4: lead_id 'jane@cedar-labs.example' is not a UUID" in err
    Path("bad.csv").write_text(f"entityId,field\nx,emails\n{uid(0)},emails\n")
    code, _, err = run(capsys, "serve", "--simulate", "--tasks", "bad.csv")
    assert (code, err) == (
        2,
        "enrichstatus: 1 bad task: row 0: entityId 'x' is not a UUID. Rows are counted from 0, a header not counted. Nothing was triggered. Fix them.\n",
    )


class Picky:
    """A service that does not answer the batch of one entity: it refuses it, or keeps it waiting; `seen` gets a word for each batch."""

    def __init__(self, app: Any, entity: str, *, wait: bool = False, seen: list[str] | None = None):
        self.app, self.entity, self.wait = app, entity, wait
        self.seen = [] if seen is None else seen

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        if self.entity.encode() not in body:

            async def again() -> Any:
                return {"type": "http.request", "body": body, "more_body": False}

            await self.app(scope, again, send)
            self.seen.append("answered")
            return
        if self.wait:
            self.seen.append("waits")
            await receive()  # until the client is gone
        answer = b'{"error": {"code": "VALIDATION_ERROR", "message": "Not this one."}}'
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


@contextmanager
def picky(**options: Any) -> Iterator[str]:
    """Serve a store that has a record of every third of 500 entities, and does not answer the second batch."""
    with es.EnrichmentStore() as store:
        store.load([record(n) for n in range(0, 500, 3)])
        with running(Picky(create_app(store, {"token": ORG}), uid(250), **options)) as url:
            yield url


@pytest.mark.usefixtures("folder")
def test_a_list_answered_in_part_is_not_written_as_a_whole(capsys: pytest.CaptureFixture[str]):
    """Where some tasks were not answered nothing is written, and the exit code is 1, unless ``--failed`` names a file for them."""
    with picky() as url:
        code, out, err = run(capsys, "lookup", "tasks.csv", "--url", url, "-o", "o.csv")
        assert (code, out, Path("o.csv").exists()) == (1, "", False)
        assert "200 of 500 tasks were not answered; nothing was written." in err
        assert "pass --failed FILE to keep what was answered. " in err
        assert err.endswith("Not this one.\n")
        assert "pass -o FILE and --failed FILE" in run(capsys, "lookup", "tasks.csv", "--url", url)[2]


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("how", ["left", "inner"])
def test_what_was_answered_is_kept_beside_the_rest(capsys: pytest.CaptureFixture[str], how: str):
    """With ``--failed`` the answered rows are in one file, the others as they were given in another, and the exit code is 1."""
    files = ["-o", "o.csv", "--failed", "f.csv", "--how", how]
    with picky() as url:
        code, out, err = run(capsys, "lookup", "tasks.csv", "--url", url, *files, "--columns", "dataFound")
        assert (code, out) == (1, "")
        assert err.startswith("enrichstatus: 200 of 500 tasks were not answered: ")
        assert err.endswith("Not this one. The answered rows are in o.csv, the others in f.csv\n")
        written, rest = pd.read_csv("o.csv"), pd.read_csv("f.csv")
        assert rest.to_dict("records") == [task(n) for n in range(200, 400)]
        assert written.columns.tolist() == ["entityId", "field", "dataFound"]
        others = [n for n in (*range(200), *range(400, 500)) if how == "left" or n % 3 == 0]
        assert written["entityId"].tolist() == [uid(n) for n in others]
    with running(create_app(es.EnrichmentStore(), {"token": ORG})) as url:
        assert main(["lookup", "f.csv", "--url", url, "-o", "again.csv"]) == 0


@pytest.mark.usefixtures("folder")
def test_leads_that_were_not_answered_keep_their_columns(capsys: pytest.CaptureFixture[str]):
    """The rest of a lead list is written with the caller's own columns, and can be looked up again as tasks."""
    leads = ["--entity-id", "lead_id", "--fields", "emails,phones"]
    with picky() as url:
        code, _, err = run(capsys, "lookup", "leads.csv", *leads, "--url", url, "-o", "o.csv", "--failed", "f.csv")
    assert (code, "200 of 1,000 tasks were not answered" in err) == (1, True), err
    rest = pd.read_csv("f.csv", dtype=str)
    assert rest.columns.tolist() == ["lead_id", "zip", "entityId", "entityType", "field"]
    assert (len(rest), set(rest["zip"])) == (200, {"00123"})
    with running(create_app(es.EnrichmentStore(), {"token": ORG})) as url:
        assert main(["lookup", "f.csv", "--url", url]) == 0


@pytest.mark.slow
@pytest.mark.parametrize("keep", [True, False])
def test_a_lookup_that_is_interrupted_keeps_what_was_answered(folder: Path, keep: bool):
    """Ctrl-C is exit code 130 and one line; with ``--failed`` both files are written, else none."""
    files = ["-o", "o.csv", *(["--failed", "f.csv"] if keep else [])]
    seen: list[str] = []
    with picky(wait=True, seen=seen) as url:
        process = subprocess.Popen(
            [sys.executable, "-m", "enrichstatus", "lookup", "tasks.csv", "--url", url, *files],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        until(lambda: sorted(seen) == ["answered", "answered", "waits"])
        time.sleep(0.5)  # for the client to read what was answered, which nothing shows
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 130, err
    assert err.startswith("enrichstatus: interrupted: 200 of 500 tasks were not answered")
    assert err.count("\n") == 1, err
    assert (Path("o.csv").exists(), Path("f.csv").exists()) == (keep, keep)
    if keep:
        assert (len(pd.read_csv("o.csv")), len(pd.read_csv("f.csv"))) == (300, 200)
        assert err.endswith(". The answered rows are in o.csv, the others in f.csv\n")


VALID = "a" * 64

ARRAYS = {
    "empty": "token = []\n",
    "one": f'token = [{{sha256 = "{VALID}", org = "x"}}]\n',
    "open": f'token = [\n  {{sha256 = "{VALID}", org = "x"}},\n]',
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ARRAYS)
def test_a_tokens_file_of_another_form_is_left_as_it_is(name: str, capsys: pytest.CaptureFixture[str]):
    """A valid file to which no entry can be added is refused, and stays what it was."""
    Path("t.toml").write_text(ARRAYS[name])
    code, out, err = run(capsys, "token", "new", "--org", "o", "--tokens", "t.toml")
    assert (code, out, Path("t.toml").read_text()) == (2, "", ARRAYS[name])
    assert "its tokens are an array in one place" in err
    assert read_tokens("t.toml") == ({} if name == "empty" else {VALID: "x"})


@pytest.mark.usefixtures("folder")
def test_an_organization_that_is_no_text_is_refused(capsys: pytest.CaptureFixture[str]):
    """Bytes that are not UTF-8 are reported, and no file is made or changed for them."""
    before = Path("tokens.toml").read_bytes()
    for tokens in ("tokens.toml", "t.toml"):
        code, _, err = run(capsys, "token", "new", "--org", "o\udcff", "--tokens", tokens)
        assert (code, "--org has parts that are not UTF-8" in err) == (2, True), err
    assert Path("tokens.toml").read_bytes() == before
    assert not Path("t.toml").exists()


def test_entries_are_added_behind_whatever_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A file with other tables, no line end, Windows' line ends or nothing in it holds all it held and the new token."""
    entry = f'[[token]]\nsha256 = "{VALID}"'
    for text in ("", "# mine", entry, entry.replace("\n", "\r\n") + "\r\n", f"{entry}\n[notes]\na = 1"):
        path = tmp_path / "t.toml"
        path.write_bytes(text.encode())
        assert run(capsys, "token", "new", "--org", "o", "--tokens", str(path))[0] == 0, text
        held = read_tokens(path)
        assert len(held) == (2 if VALID in text else 1)
        assert "o" in held.values()
        assert path.read_bytes().endswith(b"\n")


def test_a_token_of_two_organizations_is_refused(tmp_path: Path):
    """A digest that stands twice with another organization names both; twice with the same one is harmless."""
    path = tmp_path / "t.toml"
    path.write_text(f'[[token]]\nsha256 = "{VALID}"\norg = "a"\n[[token]]\nsha256 = "{VALID.upper()}"\norg = "b"\n')
    with pytest.raises(es.ValidationError, match="one token to two organizations, 'a' and 'b'") as caught:
        read_tokens(path)
    assert VALID not in str(caught.value)
    path.write_text(path.read_text().replace('"b"', '"a"'))
    assert read_tokens(path) == {VALID: "a"}


def started(*arguments: str) -> tuple[subprocess.Popen[str], int]:
    """Start ``enrichstatus serve`` over the sample leads; gives its port too."""
    process = subprocess.Popen(
        [sys.executable, "-m", "enrichstatus", "serve", "--port", "0", "--simulate", "--tasks", "data/leads.csv",
         "--entity-id", "lead_id", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    return process, int(process.stdout.readline().rpartition(" (")[0].rpartition(":")[2])


def test_every_line_of_the_log_is_json():
    """Requests, faults that break them off, what is not HTTP and what asks for a web socket: a line of JSON each."""
    process, port = started("--fault-rate", "1", "--faults", "429,cut", "--seed", "3")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        statuses = []
        for _ in range(6):
            try:
                answer = requests.post(
                    f"http://127.0.0.1:{port}{PATH}",
                    json={"tasks": [task(0)]},
                    headers={"Authorization": "Bearer simulated"},
                    timeout=9,
                )
                statuses.append(answer.status_code)
                assert len(answer.headers["x-request-id"]) == 16
            except requests.RequestException:
                statuses.append(200)  # and cut
    upgrade = b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    for sent in (b"garbage\r\n\r\n", upgrade):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(sent)
            connection.recv(1000)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 0
    lines = [json.loads(line) for line in err.splitlines()]
    assert [line["status"] for line in lines if line.get("path") == PATH] == statuses
    assert set(statuses) == {200, 429}
    told = [line for line in lines if line.get("event") == "server"]
    assert {"time", "event", "level", "message"} == set(told[0])
    messages = {line["message"] for line in told}
    assert "Invalid HTTP request received." in messages
    assert not any("pip install" in message for message in messages)


def test_a_second_ctrl_c_cuts_what_is_in_flight_without_a_word():
    """The first waits for the requests in flight, the second does not: no traceback, exit code 0, the request's line in the log."""
    process, port = started("--fault-rate", "1", "--faults", "slow")
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(f"POST {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{{}}".encode())
        time.sleep(0.5)
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.3)
        _, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert [json.loads(line)["path"] for line in err.splitlines()] == [PATH]


def test_a_traceback_is_a_member_of_its_line(capsys: pytest.CaptureFixture[str]):
    """Where a request fails inside, its line in the log is one, with the traceback in it."""

    class Broken(es.EnrichmentStore):
        def query(self, *arguments: Any, **options: Any) -> Any:
            raise RuntimeError("broken within")

    with Broken() as store:

        def ask(url: str) -> None:
            asked = threading.Thread(target=_ask, args=(url,))
            asked.start()

        def _ask(url: str) -> None:
            try:
                requests.post(
                    url + PATH, json={"tasks": [task(0)]}, headers={"Authorization": "Bearer token"}, timeout=9
                )
            finally:
                os.kill(os.getpid(), signal.SIGINT)

        before = signal.getsignal(signal.SIGTERM)
        try:
            serving.serve(create_app(store, {"token": ORG}), host="127.0.0.1", port=0, ready=ask)
        finally:
            signal.signal(signal.SIGTERM, before)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    failed, request = lines
    assert failed["event"] == "failed"
    assert failed["traceback"].startswith("Traceback")
    assert "broken within" in failed["traceback"]
    assert (request["status"], request["request"]) == (500, failed["request"])


def test_an_application_that_does_not_start_is_told():
    """Where the application cannot start, serving it fails with a word of its own, in the foreground and in the background."""

    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no start")

    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(es.EnrichStatusError, match="did not start"):
            serving.serve(broken, host="127.0.0.1", port=0, ready=print)
    finally:
        signal.signal(signal.SIGTERM, before)
    with pytest.raises(es.EnrichStatusError, match="did not start"):
        serving.Background(broken)


def test_a_script_may_end_with_a_service_in_the_background():
    """A service that still runs when its process ends is stopped then, and nothing is said of it."""
    script = f"""
import enrichstatus as es
from enrichstatus.server import create_app
from enrichstatus.server import Background
from enrichstatus.server import Background
service = Background(create_app(es.EnrichmentStore(), {{"secret-token": "org_1"}}))
client = es.EnrichmentClient(service.url, token="secret-token")
print(client.query({{"tasks": [{{"entityId": "{uid(0)}", "field": "emails"}}]}}))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")


@pytest.mark.parametrize(
    "junk",
    [
        b"nonsense\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000,
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_refused_in_the_contracts_shape_too(junk: bytes):
    """A request that cannot be understood, or whose headers have no end, is a 400 VALIDATION_ERROR, and the connection ends."""
    with (
        Background(create_app(es.EnrichmentStore(), {"token": ORG})) as service,
        socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2])), timeout=20) as connection,
    ):
        with contextlib.suppress(ConnectionError):  # hung up on while sending
            connection.sendall(junk)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while part := connection.recv(65536):
                answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ")
    assert json.loads(body)["error"]["code"] == "VALIDATION_ERROR"
