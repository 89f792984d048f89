"""The command ``poll``, as a person at a terminal or a job with a log calls it, against a simulated service on a socket."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.polling import bar as bars
from enrichstatus.server import Background
from enrichstatus.simulation import SimulatedStore, create_simulated_app
from tests.support.cases import cases
from tests.support.factory import task, uid

# processes, terminals and signals, which are the same with any version of a library
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
TOKEN, ORG = "s3cret-t0ken", "org_simulated"
COUNT = 450
LEADS = ("--entity-id", "lead_id", "--fields", "emails")
STORE = ("--store", "s.duckdb", "--org", ORG)
#: An instant of the service by which everything has ended.
LATE = 100_000.0


class Service(SimulatedStore):
    """A simulated service whose time is the test's (`seconds`), and which notes what it has answered."""

    def __init__(self, tasks: Any):
        self.seconds = 0.0
        #: when the next queries come
        self.course: list[float] = []
        self.answered: list[tuple[str, str]] = []
        super().__init__(tasks, seed=7, clock=lambda: self.seconds)
        self.app = create_simulated_app(self, {TOKEN: ORG, "another": "org_2"}, faults=["500"])
        self.url = ""

    def query(self, body: Any, **options: Any) -> list[Any]:
        self.seconds = self.course.pop(0) if self.course else self.seconds
        answer = super().query(body, **options)
        self.answered += [(one["entityId"], one["status"]) for one in answer]
        return answer

    def forget(self) -> set[str]:
        """Give the entities that were told as ended, and begin a new list."""
        told, self.answered = self.answered, []
        return {entity for entity, status in told if status != "pending"}

    def outage(self, *, on: bool) -> None:
        """Answer nothing but errors from now on, or no more."""
        self.app.state.faults.rate = 1.0 if on else 0.0


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service at which 450 tasks were triggered, and a folder with these to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", TOKEN)
    monkeypatch.setenv("COLUMNS", "120")
    tasks = [task(n) for n in range(COUNT)]
    pd.DataFrame(tasks).to_csv("tasks.csv", index=False)
    pd.DataFrame({"lead_id": [uid(n) for n in range(COUNT)], "zip": "00123"}).to_csv("leads.csv", index=False)
    store = Service(tasks)
    with Background(store.app) as background:
        store.url = background.url
        yield store


def run(capsys: pytest.CaptureFixture[str], service: Service, *arguments: str) -> tuple[int, str, list[str]]:
    """Poll in this process; gives the exit code, stdout, and the lines of stderr."""
    code = main(["poll", *arguments, "--url", service.url])
    captured = capsys.readouterr()
    assert TOKEN not in captured.out + captured.err
    return code, captured.out, captured.err.splitlines()


@contextmanager
def process(service: Service, *arguments: str, stderr: int = subprocess.PIPE) -> Iterator[subprocess.Popen[str]]:
    """Poll in a process of its own, that is killed where it takes too long, and left with nobody behind."""
    command = [sys.executable, "-m", "enrichstatus", "poll", "tasks.csv", "--url", service.url, *arguments]
    polling = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    watchdog = threading.Timer(25, polling.kill)
    watchdog.start()
    try:
        yield polling
    finally:
        watchdog.cancel()
        polling.kill()
        polling.wait()
        for pipe in filter(None, (polling.stdout, polling.stderr)):
            pipe.close()


def read_until(polling: subprocess.Popen[str], pattern: str) -> str:
    """Read the log up to a line that has the pattern."""
    assert polling.stderr is not None
    read = []
    for line in polling.stderr:
        read.append(line)
        if re.search(pattern, line):
            return line
    raise AssertionError("".join(read))


def stop(polling: subprocess.Popen[str], number: int) -> tuple[int, str, str]:
    """Send a signal; gives the exit code and what was said from then on."""
    polling.send_signal(number)
    out, err = polling.communicate()
    assert TOKEN not in out + err
    return polling.returncode, out, err


LINE = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [\d,]+ of 450 settled; ([\d,]+ [a-z ]+(, |; ))*(half of the rest in .*, 90 % in .*; )?"
    r"\d+ requests( \(\d+ saved\))?(; polls again in \d+ s)?"
)


