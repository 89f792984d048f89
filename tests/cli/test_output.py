"""What a command says to a person and tells a program: --json, -o -, --quiet, colour, help, completion, and ``status``."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.cli.colour import coloured
from enrichstatus.cli.main import parser
from enrichstatus.outcomes import LABELS
from enrichstatus.server import Background, create_app
from tests.support.factory import NOW, ORG, record, uid

TOKEN = "s3cret"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with leads, records of some of them, a bill and a store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", TOKEN)
    pd.DataFrame({"id": [uid(n) for n in range(5)], "name": "Ada"}).to_csv("leads.csv", index=False)
    records = [
        record(0, creditTransactionId="c1"),
        record(1, dataFound=False, creditTransactionId="c2"),
        record(2, status="pending", dataFound=None, createdAt="2026-11-16T08:59:00.000Z"),
        record(9, orgId="org_rival"),
    ]
    Path("records.json").write_text(json.dumps(records))
    Path("bill.csv").write_text("creditTransactionId,credits\nc1,1\n")
    with es.EnrichmentStore("s.duckdb", org_id=ORG) as store:
        store.load(records)
    return tmp_path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service that knows the first three leads."""
    with es.EnrichmentStore() as ended:
        ended.load([record(n) for n in range(3)])
        with Background(create_app(ended, tokens={TOKEN: ORG})) as background:
            yield background.url


LEADS = ("leads.csv", "--entity-id", "id", "--fields", "emails")
WHERE = ("--store", "s.duckdb", "--org", ORG, "--now", NOW)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    said = capsys.readouterr()
    return code, said.out, said.err


def told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[dict[str, Any], str]:
    """Run a command with --json; gives the object, which is all of stdout, and what a person was told."""
    code, out, err = run(capsys, *arguments, "--json")
    assert out.count("\n") == 1
    found = json.loads(out, parse_constant=pytest.fail)
    assert found["exitCode"] == code
    assert found["command"].split()[0] == arguments[0]
    assert {"files", "requests", "elapsed", "problems"} <= set(found)
    return found, err


def test_every_command_tells_a_program_what_came_of_it(capsys: pytest.CaptureFixture[str], url: str):
    """With --json stdout is one object: counts, shares, files, requests, elapsed and problems; words go to stderr."""
    found, err = told(capsys, "lookup", *LEADS, *WHERE, "-o", "o.csv")
    assert (found["tasks"], found["rows"], found["files"], found["requests"]) == (5, 5, ["o.csv"], 0)
    assert {name: count for name, count in found["counts"]["emails"].items() if count} == {
        "with_data": 1, "no_data": 1, "pending": 1, "no_record": 2,
    }  # fmt: skip
    assert found["shares"] == {"emails": {"ended": 0.4, "with_data": 0.5}}
    assert "5 tasks of org_1" in err
    found, _ = told(capsys, "lookup", *LEADS, "--url", url)
    assert (found["tasks"], found["requests"]) == (5, 1)
    found, _ = told(capsys, "plan", *LEADS, *WHERE, "--costs", "emails=3", "-o", "p.csv", "--requests", "r.ndjson")
    assert (found["cost"], found["counts"]["emails"]["trigger"], found["bodies"]) == (6.0, 2, 1)
    assert found["files"] == ["p.csv", "r.ndjson"]
    found, err = told(capsys, "poll", *LEADS, "--url", url, "--missing-after", "0.01s", "-o", "d.csv")
    assert (found["settled"], found["files"], found["requests"] >= 1) == (5, ["d.csv"], True)
    assert found["shares"]["emails"]["with_data"] == 1
    assert "5 of 5 settled" in err
    found, _ = told(capsys, "load", "records.json", "--store", "new.duckdb")
    assert found["counts"] == {"read": 4, "inserted": 4, "updated": 0, "unchanged": 0, "rejected": 0}
    found, _ = told(capsys, "reconcile", "bill.csv", *WHERE, "-o", "b.csv")
    assert (found["exitCode"], found["wrong"], found["files"]) == (5, 1, ["b.csv"])
    assert found["findings"][0]["field"] == "emails"
    found, err = told(capsys, "report", *LEADS, *WHERE, "-o", "r.HTML")
    assert "written to r.HTML: open it in a browser" in err
    assert found["reports"]["By field"][0]["tasks"] == 5
    found, _ = told(capsys, "token", "new", "--org", ORG, "--tokens", "t.toml")
    assert found["organization"] == ORG
    assert len(found["token"]) > 20
    found, _ = told(capsys, "completion", "bash")
    assert found["script"].startswith("#compdef") or "complete" in found["script"]
    found, _ = told(
        capsys, "trigger", *LEADS, "--store", "s.duckdb", "--org", ORG, "--url", url, "--max-credits", "9",
        "--costs", "emails=1", "--dry-run",
    )  # fmt: skip
    assert (found["dryRun"], found["counts"]["left"], found["plan"]["cost"]) == (True, 3, 3.0)


