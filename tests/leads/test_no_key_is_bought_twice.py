"""The proof that no key is bought twice: planners over one store and one service that forgets, whatever happens between two steps."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pandas as pd
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

import enrichstatus as es
from enrichstatus.lookup.calls.clocks import ServiceClock
from enrichstatus.lookup.contract import BALANCE_PATH, TRIGGER_PATH
from enrichstatus.simulation import SimulatedStore, create_simulated_app
from enrichstatus.sources.client.config import Request
from enrichstatus.sources.client.transport.transport import QUERY, Outcome
from enrichstatus.sources.store.leases import Leases
from tests.support.cases import cases
from tests.support.factory import ORG, uid
from tests.support.serving import running

ROOT = Path(__file__).parents[2]
START = datetime.fromisoformat("2026-11-16T09:00:00+00:00")
MISSING_AFTER = timedelta(minutes=10)
ENTITIES, FIELDS = range(5), ("emails", "phones")
COSTS = {"emails": 1, "phones": 10}
SPELLINGS: list[Callable[[str], str]] = [
    str,
    str.upper,
    lambda text: text.replace("-", ""),
    lambda text: f" {{{text}}} ",
]
ENDS = [("finished", True), ("finished", False), ("FAILED", None), ("timeout", None), ("in review", None)]

Key = tuple[str, str]


class Killed(BaseException):
    """The process was killed: nothing after this happens."""


class Forgetful:
    """A service that buys and charges whatever it is told to, and has any of the faults; it stands where HTTP would be."""

    def __init__(self) -> None:
        self.now = START
        self.clock = ServiceClock()
        self.records: dict[Key, list[dict[str, Any]]] = {}
        #: every charge, with the record that its buyer had seen before
        self.ledger: list[tuple[Key, str | None]] = []
        self.on_the_way: list[tuple[datetime, dict[str, Any]]] = []
        self.fates: list[str] = []
        self.meanwhile: Callable[[], None] | None = None
        self.seen: dict[Key, str | None] = {}
        self.balance = 1e6
        self.step: Callable[[], None] = lambda: None

    def post(self, bodies: Any, read: Any, done: Any, request: Request = QUERY) -> Outcome[Any]:
        outcome: Outcome[Any] = Outcome()
        for place, body in enumerate(bodies):
            try:
                content = json.dumps(self.answer(request.path, body and json.loads(body))).encode()
                outcome.answered[place] = read(content)
                done(place)
            except es.EnrichStatusError as error:
                outcome.failed[place] = error
        return outcome

    def hide(self, text: str) -> str:
        return text

    def close(self) -> None:
        pass

    def answer(self, path: str, body: Any) -> Any:
        if path == BALANCE_PATH:
            return {"balance": self.balance, "organizationId": ORG}
        if path != TRIGGER_PATH:
            keys = [(one["entityId"], one["field"]) for one in body["tasks"]]
            return [self.records[key][-1] for key in keys if key in self.records]
        self.step()
        fate = self.fates.pop(0) if self.fates else "answered"
        if self.meanwhile:
            meanwhile, self.meanwhile = self.meanwhile, None
            meanwhile()
        if fate in ("refused", "down"):
            raise es.ServiceError(fate, 402 if fate == "refused" else 503)
        if fate == "slow":
            self.on_the_way.append((self.now, body))
            raise es.ServiceError("no answer in time")
        made = self.buy(body)
        self.step()
        if fate == "lost":
            raise es.ServiceError("the connection was cut")
        if fate == "failed":
            raise es.InternalError("the query failed")
        return made[:-1] if fate == "short" else made

    def buy(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        made = []
        for entity in body["personIds"]:
            key = (entity, body["field"])
            self.ledger.append((key, self.seen[key]))
            self.now += timedelta(milliseconds=1)
            made.append({
                "id": uid(10_000 + len(self.ledger)), "createdAt": wire(self.now), "updatedAt": wire(self.now), "entityId": entity,
                "entityType": "person", "field": body["field"], "status": "pending", "error": None, "dataFound": None,
                "createdBy": None, "orgId": ORG, "globalEnrichmentId": None, "creditTransactionId": f"t{len(self.ledger)}",
            })  # fmt: skip
            self.records.setdefault(key, []).append(made[-1])
        return made

    def deliver(self) -> None:
        on_the_way, self.on_the_way = self.on_the_way, []
        for _, body in on_the_way:
            self.buy(body)


def wire(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Purchases(RuleBasedStateMachine):
    """Three planners, each with a store of one file."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.service = Forgetful()
        self.client = es.EnrichmentClient("http://127.0.0.1", token="secret", progress=False)
        self.client._transports[os.getpid()] = self.service  # type: ignore[assignment]
        self.stores: list[es.EnrichmentStore] = []
        self.open()
        self.plans: list[tuple[es.Plan[Any], int]] = []
        self.exports: list[list[dict[str, Any]]] = []
        self.fuse: int | None = None
        self.service.step = self.step
        self.patches = [
            patch.object(Leases, name, self.stepping(name)) for name in ("take", "answered", "looked_up", "refused")
        ]
        for one in self.patches:
            one.start()

    def stepping(self, name: str) -> Callable[..., Any]:
        real = getattr(Leases, name)

        def stepped(leases: Leases, *arguments: Any) -> Any:
            self.step()
            found = real(leases, *arguments)
            self.step()
            return found

        return stepped

    def step(self) -> None:
        """Be killed here, if it is time."""
        if self.fuse is not None:
            self.fuse -= 1
            if self.fuse < 0:
                self.fuse = None
                raise Killed

    def open(self) -> None:
        path = Path(self.folder.name) / "leads.duckdb"
        self.stores = [es.EnrichmentStore(path, org_id=ORG) for _ in range(3)]

    def trigger(self, plan: es.Plan[Any], planner: int) -> None:
        for one in plan.purchases().to_pylist():
            seen = one["createdAt"]

            self.service.seen[one["entityId"], one["field"]] = seen and wire(seen)
        into = self.stores[planner]
        with suppress(es.TriggerStopped, es.ValidationError, Killed):
            self.client.trigger(plan, into=into, max_credits=1e6, missing_after=MISSING_AFTER, now=self.service.now)

    @rule(
        planner=st.integers(0, 2),
        rows=st.lists(
            st.tuples(st.sampled_from(ENTITIES), st.sampled_from(FIELDS), st.sampled_from(SPELLINGS)), max_size=8
        ),
        again=st.booleans(),
    )
    def plan(self, planner: int, rows: list[Any], again: bool) -> None:
        tasks = [{"entityId": spell(uid(number)), "field": field} for number, field, spell in rows]
        tasks.append({"entityId": "no lead", "field": "emails"})
        retry = ("timeout", "failed") if again else ()
        self.plans.append(
            (es.plan(self.stores[planner], tasks, costs=COSTS, retry=retry, now=self.service.now), planner)
        )

    @rule(
        which=st.integers(0, 3),
        fates=st.lists(st.sampled_from(["answered", "lost", "failed", "refused", "down", "slow", "short"]), max_size=2),
        fuse=st.none() | st.integers(0, 9),
        other=st.none() | st.integers(0, 3),
    )
    def buy(self, which: int, fates: list[str], fuse: int | None, other: int | None) -> None:
        if self.plans:
            self.service.fates, self.fuse = fates, fuse
            if other is not None:  # another planner buys while this one's request is under way
                self.service.meanwhile = lambda: self.trigger(*self.plans[-1 - other % len(self.plans)])
            self.trigger(*self.plans[-1 - which % len(self.plans)])
            self.service.fates, self.fuse, self.service.meanwhile = [], None, None

    @rule(which=st.integers(0, 9), end=st.sampled_from(ENDS))
    def end(self, which: int, end: tuple[str, bool | None]) -> None:
        """A record ends, perhaps long after it has timed out here."""
        if self.service.records:
            newest = list(self.service.records.values())[which % len(self.service.records)]
            self.service.now += timedelta(milliseconds=1)
            newest[-1] = newest[-1] | {"status": end[0], "dataFound": end[1], "updatedAt": wire(self.service.now)}

    @rule()
    def export(self) -> None:
        self.exports.append([record for records in self.service.records.values() for record in records])

    @rule(planner=st.integers(0, 2), which=st.integers(0, 5))
    def load(self, planner: int, which: int) -> None:
        """An export is loaded, an old one perhaps, and again."""
        if self.exports:
            self.stores[planner].load(self.exports[which % len(self.exports)])

    @rule(minutes=st.sampled_from([1, 5, 11, 15]))
    def wait(self, minutes: int) -> None:
        """Time passes; what is on its way arrives before it counts as missing."""
        self.service.deliver() if minutes > 5 else None
        self.service.now += timedelta(minutes=minutes)
        if any(self.service.now - sent >= MISSING_AFTER - timedelta(minutes=1) for sent, _ in self.service.on_the_way):
            self.service.deliver()

    @rule()
    def arrive(self) -> None:
        self.service.deliver()

    @rule()
    def restart(self) -> None:
        for store in self.stores:
            store.close()
        self.open()

    @invariant()
    def nothing_is_bought_twice(self) -> None:
        """Charges = what was meant to be bought: a key once, and once more after each of its records that was seen to be in vain."""
        assert len(self.service.ledger) == len(set(self.service.ledger)), self.service.ledger

    def teardown(self) -> None:
        try:
            self.finish()
        finally:
            self.close()

    def close(self) -> None:
        for one in self.patches:
            one.stop()
        for store in self.stores:
            store.close()
        self.client.close()
        self.folder.cleanup()

    def finish(self) -> None:
        """In the end all of a list is bought, however often it was tried, and no lease is left."""
        self.service.deliver()
        self.fuse = None
        tasks = [{"entityId": uid(number), "field": field} for number in ENTITIES for field in FIELDS]
        self.service.now += timedelta(minutes=11)
        for _ in range(2):  # the first looks up what is leased
            self.trigger(es.plan(self.stores[0], tasks, costs=COSTS, retry=(), now=self.service.now), 0)
        self.nothing_is_bought_twice()
        assert {key for key, _ in self.service.ledger} == {(task["entityId"], task["field"]) for task in tasks}
        assert self.stores[0].leases().num_rows == 0