def test_a_log_has_one_line_a_tick(service: Service, capsys: pytest.CaptureFixture[str]):
    """All end: exit code 0, a line with an instant for every ask on stderr, and on stdout what came out."""
    service.course = [20.0, 20.0, 20.0, LATE]
    code, out, err = run(capsys, service, "tasks.csv")
    assert code == 0
    assert len(err) == 2
    assert all(LINE.fullmatch(line) for line in err), err
    assert "polls again in 1 s" in err[0]
    assert " 450 of 450 settled; " in err[1]
    lines = out.splitlines()
    assert re.fullmatch(
        rf"450 of 450 tasks are settled, answered by {service.url} with \d requests .*in [\d.]+ s", lines[0]
    )
    assert lines[2].split()[:2] == ["tasks", "with"]
    assert lines[3].split()[:2] == ["emails", "450"]
    assert not list(Path().glob("*.duckdb"))


@pytest.mark.parametrize("ending", ["csv", "parquet", "ndjson"][: cases(1, 3)])
def test_the_rows_are_written_as_lookup_writes_them(service: Service, capsys: pytest.CaptureFixture[str], ending: str):
    """-o takes the formats of ``lookup``, and the rows are those that it gives; a lead list keeps its own columns."""
    service.seconds = LATE
    options = ["leads.csv", *LEADS, "--prefix", "now_", "--columns", "status,reason,error"]
    code, out, _ = run(capsys, service, *options, "-o", f"polled.{ending}", "--schedule", "adaptive")
    assert (code, f"450 rows written to polled.{ending}" in out) == (0, True)
    assert main(["lookup", *options, "--url", service.url, "-o", f"asked.{ending}"]) == 0
    assert Path(f"polled.{ending}").read_bytes() == Path(f"asked.{ending}").read_bytes()
    if ending == "csv":
        assert list(pd.read_csv("polled.csv")) == [
            "lead_id",
            "zip",
            "entityId",
            "entityType",
            "field",
            "now_status",
            "now_reason",
            "now_error",
        ]


def test_the_deadline_is_exit_code_3_and_loses_nothing(service: Service, capsys: pytest.CaptureFixture[str]):
    """What is known is written, what is pending is told to be so, and the same command goes on where it was."""
    service.seconds = 25.0
    again = ["tasks.csv", *STORE, "--deadline", "0.3s", "-o", "o.csv"]
    code, out, err = run(capsys, service, *again)
    statuses = pd.read_csv("o.csv")["status"].value_counts()
    left = statuses["pending"]
    assert code == 3
    assert err[-1] == (
        f"enrichstatus: {left} of 450 tasks have not ended within 0.3s: they are pending, not failed. "
        "Run the same command again to go on where it was"
    )
    assert all(LINE.fullmatch(line) for line in err[:-1])
    assert out.startswith(f"{450 - left} of 450 tasks are settled, ")
    assert "450 rows written to o.csv" in out
    ended = service.forget()
    assert len(ended) == 450 - left
    service.seconds = LATE
    code, _, err = run(capsys, service, *again)
    asked = {entity for entity, _ in service.answered}
    assert (code, len(asked), asked & ended) == (0, left, set())
    assert "pending" not in set(pd.read_csv("o.csv")["status"])


def test_a_deadline_without_a_store_says_what_would_remember(service: Service, capsys: pytest.CaptureFixture[str]):
    """The exit code is 3 too; the same command would ask anew."""
    code, _, err = run(capsys, service, "tasks.csv", "--deadline", "0.3s")
    assert code == 3
    assert err[-1].endswith("Run the same command again to start anew; with --store FILE it goes on where it was")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -9), (signal.SIGTERM, 143)][: cases(2, 3)]
)
def test_a_poll_that_is_stopped_goes_on_where_it_was(
    service: Service, capsys: pytest.CaptureFixture[str], number: int, code: int
):
    """After Ctrl-C, SIGTERM or ``kill -9`` nothing is half written, and no task that had ended is requested again."""
    service.seconds = 25.0
    with process(service, *STORE, "-o", "o.csv") as polling:
        ended = int(read_until(polling, "polls again in").split()[1])
        got, out, err = stop(polling, number)
    assert (got, out) == (code, "")
    if number != signal.SIGKILL:
        assert err == (
            f"enrichstatus: interrupted: {ended} of 450 tasks were settled. What was answered is in s.duckdb: "
            "run the same command again to go on\n"
        )
    assert sorted(path.name for path in Path().iterdir() if path.suffix != ".wal") == [
        "leads.csv",
        "s.duckdb",
        "tasks.csv",
    ]
    known = service.forget()
    assert len(known) == ended
    service.seconds = LATE
    again, out, _ = run(capsys, service, "tasks.csv", *STORE, "-o", "o.csv")
    assert again == 0
    assert {entity for entity, _ in service.answered} == {uid(n) for n in range(COUNT)} - known
    written = pd.read_csv("o.csv")
    assert (len(written), written["status"].isin(["finished", "failed", "timeout"]).all()) == (450, True)
    again, out, _ = run(capsys, service, "tasks.csv", *STORE)
    assert (again, "answered by" in out, "with 0 requests" in out) == (0, True, True)