def test_a_program_is_told_what_is_wrong(capsys: pytest.CaptureFixture[str]):
    """An error is part of the object, with the bad rows, and the exit code; stderr has it in one line as ever."""
    Path("bad.csv").write_text("id\n" + "x\n" * 150)
    found, err = told(capsys, "lookup", "bad.csv", *LEADS[1:], *WHERE)
    assert found["exitCode"] == 2
    assert found["error"]["code"] == "VALIDATION_ERROR"
    assert err == f"enrichstatus: {found['error']['message']}\n"
    assert (len(found["problems"]), found["problemCount"]) == (100, 150)
    assert found["problems"][1] == {"row": 1, "column": "id", "value": "x", "reason": "is not a UUID"}
    Path("some.csv").write_text(f"id\n{uid(0)}\nx\n{uid(3)}\n")
    for words in (
        ("lookup", "--errors", "coerce"),
        ("lookup", "--errors", "coerce", "-o", "o.csv"),
        ("report", "-o", "r.html"),
    ):
        found, _ = told(capsys, words[0], "some.csv", "--fields", "emails,phones", *WHERE, *words[1:])
        assert found["entityId"] == "id"
        counts = found["counts"]["phones"]
        assert (counts["bad_row"], counts["no_record"], counts["with_data"]) == (1, 2, 0)
        assert found["problems"] == [{"row": 1, "column": "id", "value": "x", "reason": "is not a UUID"}]
    found, _ = told(capsys, "lookup", *LEADS, *WHERE, "--require", "ended=0.9")
    assert (found["exitCode"], found["error"]["code"], found["tasks"]) == (4, "RequirementError", 5)
    Path("dump.json").write_text(json.dumps([record(0), record(1, field="fax")]))
    found, _ = told(capsys, "load", "dump.json", "--store", "n.duckdb", "--errors", "reject", "--rejects", "bad.csv")
    assert (found["exitCode"], found["counts"]["rejected"], found["files"]) == (0, 1, ["bad.csv"])
    assert found["problems"][0]["column"] == "field"


def test_a_table_goes_to_a_pipe(capsysbinary: pytest.CaptureFixture[bytes]):
    """``-o -`` writes the rows to stdout, whole or not at all, in any format; words go to stderr, with --quiet nowhere."""
    formats: dict[str, Any] = {
        "csv": pd.read_csv,
        "ndjson": lambda file: pd.read_json(file, lines=True),
        "parquet": lambda file: pq.read_table(file).to_pandas(),
    }
    for command, kind in (("lookup", None), ("lookup", "ndjson"), ("lookup", "parquet"), ("plan", "csv")):
        assert main([command, *LEADS, *WHERE, "-o", "-", *(["--format", kind] if kind else [])]) == 0
        said = capsysbinary.readouterr()
        assert len(formats[kind or "csv"](io.BytesIO(said.out))) == 5
        assert "5 rows written to stdout" in said.err.decode()
    assert main(["reconcile", "bill.csv", *WHERE, "-o", "-", "--quiet"]) == 5
    said = capsysbinary.readouterr()
    assert said.out.startswith(b'"')
    assert said.err == b""
    assert main(["lookup", *LEADS, *WHERE, "-o", "-", "--require", "ended=0.9"]) == 4
    assert capsysbinary.readouterr().out == b""
    for more, message in (
        (["-o", "-", "--json"], "--json and -o - both write to stdout; name a file with -o."),
        (["-o", "o.csv", "--format", "csv"], "--format goes with -o -; a file's ending says its format."),
    ):
        assert main(["lookup", *LEADS, *WHERE, *more]) == 2
        assert message in capsysbinary.readouterr().err.decode()


