"""Quotas: the rate that a client keeps, and what it makes of a service that refuses for too many requests."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.sources.client.config import Rate, parse_rate
from enrichstatus.sources.client.transport.retry import read_retry_after
from tests.support import misbehaving as bad
from tests.support.factory import NOW, task
from tests.support.misbehaving import Answer, Misbehaving, Request

TOKEN = "tok-5up3rs3cr3t"
BATCH = 200


def client(server: Misbehaving, **options: Any) -> es.EnrichmentClient:
    return es.EnrichmentClient(server.url, **{"token": TOKEN, "backoff": 0.01, "deadline": "20s"} | options)


def tasks_of(batches: int) -> list[dict[str, str]]:
    return [task(n) for n in range(batches * BATCH)]


def answered(lookup: Any) -> bool:
    return bool((lookup["status"] == "finished").all())


class Limited:
    """A service that answers so many requests in each window of so many seconds, and refuses the others."""

    def __init__(self, most: int, seconds: float, headers: Callable[[float], dict[str, str]] = lambda left: {}):
        self.most, self.seconds, self.headers = most, seconds, headers
        self._lock = threading.Lock()
        self._start, self._count = time.monotonic(), 0
        self.refused = 0

    def __call__(self, request: Request) -> Answer:
        with self._lock:
            now = time.monotonic()
            if now - self._start >= self.seconds:
                self._start, self._count = now, 0
            self._count += 1
            if self._count <= self.most:
                return bad.well
            self.refused += 1
            return bad.failure(429, "RATE_LIMITED", headers=self.headers(self.seconds - (now - self._start)))


HINTS: dict[str, Callable[[float], dict[str, str]]] = {
    "none": lambda left: {},
    "Retry-After": lambda left: {"Retry-After": str(int(left) + 1)},
    "RateLimit-Reset": lambda left: {"RateLimit-Reset": f"{left:.2f}"},
    "X-RateLimit-Reset": lambda left: {"X-RateLimit-Reset": str(int(left) + 1)},
    "X-RateLimit-Reset since 1970": lambda left: {"X-RateLimit-Reset": f"{time.time() + left:.3f}"},
    "X-RateLimit-Reset in milliseconds": lambda left: {"X-RateLimit-Reset": str(int((time.time() + left) * 1000))},
    "nonsense": lambda left: {"Retry-After": "-1", "RateLimit-Reset": "soon", "X-RateLimit-Reset": "nan"},
}


@pytest.mark.parametrize("hint", HINTS)
def test_a_quota_leaves_no_task_unanswered(hint: str):
    """Refusals for a quota are waited out, whatever the service says of how long, and are none of the ``retries``."""
    with Misbehaving(Limited(5, 1.0, HINTS[hint])) as server, client(server, retries=1, workers=8) as asking:
        assert answered(asking.lookup(tasks_of(22), now=NOW))


def test_a_quota_that_never_ends_is_given_up_at_the_deadline():
    """Without an end to the refusals the error has the status; the requests become fewer as the waits grow."""
    with Misbehaving(bad.in_turn(then=bad.failure(429, "RATE_LIMITED"))) as server:
        with (
            client(server, retries=0, deadline=1.5) as asking,
            pytest.raises(es.ServiceError, match="deadline") as late,
        ):
            asking.query({"tasks": [task(0)]})
        assert late.value.http_status == 429
        assert 3 <= len(server.requests) <= 10


def test_without_retries_a_refusal_that_says_when_to_come_back_is_the_callers():
    """With ``retries=0`` it is raised at once, with the seconds; and the client does not send a request sooner itself."""
    refusal = bad.failure(429, "RATE_LIMITED", headers={"X-RateLimit-Reset": "1"})
    with Misbehaving(bad.in_turn(refusal)) as server, client(server, retries=0) as asking:
        with pytest.raises(es.ServiceError) as refused:
            asking.query({"tasks": [task(0)]})
        assert refused.value.retry_after == 1
        asking.query({"tasks": [task(0)]})
        assert server.requests[1].when - server.requests[0].when >= 1


def test_a_refusal_that_says_when_to_come_back_holds_all_threads():
    """While the service wants to be left alone, no other thread of the client sends a request."""
    refusal = bad.failure(429, "RATE_LIMITED", headers={"Retry-After": "1"})
    with Misbehaving(bad.in_turn(refusal)) as server, client(server, workers=1) as asking:
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(asking.query, {"tasks": [task(0)]})
            server.wait_for(lambda: len(server.requests) == 1 and server.requests[0].answered is not None)
            time.sleep(0.1)  # the answer is on its way to the first
            others = [pool.submit(asking.query, {"tasks": [task(n)]}) for n in range(1, 4)]
            for one in (first, *others):
                one.result(10)
        assert all(request.when - server.requests[0].when >= 1 for request in server.requests[1:])


def test_the_rate_is_shared_by_the_threads_of_a_client():
    """In no time as long as the rate's does the service see more requests than it allows, and all are answered."""
    limited = Limited(6, 0.7)
    with Misbehaving(limited) as server, client(server, rate="6/0.7s", workers=4) as asking:
        with ThreadPoolExecutor(3) as pool:
            assert all(pool.map(lambda _: answered(asking.lookup(tasks_of(5), now=NOW)), range(3)))
        times = np.sort([request.when for request in server.requests])
    assert limited.refused == 0
    assert (times[6:] - times[:-6]).min() >= 0.7


