"""The command line, as a person or a script calls it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from tests.support.factory import NOW, record, task, uid

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tasks, leads and records, to work in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    records = [
        record(0),
        record(1, dataFound=False),
        record(2, status="pending", dataFound=None),
        record(3, field="phones"),
    ]
    Path("records.json").write_text(json.dumps(records))
    pd.DataFrame([task(n) for n in range(5)]).to_csv("tasks.csv", index=False)
    pd.DataFrame({"lead_id": [uid(0), uid(3)], "name": ["Ada", "Bo\x1b[31m"], "zip": ["00123", "5"]}).to_csv(
        "leads.csv", index=False
    )
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


LOOKUP = ("lookup", "tasks.csv", "--records", "records.json", "--org", "org_1", "--now", NOW)
LEADS = (
    "lookup",
    "leads.csv",
    "--records",
    "records.json",
    "--org",
    "org_1",
    "--now",
    NOW,
    "--entity-id",
    "lead_id",
)


@pytest.mark.usefixtures("folder")
def test_lookup_prints_a_summary_and_the_first_rows(capsys: pytest.CaptureFixture[str]):
    """Rows by field and by what became of them, the share with data of those that ended, and the first rows."""
    code, out, err = run(capsys, *LOOKUP)
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == "5 tasks of org_1, evaluated at 2026-11-16 09:00:00 UTC"
    heads = ["tasks", "with data", "no data", "timeout", "no record", "ended", "with data, of ended"]
    assert re.split(r" {2,}", lines[2].strip()) == heads
    assert lines[3].split() == ["emails", "5", "1", "1", "1", "2", "3", "33.3", "%", "███░░░░░░░"]
    assert lines[6].split() == [uid(0), "emails", "finished", "True"]
    assert lines[8].split() == [uid(2), "emails", "timeout", "–"]


@pytest.mark.usefixtures("folder")
def test_lookup_of_leads_shows_them_safely(capsys: pytest.CaptureFixture[str]):
    """A lead list is shown with its own columns, and what its cells hold never reaches the terminal as a command."""
    code, out, _ = run(capsys, *LEADS, "--fields", "emails,phones")
    assert code == 0
    assert "4 tasks" in out
    assert "00123" in out
    assert "\x1b" not in out


@pytest.mark.usefixtures("folder")
def test_a_store_is_loaded_and_asked(capsys: pytest.CaptureFixture[str]):
    """Load makes the store and counts; lookup --store asks it, and only reads."""
    assert run(capsys, "load", "records.json", "--store", "s.duckdb")[:2] == (
        0,
        "4 read: 4 inserted, 0 updated, 0 unchanged, 0 rejected\n",
    )
    assert run(capsys, "load", "*.json", "--store", "s.duckdb")[1].startswith(
        "4 read: 0 inserted, 0 updated, 4 unchanged"
    )
    before = Path("s.duckdb").read_bytes()
    code, out, _ = run(capsys, "lookup", "tasks.csv", "--store", "s.duckdb", "--org", "org_1", "--now", NOW)
    assert code == 0
    assert "emails" in out
    assert Path("s.duckdb").read_bytes() == before


def read(path: str) -> pd.DataFrame:
    match Path(path).suffix:
        case ".csv" | ".tsv":
            return pd.read_csv(path, sep="\t" if path.endswith("tsv") else ",", dtype=str)
        case ".parquet":
            return pq.read_table(path).to_pandas()
        case ".json":
            return pd.DataFrame(json.loads(Path(path).read_text()))
        case _:
            return pd.DataFrame(map(json.loads, Path(path).read_text().splitlines()))


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.parquet", "o.json", "o.ndjson"])
def test_the_rows_are_written_in_the_format_of_the_ending(capsys: pytest.CaptureFixture[str], name: str):
    """-o writes all rows with exactly the requested columns, whole or not at all; instants in text are the wire's."""
    code, out, _ = run(capsys, *LOOKUP, "--columns", "status,createdAt", "-o", name)
    assert code == 0
    assert f"5 rows written to {name}" in out
    frame = read(name)
    assert frame.columns.tolist() == ["entityId", "field", "status", "createdAt"]
    assert frame["status"].fillna("-").tolist() == ["finished", "finished", "timeout", "-", "-"]
    made = frame["createdAt"].iloc[0]
    assert made == pd.Timestamp("2026-11-16T08:00:00Z") if name == "o.parquet" else made == "2026-11-16T08:00:00.000Z"
    assert not list(Path().glob(".*part"))