def test_ctrl_c_without_a_store_says_that_nothing_remembers(service: Service):
    """Exit code 130, one line, and what would have remembered."""
    with process(service) as polling:
        read_until(polling, "polls again in")
        code, out, err = stop(polling, signal.SIGINT)
    assert (code, out) == (130, "")
    assert err == (
        "enrichstatus: interrupted: 0 of 450 tasks were settled. Nothing remembers them; "
        "with --store FILE the same command goes on where it was\n"
    )


def test_an_outage_is_a_part_of_the_line_and_heals(service: Service):
    """The poll does not end at an outage: the log says why there was no answer and when it polls again, and then it goes on."""
    service.seconds = LATE
    service.outage(on=True)
    with process(service) as polling:
        line = read_until(polling, "not answered")
        assert re.search(
            r" 0 of 450 settled; .* requests.*; not answered: .*A simulated fault.*; polls again in \d s", line
        )
        service.outage(on=False)
        assert LINE.fullmatch(read_until(polling, "450 of 450 settled").rstrip("\n"))
        out, err = polling.communicate()
    assert (polling.returncode, err) == (0, "")
    assert TOKEN not in line + out


def screen(text: str, columns: int) -> list[str]:
    """Give the lines that a terminal shows of a text with CR and LF, which goes on in the next line where one is full."""
    lines, at = [""], 0
    for sign in text:
        if sign == "\r":
            at = 0
        elif sign == "\n":
            lines.append("")  # the terminal puts \r before it
        else:
            assert sign.isprintable(), repr(sign)
            if at == columns:
                lines.append("")
                at = 0
            lines[-1] = lines[-1][:at].ljust(at) + sign + lines[-1][at + 1 :]
            at += 1
    return [line.rstrip() for line in lines]


@contextmanager
def terminal(columns: int) -> Iterator[tuple[int, Callable[[str], str]]]:
    """Open a terminal; gives its end for the process, and what reads the other until a pattern has come, or all."""
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    seen = bytearray()

    def read(pattern: str) -> str:
        while not re.search(pattern, seen.decode(errors="ignore")):
            try:
                more = os.read(ours, 4096)
            except OSError:  # nobody has the other end any more
                more = b""
            if not more:
                raise AssertionError(seen.decode())
            seen.extend(more)
        return seen.decode(errors="ignore")

    try:
        yield theirs, read
    finally:
        os.close(ours)


def test_a_bar_at_a_terminal_is_not_torn_by_an_outage(service: Service):
    """It shows settled of total, statuses, the ETA and the next request; an outage is a line above it; at the end it stays, whole."""
    service.seconds = 25.0
    with terminal(80) as (theirs, read), process(service, stderr=theirs) as polling:
        os.close(theirs)
        first = screen(read(r"next in 1 s"), 80)[-1]
        service.outage(on=True)
        read(r"(?s)\d\d:\d\d:\d\d not answered: .*A simulated fault\.\s.*no answer")
        service.seconds = LATE
        service.outage(on=False)
        last = screen(read(r"100%.*\n$"), 80)
        out, _ = polling.communicate()
    assert polling.returncode == 0
    assert re.search(r"^ \d\d%\|[█▏▎▍▌▋▊▉ ]{8,}\| \d+ of 450 settled, .*\d+ failed, .*next in 1 s", first), first
    assert "450 of 450 tasks are settled" in out
    text = "\n".join(last)
    assert TOKEN not in text + out
    # each once: what was drawn before has been drawn over
    assert len(re.findall(r"%\|", text)) == 1, text
    assert re.search(r"\d\d:\d\d:\d\d not answered: ", text)
    assert re.fullmatch(r"\d\d:\d\d:\d\d answered again", last[-3]), text
    assert re.match(r"100%\|█+\| 450 of 450 settled, \d+ timeout, .*\d+ requests", last[-2]), text
    assert (last[-1], len(last[-2]) <= 77) == ("", True)


