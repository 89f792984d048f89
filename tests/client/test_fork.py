"""A client in a forked process starts afresh: it shares neither sockets nor locks with its parent."""

from __future__ import annotations

import multiprocessing
import os
import random
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest

import enrichstatus as es
from tests.support import misbehaving as bad
from tests.support.factory import NOW, task
from tests.support.misbehaving import Misbehaving, Request, Wire

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="there is no fork"),
    # the warning is of what is tried here: a process with threads is forked
    pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning"),
]

FORK = multiprocessing.get_context("fork")
OPTIONS: dict[str, Any] = {"token": "tok-5up3rs3cr3t", "backoff": 0.01, "deadline": "20s"}
BATCH = 200
#: The client that a pool's processes inherit.
_inherited: list[es.EnrichmentClient] = []


@pytest.fixture
def server() -> Iterator[Misbehaving]:
    """A service that answers after a while, and knows the tasks whose number is below 10,000."""
    known = {task(n)["entityId"] for n in range(10_000)}

    def some(wire: Wire, request: Request) -> bool:
        wire.pause(random.uniform(0, 0.02))
        answer = [bad.finished(one) for one in request.tasks if one["entityId"] in known]
        wire.send(bad.message(body=bad.encoded(answer)))
        return True

    with Misbehaving(bad.in_turn(then=some)) as made:
        yield made


def wrong(client: es.EnrichmentClient, first: int) -> int:
    """Look up some batches; gives how many answers are another's."""
    count = 0
    for start in range(first, first + 5 * BATCH, BATCH):
        answer = client.lookup([task(n) for n in range(start, start + BATCH)], now=NOW)
        count += int((answer["status"].notna() != (start < 10_000)).sum())
    return count


def _child(client: es.EnrichmentClient, first: int, said: Any) -> None:
    said.put(wrong(client, first))


def _of_a_pool(first: int) -> int:
    return wrong(_inherited[0], first)


def children(client: es.EnrichmentClient) -> list[int]:
    """Let forked processes look up at once, half of them what has no record."""
    said = FORK.SimpleQueue()
    started = [FORK.Process(target=_child, args=(client, first, said)) for first in (0, 2000, 50_000, 60_000)]
    for one in started:
        one.start()
    for one in started:
        one.join(60)
    assert [one.exitcode for one in started] == [0] * 4
    return [said.get() for _ in started]


def test_forked_processes_do_not_read_each_others_answers(server: Misbehaving):
    """Of a client with open connections, children at once, and the parent after them, get their own answers."""
    with es.EnrichmentClient(server.url, **OPTIONS) as client:
        assert wrong(client, 0) == 0
        open_before = {request.connection for request in server.requests}
        asked = len(server.requests)
        assert children(client) == [0] * 4
        assert open_before.isdisjoint(request.connection for request in server.requests[asked:])
        assert wrong(client, 3000) == 0
        assert server.requests[-1].connection in open_before


def test_a_fork_in_the_middle_of_a_lookup_of_another_thread(server: Misbehaving):
    """Whatever locks other threads hold at that moment, the child is not held up, nor they."""
    with es.EnrichmentClient(server.url, **OPTIONS) as client, ThreadPoolExecutor(3) as pool:
        over = threading.Event()

        def busy(first: int) -> int:
            count = 0
            while not over.is_set():
                count += wrong(client, first)
            return count

        working = [pool.submit(busy, first) for first in (0, 1000, 70_000)]
        server.wait_for(lambda: len(server.requests) > 5)
        try:
            assert children(client) == [0] * 4
        finally:
            over.set()
        assert [one.result(60) for one in working] == [0] * 3


def test_a_pool_of_forked_processes_can_use_an_inherited_client(server: Misbehaving):
    """``concurrent.futures`` too: the client that its processes were forked with answers in each."""
    with es.EnrichmentClient(server.url, **OPTIONS) as client:
        wrong(client, 0)
        _inherited[:] = [client]
        try:
            with ProcessPoolExecutor(3, mp_context=FORK) as pool:
                assert list(pool.map(_of_a_pool, (0, 50_000, 2000, 60_000), timeout=60)) == [0] * 4
        finally:
            _inherited.clear()


def test_a_forked_process_ends(server: Misbehaving):
    """A child made by ``os.fork`` that looks up, drops the client and ends as any program does is not held up by what it inherited."""
    client = es.EnrichmentClient(server.url, **OPTIONS)
    wrong(client, 0)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = wrong(client, 50_000)
            client.close()
            del client
        finally:
            os._exit(code)
    said = FORK.SimpleQueue()  # a process whose end is waited for in time
    waiter = threading.Thread(target=lambda: said.put(os.waitpid(child, 0)[1]))
    waiter.start()
    waiter.join(30)
    if waiter.is_alive():
        os.kill(child, 9)
    assert said.get() == 0
    client.close()


def test_a_client_that_was_closed_is_closed_in_the_child(server: Misbehaving):
    """A fork opens nothing that was closed."""
    client = es.EnrichmentClient(server.url, **OPTIONS)
    client.close()
    said = FORK.SimpleQueue()

    def ask() -> None:
        try:
            client.lookup([task(0)])
        except es.EnrichStatusError as error:
            said.put(str(error))

    child = FORK.Process(target=ask)
    child.start()
    child.join(30)
    assert "closed" in said.get()
