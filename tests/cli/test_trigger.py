"""The command that buys."""

from __future__ import annotations

from pathlib import Path

import pytest

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
