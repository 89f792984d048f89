"""The client against a real server that misbehaves: every fault of a network, a proxy or a service, and what is made of it."""

from __future__ import annotations

import copy
import gc
import json
import logging
import math
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
import tracemalloc
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import pairwise
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from tests.support import misbehaving as bad
from tests.support.cases import cases, crossed
from tests.support.factory import NOW, task, uid
from tests.support.misbehaving import Answer, Choose, Misbehaving, Request, Wire
from tests.support.serving import PATH

TOKEN = "tok-5up3rs3cr3t"
#: Few and quick attempts, and a bound on the whole call, so that no mistake makes a test wait for long.
QUICK: dict[str, Any] = {"token": TOKEN, "retries": 2, "backoff": 0.01, "timeout": (2, 10), "deadline": "20s"}
BATCH = 200

Serve: TypeAlias = Callable[..., Misbehaving]
MakeClient: TypeAlias = Callable[..., Any]


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("TOKEN", "BASE_URL"):
        monkeypatch.delenv(f"ENRICHSTATUS_{name}", raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no netrc"))


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert not lingering(before)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start servers: with answers for the first requests and one for those that follow, or a function that chooses."""
    with ExitStack() as stack:

        def start(
            *answers: Answer, then: Answer = bad.well, choose: Choose | None = None, **options: Any
        ) -> Misbehaving:
            return stack.enter_context(Misbehaving(choose or bad.in_turn(*answers, then=then), **options))

        yield start


@pytest.fixture
def client() -> Iterator[MakeClient]:
    """Make clients for a server or a URL, with the quick settings of these tests unless told otherwise."""
    with ExitStack() as stack:

        def make(server: Misbehaving | str, **options: Any) -> Any:
            url = server.url if isinstance(server, Misbehaving) else server
            made = es.EnrichmentClient(url, **QUICK | options)
            if hasattr(made, "close"):
                stack.callback(made.close)
            return made

        yield make


def lingering(before: set[threading.Thread]) -> list[str]:
    """Name the threads that are still there, though they were not before and had two seconds to end."""
    end = time.monotonic() + 2
    for thread in set(threading.enumerate()) - before:
        if type(thread).__name__ != "TMonitor":  # tqdm's own, one for the process
            thread.join(max(0.0, end - time.monotonic()))
    return [one.name for one in set(threading.enumerate()) - before if type(one).__name__ != "TMonitor"]


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail if the block takes longer."""
    start = time.monotonic()
    yield
    took = time.monotonic() - start
    assert took < seconds, f"it took {took:.2f} s"


def tasks_of(count: int, start: int = 0) -> pd.DataFrame:
    return pd.DataFrame([task(n) for n in range(start, start + count)], columns=["entityId", "field"])


def body_of(count: int) -> dict[str, Any]:
    """Make the body of a request; ``query`` asks by the same way as ``lookup``, and is quicker where frames do not matter."""
    return {"tasks": [task(n) for n in range(count)]}


def statuses(answer: pd.DataFrame, column: str = "status") -> list[str | None]:
    return [None if pd.isna(status) else status for status in answer[column]]


def gaps(server: Misbehaving) -> list[float]:
    """Seconds from each answer of a server to the next request."""
    return [after.when - (before.begun or before.when) for before, after in pairwise(server.requests)]


def asks(*numbers: int) -> Callable[[Request], bool]:
    """Say whether a request asks for one of these."""
    wanted = {uid(number) for number in numbers}
    return lambda request: any(one["entityId"] in wanted for one in request.tasks)


def when(condition: Callable[[Request], bool], answer: Answer, otherwise: Answer = bad.well) -> Choose:
    return lambda request: answer if condition(request) else otherwise


# What is sent


@pytest.mark.parametrize(("count", "sizes"), [(0, []), (1, [1]), (200, [200]), (201, [200, 1]), (600, [200] * 3)])
def test_distinct_tasks_are_sent_in_full_batches(serve: Serve, client: MakeClient, count: int, sizes: list[int]):
    """No tasks make no request and no connection; others make batches of 200 and one of what is left; all are answered."""
    server = serve()
    answer = client(server).lookup(tasks_of(count), columns=["status", "dataFound", "entityId"], prefix="r_", now=NOW)
    assert server.sizes == sizes
    assert server.connections <= len(sizes)
    assert answer.columns.tolist() == ["entityId", "field", "r_status", "r_dataFound", "r_entityId"]
    assert answer["r_status"].tolist() == ["finished"] * count
    assert answer["r_entityId"].tolist() == answer["entityId"].tolist()
    assert answer["r_dataFound"].tolist() == [bad.found(entity) for entity in answer["entityId"]]


@pytest.mark.slow
def test_many_tasks_make_full_batches(serve: Serve, client: MakeClient):
    """20,000 distinct tasks (100,000 with all cases) are as many requests of 200 as that, no task twice, and each row gets its own answer."""
    server, count = serve(), cases(20_000, 100_000)
    tasks = tasks_of(count)
    answer = client(server, deadline="60s").lookup(tasks, columns=["status", "entityId"], prefix="r_", now=NOW)
    assert server.sizes == [BATCH] * (count // BATCH)
    assert len({one["entityId"] for request in server.requests for one in request.tasks}) == count
    assert answer["r_entityId"].tolist() == answer["entityId"].tolist()
    assert (answer["r_status"] == "finished").all()


def test_a_hundred_thousand_duplicates_make_one_request_for_one_task(serve: Serve, client: MakeClient):
    """The same task in 100,000 rows is requested once, and answered in every row."""
    server = serve()
    answer = client(server).lookup(pd.DataFrame([task(7)] * 100_000), now=NOW)
    assert server.sizes == [1]
    assert (answer["status"] == "finished").all()
    assert len(answer) == 100_000


def test_a_task_is_the_same_in_any_spelling_and_another_of_another_type_or_field(serve: Serve, client: MakeClient):
    """Tasks are told apart by the UUID's value, the type and the field; they are requested in the order of their first row."""
    server = serve()
    rows = [
        task(3) | {"entityType": "person"},
        task(1) | {"entityType": "company"},
        {"entityId": uid(3).upper(), "field": "emails", "entityType": "person"},
        task(1) | {"entityType": "person"},
        task(3, "phones") | {"entityType": "person"},
        task(1) | {"entityType": "company"},
    ]
    answer = client(server).lookup(rows, columns=["id"], now=NOW)
    (request,) = server.requests
    assert [(one["entityId"].lower(), one["entityType"], one["field"]) for one in request.tasks] == [
        (uid(3), "person", "emails"),
        (uid(1), "company", "emails"),
        (uid(1), "person", "emails"),
        (uid(3), "person", "phones"),
    ]
    assert answer["id"].tolist() == [bad.finished(row)["id"] for row in rows]


def test_batches_are_packed_in_order_of_first_appearance(serve: Serve, client: MakeClient):
    """With one worker, the tasks of all requests one after the other are the distinct tasks in order."""
    server = serve()
    numbers = [n * 7919 % 450 for n in range(1000)]
    client(server, workers=1).lookup(pd.DataFrame([task(n) for n in numbers]), now=NOW)
    assert [one["entityId"] for request in server.requests for one in request.tasks] == [
        uid(number) for number in dict.fromkeys(numbers)
    ]
    assert [len(request.tasks) for request in server.requests] == [200, 200, 50]


def test_a_request_is_the_contracts(serve: Serve, client: MakeClient):
    """It is a POST of JSON to the endpoint below the base URL, whose path and last slash are kept in order, with the token."""
    server = serve()
    for base in (server.url, server.url + "/", server.url + "/behind/a/proxy", server.url + "/behind/a/proxy/"):
        client(base).lookup([task(0)], now=NOW)
    assert [request.target for request in server.requests] == [PATH] * 2 + ["/behind/a/proxy" + PATH] * 2
    for request in server.requests:
        assert request.method == "POST"
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert request.headers["content-type"].startswith("application/json")
        assert json.loads(request.body) == {"tasks": [task(0) | {"entityType": "person"}]}


def test_up_to_so_many_workers_are_in_flight_at_once(serve: Serve, client: MakeClient):
    """Three batches of three workers are all in flight before one is answered; of more batches no more are at once."""
    together = threading.Barrier(3, timeout=10)

    def gate(wire: Wire, request: Request) -> bool:
        together.wait()
        return bad.well(wire, request)

    server = serve(then=gate)
    answer = client(server, workers=3).lookup(tasks_of(9 * BATCH), now=NOW)
    assert (answer["status"] == "finished").all()
    assert server.most_in_flight == 3
    assert server.connections <= 3


def test_bad_tasks_are_not_sent(serve: Serve, client: MakeClient):
    """With ``coerce`` only the good tasks are requested; else nothing is, when one is bad, or when an option is."""
    server = serve()
    rows = [task(0), {"entityId": "nonsense", "field": "emails"}, task(1, "fax")]
    with pytest.raises(es.ValidationError, match="2 bad tasks"):
        client(server).lookup(rows, now=NOW)
    with pytest.raises(es.ValidationError, match="how="):
        client(server).lookup([task(0)], how="outer", now=NOW)
    assert server.requests == []
    assert statuses(client(server).lookup(rows, errors="coerce", now=NOW)) == ["finished", None, None]
    assert server.sizes == [1]


def test_a_query_is_one_request_and_its_answer_the_wire_objects(serve: Serve, client: MakeClient):
    """``query`` sends one body and gives the list that came; a body that breaks the contract is not even sent."""
    server = serve()
    tasks = [task(n) for n in range(3)]
    assert client(server).query({"tasks": tasks}) == [bad.finished(one) for one in tasks]
    assert server.sizes == [3]
    for body in ({"tasks": []}, {"tasks": [task(n) for n in range(201)]}, {}, [task(0)]):
        with pytest.raises(es.ValidationError):
            client(server).query(body)
    assert server.sizes == [3]


def test_a_client_is_for_several_threads(serve: Serve, client: MakeClient):
    """Four threads that look up with one client at once each get their own answers."""
    server = serve()
    asking = client(server, workers=2)

    def ask(number: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        tasks = tasks_of(500, start=number * 1000)
        return tasks, asking.lookup(tasks, columns=["entityId", "dataFound"], prefix="r_", now=NOW)

    with ThreadPoolExecutor(4) as pool:
        for tasks, answer in pool.map(ask, range(4)):
            assert answer["r_entityId"].tolist() == tasks["entityId"].tolist()
            assert answer["r_dataFound"].tolist() == [bad.found(entity) for entity in tasks["entityId"]]
    assert server.sizes == [BATCH] * 8 + [100] * 4


# What is repeated, and when


def bad_gateway(wire: Wire, request: Request) -> bool:
    """Answer like a proxy: with a long page of HTML."""
    return bad.reply(502, PAGE, {"Content-Type": "text/html"})(wire, request)


PAGE = (
    "<html>\r\n<head><title>502 Bad Gateway</title></head>\r\n<body>\x1b[31m<h1>It broke</h1>"
    + "<p>&nbsp;</p>\r\n" * 5000
    + "</body></html>"
)
#: Bytes that end too soon.
CUTS: dict[str, Answer] = {
    "closed before headers": bad.close,
    "reset": bad.reset,
    "half the headers": bad.half_the_headers,
    "half the body": bad.half_the_body,
    "no last chunk": bad.no_last_chunk,
    "half a chunk": bad.half_a_chunk,
}
#: Answers that are whole as HTTP and worth another attempt.
TRANSIENT: dict[str, Answer] = {
    "429": bad.failure(429, "RATE_LIMITED"),
    "500": bad.failure(500, "INTERNAL_ERROR"),
    "502 html": bad_gateway,
    "503": bad.failure(503, "UNAVAILABLE"),
    "504 empty": bad.reply(504),
    "200 html": bad.reply(200, PAGE, {"Content-Type": "text/html"}),
    "200 empty": bad.reply(200),
    "200 truncated": bad.truncated,
    "200 not utf-8": bad.reply(200, b'[{"id": "\xff\xfe"}]'),
}


@pytest.mark.parametrize("name", [*CUTS, *TRANSIENT])
def test_a_fault_that_passes_is_overcome(serve: Serve, client: MakeClient, name: str):
    """Twice a fault and then well: the third attempt of the same batch is answered, and the caller sees nothing."""
    fault = (CUTS | TRANSIENT)[name]
    server = serve(fault, fault)
    answer = client(server).lookup(tasks_of(3), now=NOW)
    assert statuses(answer) == ["finished"] * 3
    assert len(server.requests) == 3
    assert len({request.body for request in server.requests}) == 1


@pytest.mark.parametrize("name", CUTS)
def test_a_connection_that_is_always_cut_is_a_service_error(serve: Serve, client: MakeClient, name: str):
    """After the retries (and no more) an answer that never comes whole is a ServiceError."""
    server = serve(then=CUTS[name])
    with pytest.raises(es.ServiceError) as caught:
        client(server, retries=2).query(body_of(1))
    assert not isinstance(caught.value, es.PartialLookupError)
    assert len(server.requests) == 3
    assert caught.value.http_status in (None, 200)


@pytest.mark.parametrize("name", [name for name in TRANSIENT if name not in ("429", "500")])
def test_a_status_that_stays_is_a_service_error_that_tells_it(serve: Serve, client: MakeClient, name: str):
    """After the retries the error has the status, as a number and in its text."""
    server = serve(then=TRANSIENT[name])
    with pytest.raises(es.ServiceError) as caught:
        client(server, retries=1).query(body_of(1))
    assert caught.value.http_status == int(name[:3])
    if not name.startswith("200"):
        assert name[:3] in str(caught.value)
    assert len(server.requests) == 2


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_always_500_is_an_internal_error_after_the_retries(serve: Serve, client: MakeClient, retries: int):
    """The contract's 500 is an InternalError with the service's message, and ``retries=`` is the number of repetitions."""
    server = serve(then=bad.failure(500, "INTERNAL_ERROR", "The disk is full."))
    with pytest.raises(es.InternalError, match="The disk is full") as caught:
        client(server, retries=retries).query(body_of(1))
    assert (caught.value.code, caught.value.http_status) == ("INTERNAL_ERROR", 500)
    assert len(server.requests) == 1 + retries


def test_a_500_that_is_not_the_contracts_is_a_service_error(serve: Serve, client: MakeClient):
    """Only the contract's code makes an InternalError; another, or a page of HTML, does not."""
    for fault in (bad.failure(500, "OTHER", "It is odd."), bad.reply(500, PAGE), bad.reply(500, {"detail": "no"})):
        with pytest.raises(es.ServiceError) as caught:
            client(serve(then=fault), retries=0).lookup(tasks_of(1), now=NOW)
        assert caught.value.http_status == 500


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 409, 413, 418, 422, 499])
def test_what_a_repetition_would_not_mend_is_not_repeated(serve: Serve, client: MakeClient, status: int):
    """Statuses of the 400s but 429 are final at once, even with a Retry-After; the message is the service's."""
    server = serve(then=bad.failure(status, "SOME_CODE", "It will not do.", {"Retry-After": "1"}))
    kind = {400: es.ValidationError, 401: es.UnauthorizedError}.get(status, es.ServiceError)
    with pytest.raises(kind, match="It will not do") as caught:
        client(server).lookup(tasks_of(1), now=NOW)
    assert caught.value.http_status == status
    assert isinstance(caught.value, es.EnrichStatusError)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [201, 204, 206, 304, 501, 505, 999])
