"""Whether a person is watching, and the bars that show how far work is."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import duckdb

#: Whether a caller shows the progress already, so that nobody below draws a bar of its own.
progress_is_shown: ContextVar[bool] = ContextVar("progress_is_shown", default=False)

#: Seconds between two looks at DuckDB's own progress.
_TICK = 0.2
#: Work that ends sooner, in seconds, needs no bar.
_DELAY = 1


def in_notebook() -> bool:
    """Report whether a notebook's kernel is around us, which takes what is displayed."""
    ipython = sys.modules.get("IPython")  # whoever is in a notebook has loaded it
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def watched() -> bool:
    """Report whether a person sees stderr, or a notebook's output, and nobody above draws a bar."""
    return not progress_is_shown.get() and (in_notebook() or sys.stderr.isatty())


def new_bar(**options: Any) -> Any:
    """Make a tqdm bar in a notebook or on stderr."""
    from tqdm.auto import tqdm

    return tqdm(file=sys.stderr, **options)


class Progress:
    """How much of the work is done, drawn on stderr or in a notebook where it is `shown`."""

    def __init__(self, bar: Any = None):
        self._bar = bar
        self._lock = threading.Lock()

    @classmethod
    @contextmanager
    def drawn(cls, what: str, *, shown: bool | None, tasks: int | None = None) -> Iterator[Progress]:
        """Draw a bar while the work lasts, where a person watches or `shown` is true: of so many tasks, else of 100 percent."""
        if not (watched() if shown is None else shown):
            yield cls()
            return
        count = "" if tasks is None else "{n_fmt}/{total_fmt} tasks, "
        form = f"{{desc}} {{percentage:3.0f}}%|{{bar}}| {count}{{elapsed}}, {{remaining}} left"
        delay = _DELAY if tasks is None else 0
        with new_bar(total=100 if tasks is None else tasks, desc=what, delay=delay, bar_format=form) as bar:
            yield cls(bar)

    def reached(self, done: float) -> None:
        """Show that so much is done; the bar never goes back."""
        with self._lock:
            if self._bar is not None and done > self._bar.n:
                self._bar.update(min(done, self._bar.total) - self._bar.n)

    def add(self, done: float) -> None:
        """Show that so much more is done."""
        if self._bar is not None:
            self.reached(self._bar.n + done)

    @contextmanager
    def following(self, con: duckdb.DuckDBPyConnection, start: float, end: float) -> Iterator[None]:
        """Show how far DuckDB is with the query that runs meanwhile, as a part of the whole from `start` to `end` percent."""
        if self._bar is None:
            yield
            return
        # DuckDB counts only where it could draw a bar itself
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