def test_quiet_says_nothing_but_errors(capsys: pytest.CaptureFixture[str], url: str):
    """With --quiet a command that works says nothing, not even a warning; a token is what its command is for, and is printed."""
    Path("other.json").write_text(json.dumps([record(0, orgId="org_rival")]))
    for arguments in (
        ("lookup", *LEADS, *WHERE, "-o", "o.csv"),
        ("lookup", *LEADS, "--records", "other.json", "--org", ORG, "-o", "o.csv"),
        ("status", "s.duckdb", "--org", "org_2"),
        ("load", "records.json", "--store", "n.duckdb"),
        ("poll", *LEADS, "--url", url, "--missing-after", "0.01s"),
        ("status", "s.duckdb"),
    ):
        assert run(capsys, *arguments, "--quiet") == (0, "", "")
    for command in (("status", "s.duckdb"), ("lookup", *LEADS, *WHERE[:2])):
        found, err = told(capsys, *command, "--org", "org_2", "--quiet")
        assert found["warnings"] == [
            "There are records here, but none of the organization 'org_2'. Check how the records spell it."
        ]
        assert err == ""
    code, out, err = run(capsys, "token", "new", "--org", ORG, "--tokens", "t.toml", "--quiet")
    assert (code, out.count("\n"), err) == (0, 1, "")
    assert run(capsys, "lookup", "nowhere.csv", *LEADS[1:], *WHERE, "--quiet")[2].startswith(
        "enrichstatus: 'nowhere.csv'"
    )