def test_any_other_status_is_a_service_error(serve: Serve, client: MakeClient, status: int):
    """Only 200 is an answer, whatever the body says."""
    body = [bad.finished(task(0))] if status not in (204, 304) else b""
    with pytest.raises(es.ServiceError, match=str(status)) as caught:
        client(serve(then=bad.reply(status, body)), retries=0).lookup(tasks_of(1), now=NOW)
    assert caught.value.http_status == status


def test_the_waits_between_attempts_grow(serve: Serve, client: MakeClient):
    """After five failures the wait is many times ``backoff=``, and longer than after one; ``backoff=0`` does not wait."""
    server = serve(then=bad.failure(503, "UNAVAILABLE"))
    with pytest.raises(es.ServiceError):
        client(server, retries=5, backoff=0.05).lookup(tasks_of(1), now=NOW)
    waits = gaps(server)
    assert len(waits) == 5
    assert waits[4] > 0.3  # 0.05 s, doubled at least thrice, less the jitter
    assert waits[4] > waits[0]
    assert sum(waits) < 10
    eager = serve(then=bad.failure(503, "UNAVAILABLE"))
    with within(5), pytest.raises(es.ServiceError):
        client(eager, retries=5, backoff=0).lookup(tasks_of(1), now=NOW)


@pytest.mark.parametrize("headers", [{}, {"Retry-After": "30"}])
def test_a_quota_is_not_waited_out_beyond_the_deadline_of_a_poll(
    serve: Serve, client: MakeClient, headers: dict[str, str]
):
    """A call of the client may wait for minutes; the poll that makes it gives up when its own time is over."""
    source = client(serve(then=bad.failure(429, "LATER", headers=headers)), deadline="5min", backoff=0.1)
    with within(20), pytest.raises(es.PollDeadline, match="unanswered"):
        es.wait(source, tasks_of(1), deadline=0.5, progress=False)


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_in_seconds_is_waited_for(serve: Serve, client: MakeClient, status: int):
    """``Retry-After: 1`` is one second at the least, not the backoff's hundredth."""
    server = serve(bad.failure(status, "LATER", headers={"Retry-After": "1"}))
    assert statuses(client(server).lookup(tasks_of(1), now=NOW)) == ["finished"]
    (gap,) = gaps(server)
    assert 1 <= gap < 5


def test_retry_after_as_a_date_is_waited_for(serve: Serve, client: MakeClient):
    """An HTTP date in Retry-After is the earliest moment of the next attempt."""
    date = datetime.fromtimestamp(math.ceil(time.time() + 0.5), UTC)
    server = serve(bad.failure(429, "LATER", headers={"Retry-After": format_datetime(date, usegmt=True)}))
    assert statuses(client(server).lookup(tasks_of(1), now=NOW)) == ["finished"]
    assert date.timestamp() - 0.05 <= server.requests[1].wall < date.timestamp() + 5


@pytest.mark.parametrize(
    "value",
    [
        "soon",
        "",
        "-5",
        "5 apples",
        "²",
        "nan",
        "inf",
        "Thu, 99 Foo 2026 99:99:99 GMT",
        "Fri, 31 Dec 99999 23:59:59 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT",
    ],
)
def test_nonsense_in_retry_after_is_ignored(serve: Serve, client: MakeClient, value: str):
    """What is neither seconds nor a date to come is no reason to fail nor to wait."""
    server = serve(bad.failure(429, "LATER", headers={"Retry-After": value}))
    with within(4):
        assert statuses(client(server).lookup(tasks_of(1), now=NOW)) == ["finished"]
    assert len(server.requests) == 2


@pytest.mark.parametrize("value", ["3600", "9" * 400, "date"])
def test_a_long_retry_after_is_cut(serve: Serve, client: MakeClient, value: str):
    """``max_retry_after=`` bounds the wait that a server can impose, in either form."""
    value = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True) if value == "date" else value
    server = serve(bad.failure(429, "LATER", headers={"Retry-After": value}))
    assert statuses(client(server, max_retry_after=0.2).lookup(tasks_of(1), now=NOW)) == ["finished"]
    (gap,) = gaps(server)
    assert 0.2 <= gap < 5


def test_the_retries_are_each_batchs_own(serve: Serve, client: MakeClient):
    """With one retry each, five batches that each fail once are all answered."""
    known: set[bytes] = set()

    def once(request: Request) -> Answer:
        answer = bad.well if request.body in known else bad.failure(503, "UNAVAILABLE")
        known.add(request.body)
        return answer

    server = serve(choose=once)
    answer = client(server, retries=1).lookup(tasks_of(5 * BATCH), now=NOW)
    assert (answer["status"] == "finished").all()
    assert len(server.requests) == 10


def test_a_connection_closed_between_requests_is_made_again(serve: Serve, client: MakeClient):
    """A server may close a connection that it said it would keep; the next batch and the next call are answered all the same."""
    server = serve(then=bad.well_then_gone)
    asking = client(server, workers=1)
    for _ in range(2):
        assert set(statuses(asking.lookup(tasks_of(2 * BATCH), now=NOW))) == {"finished"}
    assert server.connections >= 4


# What an answer may look like


@pytest.mark.parametrize("answer", [bad.zipped, bad.in_chunks, bad.until_the_end, bad.in_pieces])
def test_an_answer_is_read_however_http_carries_it(serve: Serve, client: MakeClient, answer: Answer):
    """Compressed, in chunks, without a length, or slowly but in time: it is the same answer, at the first attempt."""
    server = serve(then=answer)
    assert statuses(client(server).lookup(tasks_of(3), now=NOW)) == ["finished"] * 3
    assert len(server.requests) == 1


def test_an_answer_may_be_in_any_order_and_lack_records(serve: Serve, client: MakeClient):
    """Answers are put to their rows by their key, in whatever order and spelling they come; a task without one is null."""
    server = serve(
        then=bad.altered(lambda records: [one | {"entityId": one["entityId"].upper()} for one in records[:0:-1]])
    )
    answer = client(server).lookup(tasks_of(4), columns=["status", "id"], now=NOW)
    assert statuses(answer) == [None, "finished", "finished", "finished"]
    assert answer["id"].tolist()[1:] == [bad.finished(task(n))["id"] for n in (1, 2, 3)]
    empty = client(serve(then=bad.reply(200, []))).lookup(tasks_of(2), now=NOW)
    assert statuses(empty) == [None, None]
    assert client(serve(then=bad.reply(200, []))).lookup(tasks_of(2), how="inner", now=NOW).shape == (0, 4)


