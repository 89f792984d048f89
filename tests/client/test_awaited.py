"""The client and the polls for asyncio: the same answers, and nothing left behind where an await is cancelled."""

from __future__ import annotations

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.lookup.calls.awaiting import AT_ONCE, in_thread
from enrichstatus.lookup.query import Interruption, interruption
from tests.support import misbehaving as bad
from tests.support.factory import task
from tests.support.misbehaving import Answer, Misbehaving, Request
from tests.support.polled import NEVER, Clock, Service, numbered, polled, statuses

TOKEN = "tok-5up3rs3cr3t"
TASKS = pd.DataFrame([task(n) for n in range(450)])


def ours() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("enrichstatus")]


@contextmanager
def served(choose: bad.Choose, **options: Any) -> Iterator[tuple[Misbehaving, es.AsyncEnrichmentClient]]:
    with Misbehaving(choose) as service:
        client = es.AsyncEnrichmentClient(service.url, token=TOKEN, backoff=0.01, deadline="20s", **options)
        yield service, client
        asyncio.run(client.aclose())


async def cancelled(work: Any, ready: Callable[[], object]) -> asyncio.CancelledError:
    """Cancel work as soon as something is so; no thread of it is left when that is raised."""
    under_way = asyncio.create_task(work)
    while not ready():
        await asyncio.sleep(0.002)
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await under_way
    assert not ours()
    return caught.value


def third_hangs(request: Request) -> Answer:
    return bad.never if request.number == 2 else bad.well


def test_a_cancelled_lookup_leaves_no_request_and_no_thread():
    """A lookup that is cancelled is cut off wherever it is, and what was answered until then is handed over."""
    with served(third_hangs, workers=1) as (service, client):
        error: Any = asyncio.run(cancelled(client.lookup(TASKS), lambda: len(service.requests) == 3))
        service.settle()
        assert (len(error.result), len(error.failed)) == (400, 50)
        assert error.result["status"].eq("finished").all()
        stop = Interruption()
        stop.set()
        interruption.set(stop)  # a thread that is interrupted before its first request
        with pytest.raises(es.LookupInterrupted):
            client.blocking.lookup(TASKS)
        interruption.set(None)
        assert len(service.requests) == 3
    refused = bad.failure(503, "BUSY", headers={"Retry-After": "10"})  # less than the deadline: it waits
    with served(lambda request: refused) as (service, client):
        asyncio.run(cancelled(client.lookup(TASKS[:1]), lambda: service.requests and service.requests[0].answered))
        assert len(service.requests) == 1


def test_a_cancelled_poll_leaves_no_request_and_no_thread():
    """A poll ends at once in its wait, and is cut off in its request, also in that of another poll; the error has the last update."""
    with served(third_hangs, workers=1) as (service, client):
        error: Any = asyncio.run(cancelled(es.await_completed(client, TASKS), lambda: len(service.requests) == 3))
        service.settle()
        assert error.update.counts.loc["emails", ["finished", "unanswered"]].tolist() == [400, 50]
    service_ = Service(Clock(), {0: NEVER})
    waiting = es.await_completed(service_, numbered(0), schedule=[1000])
    error = asyncio.run(cancelled(waiting, lambda: service_.asks and not ours()))
    assert statuses(error.update.frame) == ["pending"]

    async def several(client: es.AsyncEnrichmentClient) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(3):
                group.create_task(es.await_completed(client, TASKS))

    with served(third_hangs, workers=1) as (service, client):
        asyncio.run(cancelled(several(client), lambda: len(service.requests) == 3))
        service.settle()
        assert len(service.requests) == 3


def test_a_cancelled_query_and_a_cancelled_balance_leave_nothing_either():
    """Every call that is awaited is cut off in its request when it is cancelled."""
    calls: list[Callable[[es.AsyncEnrichmentClient], Any]] = [
        lambda client: client.query({"tasks": [task(0)]}),
        lambda client: client.balance(),
        lambda client: anext(es.apoll(client, TASKS)),
    ]
    for call in calls:
        with served(lambda request: bad.never) as (service, client):
            asyncio.run(cancelled(_awaited(call(client)), lambda service=service: service.requests))
            service.settle()


async def _awaited(work: Any) -> Any:
    return await work


