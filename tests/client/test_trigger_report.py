"""What a trigger reports: what it cost by the balance, what was there already, and what has become of earlier requests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.lookup.contract import TRIGGER_PATH
from enrichstatus.simulation import SimulatedStore, create_simulated_app
from tests.support.factory import ORG, record, task, uid
from tests.support.serving import running

TASKS = [task(number) for number in range(60)]


@contextmanager
def served(**options: Any) -> Iterator[tuple[SimulatedStore, es.EnrichmentClient, Any, str]]:
    """Serve a simulated service; gives it, a client, its faults and its address."""
    with SimulatedStore(org_id=ORG, **options) as service:
        app = create_simulated_app(service, {"a-token": ORG}, faults=["lost", "500-after"])
        with running(app) as url, es.EnrichmentClient(url, token="a-token") as client:
            yield service, client, app.state.faults, url


def command(url: str, folder: Path, tasks: list[dict[str, str]], *more: str) -> list[str]:
    """Give the command that buys e-mails for a credit each, into a store in a folder."""
    leads = folder / "leads.csv"
    leads.write_text("entityId,field\n" + "".join(f"{one['entityId']},{one['field']}\n" for one in tasks))
    where = ["--store", str(folder / "leads.duckdb"), "--org", ORG, "--url", url, "--costs", "emails=1"]
    return ["trigger", str(leads), *where, *more]


def test_the_last_request_too_may_be_dearer_than_planned(store: es.EnrichmentStore):
    """The balance is asked once more at the end: what it fell by is reported, and more than the limit is an error with all that was bought."""
    with served(costs={"emails": 50}) as (_, client, _, _):
        plan = es.plan(store, TASKS, costs={"emails": 1})
        with pytest.raises(
            es.TriggerStopped, match=r"The balance fell by 3,000, where 60 were to be spent, and the limit is 60"
        ) as caught:
            client.trigger(plan, into=store, max_credits=60)
        report = caught.value.report
        assert (len(report.bought), report.credits, report.charged, report.overcharged) == (60, 60, 3000, True)
        assert "60 bought for 60 credits (the balance fell by 3,000), 0 left" in str(caught.value)
        more = es.plan(store, [task(number) for number in range(100, 102)], costs={"emails": 1})
        with pytest.warns(es.ChargeWarning, match="fell by 100, where 2 were to be spent"):
            assert client.trigger(more, into=store, max_credits=500).charged == 100
    with served() as (_, client, _, _), es.EnrichmentStore(org_id=ORG) as other:
        exact = client.trigger(es.plan(other, TASKS, costs={"emails": 1}), into=other, max_credits=60)
        assert (str(exact), exact.charged) == ("60 bought for 60 credits, 0 left", 60)


def test_the_command_that_cost_more_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Exit code 1 where more was charged than planned, within the limit and beyond it."""
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "a-token")
    with served(costs={"emails": 50}) as (_, _, _, url):
        assert main(command(url, tmp_path, TASKS[:1], "--max-credits", "60")) == 1
        shown = capsys.readouterr()
        assert "1 bought for 1 credit (the balance fell by 50), 0 left" in shown.out
        assert "The balance fell by 50, where 1 were to be spent" in shown.err
        assert main(command(url, tmp_path, TASKS[:2], "--max-credits", "1")) == 1
        assert "The balance fell by 50, where 1 were to be spent, and the limit is 1" in capsys.readouterr().err


def test_what_the_service_has_already_is_not_bought(store: es.EnrichmentStore):
    """A record from before the request, or the one that the plan has seen, was not bought, whatever the store knew of it."""
    made = datetime.now(UTC) - timedelta(days=50)
    records = [
        record(number, createdAt=made.isoformat(), updatedAt=(made + timedelta(minutes=1)).isoformat())
        for number in range(9)
    ]
    with served(costs={"emails": 5}) as (service, client, _, _):
        service.load(records)
        plan = es.plan(store, [task(number) for number in range(10)], costs={"emails": 5})
        report = client.trigger(plan, into=store, max_credits=50)
        assert (len(report.bought), len(report.already), report.credits, report.charged) == (1, 9, 5, 5)
        assert str(report) == "1 bought for 5 credits, 0 left; 9 already there, not bought again"
        stale = es.plan(store, [task(number) for number in range(9)], costs={"emails": 5}, stale_after="30 days")
        assert stale.cost == 45
        report = client.trigger(stale, into=store, max_credits=45)
        assert (len(report.bought), len(report.already), report.charged) == (0, 9, 0)
        assert "of 9 to be bought anew the service gives nothing newer than it had" in str(report)
        assert store.leases().num_rows == 0