def test_an_unknown_status_and_extra_members_are_no_fault_and_absent_ones_are_null(serve: Serve, client: MakeClient):
    """A service may grow: a new status is kept as it came, a new member ignored, and one that is optional may be left out."""
    optional = ("error", "createdBy", "orgId", "globalEnrichmentId", "creditTransactionId")
    lean = bad.altered(
        lambda records: [
            {name: value for name, value in one.items() if name not in optional}
            | {"status": "Zurückgestellt 🕓", "novel": {"deep": [1, None]}, "dataFound": None}
            for one in records
        ]
    )
    answer = client(serve(then=lean)).lookup(tasks_of(2), columns="all", now=NOW)
    assert answer["status"].tolist() == ["Zurückgestellt 🕓"] * 2
    assert answer[[*optional, "dataFound"]].isna().all(axis=None)
    assert answer["createdAt"].tolist() == [pd.Timestamp("2026-11-16T08:00:00Z")] * 2
    assert "novel" not in answer
    with client(serve(then=lean), statuses={"ZURÜCKGESTELLT 🕓": "pending"}) as mapped:
        assert statuses(mapped.lookup(tasks_of(2), now="2026-11-16T08:00:01Z")) == ["pending"] * 2


def change(**members: Any) -> Answer:
    """Answer with the first record changed."""
    return bad.altered(lambda records: [records[0] | members, *records[1:]])


def drop(name: str) -> Answer:
    """Answer with a member of the last record left out."""
    return bad.altered(lambda records: [*records[:-1], {key: records[-1][key] for key in records[-1] if key != name}])


REQUIRED = ("id", "createdAt", "updatedAt", "entityId", "entityType", "field", "status", "dataFound")
BREACHES: dict[str, Answer] = {
    "an object": bad.altered(lambda records: {"data": records}),
    "an object that is a record": bad.altered(lambda records: records[0]),
    "null": bad.reply(200, "null"),
    "text": bad.reply(200, '"[]"'),
    "a number": bad.reply(200, "17"),
    "an array of text": bad.altered(lambda records: [one["id"] for one in records]),
    "an array of arrays": bad.altered(lambda records: [list(one.values()) for one in records]),
    "an array of null": bad.reply(200, "[null]"),
    "one null among objects": bad.altered(lambda records: [*records, None]),
    "an array of NaN": bad.reply(200, "[NaN]"),
    "an empty object": bad.reply(200, "[{}]"),
    "another task": bad.altered(lambda records: [*records, bad.finished(task(999_999))]),
    "another type": change(entityType="company"),
    "another field": change(field="phones"),
    "an unknown type": change(entityType="robot"),
    "an unknown field": change(field="fax"),
    **{f"no {name}": drop(name) for name in REQUIRED},
    **{f"{name} null": change(**{name: None}) for name in REQUIRED if name not in ("dataFound", "updatedAt")},
    **{f"{name} a number": change(**{name: 17}) for name in REQUIRED},
    **{f"{name} a list": change(**{name: ["x"]}) for name in REQUIRED},
    **{f"{name} an object": change(**{name: {}}) for name in ("status", "entityId", "createdAt", "dataFound")},
    **{f"{name} a boolean": change(**{name: True}) for name in REQUIRED if name != "dataFound"},
    "dataFound text": change(dataFound="true"),
    "dataFound 1": change(dataFound=1),
    "entityId no uuid": change(entityId="nonsense"),
    "createdAt no instant": change(createdAt="yesterday"),
    "createdAt no day": change(createdAt="2026-02-30T08:00:00.000Z"),
    "createdAt beyond all years": change(createdAt="99999-01-01T00:00:00.000Z"),
    "createdAt empty": change(createdAt=""),
    "updatedAt no instant": change(updatedAt="2026-11-16 but later"),
    "error a number": change(error=17),
    "createdBy an object": change(createdBy={"name": "x"}),
    "orgId a list": change(orgId=["org_1"]),
    "globalEnrichmentId a boolean": change(globalEnrichmentId=False),
    "creditTransactionId a number": change(creditTransactionId=1.5),
    "half a surrogate": change(status="\ud800"),
}


@pytest.mark.parametrize("name", [*BREACHES][:: cases(3, 1)])
def test_an_answer_that_breaks_the_contract_is_a_service_error(serve: Serve, client: MakeClient, name: str):
    """A whole answer that is no answer to what was requested is refused by both calls, and at once: no repetition would fix it."""
    server = serve(then=BREACHES[name])
    asking = client(server)
    for ask in (lambda: asking.query(body_of(3)), lambda: asking.lookup(tasks_of(3), now=NOW)):
        with pytest.raises(es.ServiceError) as caught:
            ask()
        assert not isinstance(caught.value, es.PartialLookupError)
        assert caught.value.http_status in (None, 200)
        assert len(str(caught.value)) < 1000
    assert len(server.requests) == 2


NOT_JSON: dict[str, Answer] = {
    "html": TRANSIENT["200 html"],
    "empty": TRANSIENT["200 empty"],
    "truncated": bad.truncated,
    "not utf-8": TRANSIENT["200 not utf-8"],
    "deep": bad.reply(200, "[" * 100_000),
    "deep and closed": bad.reply(200, "[" * 100_000 + "]" * 100_000),
    "an endless number": bad.reply(200, '[{"id": ' + "1" * 10_000 + "}]"),
    "two answers": bad.altered(lambda records: json.dumps(records) * 2),
    "no gzip": bad.reply(200, b"[]", {"Content-Encoding": "gzip"}),
}
NOT_HTTP: dict[str, Answer] = {
    "garbage": bad.raw(bytes(range(256)) * 20),
    "garbage in a line": bad.raw(b"SSH-2.0-OpenSSH_9.6\r\n"),
    "a status that is no number": bad.raw(b"HTTP/1.1 fine OK\r\n\r\n"),
    "a header without an end": bad.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 200_000),
    "a thousand headers": bad.raw(b"HTTP/1.1 200 OK\r\n" + b"X-Y: z\r\n" * 1000 + b"\r\n"),
    "a length that is no number": bad.raw(b"HTTP/1.1 200 OK\r\nContent-Length: long\r\n\r\n["),
    "a chunk of no size": bad.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nlarge\r\n[]\r\n0\r\n\r\n"),
    "a charset that is none": bad.reply(200, b"\xff[", {"Content-Type": "application/json; charset=rot-26"}),
}


@pytest.mark.parametrize("name", [*NOT_JSON, *NOT_HTTP])
def test_what_is_no_json_or_no_http_is_a_service_error(serve: Serve, client: MakeClient, name: str):
    """Whatever bytes come, the exception is one of ours, and says in a few plain characters what is wrong."""
    with pytest.raises(es.ServiceError) as caught:
        client(serve(then=(NOT_JSON | NOT_HTTP)[name]), retries=1).query(body_of(1))
    text = str(caught.value)
    assert 0 < len(text) < 1000
    assert text.replace("\n", "").isprintable()


@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")  # urllib3 2.8 leaves the socket of such an answer open
def test_lengths_that_differ_are_a_service_error(serve: Serve, client: MakeClient):
    """An answer with two lengths has none."""
    fault = bad.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n[]")
    with pytest.raises(es.ServiceError, match="Content-Length") as caught:
        client(serve(then=fault), retries=1).query(body_of(1))
    del caught
    gc.collect()  # while the warning is ignored


