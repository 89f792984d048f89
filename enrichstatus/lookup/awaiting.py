"""Work that blocks, awaited: it has a thread while it is under way, and is interrupted where the await is cancelled."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import TypeVar

import duckdb

from enrichstatus.lookup.query import Interruption, interruption
from enrichstatus.lookup.tasks import lent, never_freed

T = TypeVar("T")

#: Pieces of work that are under way at once in an event loop; further ones wait for their turn, without a thread.
AT_ONCE = 32


class _Desk:
    """What the work of one event loop shares: its turns, and a database that is open while any of it is under way."""

    def __init__(self) -> None:
        self.turns = asyncio.Semaphore(AT_ONCE)
        self._lock = threading.Lock()
        self._working = 0
        self.database: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Lend the database: to make one takes longer than to look up what fits into a request."""
        with self._lock:
            self._working += 1
            if self.database is None:
                self.database = duckdb.connect()
        borrowed = lent.set(self.database)
        try:
            yield
        finally:
            lent.reset(borrowed)
            with self._lock:
                self._working -= 1
                if not self._working:
                    self.database.close()
                    self.database = None


_DESKS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _Desk] = weakref.WeakKeyDictionary()


def _forked() -> None:
    """Leave to the parent what it was at."""
    for desk in list(_DESKS.values()):
        if desk.database is not None:
            never_freed(desk.database)
    _DESKS.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


async def in_thread(work: Callable[[], T]) -> T:
    """Await what `work` gives or raises.

    Where the await is cancelled, the work is interrupted, and its thread has ended before `asyncio.CancelledError` is raised; that
    carries what the work had to hand over then (``result`` and ``failed`` of a lookup, ``update`` of a poll).
    """
    loop = asyncio.get_running_loop()
    desk = _DESKS.setdefault(loop, _Desk())
    stop, ended = Interruption(), asyncio.Event()
    given: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        interruption.set(stop)
        try:
            with desk.at_work():
                given.append(work())
        except BaseException as error:
            raised.append(error)
        finally:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(ended.set)

    async with desk.turns:
        # a daemon: it does not keep the program from ending
        thread = threading.Thread(target=copy_context().run, args=(run,), daemon=True, name="enrichstatus-await")
        thread.start()
        try:
            await ended.wait()
        except asyncio.CancelledError as cancelled:
            stop.set()
            while not ended.is_set():
                with suppress(asyncio.CancelledError):
                    await ended.wait()
            for error in raised:
                vars(cancelled).update(vars(error))
            raise
        finally:
            thread.join()
    try:
        for error in raised:
            raise error
        return given[0]
    finally:
        raised.clear()  # or the error's frames would keep it
