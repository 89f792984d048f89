"""``enrichstatus plan``, ``report`` and ``lookup --require``: what is written, what is said, and the exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from tests.support.factory import ORG, record, uid
from tests.support.serving import running

if TYPE_CHECKING:
    from playwright.sync_api import Browser

DATA = Path(__file__).parents[2] / "data"
NOW = ("--now", "2026-11-16T09:00:00Z")
HOSTILE = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder with leads, records of some of them, and a store."""
    monkeypatch.chdir(tmp_path)
    leads = pd.DataFrame({"id": [uid(n) for n in range(6)], "score": range(6), "source": ["web", HOSTILE, "שלום"] * 2})
    leads.to_csv("leads.csv", index=False)
    records = [
        record(0, creditTransactionId="c"),
        record(1, dataFound=False),
        record(2, status="failed", dataFound=None),
    ]
    Path("records.json").write_text(json.dumps(records))
    with es.EnrichmentStore("store.duckdb", org_id=ORG) as store:
        store.load(records)
    return tmp_path


LEADS = ("leads.csv", "--entity-id", "id", "--fields", "emails")
STORE = ("--store", "store.duckdb", "--org", ORG)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    told = capsys.readouterr()
    return code, told.out, told.err


def test_a_list_is_planned(capsys: pytest.CaptureFixture[str]):
    """The plan is said with its price, the rows are written with what is to be done, and so are the requests."""
    options = (
        "--costs",
        "emails=2",
        "--budget",
        "5",
        "--priority",
        "score",
        "-o",
        "plan.csv",
        "--requests",
        "todo.ndjson",
    )
    code, out, err = run(capsys, "plan", *LEADS, *STORE, *NOW, *options)
    assert (code, err) == (0, "")
    assert out.startswith("Plan of 6 tasks: 2 to trigger for 4 credits; 2 more are beyond the budget\n")
    assert "6 rows written to plan.csv, 1 request to todo.ndjson" in out
    plan = pd.read_csv("plan.csv")
    assert plan["action"].tolist() == ["have", "no_data", "over_budget", "over_budget", "trigger", "trigger"]
    assert plan["reason"][0] == "data found on 2026-11-16"
    assert [json.loads(line) for line in Path("todo.ndjson").read_text().splitlines()] == [
        {"personIds": [uid(4), uid(5)], "field": "emails"}
    ]


@pytest.mark.parametrize("source", [STORE, ("--records", "records.json", "--org", ORG)])
def test_what_is_bought_again_can_be_chosen(capsys: pytest.CaptureFixture[str], source: tuple[str, ...]):
    """--retry and --stale-after do as in Python, over a store and over record files."""
    assert "retry        1     1" in run(capsys, "plan", *LEADS, *source, *NOW)[1]
    assert "retry" not in run(capsys, "plan", *LEADS, *source, *NOW, "--retry", "none")[1].partition("\n\n")[0]
    assert "trigger      5     5" in run(capsys, "plan", *LEADS, *source, *NOW, "--stale-after", "10min")[1]


def test_a_service_is_asked_what_to_buy(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """With --url the plan and the report are of what the service answers; the token is shown nowhere."""
    from enrichstatus.server import create_app

    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "secret-token")
    with (
        es.EnrichmentStore("store.duckdb", org_id=ORG, read_only=True) as store,
        running(create_app(store, {"secret-token": ORG})) as url,
    ):
        code, out, err = run(capsys, "plan", *LEADS, "--url", url)
        assert (code, out.partition("\n")[0]) == (0, "Plan of 6 tasks: 4 to trigger")
        assert run(capsys, "report", *LEADS, "--url", url, "-o", "report.html")[0] == 0
    page = Path("report.html").read_text()
    assert "How long it takes" not in page
    assert "secret-token" not in page + out + err


def test_a_report_is_one_page(capsys: pytest.CaptureFixture[str]):
    """The page has tables and pictures of the list and of the whole history, says whose and when, and loads nothing."""
    code, out, err = run(
        capsys, "report", *LEADS, *STORE, *NOW, "--by", "source,field", "--title", "A & B", "-o", "report.html"
    )
    assert (code, err) == (0, "")
    assert "1 of 3 ended tasks has data (33.3 %)" in out
    assert "MB written to report.html" in out
    page = Path("report.html").read_text()
    assert "<title>A &amp; B</title>" in page
    assert "6 tasks of org_1, as of 2026-11-16 09:00 UTC" in page
    for heading in ("By field", "By source", "How long it takes", "What the money bought"):
        assert f"<h2>{heading}</h2>" in page
    assert page.count("<img ") == page.count('src="data:image/png;base64,') == 6
    assert "<script" not in page
    assert not re.search(r"(src|href)=\"?http", page)