def test_apoll_gives_what_poll_gives():
    """Update by update: the same frames, requests, waits and errors, on a clock that only sleeps move."""

    async def collect(clock: Clock, source: Any, **options: Any) -> list[es.Update]:
        async def sleep(seconds: float) -> None:
            if seconds:
                clock.sleep(seconds)

        poll = es.apoll(source, numbered(0, 1, 2), clock=clock, sleep=sleep, **options)
        return [update async for update in poll]

    def course(update: es.Update) -> tuple[Any, ...]:
        return (
            statuses(update.frame),
            len(update.changed),
            update.requests,
            update.elapsed,
            update.next_in,
            str(update.error),
        )

    trouble = es.ServiceError("Later.")
    trouble.retry_after = 7.5
    clocks = Clock(), Clock()
    sources = [Service(clock, {0: 3, 1: 40}, troubles=[None, trouble]) for clock in clocks]
    options: dict[str, Any] = {"schedule": [1, 2, 10], "missing_after": "20s"}
    expected = polled(sources[0], numbered(0, 1, 2), clocks[0], **options)
    given = asyncio.run(collect(clocks[1], sources[1], **options))
    assert [course(update) for update in given] == [course(update) for update in expected]
    assert sources[1].times() == sources[0].times()
    clock = Clock()
    with pytest.raises(es.PollDeadline) as late:
        asyncio.run(collect(clock, Service(clock, {0: NEVER}), deadline="15s", missing_after="10s"))
    assert statuses(late.value.update.frame) == ["pending", None, None]


def test_many_polls_share_a_loop_without_a_thread_each():
    """No more threads than a loop has turns, however many polls wait; each poll gets its own answer."""
    most = 0
    clock = Clock()

    class Watched(Service):
        def lookup(self, tasks: pd.DataFrame, *, columns: Any = ()) -> pd.DataFrame:
            nonlocal most
            most = max(most, len(ours()))
            return super().lookup(tasks, columns=columns)

    async def together() -> list[pd.DataFrame]:
        source = Watched(clock, dict.fromkeys(range(36), 0.0))
        return await asyncio.gather(*(es.await_completed(source, numbered(n)) for n in range(36)))

    answers = asyncio.run(together())
    assert [frame["entityId"][0] for frame in answers] == numbered(*range(36))["entityId"].tolist()
    assert 1 < most <= AT_ONCE
    assert not ours()


def test_what_is_wrong_is_raised_in_the_await():
    """Bad tasks, a refused token and a closed client are what they are for `EnrichmentClient`; no message or repr has the token."""
    with served(bad.in_turn(bad.failure(401, "UNAUTHORIZED", f"Not {TOKEN}."))) as (service, client):
        with pytest.raises(es.UnauthorizedError) as refused:
            asyncio.run(client.lookup(TASKS[:1]))
        with pytest.raises(es.ValidationError, match="is not a UUID"):
            asyncio.run(client.lookup([{"entityId": "x", "field": "emails"}]))
        with pytest.raises(es.ValidationError, match=r"lookup that is awaited.*apoll"):
            es.poll(client, TASKS)
        with pytest.raises(es.ValidationError, match=r"^client= .*awaited: give its \.blocking"):
            es.plan(es.EnrichmentStore(org_id="org_1"), [], budget="balance", client=client)
        assert asyncio.run(client.query({"tasks": [task(0)]}))[0]["status"] == "finished"
        assert TOKEN not in f"{refused.value} {client!r} {vars(client)}"
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("ENRICHSTATUS_TOKEN", "another")
            assert pickle.loads(pickle.dumps(client)).base_url == service.url
    with pytest.raises(es.EnrichStatusError, match="closed"):
        asyncio.run(client.lookup(TASKS[:1]))


def test_a_second_cancel_does_not_leave_the_thread_behind():
    """Whoever cancels twice waits all the same until the work has ended."""
    begun, go = threading.Event(), threading.Event()

    async def twice() -> None:
        work = asyncio.create_task(in_thread(lambda: begun.set() or go.wait(20)))
        while not begun.is_set():
            await asyncio.sleep(0.002)
        for _ in range(2):
            work.cancel()
            await asyncio.sleep(0.002)
        assert not work.done()
        go.set()
        with pytest.raises(asyncio.CancelledError):
            await work
        assert not ours()

    asyncio.run(twice())