@pytest.mark.usefixtures("folder")
def test_options_reach_the_lookup(capsys: pytest.CaptureFixture[str]):
    """--how, --columns all, --prefix, --max-processing-time and --errors mean what they mean in Python."""
    run(
        capsys,
        *LOOKUP,
        "--how",
        "inner",
        "--columns",
        "all",
        "--prefix",
        "r_",
        "-o",
        "o.ndjson",
        "--max-processing-time",
        "emails=2h",
    )
    frame = read("o.ndjson")
    assert len(frame) == 3
    assert frame["r_status"].tolist() == ["finished", "finished", "pending"]
    assert frame["r_id"].tolist() == [record(n)["id"] for n in range(3)]
    Path("bad.csv").write_text(f"entityId,field\nx,emails\n{uid(0)},emails\n")
    code, _, err = run(capsys, "lookup", "bad.csv", *LOOKUP[2:])
    assert (code, err.count("\n")) == (2, 1)
    assert "row 0: entityId 'x' is not a UUID" in err
    assert "--errors coerce" in err
    assert run(capsys, "lookup", "bad.csv", *LOOKUP[2:], "--errors", "coerce")[0] == 0


@pytest.mark.usefixtures("folder")
def test_bad_leads_are_named_by_their_row_and_column(capsys: pytest.CaptureFixture[str]):
    """Rows of a lead list are counted as leads, not as the tasks made of them, and once each."""
    bad = str(ROOT / "data" / "bad_leads.csv")
    code, _, err = run(capsys, "lookup", bad, *LEADS[2:])
    assert code == 2
    assert "3 bad leads: row 3: lead_id is missing; row 4: lead_id 'jane@cedar-labs.example' is not a UUID" in err


@pytest.mark.usefixtures("folder")
def test_rejects_are_written(capsys: pytest.CaptureFixture[str]):
    """Load --errors reject loads the good and writes what is wrong with the others."""
    bad = str(ROOT / "data" / "bad_records.json")
    code, out, err = run(capsys, "load", bad, "--store", "s.duckdb")
    assert (code, out) == (2, "")
    assert "6 bad records" in err
    code, out, _ = run(capsys, "load", bad, "--store", "s.duckdb", "--errors", "reject", "--rejects", "bad.csv")
    assert (code, out.splitlines()[0]) == (0, "11 read: 5 inserted, 0 updated, 0 unchanged, 6 rejected")
    assert sorted(set(read("bad.csv")["row"])) == ["10", "5", "6", "7", "8", "9"]


@pytest.mark.usefixtures("folder")
def test_rejects_never_replace_the_records(capsys: pytest.CaptureFixture[str]):
    """--rejects that names an input, or without --errors reject, is refused before anything is done."""
    before = Path("records.json").read_bytes()
    load = ("load", "records.json", "--store", "s.duckdb", "--rejects")
    assert run(capsys, *load, "./records.json", "--errors", "reject")[0] == 2
    assert run(capsys, *load, "r.csv")[0] == 2
    assert Path("records.json").read_bytes() == before
    assert not Path("s.duckdb").exists()


MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no organization": (LOOKUP[:4], "Organization ID is missing: say whose records to look in with --org"),
    "no such tasks": (("lookup", "nowhere.csv", *LOOKUP[2:]), "matches no file"),
    "no such records": (
        ("lookup", "tasks.csv", "--records", "nowhere.json", "--org", "o"),
        "matches no file",
    ),
    "not tasks": (
        ("lookup", "names.csv", *LOOKUP[2:]),
        "need the columns entityId, field; found name, zip",
    ),
    "no such column": ((*LOOKUP[:1], "leads.csv", *LOOKUP[2:], "--entity-id", "leadid"), "Did you mean lead_id?"),
    "a misspelt column": (("lookup", "feild.csv", *LOOKUP[2:]), "found entityId, feild. Did you mean feild?"),
    "two columns of ids": (("lookup", "two.csv", *LOOKUP[2:]), "The columns id, boss all hold UUIDs. Name the column"),
    "fields without leads": (
        (*LOOKUP, "--fields", "emails"),
        "--fields is for a lead list; this one has the columns entityId",
    ),
    "unknown field": ((*LEADS, "--fields", "fax"), "--fields names fax; the fields are emails, phones, summary.\n"),
    "a misspelt field": ((*LEADS, "--fields", "email"), "emails, phones, summary. Did you mean emails?"),
    "unknown column": ((*LOOKUP, "--columns", "staus"), "not ('staus',). Did you mean status?"),
    "bad now": ((*LOOKUP, "--now", "yesterday"), "--now takes"),
    "bad duration": ((*LOOKUP, "--max-processing-time", "soon"), "--max-processing-time takes"),
    "bad duration of a field": ((*LOOKUP, "--max-processing-time", "fax=5min"), "names the field fax"),
    "bad output": ((*LOOKUP, "-o", "out.ods"), "no known ending to write"),
    "output in no folder": ((*LOOKUP, "-o", "nowhere/out.csv"), "no such folder"),
    "bad share": ((*LOOKUP, "--require", "ended=98"), "--require takes a share from 0 to 1 for ended, e.g. ended=0.98"),
    "not records": (
        ("load", "leads.csv", "--store", "s.duckdb"),
        "Rename them, or pass --column theirs=ours to read them under other names.",
    ),
    "not records to look in": (
        ("lookup", "tasks.csv", "--records", "leads.csv", "--org", "o"),
        "found lead_id, name, zip. Rename them.\n",
    ),
    "not UTF-8": (
        ("lookup", "latin.csv", *LOOKUP[2:], "--entity-id", "lead_id"),
        "Save the file as UTF-8, or pass --encoding cp1252 to read what Windows calls ANSI",
    ),
    "bad rename": (
        ("load", "records.json", "--store", "s.duckdb", "--column", "x"),
        "--column takes two names",
    ),
}


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", MISTAKES)
def test_bad_input_is_one_line_and_exit_code_2(capsys: pytest.CaptureFixture[str], name: str):
    """Every mistake is reported in one line on stderr, with exit code 2, nothing on stdout and nothing written."""
    arguments, message = MISTAKES[name]
    Path("names.csv").write_text("name,zip\nAda,1\n")
    Path("feild.csv").write_text(f"entityId,feild\n{uid(0)},emails\n")
    Path("two.csv").write_text(f"id,boss\n{uid(0)},{uid(1)}\n")
    Path("latin.csv").write_bytes("lead_id,name\n7,Zoë\n".encode("latin-1"))
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("enrichstatus: ")
    assert err.count("\n") == 1
    assert message in err


@pytest.mark.usefixtures("folder")
def test_a_store_that_is_none_is_bad_input(capsys: pytest.CaptureFixture[str]):
    """A missing store, a file that is none, and no file at all are reported in one line; the file is left as it was."""
    before = Path("records.json").read_bytes()
    for store in ("nowhere.duckdb", "records.json", "", ":memory:", ":memory:x"):
        code, _, err = run(capsys, "lookup", "tasks.csv", "--store", store, "--org", "org_1")
        assert (code, err.count("\n")) == (2, 1), store
        if store != "nowhere.duckdb":
            assert run(capsys, "load", "records.json", "--store", store)[:2] == (2, ""), store
    assert Path("records.json").read_bytes() == before
    assert run(capsys, "load", "records.json", "--store", "new.csv")[0] == 2
    assert run(capsys, "load", "nowhere.json", "--store", "new.duckdb")[0] == 2
    assert not Path("new.duckdb").exists()


@pytest.mark.usefixtures("folder")
def test_a_store_that_is_held_elsewhere_is_exit_code_1(capsys: pytest.CaptureFixture[str]):
    """What failed and is no bad input has an exit code of its own."""
    with es.EnrichmentStore("s.duckdb"):
        code, _, err = run(capsys, "lookup", "tasks.csv", "--store", "s.duckdb", "--org", "org_1")
    assert (code, err.count("\n")) == (1, 1)


