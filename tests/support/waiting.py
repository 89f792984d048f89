"""Waiting on conditions: no test sleeps for a fixed time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 30) -> float:
    """Wait for a condition; gives how many seconds it took. On a busy machine, only a failure takes the whole time."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "the condition did not come true in time"
        time.sleep(0.002)
    return time.monotonic() - start


def best(call: Callable[[], object]) -> float:
    """Call three times; gives the fewest seconds of this thread, since a busy machine makes any one of them slow."""

    def took() -> float:
        start = time.thread_time()
        call()
        return time.thread_time() - start

    return min(took() for _ in range(3))


def threads() -> list[threading.Thread]:
    """List the threads of polls in the background."""
    return [thread for thread in threading.enumerate() if thread.name == "enrichstatus-poll"]