SETTINGS = settings(
    max_examples=cases(10, 1000),
    stateful_step_count=8,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # a run is seconds: what is found is shown as it was found
    report_multiple_bugs=False,
)


@pytest.mark.slow
def test_no_key_is_bought_twice():
    """Whatever three planners do over one store and one forgetful service, charges are the distinct keys that were meant to be bought."""
    run_state_machine_as_test(Purchases, settings=SETTINGS)


class LateLeases(Purchases):
    """Leases are written after the request."""

    def stepping(self, name: str) -> Callable[..., Any]:
        stepped, take, refused = super().stepping(name), Leases.take, Leases.refused
        if name != "take":
            return stepped

        def late(leases: Leases, purchases: Any, at: datetime) -> Any:
            taken = stepped(leases, purchases, at)
            refused(leases, taken)
            answer = self.service.answer

            def answered(path: str, body: Any) -> Any:
                if path == TRIGGER_PATH:
                    self.service.answer = answer  # type: ignore[method-assign]
                try:
                    return answer(path, body)
                finally:
                    if path == TRIGGER_PATH and not isinstance(sys.exception(), Killed):
                        take(leases, taken, at)

            if taken.num_rows:
                self.service.answer = answered  # type: ignore[method-assign]
            return taken

        return late


@pytest.mark.parametrize("fate", ["killed", "lost"])
@pytest.mark.parametrize("machine", [Purchases, LateLeases])
def test_the_proof_fails_where_leases_are_written_after_the_request(machine: type[Purchases], fate: str):
    """Leased only when the request is over, a key is bought twice by whoever comes before that; the machine sees it."""
    run = machine()
    try:
        for planner in range(2):
            run.plan(planner, [(0, "emails", str)], False)
        if fate == "killed":  # before and after the lease is taken, before and after the charge
            run.buy(0, [], 3, None)
        else:
            run.buy(0, ["lost"], None, 1)
        run.plan(2, [(0, "emails", str.upper)], False)
        run.buy(0, [], None, None)
        if machine is Purchases:
            run.finish()
        else:
            with pytest.raises(AssertionError):
                run.nothing_is_bought_twice()
    finally:
        run.close()