@pytest.mark.parametrize("answer", [bad.bomb(), bad.flooding(200)], ids=["bomb", "flood"])
def test_an_answer_without_end_is_refused_and_not_kept(serve: Serve, client: MakeClient, answer: Answer):
    """Of an answer of more than 16 MiB, as it comes or unpacked, no more is read and held; it is refused, and not repeated."""
    server = serve(then=answer)
    asking = client(server)
    tracemalloc.start()
    try:
        with pytest.raises(es.ServiceError, match="more than 16 MiB") as caught:
            asking.query(body_of(1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert caught.value.http_status == 200
    assert len(server.requests) == 1
    assert peak < 64 * 2**20


@pytest.mark.parametrize("answer", [bad.bomb, bad.flooding], ids=["bomb", "flood"])
@pytest.mark.parametrize("status", [401, 503])
def test_a_long_page_of_an_error_is_still_the_status(
    serve: Serve, client: MakeClient, answer: Callable[[int], Answer], status: int
):
    """A status says enough: its content is cut short, and it is repeated where the status is."""
    server = serve(answer(status), then=bad.well)
    if status == 503:
        with within(5):
            assert client(server).query(body_of(1)) == [bad.finished(task(0))]
        server = serve(then=answer(status))
    with pytest.raises(es.EnrichStatusError, match=str(status)) as caught:
        client(server, retries=0).query(body_of(1))
    assert caught.value.http_status == status
    assert len(str(caught.value)) < 1000


# What an error says


def test_a_page_of_a_proxy_is_told_in_a_few_plain_words(serve: Serve, client: MakeClient):
    """The message of an answer that is not JSON has the status, says so, and quotes a short plain piece of the page at most."""
    for fault, status in ((bad_gateway, 502), (TRANSIENT["200 html"], 200), (bad.reply(403, PAGE), 403)):
        with pytest.raises(es.ServiceError) as caught:
            client(serve(then=fault), retries=0).lookup(tasks_of(1), now=NOW)
        text = str(caught.value)
        assert str(status) in text
        assert "JSON" in text
        assert len(text) < 600
        assert text.isprintable()
        assert caught.value.http_status == status


@pytest.mark.parametrize(("status", "kind"), [(400, "ValidationError"), (401, "UnauthorizedError")])
def test_a_proxys_400_and_401_are_told_too(serve: Serve, client: MakeClient, status: int, kind: str):
    """The status decides the exception even when the body is a page of HTML."""
    with pytest.raises(getattr(es, kind), match=str(status)) as caught:
        client(serve(then=bad.reply(status, PAGE))).lookup(tasks_of(1), now=NOW)
    assert "JSON" in str(caught.value)
    assert len(str(caught.value)) < 600


ERRORS: dict[int, tuple[str, str]] = {
    400: ("VALIDATION_ERROR", "ValidationError"),
    401: ("UNAUTHORIZED", "UnauthorizedError"),
    403: ("FORBIDDEN", "ServiceError"),
    500: ("INTERNAL_ERROR", "InternalError"),
}


@pytest.mark.parametrize("nested", [True, False], ids=["nested", "flat"])
@pytest.mark.parametrize("status", ERRORS)
def test_code_and_message_are_read_in_either_place(serve: Serve, client: MakeClient, status: int, nested: bool):
    """``{"error": {"code", "message"}}`` and the two members at the top level are the same."""
    code, kind = ERRORS[status]
    error = {"code": code, "message": "Organization ID is missing"}
    fault = bad.reply(status, {"error": error} if nested else error)
    with pytest.raises(getattr(es, kind), match="Organization ID is missing") as caught:
        client(serve(then=fault), retries=0).lookup(tasks_of(1), now=NOW)
    assert caught.value.http_status == status


@pytest.mark.parametrize(
    "body",
    [
        {"error": "text"},
        {"error": None},
        {"error": []},
        {"error": {"code": 17, "message": ["x"]}},
        {"error": {"message": None}},
        {"code": None, "message": {}},
        {"error": {"message": "\ud800"}},
        {"error": {"message": "x" * 1_000_000}},
        {},
        [],
        [{"message": "x"}],
        None,
        17,
        "text",
        b"\xff\xfe\x00",
        b"",
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body)[:30],
)
def test_an_error_of_any_shape_is_still_the_statuss_exception(serve: Serve, client: MakeClient, body: Any):
    """Nothing that a body of an error can be makes an exception that is not ours, or a message without end."""
    data = body if isinstance(body, bytes) else json.dumps(body)
    asking = client(serve(*[bad.reply(status, data) for status in ERRORS]), retries=0)
    for status, (_, kind) in ERRORS.items():
        with pytest.raises(getattr(es, kind if status < 500 else "ServiceError")) as caught:
            asking.query(body_of(1))
        assert caught.value.http_status == status
        text = str(caught.value)
        assert 0 < len(text) < 5000
        assert text.encode()


# Time


SLOW: dict[str, Answer] = {
    "never": bad.never,
    "a byte at a time from the status on": bad.trickling_status,
    "a byte at a time in the headers": bad.trickling_headers,
    "a byte at a time in the body": bad.trickling_body,
    "a byte at a time in chunks": bad.trickling_chunks,
    "without end": bad.endless,
    "to be continued without end": bad.endless_headers,
}


@pytest.mark.parametrize("name", SLOW)
def test_an_answer_that_takes_too_long_in_all_is_cut_off_and_repeated(serve: Serve, client: MakeClient, name: str):
    """``timeout=`` bounds a whole answer, however the server spreads its bytes; the next attempt is answered."""
    server = serve(SLOW[name])
    answer = client(server, timeout=(1, 0.5)).query(body_of(3))
    assert answer == [bad.finished(task(n)) for n in range(3)]
    first, second = server.requests[:2]
    assert 0.4 < second.when - first.when < 2.5


def test_an_answer_is_cut_off_in_time_while_others_come_in(serve: Serve, client: MakeClient):
    """A worker whose answer trickles is freed after the timeout, however busy the others are."""
    seen: list[Request] = []

    def choose(request: Request) -> Answer:
        if not asks(0)(request):
            return shortly
        seen.append(request)
        return bad.trickling_body if len(seen) == 1 else bad.well

    def shortly(wire: Wire, request: Request) -> bool:
        wire.pause(0.05)
        return bad.well(wire, request)

    answer = client(serve(choose=choose), workers=2, timeout=(1, 0.4)).lookup(tasks_of(40 * BATCH), now=NOW)
    assert (answer["status"] == "finished").all()
    assert len(seen) == 2
    assert seen[1].when - seen[0].when < 1.5


def test_the_time_to_connect_is_not_the_answers(serve: Serve, client: MakeClient, tmp_path: Path):
    """A handshake may take longer than an answer: each has its own timeout."""
    tls, authority = bad.certified(tmp_path)
    server = serve(tls=tls, hesitant=0.7)
    asking = client(server, timeout=(5, 0.4), verify=str(authority))
    assert asking.query(body_of(1)) == [bad.finished(task(0))]
    assert len(server.requests) == 1


@pytest.mark.parametrize("name", ["never", "a byte at a time in the headers"])
def test_an_answer_that_always_takes_too_long_is_a_service_error(serve: Serve, client: MakeClient, name: str):
    """After the retries it is a ServiceError, after as many times the timeout and not much more."""
    server = serve(then=SLOW[name])
    with within(4), pytest.raises(es.ServiceError) as caught:
        client(server, timeout=(1, 0.4), retries=1).lookup(tasks_of(1), now=NOW)
    assert caught.value.http_status in (None, 200)
    assert len(server.requests) == 2


@pytest.mark.parametrize("name", SLOW)
def test_an_answer_that_we_cut_off_is_not_said_to_be_the_servers_end(serve: Serve, client: MakeClient, name: str):
    """The error of an answer that took longer than ``timeout=`` says so, and how long that is."""
    server = serve(then=SLOW[name])
    with pytest.raises(es.ServiceError, match=r"no whole answer within 0\.3 s") as caught:
        client(server, timeout=(1, 0.3), retries=1).query(body_of(3))
    assert caught.value.http_status in (None, 200)
    assert len(server.requests) == 2


def test_an_answer_that_ended_is_not_said_to_be_late(serve: Serve, client: MakeClient):
    """What an attempt before was cut off for is not said of the last."""
    server = serve(bad.trickling_body, then=bad.half_the_body)
    with pytest.raises(es.ServiceError) as caught:
        client(server, timeout=(1, 0.3), retries=1).query(body_of(3))
    assert "within" not in str(caught.value)


def test_a_handshake_that_is_not_answered_is_told(client: MakeClient):
    """A server that says nothing where TLS begins is not said to have got a request."""
    with bad.Silent() as server, pytest.raises(es.ServiceError, match=r"no TLS handshake within 0\.3 s"):
        client(f"https://{server.address}", timeout=(0.3, 5), retries=1).query(body_of(1))


def test_a_connection_that_is_not_made_is_given_up(client: MakeClient):
    """``timeout=`` bounds the connecting too."""
    with bad.Full() as url, within(4), pytest.raises(es.ServiceError) as caught:
        client(url, timeout=(0.3, 10), retries=0).lookup(tasks_of(1), now=NOW)
    assert caught.value.http_status is None


@pytest.mark.parametrize("name", ["never", "a byte at a time in the headers", "a byte at a time in the body"])
def test_the_deadline_bounds_the_call_and_keeps_what_was_answered(serve: Serve, client: MakeClient, name: str):
    """When one batch of three is answered too slowly for the deadline, the others' rows are in the result."""
    server = serve(choose=when(asks(BATCH), SLOW[name]))
    tasks = tasks_of(3 * BATCH)
    with within(4), pytest.raises(es.PartialLookupError) as caught:
        client(server, timeout=(1, 30), deadline=1).lookup(tasks, now=NOW)
    assert caught.value.result.index.tolist() == [*range(BATCH), *range(2 * BATCH, 3 * BATCH)]
    pd.testing.assert_frame_equal(caught.value.failed, tasks[BATCH : 2 * BATCH])
    (cause,) = caught.value.causes
    assert isinstance(cause, es.ServiceError)
    assert "deadline" in str(cause)


def test_the_deadline_is_a_service_error_when_nothing_was_answered(serve: Serve, client: MakeClient):
    """A call of one batch that is never answered ends at the deadline, though the timeout and the retries are far off."""
    server = serve(then=bad.never)
    with within(4), pytest.raises(es.ServiceError, match="deadline") as caught:
        client(server, timeout=(1, 30), deadline="500ms", retries=100).lookup(tasks_of(1), now=NOW)
    assert not isinstance(caught.value, es.PartialLookupError)


def test_the_deadline_bounds_the_connecting(client: MakeClient):
    """Four workers whose connections are never made do not outlast the deadline."""
    with bad.Full() as url, within(3), pytest.raises(es.ServiceError, match="deadline"):
        client(url, timeout=(60, 60), deadline=0.5).lookup(tasks_of(4 * BATCH), now=NOW)


def test_the_deadline_bounds_the_handshake(client: MakeClient):
    """Four workers that wait for the first byte of TLS do not outlast the deadline."""
    with bad.Silent() as server, within(3), pytest.raises(es.ServiceError, match="deadline"):
        client(f"https://{server.address}", timeout=(60, 60), deadline=0.5).lookup(tasks_of(4 * BATCH), now=NOW)


@pytest.mark.parametrize(
    "fault",
    [bad.failure(429, "LATER", headers={"Retry-After": "30"}), bad.failure(503, "UNAVAILABLE"), bad.close],
    ids=["Retry-After", "backoff", "connection"],
)
def test_the_deadline_bounds_the_waits_between_attempts(serve: Serve, client: MakeClient, fault: Answer):
    """Neither a server's wait nor the backoff outlasts the deadline."""
    server = serve(then=fault)
    with within(4), pytest.raises(es.ServiceError):
        client(server, deadline=0.7, backoff=30, retries=5).lookup(tasks_of(1), now=NOW)
    assert 1 <= len(server.requests) <= 3


def test_the_deadline_bounds_the_batches_that_have_not_begun(serve: Serve, client: MakeClient):
    """Batches that the deadline leaves no time for are not sent, and are among the failed."""

    def slowly(wire: Wire, request: Request) -> bool:
        wire.pause(0.2)
        return bad.well(wire, request)

    server = serve(then=slowly)
    with within(4), pytest.raises(es.PartialLookupError) as caught:
        client(server, workers=1, deadline=1).lookup(tasks_of(40 * BATCH), now=NOW)
    done = len(caught.value.result)
    assert 0 < done < 10 * BATCH
    assert done % BATCH == 0
    assert done + len(caught.value.failed) == 40 * BATCH
    assert len(server.requests) <= done // BATCH + 1


def test_the_deadline_is_each_calls_own(serve: Serve, client: MakeClient):
    """A client that has been there for longer than its deadline still answers."""
    server = serve(bad.never)
    asking = client(server, deadline=0.5, timeout=(1, 30))
    with pytest.raises(es.ServiceError, match="deadline"):
        asking.lookup(tasks_of(1), now=NOW)
    assert statuses(asking.lookup(tasks_of(1), now=NOW)) == ["finished"]


# Where it goes


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_told_and_not_followed(serve: Serve, client: MakeClient, status: int):
    """A redirect is a ServiceError that names the target; the token does not go there, nor anything else."""
    other = serve()
    server = serve(then=bad.reply(status, headers={"Location": other.url + "/elsewhere"}))
    with pytest.raises(es.ServiceError) as caught:
        client(server).lookup(tasks_of(1), now=NOW)
    assert other.url + "/elsewhere" in str(caught.value)
    assert caught.value.http_status == status
    assert len(server.requests) == 1
    assert other.connections == 0


@pytest.mark.parametrize("location", [None, "", "/login", PATH, "http://[", "\x80\xff", "javascript:alert(1)"])
def test_a_redirect_to_anywhere_is_not_followed(serve: Serve, client: MakeClient, location: str | None):
    """A target that is relative, the same, nonsense or not there changes nothing of that."""
    server = serve(then=bad.reply(302, headers={} if location is None else {"Location": location}))
    with pytest.raises(es.ServiceError) as caught:
        client(server).lookup(tasks_of(1), now=NOW)
    assert caught.value.http_status == 302
    assert len(server.requests) == 1


def test_a_port_where_nobody_listens_is_a_service_error_that_names_the_host(client: MakeClient):
    """Unreachable is a ServiceError without a status, after the retries."""
    with bad.Refusing() as url, within(5), pytest.raises(es.ServiceError, match=r"127\.0\.0\.1") as caught:
        client(url).lookup(tasks_of(1), now=NOW)
    assert caught.value.http_status is None
    assert not isinstance(caught.value, es.PartialLookupError)


def test_a_certificate_that_nobody_vouches_for_is_refused(serve: Serve, client: MakeClient, tmp_path: Path):
    """Without its authority a server gets no token; with it, by ``verify=``, it gets requests."""
    tls, authority = bad.certified(tmp_path)
    server = serve(tls=tls)
    with pytest.raises(es.ServiceError, match=r"(?i)certificate") as caught:
        client(server).lookup(tasks_of(1), now=NOW)
    assert caught.value.http_status is None
    assert server.requests == []
    assert statuses(client(server, verify=str(authority)).lookup(tasks_of(1), now=NOW)) == ["finished"]


def test_a_certificate_of_another_name_is_refused(serve: Serve, client: MakeClient, tmp_path: Path):
    """A certificate that verifies, but for another server, is none for this one."""
    tls, authority = bad.certified(tmp_path, ["elsewhere.example"])
    server = serve(tls=tls)
    with pytest.raises(es.ServiceError, match=r"(?i)certificate"):
        client(server, verify=str(authority)).lookup(tasks_of(1), now=NOW)
    assert server.requests == []


@pytest.mark.parametrize("verify", [None, True])
def test_a_certificate_is_checked_unless_told_otherwise_and_cannot_be_told(
    serve: Serve, client: MakeClient, tmp_path: Path, verify: Any
):
    """``verify=None`` is no other than ``True``: what nobody vouches for is refused."""
    tls, _ = bad.certified(tmp_path)
    server = serve(tls=tls)
    with pytest.raises(es.ServiceError, match=r"(?i)certificate"):
        client(server, verify=verify).query(body_of(1))
    assert server.requests == []


@pytest.mark.parametrize("verify", [False, 0, 1, "", b"", b"bundle.pem", [], 0.0, np.False_], ids=repr)
def test_the_check_of_certificates_cannot_be_switched_off(verify: Any):
    """Anything but True or a path is a ValidationError that says what to pass."""
    with pytest.raises(es.ValidationError, match=r"verify=.* bundle"):
        es.EnrichmentClient("https://api.example.com", token=TOKEN, verify=verify)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_bundle_that_is_not_there_is_refused_at_once(tmp_path: Path, kind: Callable[[Path], Any]):
    """A path of nothing is a ValidationError of the constructor that names it."""
    with pytest.raises(es.ValidationError, match=r"verify=.*no such\.pem"):
        es.EnrichmentClient("https://api.example.com", token=TOKEN, verify=kind(tmp_path / "no such.pem"))


def test_a_bundle_without_a_certificate_is_a_service_error(serve: Serve, client: MakeClient, tmp_path: Path):
    """A file that is no bundle, and one that has gone since, are ServiceErrors; nothing is sent."""
    tls, authority = bad.certified(tmp_path)
    server = serve(tls=tls)
    (tmp_path / "no bundle.pem").write_text("nothing")
    asking = client(server, verify=tmp_path / "no bundle.pem", retries=0)
    with pytest.raises(es.ServiceError):
        asking.query(body_of(1))
    asking = client(server, verify=authority, retries=0)
    authority.unlink()
    with pytest.raises(es.ServiceError, match=r"authority\.pem"):
        asking.query(body_of(1))
    assert server.requests == []


def test_the_bundle_that_is_given_goes_before_the_environments(
    serve: Serve, client: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """``verify=`` decides, whatever REQUESTS_CA_BUNDLE is."""
    (tmp_path / "other").mkdir()
    tls, authority = bad.certified(tmp_path)
    _, other = bad.certified(tmp_path / "other")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(other))
    # on the loopback the environment says nothing anyway
    monkeypatch.setattr("enrichstatus.sources.client.config._is_loopback", lambda host: False)
    server = serve(tls=tls)
    assert client(server, verify=authority).query(body_of(1)) == [bad.finished(task(0))]
    with pytest.raises(es.ServiceError, match=r"(?i)certificate"):
        client(server).query(body_of(1))


@pytest.mark.parametrize(
    ("option", "value"),
    [("allow_http", 1), ("allow_http", "no"), ("allow_http", None), ("progress", 1), ("progress", "")],
)
def test_a_switch_is_true_or_false(option: str, value: Any):
    """What is only like a bool is a ValidationError that names the option."""
    with pytest.raises(es.ValidationError, match=f"{option}= takes True or False"):
        es.EnrichmentClient("http://api.example.com", token=TOKEN, **{option: value})


def test_a_server_that_speaks_no_tls_is_a_service_error(serve: Serve, client: MakeClient, tmp_path: Path):
    """A handshake that is never answered ends in time, and plain HTTP where TLS belongs is a ServiceError; nothing is sent."""
    plain = serve()
    with bad.Silent() as silent:
        for url in (plain.url.replace("http", "https"), f"https://{silent.address}"):
            with within(5), pytest.raises(es.ServiceError) as caught:
                client(url, timeout=(0.5, 0.5), retries=0).lookup(tasks_of(1), now=NOW)
            assert caught.value.http_status is None
    tls, _ = bad.certified(tmp_path)
    with within(5), pytest.raises(es.ServiceError):
        client(serve(tls=tls).url.replace("https", "http"), retries=0).lookup(tasks_of(1), now=NOW)
    assert plain.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_proxy_of_the_environment_is_not_used_for_the_loopback(
    serve: Serve, client: MakeClient, monkeypatch: pytest.MonkeyPatch, host: str
):
    """HTTP_PROXY and its like do not lead a request, or the token, away from this machine."""
    proxy, server = serve(), serve()
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv(name.lower(), proxy.url)
    answer = client(server.url.replace("127.0.0.1", host)).lookup(tasks_of(1), now=NOW)
    assert statuses(answer) == ["finished"]
    assert len(server.requests) == 1
    assert proxy.connections == 0


def test_an_answer_through_a_proxy_is_bounded_too(serve: Serve, client: MakeClient, monkeypatch: pytest.MonkeyPatch):
    """Where the environment has a proxy it is used, and an answer that trickles through it is cut off and repeated."""
    proxy = serve(bad.trickling_body)
    monkeypatch.setenv("http_proxy", proxy.url)
    asking = client("http://service.invalid", allow_http=True, timeout=(1, 0.4))
    with within(4):
        assert asking.query(body_of(3)) == [bad.finished(task(n)) for n in range(3)]
    assert [request.target for request in proxy.requests] == ["http://service.invalid" + PATH] * 2


# A service that is down


def test_a_service_that_is_down_costs_one_batchs_attempts(client: MakeClient, caplog: pytest.LogCaptureFixture):
    """When the first batch finds nobody, those that have not begun are given up with its cause; the log says so without the token."""
    caplog.set_level(logging.INFO, "enrichstatus.client")
    with bad.Refusing() as url, within(10), pytest.raises(es.ServiceError, match="refused") as caught:
        client(url, retries=2, backoff=0.4).lookup(tasks_of(100 * BATCH), now=NOW)
    assert type(caught.value) is es.ServiceError
    lines = [record.getMessage() for record in caplog.records if record.name == "enrichstatus.client"]
    assert {record.levelname for record in caplog.records if record.name == "enrichstatus.client"} == {"INFO"}
    assert 2 <= len(lines) <= 5  # of four workers a line each at the most, and one of the rest
    assert all(url in line and "refused" in line and TOKEN not in line for line in lines)
    assert any(line.startswith(f"{url}{PATH}: 96 batches more") for line in lines)


@pytest.mark.parametrize("fault", [bad.close, bad.reset, bad.raw(b"SSH-2.0-OpenSSH_9.6\r\n"), bad.never])
def test_a_service_that_gives_no_answer_is_not_asked_for_all(serve: Serve, client: MakeClient, fault: Answer):
    """Connections that are made and never answered are no better than none."""
    server = serve(then=fault)
    with within(5), pytest.raises(es.ServiceError):
        client(server, workers=2, retries=1, timeout=(1, 0.3)).lookup(tasks_of(20 * BATCH), now=NOW)
    assert len({request.body for request in server.requests}) <= 3


@pytest.mark.parametrize("workers", [1, 3])
def test_a_service_that_dies_meanwhile_is_given_up_too(serve: Serve, client: MakeClient, workers: int):
    """After as many batches in a row as there are workers found nobody, the rest is given up; what was answered is kept."""
    server = serve(*[bad.well] * 10, then=bad.close)
    tasks = tasks_of(40 * BATCH)
    with pytest.raises(es.PartialLookupError) as caught:
        client(server, workers=workers, retries=1).lookup(tasks, now=NOW)
    assert len(caught.value.result) == 10 * BATCH
    assert len(caught.value.failed) == 30 * BATCH
    assert len(caught.value.causes) == 30
    assert workers <= len({request.body for request in server.requests[10:]}) <= 2 * workers


def test_a_batch_that_kills_its_connection_does_not_stop_the_rest(serve: Serve, client: MakeClient):
    """One batch that is never answered is given up alone where the others are."""
    server = serve(choose=when(asks(5 * BATCH), bad.close))
    with pytest.raises(es.PartialLookupError) as caught:
        client(server, workers=2).lookup(tasks_of(20 * BATCH), now=NOW)
    assert len(caught.value.failed) == BATCH


@pytest.mark.parametrize("fault", [bad.reply(503), bad.reply(404), bad.half_the_body, bad.truncated])
def test_a_service_that_answers_badly_is_asked_for_every_batch(serve: Serve, client: MakeClient, fault: Answer):
    """A status, or half an answer, is not silence: every batch is requested, and repeated as it should be."""
    server = serve(then=fault)
    with pytest.raises(es.ServiceError):
        client(server, workers=2, retries=0).lookup(tasks_of(10 * BATCH), now=NOW)
    assert len({request.body for request in server.requests}) == 10


def test_every_batch_that_is_given_up_is_logged(serve: Serve, client: MakeClient, caplog: pytest.LogCaptureFixture):
    """A batch that failed for good is a line with the address and the cause, from which the token is taken out."""
    caplog.set_level(logging.INFO, "enrichstatus.client")
    server = serve(choose=when(asks(0, 2 * BATCH), FAILURES["echo in a message"]))
    with pytest.raises(es.PartialLookupError):
        client(server).lookup(tasks_of(3 * BATCH), now=NOW)
    lines = sorted(record.getMessage() for record in caplog.records if record.name == "enrichstatus.client")
    assert [line.removeprefix(f"{server.url}{PATH}: ").split(":")[0] for line in lines] == [
        "batch 1 is given up",
        "batch 3 is given up",
    ]
    assert all("No such token" in line and TOKEN not in line for line in lines)


# Some answered, some not


KINDS: dict[str, Callable[[pd.DataFrame], Any]] = {
    "pandas": lambda frame: frame,
    "polars": lambda frame: pl.DataFrame(frame.to_dict("list")),
    "polars lazy": lambda frame: pl.LazyFrame(frame.to_dict("list")),
    "arrow": lambda frame: pa.Table.from_pandas(frame, preserve_index=False),
    "dicts": lambda frame: frame.to_dict("records"),
}


def as_pandas(frame: Any) -> pd.DataFrame:
    frame = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
    frame = frame.to_arrow() if isinstance(frame, pl.DataFrame) else frame
    return frame.to_pandas() if isinstance(frame, pa.Table) else frame


@pytest.mark.parametrize(("how", "kind"), crossed(["left", "inner"], KINDS))
def test_a_batch_of_five_that_fails_leaves_the_others_answers(serve: Serve, client: MakeClient, kind: str, how: Any):
    """The error has the answered rows with the answer's columns and the failed as they were: together all, each in order."""
    numbers = [*range(1000), *range(0, 1000, 50)]  # the last twenty are requested twice
    frame = pd.DataFrame([task(n) | {"note": f"n{n}"} for n in numbers])
    unknown = {uid(n) for n in range(3, 1000, 10)}  # the service has no record of these
    some = bad.altered(lambda records: [one for one in records if one["entityId"] not in unknown])
    healthy = client(serve(then=some)).lookup(KINDS[kind](frame), how=how, now=NOW)
    server = serve(choose=when(asks(400), bad.failure(500, "INTERNAL_ERROR", "The disk is full."), some))
    with pytest.raises(es.PartialLookupError) as caught:
        client(server, retries=1).lookup(KINDS[kind](frame), how=how, now=NOW)
    error = caught.value
    assert isinstance(error, es.ServiceError)
    assert isinstance(error, es.EnrichStatusError)
    assert type(error.result) is type(healthy)
    assert type(error.failed) is (type(healthy))
    result, failed, whole = as_pandas(error.result), as_pandas(error.failed), as_pandas(healthy)
    lost = frame["note"].isin([f"n{n}" for n in range(400, 600)])
    kept = frame[~lost] if how == "left" else frame[~lost & ~frame["entityId"].isin(unknown)]
    assert failed.columns.tolist() == frame.columns.tolist()
    assert failed["note"].tolist() == frame["note"][lost].tolist()
    assert result["note"].tolist() == kept["note"].tolist()
    expected = whole[~whole["note"].isin(failed["note"])]
    pd.testing.assert_frame_equal(result.reset_index(drop=True), expected.reset_index(drop=True))
    if kind == "pandas":
        assert failed.index.tolist() == frame.index[lost].tolist()
        assert result.index.tolist() == kept.index.tolist()
    (cause,) = error.causes
    assert isinstance(cause, es.InternalError)
    assert error.__cause__ is cause
    assert "The disk is full" in str(error)
    assert len(server.requests) == 6


def test_an_index_and_bad_tasks_survive_a_partial_answer(serve: Serve, client: MakeClient):
    """An index with duplicates is kept in both frames, and a bad task that was coerced is in exactly one of them."""
    frame = tasks_of(2 * BATCH)
    frame.loc[len(frame)] = ["nonsense", "emails"]
    frame.index = pd.Index(np.arange(len(frame)) // 2, name="pair")
    with pytest.raises(es.PartialLookupError) as caught:
        client(serve(choose=when(asks(BATCH), bad.reply(403))), workers=1).lookup(frame, errors="coerce", now=NOW)
    result, failed = caught.value.result, caught.value.failed
    assert len(result) + len(failed) == len(frame)
    assert result.index.name == failed.index.name == "pair"
    good = failed[failed["entityId"] != "nonsense"]
    pd.testing.assert_frame_equal(good, frame[BATCH : 2 * BATCH])
    assert statuses(result)[:BATCH] == ["finished"] * BATCH


def test_the_failed_rows_can_be_asked_again(serve: Serve, client: MakeClient):
    """``.failed`` goes into ``lookup`` as it is; the two results are then the whole."""
    down = True
    server = serve(choose=lambda request: bad.reply(503) if down and asks(0)(request) else bad.well)
    tasks = tasks_of(3 * BATCH)
    asking = client(server)
    with pytest.raises(es.PartialLookupError) as caught:
        asking.lookup(tasks, now=NOW)
    down = False
    rest = asking.lookup(caught.value.failed, now=NOW)
    pd.testing.assert_frame_equal(pd.concat([rest, caught.value.result]), asking.lookup(tasks, now=NOW))


def test_every_cause_is_named(serve: Serve, client: MakeClient):
    """Batches that fail for different reasons have each its cause; the first of them is the error's own."""
    faults = {0: bad.reply(403, {"message": "Not yours."}), BATCH: change(status=17), 2 * BATCH: bad.reply(409)}

    def choose(request: Request) -> Answer:
        return next((fault for number, fault in faults.items() if asks(number)(request)), bad.well)

    with pytest.raises(es.PartialLookupError) as caught:
        client(serve(choose=choose)).lookup(tasks_of(5 * BATCH), now=NOW)
    assert len(caught.value.causes) == 3
    assert all(isinstance(cause, es.ServiceError) for cause in caught.value.causes)
    assert {cause.http_status for cause in caught.value.causes} >= {403, 409}
    assert caught.value.__cause__ in caught.value.causes
    assert len(caught.value.failed) == 3 * BATCH


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (bad.failure(500, "INTERNAL_ERROR"), "InternalError"),
        (bad.failure(400, "VALIDATION_ERROR"), "ValidationError"),
        (bad.failure(401, "UNAUTHORIZED"), "UnauthorizedError"),
        (bad.close, "ServiceError"),
    ],
    ids=["500", "400", "401", "closed"],
)
def test_when_nothing_was_answered_the_cause_itself_is_raised(
    serve: Serve, client: MakeClient, fault: Answer, kind: str
):
    """Five batches that all fail are one plain error, not a partial answer of nothing."""
    with pytest.raises(getattr(es, kind)) as caught:
        client(serve(then=fault), retries=1).lookup(tasks_of(5 * BATCH), now=NOW)
    assert type(caught.value) is getattr(es, kind)


@pytest.mark.parametrize("workers", [1, 4])
def test_a_401_in_the_middle_stops_the_rest(serve: Serve, client: MakeClient, workers: int):
    """Once the token is refused no further batch is sent with it; those answered before are in the result."""

    def refuse(wire: Wire, request: Request) -> bool:
        # every worker has one of these, so the two answers before have been taken
        server.wait_for(lambda: len(server.requests) >= 2 + workers)
        return bad.failure(401, "UNAUTHORIZED", "The token has expired.")(wire, request)

    server = serve(bad.well, bad.well, then=refuse)
    tasks = tasks_of(20 * BATCH)
    with pytest.raises(es.PartialLookupError, match="The token has expired") as caught:
        client(server, workers=workers).lookup(tasks, now=NOW)
    assert len(server.requests) == 2 + workers
    answered = {one["entityId"] for request in server.requests[:2] for one in request.tasks}
    assert caught.value.result.index.tolist() == tasks.index[tasks["entityId"].isin(answered)].tolist()
    pd.testing.assert_frame_equal(caught.value.failed, tasks[~tasks["entityId"].isin(answered)])
    assert caught.value.causes
    assert all(isinstance(cause, es.UnauthorizedError) for cause in caught.value.causes)


def test_a_400_does_not_stop_the_rest(serve: Serve, client: MakeClient):
    """A batch that the service refuses is its own trouble; the others are requested and answered."""
    server = serve(bad.failure(400, "VALIDATION_ERROR", "Not like this."))
    with pytest.raises(es.PartialLookupError, match="Not like this") as caught:
        client(server, workers=1).lookup(tasks_of(4 * BATCH), now=NOW)
    assert len(server.requests) == 4
    assert caught.value.failed.index.tolist() == [*range(BATCH)]
    assert [type(cause) for cause in caught.value.causes] == [es.ValidationError]


# Ctrl-C


INTERRUPTED = """
import json, signal, sys, threading, time
import pandas as pd
import enrichstatus as es

signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever the parent's parent made of it
tasks = pd.DataFrame(json.load(open(sys.argv[2])))
client = es.EnrichmentClient(sys.argv[1], workers=2, retries=5, timeout=(5, 60), deadline="60s")
try:
    client.lookup(tasks)
except es.LookupInterrupted as error:
    caught = time.monotonic()
    for thread in set(threading.enumerate()) - {threading.main_thread()}:
        thread.join(2)
    print(json.dumps({
        "caught": caught,
        "threads": [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()],
        "keyboard": isinstance(error, KeyboardInterrupt),
        "ours": isinstance(error, Exception),
        "result": error.result["status"].tolist(),
        "answered": error.result["entityId"].tolist(),
        "columns": error.result.columns.tolist(),
        "failed": error.failed.to_dict("records"),
        "text": str(error) + repr(error),
    }))
"""


def interrupted(url: str, tmp_path: Path, tasks: list[dict[str, str]], ready: Callable[[], None]) -> dict[str, Any]:
    """Look up in a process of its own, send it SIGINT when all is ready, and check what is the same for all; gives what it said."""
    (tmp_path / "tasks.json").write_text(json.dumps(tasks))
    child = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, url, str(tmp_path / "tasks.json")],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"ENRICHSTATUS_TOKEN": TOKEN},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        ready()
        sent = time.monotonic()
        child.send_signal(signal.SIGINT)
        out, err = child.communicate(timeout=20)
        gone = time.monotonic()
    finally:
        child.kill()
        child.communicate()
    assert child.returncode == 0, err
    said: dict[str, Any] = json.loads(out)
    assert said["caught"] - sent < 2
    assert gone - sent < 4
    assert said["threads"] == []
    assert said["keyboard"]
    assert not said["ours"]
    assert said["columns"] == ["entityId", "field", "status", "dataFound"]
    assert TOKEN not in out + err
    return said