def test_what_earlier_requests_have_come_to_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """What is still in flight, and what is released as it was not bought, is counted, and the command fails until all is there."""
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "a-token")
    six = TASKS[:6]
    with served() as (service, client, faults, url):
        service.trigger = lambda *arguments, **options: []  # type: ignore[method-assign]  # nothing is bought
        faults.kinds, faults.rate = ["lost"], 1.0
        assert main(command(url, tmp_path, six, "--max-credits", "6")) == 1
        assert "6 in flight" in capsys.readouterr().err
        del service.trigger
        faults.rate = 0.0
        assert main(command(url, tmp_path, six, "--max-credits", "6")) == 1
        assert "0 bought for 0 credits, 0 left, 6 in flight\nsome are in flight" in capsys.readouterr().out
        assert main(command(url, tmp_path, six, "--max-credits", "6", "--missing-after", "1ms")) == 1
        assert (
            "0 bought for 0 credits, 0 left; 6 requested earlier without a purchase, as the service has no record of them: "
            "plan again to buy them"
        ) in capsys.readouterr().out
        assert main(command(url, tmp_path, six, "--max-credits", "6")) == 0
        assert "6 bought for 6 credits, 0 left" in capsys.readouterr().out
        assert len(service.ledger()) == 6
        assert client.balance() == service.balance()


def test_an_organization_without_a_record_is_not_bought_for(store: es.EnrichmentStore):
    """A store that has other organizations' records only is refused, in a dry run too, unless plan or trigger says that it is meant."""
    with served() as (service, client, _, _):
        store.load([record(0, orgId="org_2")], org_id="org_2")
        plan = es.plan(client, TASKS[1:], costs={"emails": 1})
        for dry in (True, False):
            with pytest.raises(es.ValidationError, match="new_organization=True") as caught:
                client.trigger(plan, into=store, max_credits=60, dry_run=dry)
            assert "org_2" not in str(caught.value)
        assert len(service.ledger()) == 0
        meant = es.plan(client, TASKS[:1], costs={"emails": 1}, new_organization=True)
        assert len(client.trigger(meant, into=store, max_credits=1).bought) == 1
        with es.EnrichmentStore(org_id=ORG) as other:
            other.load([record(0, orgId="org_2")], org_id="org_2")
            assert len(client.trigger(plan, into=other, max_credits=60, new_organization=True).bought) == 59


def test_a_dry_run_refuses_what_the_real_run_refuses(store: es.EnrichmentStore, tmp_path: Path):
    """Other records than were planned with, a store that is only read, and another organization's store fail in a dry run as well."""
    path = tmp_path / "leads.duckdb"
    with es.EnrichmentStore(path, org_id=ORG) as made:
        made.load([record(0)])
    with (
        served() as (_, client, _, _),
        es.EnrichmentStore(path, org_id=ORG, read_only=True) as read,
        es.EnrichmentStore(org_id="org_2") as other,
    ):
        plan = es.plan(store, TASKS, costs={"emails": 1})
        store.load([record(0)])
        for into, message in ((store, "Of 1 of the 60 tasks"), (read, "only read"), (other, "another organization")):
            for dry in (True, False):
                with pytest.raises(es.ValidationError, match=message):
                    client.trigger(plan, into=into, max_credits=60, dry_run=dry)


