"""Requests that wait at the same time, answered together: one lookup for many takes hardly longer than for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias

#: Answers some requests of one organization: a result or an exception for each.
Answerer: TypeAlias = Callable[[str, Sequence[Any]], Sequence[Any]]

#: Lookups at once. One is planned while the other is fetched.
LOOKUPS = 2
#: Requests answered by one lookup, so that the first of them need not wait for a crowd.
MOST = 32


class Batcher:
    """Collects requests by organization while a lookup is under way, and has them answered by the next one.

    Nothing waits for company: on an idle service a request is looked up at once. All methods belong to one event loop; the lookups
    run in threads.
    """

    def __init__(self, answer: Answerer):
        self._answer = answer
        self._threads: ThreadPoolExecutor | None = None
        self._waiting: dict[str, list[tuple[Any, asyncio.Future[Any]]]] = {}
        self._lookups: set[asyncio.Task[None]] = set()

    async def ask(self, org_id: str, request: Any) -> Any:
        """Have a request answered; raises what its lookup raised, or what was answered instead of a result."""
        answer = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(org_id, []).append((request, answer))
        self._start()
        return await answer

    def close(self) -> None:
        """End the threads, when what is under way has finished; the next request makes them anew."""
        if self._threads:
            self._threads.shutdown()
        self._threads = None

    def _start(self) -> None:
        while self._waiting and len(self._lookups) < LOOKUPS:
            org_id = next(iter(self._waiting))
            waiting = self._waiting.pop(org_id)
            if len(waiting) > MOST:  # at the end of the line, behind the other organizations
                self._waiting[org_id] = waiting[MOST:]
            lookup = asyncio.create_task(self._look_up(org_id, waiting[:MOST]))
            self._lookups.add(lookup)
            lookup.add_done_callback(self._done)

    def _done(self, lookup: asyncio.Task[None]) -> None:
        self._lookups.discard(lookup)
        self._start()

    async def _look_up(self, org_id: str, batch: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        batch = [one for one in batch if not one[1].done()]  # whoever has hung up is not looked up
        requests = [request for request, _ in batch]
        loop = asyncio.get_running_loop()
        if self._threads is None:
            self._threads = ThreadPoolExecutor(LOOKUPS, thread_name_prefix="enrichstatus-lookup")
        try:
            answers = await loop.run_in_executor(self._threads, self._answer, org_id, requests)
        except Exception as error:
            answers = [error] * len(batch)
        for (_, waiting), answer in zip(batch, answers, strict=True):
            if waiting.done():
                continue
            if isinstance(answer, Exception):
                waiting.set_exception(answer)
            else:
                waiting.set_result(answer)