@pytest.mark.parametrize("columns", [60, 80, 250])
def test_a_bar_fits_the_terminal(service: Service, columns: int, capfd: pytest.CaptureFixture[str]):
    """Whatever is told of the tasks, no drawing is wider than the line, and the wider it is the more is reported."""
    service.seconds = 25.0
    tasks = pd.read_csv("tasks.csv")
    with terminal(columns) as (theirs, read), os.fdopen(theirs, "w") as stderr, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stderr", stderr)
        with es.EnrichmentClient(service.url) as client, pytest.raises(es.PollDeadline):
            es.wait(client, tasks, deadline="0.3s")
        stderr.close()
        lines = [
            line
            for line in re.split(
                r"[\r\n]+", read(r"requests( \(\d+ saved\))?, \d+ s *\r?\n$" if columns > 80 else r"\n$")
            )
            if line.strip()
        ]
    assert max(len(line.rstrip()) for line in lines) <= columns - 3
    assert "requests" in lines[-1]
    assert ("pending" in lines[-1]) == (columns >= 80), lines[-1]
    assert capfd.readouterr().err == ""


def test_ctrl_c_at_a_terminal_leaves_the_bar_on_a_line_of_its_own(service: Service):
    """The message has a line to itself, under a bar that says nothing of asking any more."""
    service.seconds = 25.0
    with terminal(100) as (theirs, read), process(service, *STORE, stderr=theirs) as polling:
        os.close(theirs)
        read("next in")
        polling.send_signal(signal.SIGINT)
        last = screen(read(r"enrichstatus: interrupted.*\n"), 100)
        assert polling.wait() == 130
    assert re.search(
        r"^ \d\d%\|.*\| \d+ of 450 settled, \d+ pending, \d+ failed, \d+ requests( \(\d+ saved\))?, \d+ s$", last[0]
    ), last
    assert last[1].startswith("enrichstatus: interrupted: ")


def test_bad_tasks_can_be_given_no_status(service: Service, capsys: pytest.CaptureFixture[str]):
    """Bad tasks are named by their row, in the lead list by its own; with --errors coerce they have no status."""
    service.seconds = LATE
    Path("bad.csv").write_text(f"lead_id\n{uid(0)}\nx\n{uid(1)}\n")
    code, out, err = run(capsys, service, "bad.csv", "--entity-id", "lead_id")
    assert (code, out, len(err)) == (2, "", 1)
    assert "1 bad lead: row 1: lead_id 'x' is not a UUID" in err[0]
    assert "pass --errors coerce" in err[0]
    code, _, err = run(capsys, service, "bad.csv", *LEADS, "--errors", "coerce", "-o", "o.ndjson")
    assert (code, " 3 of 3 settled" in err[0]) == (0, True)
    rows = [json.loads(line) for line in Path("o.ndjson").read_text().splitlines()]
    assert [row["status"] is None for row in rows] == [False, True, False]


def test_what_has_no_record_is_waited_for(service: Service, capsys: pytest.CaptureFixture[str]):
    """After --missing-after it counts as having none."""
    pd.DataFrame([task(9_999)]).to_csv("new.csv", index=False)
    code, out, err = run(capsys, service, "new.csv", "--missing-after", "0.5s")
    assert (code, "1 of 1 settled; 1 no record" in err[-1], "no record" in out) == (0, True, True)
    assert "1 pending" in err[0]


def test_whose_records_they_are_is_told_in_the_words_of_the_command_line(
    service: Service, capsys: pytest.CaptureFixture[str]
):
    """The answers of another organization than --org end the poll with exit code 2, and nothing of them is kept."""
    service.seconds = LATE
    code, out, err = run(capsys, service, "tasks.csv", "--store", "s.duckdb", "--org", "org_other", "-o", "o.csv")
    assert (code, out, err) == (
        2,
        "",
        [
            "enrichstatus: --store is opened for org_other, but the answers are records of org_simulated: name that organization."
        ],
    )
    assert not Path("o.csv").exists()