@pytest.mark.parametrize(
    ("fault", "answered"),
    [
        (bad.never, 0),
        (bad.never, 2),
        (bad.trickling_headers, 2),
        (bad.trickling_body, 2),
        (bad.failure(503, "LATER", headers={"Retry-After": "50"}), 2),
    ],
    ids=["nothing answered", "never answered", "slow headers", "slow body", "between attempts"],
)
def test_ctrl_c_in_the_middle_keeps_what_was_answered(serve: Serve, tmp_path: Path, fault: Answer, answered: int):
    """SIGINT while batches are slow raises LookupInterrupted at once, with the answered rows and the others; no thread stays."""
    server = serve(*[bad.well] * answered, then=fault)
    tasks = [task(n) for n in range(5 * BATCH)]
    # when both workers have begun with what is not answered, they are done with what is
    said = interrupted(
        server.url, tmp_path, tasks, lambda: server.wait_for(lambda: len(server.requests) >= answered + 2)
    )
    known = {one["entityId"] for request in server.requests[:answered] for one in request.tasks}
    assert said["result"] == ["finished"] * answered * BATCH
    assert said["answered"] == [one["entityId"] for one in tasks if one["entityId"] in known]
    assert said["failed"] == [one for one in tasks if one["entityId"] not in known]


def test_ctrl_c_in_a_handshake_ends_it_too(tmp_path: Path):
    """SIGINT while TLS waits for the server's first byte is as prompt."""
    tasks = [task(n) for n in range(2 * BATCH)]
    with bad.Silent() as server:
        said = interrupted(f"https://{server.address}", tmp_path, tasks, lambda: server.wait_for(2))
    assert said["result"] == []
    assert said["failed"] == tasks