KILLED = """
import os, signal, sys
import enrichstatus as es
from enrichstatus.sources.store.leases import Leases
from tests.support.factory import uid

path, url, where = sys.argv[1:]
moment, name = where.split()
real = getattr(Leases, name)

def stepped(*arguments):
    if moment == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    real(*arguments)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(Leases, name, stepped)
with es.EnrichmentStore(path, org_id="org_simulated") as store, es.EnrichmentClient(url, token="a-token") as client:
    tasks = [{"entityId": uid(number), "field": "emails"} for number in range(150)]
    client.trigger(es.plan(store, tasks, costs={"emails": 1}), into=store, max_credits=150)
"""


@pytest.mark.parametrize("where", ["after take", "before answered", "before take", "after answered"][: cases(2, 4)])
def test_a_process_that_is_killed_buys_nothing_twice(where: str, tmp_path: Path):
    """After kill -9 between any two steps the next trigger looks up what was requested; each task is charged once in the end."""
    path = tmp_path / "leads.duckdb"
    tasks = [{"entityId": uid(number), "field": "emails"} for number in range(150)]
    with (
        SimulatedStore(forgetful=True) as service,
        running(create_simulated_app(service, {"a-token": "org_simulated"})) as url,
    ):
        ran = subprocess.run([sys.executable, "-c", KILLED, str(path), url, where], cwd=ROOT, timeout=120, check=False)
        assert ran.returncode == -signal.SIGKILL
        with (
            es.EnrichmentStore(path, org_id="org_simulated") as store,
            es.EnrichmentClient(url, token="a-token") as client,
        ):
            leased = store.leases().num_rows
            assert leased == (100 if where in ("after take", "before answered") else 0)
            for minutes in (1, 12):
                plan = es.plan(
                    store, tasks, costs={"emails": 1}, retry=()
                )  # what fails in the meantime may be bought again
                later = datetime.now(UTC) + timedelta(minutes=minutes)
                client.trigger(plan, into=store, max_credits=150, now=later)
            client.trigger(es.plan(store, tasks, costs={"emails": 1}, retry=()), into=store, max_credits=150)
        assert store_is_whole(service.ledger(), tasks)


def store_is_whole(ledger: pd.DataFrame, tasks: list[dict[str, str]]) -> bool:
    return sorted(ledger["entityId"]) == sorted(task["entityId"] for task in tasks)