def test_a_terminal_without_our_letters_is_no_failure(tmp_path: Path):
    """Where stdout cannot encode a bar or a name it is replaced, and the output file is written all the same."""
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = command(
        "lookup", "data/leads.csv", "--records", "data/enrichments.json", "--org", "org_acme", "--entity-id", "lead_id",
        "-o", str(tmp_path / "o.csv"), cwd=ROOT, env=environment,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert len(read(str(tmp_path / "o.csv"))) == 6000


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("arguments", [["lookup"], ["lookup", "tasks.csv"], ["load", "x", "--errors", "ignore"]])
def test_usage_errors_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    """What the parser refuses exits with 2 as well."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: enrichstatus" in capsys.readouterr().err


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "enrichstatus", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )


def test_the_main_job_of_the_readme(tmp_path: Path):
    """The command of the README, in a process of its own, tells the status of the sample's 2,000 leads."""
    done = command(
        "lookup", "data/leads.csv", "--records", "data/enrichments.json", "--org", "org_acme", "--fields", "emails,phones",
        "--entity-id", "lead_id", "--now", NOW, "-o", str(tmp_path / "status.parquet"), cwd=ROOT,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    status = read(str(tmp_path / "status.parquet"))
    with es.EnrichmentStore(org_id="org_acme") as store:
        store.load(ROOT / "data" / "enrichments.json")
        leads = pd.read_csv(ROOT / "data" / "leads.csv", dtype=str)
        expected = store.lookup(es.tasks_from_leads(leads, entity_id="lead_id", fields=["emails", "phones"]), now=NOW)
    assert len(status) == 4000
    assert status["status"].fillna("-").tolist() == expected["status"].fillna("-").tolist()
    assert {"pending", "finished", "timeout", "failed"} == set(expected["status"].dropna())


def test_a_reader_that_stops_early_is_no_traceback():
    """``enrichstatus lookup … | head -1`` ends quietly."""
    pipe = f"{sys.executable} -m enrichstatus lookup data/leads.csv --records data/enrichments.json --org org_acme --entity-id lead_id | head -0"
    done = subprocess.run(pipe, shell=True, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--help",), 0), (("--version",), 0), (("lookup", "--help"), 0), (("lookup", "x.csv", "--colour", "red"), 2)],
)
def test_what_needs_no_data_answers_without_the_libraries_for_data(arguments: tuple[str, ...], code: int):
    """Help, the version and a wrong option import neither pandas nor pyarrow nor DuckDB, and so answer at once."""
    program = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(sorted({'pandas', 'pyarrow', 'duckdb', 'numpy'} & set(sys.modules))))\n"
        f"sys.argv = ['enrichstatus', *{arguments}]\n"
        "from enrichstatus.cli import main\n"
        "sys.exit(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (code, "[]")


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("command", "option", "output"),
    [
        ("lookup", "-o", "records.json"),
        ("lookup", "-o", "link.json"),
        ("lookup", "-o", "hard.json"),
        ("lookup", "-o", "tasks1.csv"),
        ("lookup", "-o", "lists"),
        ("plan", "-o", "records.json"),
        ("plan", "-o", "tasks1.csv"),
        ("plan", "--requests", "records2.ndjson"),
    ],
)
def test_an_output_never_replaces_what_is_read(
    capsys: pytest.CaptureFixture[str], command: str, option: str, output: str
):
    """However a file that is read is named, an output that would replace it is refused before any work."""
    Path("tasks1.csv").write_bytes(Path("tasks.csv").read_bytes())
    Path("records2.ndjson").write_text(json.dumps(record(9)) + "\n")
    Path("link.json").symlink_to("records.json")
    Path("hard.json").hardlink_to("records.json")
    es.EnrichmentStore(org_id="org_1").lookup_to("tasks.csv", "lists/")
    before = {path: path.read_bytes() for path in Path().rglob("*.*")}
    tasks = "lists/*.parquet" if output == "lists" else "tasks*.csv"
    records = ("--records", "records*.*json", "--org", "org_1")
    code, out, err = run(capsys, command, tasks, *records, option, output)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert "would replace" in err
    assert {path: path.read_bytes() for path in Path().rglob("*.*")} == before


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    "name", ['my schedule="fast" list.csv', "token= of base_url= in .problems.csv", "a\x1b[31m.csv"]
)
def test_a_name_of_the_users_own_is_quoted_as_it_is(capsys: pytest.CaptureFixture[str], name: str):
    """Arguments become options where the message names them, never inside of what the user gave; no sign moves the terminal."""
    code, _, err = run(capsys, "lookup", name, *LOOKUP[2:])
    assert (code, repr(name) in err, err.count("\n")) == (2, True, 1)
    assert err.removesuffix("\n").isprintable()


@pytest.mark.usefixtures("folder")
def test_an_error_names_the_argument_that_the_option_became(capsys: pytest.CaptureFixture[str]):
    """One message is a sentence in both worlds: of an argument in Python, of its option at the command line."""
    source = es.EnrichmentStore(org_id="org_1")
    with pytest.raises(es.ValidationError, match=r"^now= takes a datetime") as caught:
        source.lookup([task(0)], now="yesterday")
    assert caught.value.argument == "now"
    assert run(capsys, *LOOKUP, "--now", "yesterday")[2].startswith("enrichstatus: --now takes a datetime")
    with pytest.raises(es.ValidationError, match=r'Drop it, or pass prefix="current_" to name the new ones apart\.$'):
        source.lookup([task(0) | {"status": "mine"}])
    pd.DataFrame([task(0) | {"status": "mine"}]).to_csv("tasks.csv", index=False)
    assert "Drop it, or pass --prefix current_ to name the new ones apart.\n" in run(capsys, *LOOKUP)[2]