# The token


FAILURES: dict[str, Answer] = {
    "400": bad.failure(400, "VALIDATION_ERROR"),
    "401": bad.failure(401, "UNAUTHORIZED"),
    "403": bad.failure(403, "FORBIDDEN"),
    "429": bad.failure(429, "LATER", headers={"Retry-After": "0"}),
    "500": bad.failure(500, "INTERNAL_ERROR"),
    "502 html": bad_gateway,
    "redirect": bad.reply(302, headers={"Location": "http://127.0.0.1:1/elsewhere"}),
    "closed": bad.close,
    "half the headers": bad.half_the_headers,
    "half the body": bad.half_the_body,
    "half a chunk": bad.half_a_chunk,
    "never": bad.never,
    "slow body": bad.trickling_body,
    "truncated": bad.truncated,
    "an object": BREACHES["an object"],
    "another task": BREACHES["another task"],
    "no gzip": NOT_JSON["no gzip"],
    "garbage": NOT_HTTP["garbage"],
    # a server that gives back what it was sent
    "echo in a message": bad.failure(403, "FORBIDDEN", f"No such token: {TOKEN}"),
    "echo in a page": bad.reply(502, f"<html>Authorization: Bearer {TOKEN}</html>"),
    "echo in a target": bad.reply(307, headers={"Location": f"/login?token={TOKEN}"}),
    "echo in an answer": change(entityId=TOKEN),
}