def test_a_report_runs_nothing_and_needs_no_network(
    capsys: pytest.CaptureFixture[str], chromium: Browser, folder: Path
):
    """In a browser without a network the page shows names that are HTML as they are, runs none, and every picture is there."""
    run(capsys, "report", *LEADS, *STORE, *NOW, "--by", "source", "-o", "report.html")
    context = chromium.new_context(offline=True)
    try:
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.goto((folder / "report.html").as_uri())
        assert page.title() == "Enrichment of a lead list"
        assert page.locator("td", has_text="<script>document.title").count() > 0
        assert page.locator("td", has_text="שלום").count() > 0
        assert page.locator("script").count() == 0
        widths = page.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        assert len(widths) == 6
        assert min(widths) > 300
        assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    finally:
        context.close()


def test_a_list_of_nothing_has_a_report(capsys: pytest.CaptureFixture[str]):
    """An empty list, and a store without records, have a page that says so."""
    Path("none.csv").write_text("entityId,field\n")
    es.EnrichmentStore("empty.duckdb", org_id=ORG).close()
    code, _, _ = run(capsys, "report", "none.csv", "--store", "empty.duckdb", "--org", ORG, "-o", "report.html")
    assert code == 0
    assert "0 tasks of org_1" in Path("report.html").read_text()
    assert run(capsys, "plan", "none.csv", *STORE)[:2] == (0, "Plan of 0 tasks: 0 to trigger\n\n0 rows\n")
    Path("none.csv").write_text("id,name\n")
    code, _, err = run(capsys, "lookup", "none.csv", *STORE, "--fields", "emails", "-o", "OUT.XLSX")
    assert (code, "of id, name. Name the column of the leads' ids with entity_id= (--entity-id)." in err) == (2, True)
    assert run(capsys, "lookup", "none.csv", *STORE, "--entity-id", "id", "-o", "OUT.XLSX")[0] == 0
    assert pd.read_excel("OUT.XLSX", engine="calamine").columns.tolist()[:2] == ["id", "name"]


def test_a_list_that_does_not_reach_what_is_required_is_exit_code_4(capsys: pytest.CaptureFixture[str]):
    """The figures are said, nothing is written, and a list that does reach it is written as ever."""
    code, out, err = run(capsys, "lookup", *LEADS, *STORE, *NOW, "--require", "ended=0.98,failed=0.02", "-o", "o.csv")
    assert code == 4
    assert err == (
        "enrichstatus: Of 6 tasks 3 have ended (50 %), and 98 % are required; "
        "1 have failed or timed out (16.67 %), and at most 2 % may. Nothing was written.\n"
    )
    assert "6 tasks of org_1" in out
    assert not Path("o.csv").exists()
    code, _, err = run(
        capsys,
        "lookup",
        *LEADS,
        *STORE,
        *NOW,
        "--require",
        "ended=0.5",
        "--require",
        "failed=0.2",
        "--prefix",
        "x_",
        "-o",
        "o.csv",
    )
    assert (code, err) == (0, "")
    assert len(pd.read_csv("o.csv")) == 6