@pytest.mark.parametrize(
    ("status", "message", "leased"),
    [
        (404, "The service refused a request", 0),
        (422, "The service refused a request", 0),
        (307, "The service refused a request", 0),
        (302, "A request went wrong", 60),
        (409, "A request went wrong", 60),
        (429, "A request went wrong", 60),
    ],
)
def test_a_refusal_leaves_no_lease(store: es.EnrichmentStore, status: int, message: str, leased: int):
    """An answer after which nothing can have been bought frees the tasks at once; any other keeps them until they are looked up."""
    with SimulatedStore(org_id=ORG) as service:
        app = create_simulated_app(service, {"a-token": ORG})

        async def refusing(scope: Any, receive: Any, send: Any) -> None:
            if scope.get("path") != TRIGGER_PATH:
                await app(scope, receive, send)
                return
            headers = [(b"location", b"/elsewhere"), (b"content-length", b"0")]
            await send({"type": "http.response.start", "status": status, "headers": headers})
            await send({"type": "http.response.body", "body": b""})

        with (
            running(refusing) as url,
            es.EnrichmentClient(url, token="a-token") as client,
            pytest.raises(es.TriggerStopped, match=message) as caught,
        ):
            client.trigger(es.plan(store, TASKS, costs={"emails": 1}), into=store, max_credits=60)
        assert (len(caught.value.left), store.leases().num_rows) == (60 - leased, leased)
        assert "not answered" not in str(caught.value)


def test_an_answer_without_the_tasks_of_its_request_stops_it(store: es.EnrichmentStore):
    """No record at all, or records of others, is said, and no further request is sent; the tasks are looked up first the next time."""
    tasks = [task(number) for number in range(150)]
    answers: list[list[dict[str, Any]]] = [[], [record(900)]]
    with served() as (service, client, _, _):
        for answer, message in zip(
            answers, ["a request of 100 tasks without any record", "with 1 record of other tasks"], strict=True
        ):
            service.trigger = lambda *arguments, answer=answer, **options: answer  # type: ignore[method-assign]
            with es.EnrichmentStore(org_id=ORG) as into:
                plan = es.plan(into, tasks, costs={"emails": 1})
                with pytest.raises(es.TriggerStopped, match=message) as caught:
                    client.trigger(plan, into=into, max_credits=150)
                assert (len(caught.value.bought), len(caught.value.left), into.leases().num_rows) == (0, 50, 100)
                assert uid(0) in set(into.leases()["entityId"].to_pylist())


def test_the_command_says_what_it_was_given_twice_and_what_it_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """Two meanings or prices for one name are refused, not one dropped; a balance of nobody is said in words of the command line."""
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "a-token")
    for more, message in (
        (("--statuses", "a=pending,a=failed"), "--statuses gives a both 'pending' and 'failed'"),
        (("--costs", "emails=2"), "--costs gives emails both '1' and '2'"),
        (("--stale-after", "emails=1d,emails=2d"), "--stale-after gives emails both '1d' and '2d'"),
    ):
        arguments = command("http://127.0.0.1:1", tmp_path, TASKS[:1], "--max-credits", "1", *more)
        assert main(arguments) == 2
        assert message in capsys.readouterr().err
    with es.EnrichmentStore(tmp_path / "made.duckdb", org_id=ORG) as made:
        made.load([record(0)])
    where = ["--store", str(tmp_path / "made.duckdb"), "--org", ORG, "--costs", "emails=1", "--budget", "balance"]
    assert main(["plan", str(tmp_path / "leads.csv"), *where]) == 2
    assert "--budget balance is what a service says: it goes with --url" in capsys.readouterr().err


def test_odd_arguments_are_named(store: es.EnrichmentStore):
    """What is no sequence of statuses and no column name is refused by name; a price may be a Decimal; yes and 1 are found."""
    with pytest.raises(es.ValidationError, match="retry= takes some of 'timeout', 'failed', not None"):
        es.plan(store, TASKS, retry=None)  # type: ignore[arg-type]
    status = [{"status": "finished", "dataFound": True, "v": value} for value in ("Yes", "0", "1", "no")]
    with pytest.raises(es.ValidationError, match="found= takes the name of a column"):
        es.coverage(status, by=None, found=["v"])  # type: ignore[arg-type]
    assert es.coverage(status, by=None, found="v").frame["v"].tolist() == [2]
    with pytest.raises(es.ValidationError, match="' Maybe' is not"):
        es.coverage([*status, {**status[0], "v": " Maybe"}], by=None, found="v")
    assert repr(es.plan(store, TASKS[:1], costs={"emails": Decimal(1)})).startswith(
        "Plan of 1 task: 1 to trigger for 1 credit;"
    )