def test_a_closed_pipe_is_no_failure():
    """A reader that stops early, as head does, leaves no message and exit code 0; the command does its work all the same."""
    lookup = " ".join(("lookup", *LEADS, *WHERE))
    lines = ("", "--help", "--version", "plan --help", f"{lookup} -o made.csv", f"{lookup} -o - --quiet")
    script = "".join(f"{sys.executable} -m enrichstatus {line} | true; echo ${{PIPESTATUS[0]}} >&2\n" for line in lines)
    shell = ["bash", "-c", script]
    done = subprocess.run(
        shell, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert done.stderr == "0\n" * len(lines)
    assert len(pd.read_csv("made.csv")) == 5


ROOT = Path(__file__).parents[2]


def test_what_cannot_be_written_is_one_line():
    """A full disk behind stdout is exit code 1 and says so in a line, nothing is called written, and one that is closed is no failure."""
    lookup = " ".join(("lookup", *LEADS, *WHERE))
    lines = (f"{lookup} --json >/dev/full", f"{lookup} -o - >/dev/full", "--help >/dev/full", f"{lookup} >&-")
    script = "".join(f"{sys.executable} -m enrichstatus {line}; echo $? >&2\n" for line in lines)
    shell = ["bash", "-c", script]
    done = subprocess.run(
        shell, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert [
        line for line in done.stderr.splitlines() if line in ("0", "1") or line.startswith(("enrich", "Trace"))
    ] == [
        "enrichstatus: stdout cannot be written: No space left on device.",
        "1",
    ] * 3 + ["0"]
    assert "written to" not in done.stderr


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_outcomes_have_their_colours_at_a_terminal(monkeypatch: pytest.MonkeyPatch):
    """At a terminal the words for outcomes have their colours, but for NO_COLOR and --color never; a file has none unless always."""
    text = "        tasks  with data  no data  pending\nx  finished True  \nretry   5\nAda pending –\n██░░"
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "truecolor")
    shown = coloured(text, _Terminal(), "auto")
    assert re.sub(r"\x1b\[[\d;]*m", "", shown) == text
    for label in ("with data", "no data", "pending"):
        colours = [
            ";".join(str(int(one[place : place + 2], 16)) for place in (1, 3, 5))
            for one in (LABELS[label].light, LABELS[label].dark)
        ]
        assert any(f"\x1b[38;2;{colour}m{label}\x1b[0m" in shown for colour in colours), label
    assert shown.count("\x1b[38;2;") == 7
    assert coloured(text, io.StringIO(), "always") == shown
    assert coloured(text, io.StringIO(), "auto") == coloured(text, _Terminal(), "never") == text
    monkeypatch.setenv("COLORFGBG", "0;15")
    assert coloured(text, _Terminal(), "auto") not in (shown, text)
    monkeypatch.setenv("NO_COLOR", "1")
    assert coloured(text, _Terminal(), "auto") == text


def test_every_help_has_examples_that_parse(capsys: pytest.CaptureFixture[str]):
    """The help of each command ends with examples, and the parser takes each of them; alone the command names the five that matter."""
    whole = parser()
    names = re.findall(r"^    (\w+)(?:  |$)", whole.format_help(), re.MULTILINE)
    assert len(names) == 12
    for name in names:
        arguments = ["token", "new"] if name == "token" else [name]
        with pytest.raises(SystemExit) as caught:
            main([*arguments, "--help"])
        assert caught.value.code == 0
        _, _, examples = capsys.readouterr().out.partition("examples:\n")
        commands = re.findall(r"^  (?:eval \"\$\()?enrichstatus ([^|>)\n]*)", examples, re.MULTILINE)
        assert commands, name
        for command in commands:
            assert whole.parse_args(command.replace("'", "").replace('"', "").split()).run
    assert run(capsys)[:1] == (0,)
    main([])
    out = capsys.readouterr().out
    assert re.findall(r"^  enrichstatus (\w+) {2,}\w", out, re.MULTILINE) == [
        "lookup",
        "plan",
        "trigger",
        "poll",
        "load",
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lokup"], "Did you mean lookup?"),
        (["lookup", "--feilds", "emails"], "unrecognized argument: --feilds. Did you mean --fields?"),
        (["lookup", "x", "--store", "s", "--how", "iner"], "Did you mean inner?"),
        (["token", "nwe"], "Did you mean new?"),
        (["lookup", "x", "--json", "--token", "s3"], "unrecognized argument: --token. No option takes a token"),
        (
            ["lookup", "a.csv", "b.csv", "--store", "s"],
            'b.csv. One list is taken (TASKS): put a pattern in quotes, "part*.csv"',
        ),
        (["--api-key=s3", "lookup", "--json"], "read from ENRICHSTATUS_TOKEN in the environment"),
    ],
)
def test_a_wrong_word_has_a_near_one(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    """A misspelt command, option or choice is exit code 2, with the nearest one, for a program too; none stands for a token."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    said = capsys.readouterr()
    assert message in said.err
    assert "s3" not in said.err
    if "--json" in arguments:
        told = json.loads(said.out)
        assert (told["exitCode"], message in told["error"]["message"]) == (2, True)
    else:
        assert said.out == ""


def test_a_shell_completes_commands_options_and_choices(folder: Path):
    """What ``enrichstatus completion bash`` prints makes a real bash complete; zsh and fish have scripts of their own."""
    program = folder / "bin" / "enrichstatus"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m enrichstatus "$@"\n')
    program.chmod(0o755)
    environment = os.environ | {"PATH": f"{program.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    script = """
        eval "$(enrichstatus completion bash)"
        function=$(complete -p enrichstatus | sed 's/.*-F \\([^ ]*\\).*/\\1/')
        for line in "enrichstatus loo" "enrichstatus lookup --entity-" "enrichstatus lookup --how i"; do
            COMP_LINE=$line COMP_POINT=${#line} COMP_TYPE=9 COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
            $function enrichstatus "${COMP_WORDS[-1]}" "${COMP_WORDS[-2]}"
            echo "${COMPREPLY[*]}"
        done"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert [sorted(line.split()) for line in done.stdout.splitlines()] == [
        ["lookup"],
        ["--entity-id", "--entity-type"],
        ["inner"],
    ]
    for shell, word in (("zsh", "#compdef enrichstatus"), ("fish", "complete --command enrichstatus")):
        made = subprocess.run(
            ["enrichstatus", "completion", shell], capture_output=True, text=True, check=True, env=environment
        )
        assert word in made.stdout


def test_a_store_is_described(capsys: pytest.CaptureFixture[str], folder: Path):
    """``status`` counts keys by field and outcome, names no organization that was not named, and only reads; a missing one is bad input."""
    before = Path("s.duckdb").read_bytes()
    code, out, err = run(capsys, "status", "s.duckdb", "--now", NOW)
    assert (code, err) == (0, "")
    assert out.startswith("4 records of 2 organizations in s.duckdb (")
    assert "org_" not in out.replace("organization", "")
    assert out.splitlines()[3].split()[:5] == ["emails", "4", "2", "1", "1"]
    assert "The oldest pending one is of 2026-11-16 08:59:00 UTC, 60 s ago." in out
    assert run(capsys, "status", "s.duckdb", "--now", "2026-11-16T08:00:00Z")[1].count("08:59:00 UTC.\n") == 1
    found, _ = told(capsys, "status", "s.duckdb", "--org", ORG, "--now", NOW, "--max-processing-time", "30s")
    assert (found["records"], found["organizations"], found["organization"]) == (3, 1, ORG)
    assert (found["counts"]["emails"]["timeout"], "oldestPending" in found) == (1, False)
    assert found["bytes"] == len(before)
    assert found["fields"] == list(es.EnrichmentStore().fields)
    assert Path("s.duckdb").read_bytes() == before
    assert run(capsys, "status", "nowhere.duckdb")[0] == 2
    es.EnrichmentStore("empty.duckdb").close()
    assert run(capsys, "status", "empty.duckdb")[1].startswith("0 records of 0 organizations")
