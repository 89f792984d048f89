"""Work that blocks, awaited: it has a thread while it is under way, and is interrupted where the await is cancelled."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from typing import TypeVar

from enrichstatus.lookup.query import Interruption, interruption

T = TypeVar("T")

#: Pieces of work that are under way at once in an event loop; further ones wait for their turn, without a thread.
AT_ONCE = 32


#: By event loop, whose turn it is.
_TURNS: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = weakref.WeakKeyDictionary()


async def in_thread(work: Callable[[], T]) -> T:
    """Await what `work` gives or raises.

    Where the await is cancelled, the work is interrupted, and its thread has ended before `asyncio.CancelledError` is raised; that
    carries what the work had to hand over then (``result`` and ``failed`` of a lookup, ``update`` of a poll).
    """
    loop = asyncio.get_running_loop()
    turns = _TURNS.setdefault(loop, asyncio.Semaphore(AT_ONCE))
    stop, ended = Interruption(), asyncio.Event()
    given: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        interruption.set(stop)
        try:
            given.append(work())
        except BaseException as error:
            raised.append(error)
        finally:
            with suppress(RuntimeError):  # the loop was closed
                loop.call_soon_threadsafe(ended.set)

    async with turns:
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