def on(error: BaseException) -> Iterator[object]:
    """Everything that hangs on an exception but its traceback: its chain, arguments and attributes, and what is in them."""
    known: dict[int, object] = {}
    queue: deque[object] = deque([error])
    while queue:
        thing = queue.popleft()
        if id(thing) in known or isinstance(thing, (type, ModuleType, FunctionType, threading.Thread)):
            continue
        known[id(thing)] = thing
        yield thing
        assert len(known) < 100_000
        if isinstance(thing, BaseException):
            queue += [thing.args, thing.__cause__, thing.__context__]
        if isinstance(thing, Mapping):
            queue += [*thing.keys(), *thing.values()]
        elif isinstance(thing, (list, tuple, set, frozenset, deque)):
            queue += thing
        queue.append(getattr(thing, "__dict__", None))


def assert_no_token(error: BaseException) -> None:
    assert TOKEN not in "".join(traceback.format_exception(error))
    for thing in on(error):
        # `==`-free and by type, so that a frame or an array is not asked whether it is true
        if isinstance(thing, (str, BaseException)):
            assert TOKEN not in str(thing), f"in {type(thing)}"
            assert TOKEN not in repr(thing), f"in the repr of {type(thing)}"
        elif isinstance(thing, (bytes, bytearray)):
            assert TOKEN.encode() not in thing, "in bytes"


@pytest.mark.parametrize("name", FAILURES)
def test_the_token_is_in_no_exception_and_no_log(
    serve: Serve, client: MakeClient, caplog: pytest.LogCaptureFixture, name: str
):
    """Whatever fails, the token is nowhere on the exception nor on what led to it, and in no log record of any library."""
    caplog.set_level(logging.DEBUG)
    server = serve(then=FAILURES[name])
    asking = client(server, retries=1, timeout=(1, 0.3))
    with pytest.raises(es.EnrichStatusError) as caught:
        asking.lookup(tasks_of(1), now=NOW)
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert_no_token(caught.value)
    assert caplog.records, "not even urllib3 has logged, so nothing is proved"
    for entry in caplog.records:
        assert TOKEN not in entry.getMessage() + repr(entry.args) + repr(vars(entry))
    assert TOKEN not in repr(asking) + str(asking) + f"{asking}"


@pytest.mark.parametrize("name", ["401", "500", "closed", "half the body", "slow body", "redirect"])
def test_the_token_is_not_in_a_partial_answer(serve: Serve, client: MakeClient, name: str):
    """Nor is it on the error that has the rows, on its causes, or in its frames."""
    server = serve(bad.well, then=FAILURES[name])
    with pytest.raises(es.PartialLookupError) as caught:
        client(server, workers=1, retries=0, timeout=(1, 0.3)).lookup(tasks_of(2 * BATCH), now=NOW)
    assert_no_token(caught.value)
    assert TOKEN not in caught.value.result.to_csv() + caught.value.failed.to_csv()


def test_the_token_is_not_in_what_is_raised_without_a_server(client: MakeClient, serve: Serve, tmp_path: Path):
    """Neither a refused connection nor a refused certificate has the token on its exception."""
    with bad.Refusing() as url, pytest.raises(es.ServiceError) as caught:
        client(url).lookup(tasks_of(1), now=NOW)
    assert_no_token(caught.value)
    tls, _ = bad.certified(tmp_path)
    with pytest.raises(es.ServiceError) as caught:
        client(serve(tls=tls)).lookup(tasks_of(1), now=NOW)
    assert_no_token(caught.value)


def test_a_pickled_client_takes_the_token_from_where_it_is_unpickled(
    serve: Serve, client: MakeClient, monkeypatch: pytest.MonkeyPatch
):
    """A pickle has no token; unpickled, the client has the environment's, and without one says which variable it wants."""
    server = serve()
    asking = client(server)
    asking.lookup(tasks_of(1), now=NOW)  # its connections are not pickled either
    data = pickle.dumps(asking)
    assert TOKEN.encode() not in data
    with pytest.raises(es.UnauthorizedError, match="ENRICHSTATUS_TOKEN"):
        pickle.loads(data).lookup(tasks_of(1), now=NOW)
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "tok-of-the-environment")
    again = pickle.loads(data)
    assert statuses(again.lookup(tasks_of(1), now=NOW)) == ["finished"]
    assert [request.headers["authorization"] for request in server.requests] == [
        f"Bearer {TOKEN}",
        "Bearer tok-of-the-environment",
    ]
    if hasattr(again, "close"):
        again.close()