def test_two_clients_share_no_rate():
    """What one client waits for does not hold up another."""
    with Misbehaving(bad.in_turn()) as server:
        with client(server, rate="1/h") as one, client(server, rate="1/h") as other:
            one.query({"tasks": [task(0)]})
            other.query({"tasks": [task(0)]})
            with pytest.raises(es.ServiceError, match="rate= allows no more than 1 in 3600 s"):
                one.query({"tasks": [task(0)]})
        assert len(server.requests) == 2


def test_the_time_that_the_rate_takes_is_not_the_deadlines():
    """Unless it is given, the deadline is ten minutes beyond what the rate makes the requests of a call take."""
    with Misbehaving(bad.in_turn()) as server:
        with client(server, deadline=None, rate="2/min") as asking:
            assert asking._settings.time_for(10) == 600 + 300
            assert asking._settings.time_for(0) == 600
        with client(server, deadline=9, rate="2/min") as asking:
            assert asking._settings.time_for(10) == 9


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("600/min", (600, 60)),
        (" 10 / s ", (10, 1)),
        ("5/2s", (5, 2)),
        ("1/0.5 Second", (1, 0.5)),
        ("100/hour", (100, 3600)),
        ("9/d", (9, 86_400)),
    ],
)
def test_a_rate_is_requests_in_a_time(text: str, rate: tuple[int, float]):
    """It is read in all its spellings."""
    assert parse_rate(text) == Rate(*rate)


@pytest.mark.parametrize(
    "value", ["0/min", "abc", "", "600", "600/", "-1/s", "1.5/s", "1/0s", "1/fortnight", 10, 1.5, True]
)
def test_a_rate_that_is_none_is_refused(value: Any):
    """Anything else is a ValidationError that says what was given and what a rate is."""
    with pytest.raises(es.ValidationError, match=r"rate=.*600/min") as caught:
        es.EnrichmentClient("https://api.example.com", token=TOKEN, rate=value)
    assert repr(value) in str(caught.value)


# What a service asks for


def http_date(seconds: float) -> str:
    return format_datetime(datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize("ahead", [0, 3600, -3600, 600, -600, 40_000_000, -1_700_000_000])
@pytest.mark.parametrize("name", ["Retry-After", "RateLimit-Reset", "X-RateLimit-Reset"])
def test_an_instant_is_reckoned_by_the_clock_that_told_it(ahead: float, name: str):
    """An instant is so long after the answer's ``Date``, however wrong the service's clock is; or after what is known of its clock."""
    headers = {"Date": http_date(ahead), name: http_date(ahead + 20)}
    assert read_retry_after(headers, 429, None) == 20
    assert read_retry_after({name: http_date(ahead + 20)}, 429, time.time() + ahead) == pytest.approx(20, abs=1.5)


@pytest.mark.parametrize(
    "value", ["-5", "", "0", "0.0", "1e5", "soon", "²", "nan", "inf", "Sun, 06 Nov 1994 08:49:37 GMT"]
)
def test_nonsense_asks_for_nothing(value: str):
    """What is neither seconds nor an instant to come is left aside, and the next header read."""
    assert read_retry_after({"Retry-After": value}, 429, None) is None
    assert read_retry_after({"Retry-After": value, "X-RateLimit-Reset": "7"}, 429, None) == 7


@pytest.mark.parametrize("value", ["9" * 400, "999999", "Fri, 31 Dec 2099 23:59:59 GMT"])
def test_no_service_is_left_alone_for_longer_than_an_hour(value: str):
    """What asks for more may be a mistake: after an hour it is tried again."""
    assert read_retry_after({"Retry-After": value}, 503, None) == 3600
    assert read_retry_after({"Retry-After": value}, 429, time.time()) == 3600


def test_the_reset_of_a_quota_is_not_that_of_an_outage():
    """Only a refusal for the quota is held until the quota's reset; a 503 is not."""
    assert read_retry_after({"X-RateLimit-Reset": "30"}, 503, None) is None
    assert read_retry_after({"X-RateLimit-Reset": "30"}, 429, None) == 30


def test_the_command_line_keeps_a_rate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """``--rate`` is the client's; what is no rate, or goes without a service, is refused by the option's name."""
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", TOKEN)
    path = tmp_path / "tasks.csv"
    pd.DataFrame(tasks_of(2)).to_csv(path, index=False)
    with Misbehaving(bad.in_turn()) as server:
        command = ["lookup", str(path), "--url", server.url]
        assert main([*command, "--rate", "1/s"]) == 0
        first, second = (request.when for request in server.requests)
        assert second - first >= 1
        capsys.readouterr()
        assert main([*command, "--rate", "0/min"]) == 2
        assert "--rate takes requests in a time" in capsys.readouterr().err
    assert main(["lookup", str(path), "--store", "none.duckdb", "--org", "org_1", "--rate", "1/s"]) == 2
    assert "--rate goes with --url" in capsys.readouterr().err