@pytest.mark.parametrize("written", [(), ("-o", "o.csv")])
@pytest.mark.parametrize("how", ["left", "inner"])
def test_what_is_required_is_required_of_all_tasks(
    capsys: pytest.CaptureFixture[str], written: tuple[str, ...], how: str
):
    """--require counts the tasks, whether --how keeps those without a record or not, shown or written."""
    lookup = ("lookup", *LEADS, *STORE, *NOW, "--how", how, *written)
    code, _, err = run(capsys, *lookup, "--require", "ended=0.98")
    assert (code, "Of 6 tasks 3 have ended (50 %)" in err, Path("o.csv").exists()) == (4, True, False)
    code, out, _ = run(capsys, *lookup, "--require", "ended=0.5")
    assert (code, out.partition(" tasks")[0]) == (0, "6" if how == "left" else "3")
    if written:
        assert len(pd.read_csv("o.csv")) == (6 if how == "left" else 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("plan", *LEADS, *STORE, "--costs", "fax=1"), "--costs has a price for fax; the fields are emails"),
        (("plan", *LEADS, *STORE, "--costs", "emails"), "--costs takes two names with = between them, not 'emails'"),
        (("plan", *LEADS, *STORE, "--costs", "emails=much"), "--costs takes a number behind each =, not 'much'"),
        (
            ("plan", *LEADS, *STORE, "--costs", "emails=-1"),
            "--costs takes a number of credits for emails from 0 up, not -1.0",
        ),
        (("plan", *LEADS, *STORE, "--budget", "-5"), "--budget takes a number of credits from 0 up, not -5.0"),
        (("plan", *LEADS, *STORE, "--budget", "5"), "--budget needs the price of emails, which the costs do not have"),
        (("plan", *LEADS, *STORE, "--priority", "rank"), "--priority names a column of the tasks"),
        (("plan", *LEADS, *STORE, "--retry", "pending"), "--retry takes some of 'timeout', 'failed', not 'pending'"),
        (("plan", *LEADS, *STORE, "--requests", "x.csv"), "'x.csv' has no known ending to write; expected .ndjson"),
        (("plan", *LEADS, *STORE, "-o", "leads.csv"), "--output would replace 'leads.csv', which TASKS names"),
        (
            ("plan", *LEADS, *STORE, "-o", "a.ndjson", "--requests", "a.ndjson"),
            "--requests would replace 'a.ndjson', which --output names",
        ),
        (("plan", *LEADS, *STORE, "-o", "plan.ods"), "'plan.ods' has no known ending"),
        (("plan", *LEADS, "--url", "https://x.test", "--org", "o"), "--org goes with --store or --records"),
        (("plan", "leads.csv", *STORE, "--priority", "scores"), "Did you mean score?"),
        (("report", *LEADS, *STORE, "-o", "report.pdf"), "'report.pdf' has no known ending to write; expected .html"),
        (("report", *LEADS, *STORE, "--by", "country", "-o", "r.html"), "country"),
        (("lookup", *LEADS, *STORE, "--require", "done=1"), "--require takes ended=SHARE and failed=SHARE, not done"),
        (("lookup", *LEADS, *STORE, "--require", "endd=1"), "Did you mean ended?"),
        (
            ("lookup", *LEADS, *STORE, "--require", "ended=98"),
            "--require takes a share from 0 to 1 for ended, e.g. ended=0.98, not 98",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str, folder: Path
):
    """What cannot be meant is reported in the words of the command line, and no file is left behind."""
    before = sorted(folder.iterdir())
    code, _, err = run(capsys, *arguments)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1
    assert sorted(folder.iterdir()) == before


def test_lists_are_looked_up_as_others_export_them(capsys: pytest.CaptureFixture[str]):
    """What Google Sheets, HubSpot, Salesforce and Apollo export needs no option but the column of the ids; all say the same of the same."""
    columns = {
        "google_sheets": "Person ID",
        "hubspot": "Enrichment person ID",
        "salesforce": "PERSON_ID__C",
        "apollo": "Person Id",
    }
    where = ("--records", str(DATA / "enrichments.json"), "--org", "org_acme", *NOW)
    for name, column in columns.items():
        listed = ("lookup", str(DATA / f"{name}.csv"), *where)
        code, out, err = run(capsys, *listed, "--entity-id", column, "-o", "o.csv")
        assert (code, err) == (0, "")
        found = f"The person ids are those of the column {column!r}, the only one that holds UUIDs; --entity-id names another.\n"
        assert run(capsys, *listed) == (0, found + out.partition("\n\n120 rows")[0] + "\n", "")
        assert [line.split()[:4] for line in out.splitlines()[3:6]] == [
            ["emails", "40", "24", "8"],
            ["phones", "40", "14", "12"],
            ["summary", "40", "13", "1"],
        ]
        theirs, ours = (
            pd.read_csv(DATA / f"{name}.csv", dtype=str),
            pd.read_csv("o.csv", dtype=str)[::3].reset_index(drop=True),
        )
        pd.testing.assert_frame_equal(ours[list(theirs)], theirs)
