"""A progress bar over long work in the engine, which tells how far it is."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import duckdb

from enrichstatus.presentation import in_notebook, progress_is_shown

#: Seconds between two looks at the engine.
_TICK = 0.2
#: Work that is done sooner, in seconds, needs no bar.
_DELAY = 1


class Progress:
    """How much of the work is done, in percent, drawn on stderr or in a notebook where it is `shown`."""

    def __init__(self, bar: Any = None):
        self._bar = bar
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def drawn(cls, what: str, *, shown: bool | None) -> Iterator[Progress]:
        """Draw a bar while the work lasts; unless `shown` says, in a notebook or at a terminal."""
        if shown is None:
            shown = not progress_is_shown.get() and (in_notebook() or sys.stderr.isatty())
        if not shown:
            yield cls()
            return
        from tqdm.auto import tqdm

        form = "{desc} {percentage:3.0f}%|{bar}| {elapsed}, {remaining} left"
        with tqdm(total=100, desc=what, delay=_DELAY, bar_format=form, file=sys.stderr) as bar:
            yield cls(bar)

    def reached(self, percent: float) -> None:
        """Show that so much is done; what is done is never undone."""
        with self._lock:
            if self._bar is not None and percent > self._bar.n:
                self._bar.update(min(percent, 100) - self._bar.n)

    @contextmanager
    def following(self, con: duckdb.DuckDBPyConnection, start: float, end: float) -> Iterator[None]:
        """Show how far the engine is with what is asked meanwhile, as a part of the whole from `start` to `end` percent."""
        if self._bar is None:
            yield
            return
        # the engine keeps count only where it could draw a bar itself
        con.execute("set enable_progress_bar = true")
        con.execute("set enable_progress_bar_print = false")
        con.execute("set progress_bar_time = 0")
        over = threading.Event()

        def look() -> None:
            while not over.wait(_TICK):
                self.reached(start + (end - start) * max(con.query_progress(), 0) / 100)

        thread = threading.Thread(target=look, daemon=True, name="enrichstatus-progress")
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
        self.reached(end)
