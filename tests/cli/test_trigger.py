"""The command that buys."""

from __future__ import annotations

from pathlib import Path

import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.simulation import SimulatedStore, create_simulated_app
from tests.support.factory import ORG, uid
from tests.support.serving import running


def test_a_list_is_bought_within_a_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Without a limit, or beyond it, nothing is bought; a dry run shows the requests; run twice, a list is bought once."""
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "a-token")
    leads = tmp_path / "leads.csv"
    leads.write_text("lead_id\n" + "".join(f"{uid(number)}\n" for number in range(3)))
    with (
        SimulatedStore(org_id=ORG, forgetful=True, balance=25) as service,
        running(create_simulated_app(service, {"a-token": ORG})) as url,
    ):
        where = ["--store", str(tmp_path / "leads.duckdb"), "--org", ORG, "--url", url]
        command = [
            "trigger",
            str(leads),
            "--entity-id",
            "lead_id",
            "--fields",
            "phones",
            *where,
            "--costs",
            "phones=10",
        ]
        unnamed = [word for word in command if word not in ("--entity-id", "lead_id")]
        assert main([*unnamed, "--max-credits", "30"]) == 2
        assert "what is bought is not guessed. 'lead_id' is the only column" in capsys.readouterr().err
        with pytest.raises(SystemExit, match="2"):
            main(command)
        assert "--max-credits" in capsys.readouterr().err
        assert main([*command, "--max-credits", "29"]) == 2
        assert "--max-credits is 29, and the plan costs 30" in capsys.readouterr().err
        assert main([*command, "--max-credits", "30", "--dry-run"]) == 0
        shown = capsys.readouterr().out
        assert "Dry run: 1 request for 3 tasks and 30 credits; nothing was sent" in shown
        assert uid(0) in shown
        assert main([*command, "--max-credits", "30"]) == 1
        assert "The balance is 25, and the next request costs 30" in capsys.readouterr().err
        assert len(service.ledger()) == 0
        assert main([*command, "--max-credits", "30", "--budget", "balance"]) == 0
        assert "2 to trigger for 20 credits, which leaves 5 of 25" in capsys.readouterr().out
        assert main([*command, "--max-credits", "30", "--budget", "balance"]) == 0
        assert "0 bought for 0 credits" in capsys.readouterr().out
        assert service.ledger()["entityId"].tolist() == [uid(0), uid(1)]


def test_only_what_was_signed_off_is_bought(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """`plan --quote` writes what `trigger --quote` buys; other tasks, prices or files than that are refused, and nothing is bought."""
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "a-token")
    monkeypatch.chdir(tmp_path)
    Path("tasks.csv").write_text(f"entityId,field\n{uid(0)},emails\n{uid(1)},emails\n")
    Path("more.csv").write_text(f"entityId,field\n{uid(0)},emails\n{uid(2)},emails\n")
    Path("null.json").write_text("null")
    es.EnrichmentStore("s.duckdb", org_id=ORG).close()
    with (
        SimulatedStore(org_id=ORG, forgetful=True) as service,
        running(create_simulated_app(service, {"a-token": ORG})) as url,
    ):

        def trigger(tasks: str, cost: int, quote: str) -> int:
            where = ["--store", "s.duckdb", "--org", ORG, "--url", url, "--max-credits", "9", "--quote", quote]
            return main(["trigger", tasks, *where, "--costs", f"emails={cost}"])

        stored = ["--store", "s.duckdb", "--org", ORG]
        assert main(["plan", "tasks.csv", *stored, "--costs", "emails=1", "--quote", "q.json"]) == 0
        assert "the quote to q.json" in capsys.readouterr().out
        for tasks, cost, quote, why in (
            (
                "more.csv",
                1,
                "q.json",
                "--quote was 2 tasks for 2 credits; the plan is now 2 tasks for 2 credits, with other tasks",
            ),
            ("tasks.csv", 2, "q.json", "the plan is now 2 tasks for 4 credits"),
            ("tasks.csv", 1, "null.json", "'null.json' holds no quote"),
            ("tasks.csv", 1, "tasks.csv", "'tasks.csv' cannot be read"),
            ("tasks.csv", 1, "none.json", "'none.json' cannot be read"),
        ):
            assert trigger(tasks, cost, quote) == 2
            assert why in capsys.readouterr().err
        assert len(service.ledger()) == 0
        assert trigger("tasks.csv", 1, "q.json") == 0
        assert set(service.ledger()["entityId"]) == {uid(0), uid(1)}
        assert trigger("tasks.csv", 1, "q.json") == 2  # it is bought
        capsys.readouterr()
        assert main(["plan", "more.csv", "--url", url, "--requests", "r.ndjson"]) == 0
        assert "a service does not say: plan with the --store" in capsys.readouterr().out