def test_a_netrc_does_not_replace_the_token(
    serve: Serve, client: MakeClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    """A password that a .netrc has for the host is not sent, and the token is."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login ada password pw\ndefault login ada password pw\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("HOME", str(tmp_path))
    server = serve(bad.failure(503, "UNAVAILABLE"))
    client(server).lookup(tasks_of(1), now=NOW)
    assert [request.headers["authorization"] for request in server.requests] == [f"Bearer {TOKEN}"] * 2


@pytest.mark.parametrize(
    "token",
    [
        "my secret",
        "secret\n",
        "\nsecret",
        "sec\r\nret: x",
        "secret\t",
        "\x00secret",
        "secret\x7f",
        "sécret",
        "secret\u2028",
    ],
)
def test_a_token_that_no_header_can_carry_is_refused_unseen(token: str):
    """White space, control and non-ASCII characters are a ValidationError that does not show the token."""
    with pytest.raises(es.ValidationError) as caught:
        es.EnrichmentClient("http://127.0.0.1:1", token=token)
    for part in (token, "secret", "sécret", "ret: x"):
        assert part not in str(caught.value)
        assert part not in repr(caught.value.__context__)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch):
    """Without a token or a base URL the error names the variable that would give it."""
    with pytest.raises(es.UnauthorizedError, match="ENRICHSTATUS_TOKEN"):
        es.EnrichmentClient("http://127.0.0.1:1")
    with pytest.raises(es.ValidationError, match="ENRICHSTATUS_BASE_URL"):
        es.EnrichmentClient(token=TOKEN)
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", "of the environment")
    with pytest.raises(es.ValidationError) as caught:
        es.EnrichmentClient("http://127.0.0.1:1")
    assert "of the environment" not in str(caught.value)


def test_the_environment_gives_both(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    """A client made of nothing asks the environment's service with the environment's token."""
    server = serve()
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", TOKEN)
    monkeypatch.setenv("ENRICHSTATUS_BASE_URL", server.url)
    asking = es.EnrichmentClient()
    assert statuses(asking.lookup(tasks_of(1), now=NOW)) == ["finished"]
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    if hasattr(asking, "close"):
        asking.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:8000",
        "localhost",
        "ftp://127.0.0.1",
        "file:///etc/passwd",
        "http://",
        "http:///path",
        "http://ada:hush@127.0.0.1",
        "https://hush@example.com",
        "https://example.com?key=hush",
        "https://example.com/#hush",
        "https://example.com:port",
        "https://example.com:99999",
        "http://[::1",
        "http://127.0.0.1\\@example.com",
    ],
)
def test_a_base_url_that_is_none_is_refused(url: str):
    """Only http and https, a host, perhaps a port and a path: anything else is a ValidationError without what may be secret."""
    with pytest.raises(es.ValidationError) as caught:
        es.EnrichmentClient(url, token=TOKEN)
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "example.com",
        "10.0.0.1",
        "localhost.example.com",
        "example.localhost",
        "127.0.0.1.example.com",
        "[2001:db8::1]",
        "128.0.0.1",
        "[::2]",
    ],
)
def test_plain_http_leaves_this_machine_only_when_told(host: str):
    """Without TLS the token stays on the loopback, unless ``allow_http=True`` says that it may not."""
    with pytest.raises(es.ValidationError, match="allow_http"):
        es.EnrichmentClient(f"http://{host}/x", token=TOKEN)
    for url, options in ((f"http://{host}", {"allow_http": True}), (f"https://{host}", {})):
        assert TOKEN not in repr(es.EnrichmentClient(url, token=TOKEN, **options))


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1", "127.8.9.10:80", "[::1]", "[::1]:8000"])
def test_plain_http_is_fine_on_the_loopback(host: str):
    """All of 127.0.0.0/8, ::1 and localhost are this machine, in whatever case."""
    assert TOKEN not in repr(es.EnrichmentClient(f"http://{host}", token=TOKEN))


# How far it is


def test_progress_is_shown_when_asked_for(serve: Serve, client: MakeClient, capsys: pytest.CaptureFixture[str]):
    """``progress=True`` draws a bar on stderr that ends full; ``progress=False`` writes nothing; the answers are the same."""
    server = serve()
    tasks = tasks_of(3 * BATCH)
    silent = client(server, progress=False).lookup(tasks, now=NOW)
    assert capsys.readouterr() == ("", "")
    shown = client(server, progress=True).lookup(tasks, now=NOW)
    out, err = capsys.readouterr()
    assert out == ""
    assert "100%" in err
    assert "|" in err
    pd.testing.assert_frame_equal(shown, silent)


def test_progress_counts_what_was_answered(serve: Serve, client: MakeClient, capsys: pytest.CaptureFixture[str]):
    """A batch that failed is not done: of three batches two fill two thirds of the bar."""
    server = serve(choose=when(asks(0), bad.reply(404)))
    with pytest.raises(es.PartialLookupError):
        client(server, progress=True).lookup(tasks_of(3 * BATCH), now=NOW)
    _, err = capsys.readouterr()
    assert "400/600" in err
    assert "600/600" not in err


# What is left


def handles() -> int:
    """Count the files and sockets that this process has open."""
    if not Path("/proc/self/fd").exists():
        pytest.skip("this system has no /proc/self/fd, where open files and sockets are counted")
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_client_that_is_dropped_leaves_nothing_open(serve: Serve, tmp_path: Path, secure: bool):
    """Without ``close()`` too, the connections of a client go when it does, at once and not when memory is collected."""
    options: dict[str, Any] = QUICK
    tls = None
    if secure:
        tls, authority = bad.certified(tmp_path)
        options = QUICK | {"verify": authority}
    server = serve(tls=tls)
    es.EnrichmentClient(server.url, **options).lookup(tasks_of(1), now=NOW)
    server.settle()
    before = handles()
    gc.disable()
    try:
        for _ in range(20):
            es.EnrichmentClient(server.url, **options).lookup(tasks_of(1), now=NOW)
        server.settle()
        assert handles() <= before + 1
    finally:
        gc.enable()


def test_a_lane_is_collected_without_its_client(serve: Serve):
    """What urllib3 keeps of a connection holds neither the session nor the pool, so that both can be collected."""
    from enrichstatus.sources.client.config import Bearer, parse_settings
    from enrichstatus.sources.client.transport.lane import Lane

    server = serve()
    settings = parse_settings(
        server.url,
        workers=1,
        timeout=5,
        deadline=5,
        retries=0,
        backoff=0,
        max_retry_after=1,
        rate=None,
        allow_http=False,
        verify=None,
    )
    lane = Lane(settings, Bearer(TOKEN))
    lane.session.post(settings.url, data=json.dumps(body_of(1)), timeout=5).close()
    gone = weakref.ref(lane.session)
    del lane
    gc.collect()
    assert gone() is None
    server.settle()


def test_no_more_lanes_are_kept_than_there_are_workers(serve: Serve, client: MakeClient):
    """After six threads at once a client of two workers keeps two connections."""
    together = threading.Barrier(6, timeout=10)

    def gate(wire: Wire, request: Request) -> bool:
        together.wait()
        return bad.well(wire, request)

    server = serve(then=gate)
    asking = client(server, workers=2)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: asking.query({"tasks": [task(n)]}), range(6)))
    server.settle(2)
    asking.close()
    server.settle()


def test_close_leaves_a_lookup_of_another_thread_to_its_end(serve: Serve):
    """A lookup under way when the client is closed is answered, and its connections are closed after it."""
    closed = threading.Event()

    def gate(wire: Wire, request: Request) -> bool:
        closed.wait(10)
        return bad.well(wire, request)

    server = serve(then=gate)
    asking = es.EnrichmentClient(server.url, workers=2, **QUICK)
    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(asking.lookup, tasks_of(6 * BATCH), now=NOW)
        server.wait_for(lambda: len(server.requests) == 2)
        asking.close()
        closed.set()
        assert statuses(looking.result(20)) == ["finished"] * 6 * BATCH
    server.settle()
    with pytest.raises(es.EnrichStatusError, match="closed"):
        asking.lookup(tasks_of(1), now=NOW)


def test_a_closed_client_says_so(serve: Serve):
    """After ``close()``, once or twice, every call is an EnrichStatusError that says what to do, and ``repr`` has it."""
    server = serve()
    with es.EnrichmentClient(server.url, **QUICK) as asking:
        assert repr(asking) == f"EnrichmentClient({server.url!r}, workers=4)"
    asking.close()
    assert repr(asking) == f"EnrichmentClient({server.url!r}, closed)"
    for ask in (lambda: asking.query(body_of(1)), lambda: asking.lookup(tasks_of(1)), lambda: asking.lookup([])):
        with pytest.raises(es.EnrichStatusError, match=r"closed; make it again with EnrichmentClient\(…\)"):
            ask()
    assert server.requests == []


# Errors that travel


def same(error: Any, again: Any) -> None:
    """Check that an exception is the same after a pickle."""
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.args == error.args
    for name, value in vars(error).items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(getattr(again, name), value)
        elif name == "causes":
            assert [(type(one), str(one), one.http_status) for one in again.causes] == [
                (type(one), str(one), one.http_status) for one in value
            ]
        else:
            assert getattr(again, name) == value


PROBLEMS = pd.DataFrame({"row": [3], "column": ["field"], "value": ["fax"], "reason": ["is none"]})
ERRORS_THAT_TRAVEL = [
    es.EnrichStatusError("It went wrong."),
    es.ValidationError("It is wrong.", PROBLEMS),
    es.UnauthorizedError("No token."),
    es.InternalError("The disk is full."),
    es.ServiceError("It is down.", 503),
    es.PartialLookupError(
        "Some.", tasks_of(2), tasks_of(3), [es.ServiceError("It is down.", 503), es.InternalError("No.")]
    ),
    es.LookupInterrupted("Stopped.", tasks_of(2), tasks_of(3)),
    es.StoreError("No file."),
    es.StoreLockedError("Held."),
]


@pytest.mark.parametrize("error", ERRORS_THAT_TRAVEL, ids=lambda error: type(error).__name__)
def test_an_error_survives_a_pickle(error: BaseException):
    """Every exception is itself again, with all that it carries, after a pickle and a copy."""
    error.add_note("said later")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        same(error, pickle.loads(pickle.dumps(error, protocol)))
    same(error, copy.copy(error))


def test_a_partial_answer_comes_through_a_pool_of_processes(serve: Serve, monkeypatch: pytest.MonkeyPatch):
    """A client sent to another process asks there, and the error that has the rows comes back whole."""
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", TOKEN)
    server = serve(choose=when(asks(BATCH), bad.reply(503)))
    tasks = tasks_of(3 * BATCH)
    pool = multiprocessing.get_context("spawn").Pool(1)
    try:
        with es.EnrichmentClient(server.url, **QUICK) as asking, pytest.raises(es.PartialLookupError) as caught:
            pool.apply_async(asking.lookup, (tasks,), {"now": NOW}).get(60)
    finally:
        pool.terminate()
        pool.join()
    assert len(caught.value.result) == 2 * BATCH
    pd.testing.assert_frame_equal(caught.value.failed, tasks[BATCH : 2 * BATCH])
    assert [cause.http_status for cause in caught.value.causes] == [503] == [caught.value.http_status]


# What a tool that shows the variables of a failed call can see


def shown(error: BaseException) -> Iterator[str]:
    """Show every variable of every frame of our package and of the libraries below, along the chain, as such tools do."""
    link: BaseException | None = error
    while link is not None:
        for frame, _ in traceback.walk_tb(link.__traceback__):
            if Path(frame.f_code.co_filename) != Path(__file__):
                yield from (f"{name}={value!r}" for name, value in frame.f_locals.items())
        link = link.__cause__ or link.__context__


@pytest.mark.parametrize(
    "options",
    [
        {"base_url": "ftp://example.com"},
        {"token": TOKEN + " x"},
        {"token": [TOKEN]},
        {"token": pd.Series([TOKEN, TOKEN])},
        {"workers": 0},
        {"verify": False},
        {"fields": ["a", "a"]},
        {"max_processing_time": {"fax": 1}},
        {"progress": 2},
    ],
    ids=lambda options: next(iter(options)),
)
def test_no_variable_of_a_failed_constructor_has_the_token(options: dict[str, Any]):
    """No frame of it shows the token, and the client that was not made can be shown."""
    with pytest.raises(es.EnrichStatusError) as caught:
        es.EnrichmentClient(**{"base_url": "http://127.0.0.1:1", "token": TOKEN} | options)
    variables = list(shown(caught.value))
    assert "self=EnrichmentClient(not made)" in variables
    assert not [variable for variable in variables if TOKEN in variable]
    assert repr(es.EnrichmentClient.__new__(es.EnrichmentClient)) == "EnrichmentClient(not made)"


@pytest.mark.parametrize(
    "name", ["403", "closed", "half the headers", "half the body", "slow body", "garbage", "refused"]
)
def test_no_variable_of_a_failed_call_has_the_token(serve: Serve, client: MakeClient, name: str):
    """Nor does a frame of the libraries that the error of a request came through."""
    with ExitStack() as stack:
        where = stack.enter_context(bad.Refusing()) if name == "refused" else serve(then=FAILURES[name])
        with pytest.raises(es.ServiceError) as caught:
            client(where, retries=1, timeout=(1, 0.3)).query(body_of(1))
    assert not [variable for variable in shown(caught.value) if TOKEN in variable]


# Instants


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        ("2026-11-01T10:00:00.000Z", 0),
        ("2026-11-01T10:00:00Z", 0),
        ("2026-11-01T10:00:00z", 0),
        ("2026-11-01T10:00:00.1Z", 100_000),
        ("2026-11-01T10:00:00.1234567Z", 123_456),
        ("2026-11-01T10:00:00.123456789Z", 123_456),
        ("2026-11-01T10:00:00.123456789", 123_456),
        ("2026-11-01T10:00:00", 0),
        ("2026-11-01T10:00", 0),
        ("2026-11-01 10:00:00", 0),
        ("2026-11-01T12:00:00.1234567+02:00", 123_456),
        ("2026-11-01T05:30:00-0430", 0),
        ("2026-11-01T10:00:00 UTC", 0),
        ("2026-11-01T10:00:00 GMT", 0),
    ],
)
def test_an_instant_is_read_as_a_store_reads_it(serve: Serve, client: MakeClient, text: str, microseconds: int):
    """However many digits a second has, and with or without a zone, an instant is the same from a service and in a store."""
    served = bad.altered(lambda found: [one | {"createdAt": text, "updatedAt": text} for one in found])
    answer = client(serve(then=served)).lookup(tasks_of(1), columns=["createdAt", "updatedAt"], now=NOW)
    expected = pd.Timestamp("2026-11-01T10:00:00Z") + pd.Timedelta(microseconds=microseconds)
    assert answer["createdAt"].item() == answer["updatedAt"].item() == expected
    if text.endswith("z"):
        return  # a small letter is read from a service alone
    with es.EnrichmentStore(org_id="org_1") as store:
        store.load([bad.finished(task(0)) | {"createdAt": text, "updatedAt": text, "orgId": "org_1"}])
        assert store.lookup(tasks_of(1), columns=["createdAt"])["createdAt"].item() == expected