def test_what_failed_is_exit_code_1(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """A token that is refused, and a store that somebody else holds, are one line each."""
    with es.EnrichmentStore("s.duckdb"), process(service, *STORE) as polling:
        out, err = polling.communicate()
    assert (polling.returncode, out, err.count("\n")) == (1, "", 1)
    assert "s.duckdb" in err
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "wr0ng")
    code, out, lines = run(capsys, service, "tasks.csv", "-o", "o.csv")
    assert (code, out, len(lines), Path("o.csv").exists()) == (1, "", 1, False)
    assert "The token is not known." in lines[0]
    assert "wr0ng" not in lines[0]


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no such tasks": (("nowhere.csv",), "matches no file"),
    "empty tasks": (("",), "TASKS is empty"),
    "fields of tasks": (("tasks.csv", "--fields", "emails"), "--fields is for a lead list; this one has the columns"),
    "unknown field": (("leads.csv", *LEADS[:2], "--fields", "fax"), "--fields names fax; the fields are"),
    "nobody's store": (("tasks.csv", "--store", "new.duckdb"), "--store needs --org: the organization whose records"),
    "an organization for nothing": (("tasks.csv", "--org", "o"), "--org goes with --store"),
    "a store in memory": (("tasks.csv", "--store", ":memory:", "--org", "o"), "--store names a file"),
    "a store that is none": (("tasks.csv", "--store", "leads.csv", "--org", "o"), "leads.csv"),
    "no deadline": (("tasks.csv", "--deadline", "soon"), "--deadline takes a duration above zero, such as"),
    "no time": (("tasks.csv", "--missing-after", "0s"), "--missing-after takes a duration above zero, such as"),
    "no format": (("tasks.csv", "-o", "o.ods"), "no known ending to write"),
    "no folder": (("tasks.csv", "-o", "nowhere/o.csv"), "no such folder"),
    "in place of the tasks": (
        ("tasks.csv", "-o", "./tasks.csv"),
        "--output would replace 'tasks.csv', which TASKS names",
    ),
    "plain http": (("tasks.csv", "--url", "http://example.com"), "Use https, or pass --allow-http to send it"),
    "no address": (("tasks.csv", "--url", "nonsense"), "--url is an address such as"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """What is wrong is said in the words of the command line, before anything is requested or made."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", TOKEN)
    pd.DataFrame([task(0)]).to_csv("tasks.csv", index=False)
    pd.DataFrame({"lead_id": [uid(0)]}).to_csv("leads.csv", index=False)
    arguments, message = MISTAKES[name]
    before = sorted(Path().iterdir())
    assert main(["poll", "--url", "http://127.0.0.1:9", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert message in err
    assert not re.search(r"\w=|=True|None", err.replace(TOKEN, "")), err
    assert sorted(Path().iterdir()) == before


def test_columns_that_are_there_already_can_be_told_apart(service: Service, capsys: pytest.CaptureFixture[str]):
    """What an earlier poll wrote can be polled for again, with --prefix."""
    service.seconds = LATE
    assert run(capsys, service, "tasks.csv", "-o", "o.csv")[0] == 0
    code, _, err = run(capsys, service, "o.csv")
    assert (code, "--prefix" in err[0], "prefix=" in err[0]) == (2, True, False)
    assert run(capsys, service, "o.csv", "--prefix", "later_")[0] == 0


@pytest.mark.parametrize("token", [None, ""])
def test_a_missing_token_is_bad_input(
    service: Service, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, token: str | None
):
    """It is named by its variable, and no store is made."""
    monkeypatch.delenv("ENRICHSTATUS_TOKEN")
    if token is not None:
        monkeypatch.setenv("ENRICHSTATUS_TOKEN", token)
    code, _, err = run(capsys, service, "tasks.csv", *STORE)
    assert (code, len(err)) == (2, 1)
    assert "There is no ENRICHSTATUS_TOKEN in the environment" in err[0]
    assert not Path("s.duckdb").exists()


def test_the_signal_that_stops_it_means_what_it_meant(service: Service, capsys: pytest.CaptureFixture[str]):
    """A poll in a process that goes on leaves SIGTERM as it was."""
    service.seconds = LATE
    before = signal.getsignal(signal.SIGTERM)
    assert run(capsys, service, "tasks.csv")[0] == 0
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_bar_keeps_what_matters_most_where_there_is_little_room():
    """The settled come first, then the next request; the more room the more is shown, and never more than there is."""
    seconds = [0.0]
    tasks = [task(n) for n in range(300)]
    service = SimulatedStore(tasks, seed=7, clock=lambda: seconds[0])
    seconds[0] = 25.0
    update = next(iter(es.poll(service, tasks)))
    texts = [bars.status_line(update, 0.0, room) for room in range(160)]
    assert all(len(text) <= room for room, text in enumerate(texts))
    assert [len(text.split(", ")) for text in texts] == sorted(len(text.split(", ")) for text in texts)
    assert texts[19] == f"{update.settled} of 300 settled"
    assert texts[33].rstrip().endswith("next in 1 s")
    assert re.search(r", 2 requests, \d+ s$", texts[-1].rstrip())
    assert "polling" in bars.status_line(update, 100.0)
    assert "ask" not in bars.status_line(update)
