"""A poll that is watched: as widgets in a notebook, as HTML where these cannot be shown, as plain lines anywhere else."""

from __future__ import annotations

import importlib.util
import logging
import threading
import weakref
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from enrichstatus.dashboard import views
from enrichstatus.lookup.arguments import Errors, choice
from enrichstatus.lookup.query import Source
from enrichstatus.polling.background import OVER, Watch
from enrichstatus.polling.run import Duration
from enrichstatus.polling.schedules import Ask
from enrichstatus.polling.update import Update
from enrichstatus.progress import in_notebook

if TYPE_CHECKING:
    from enrichstatus.sources.store.store import EnrichmentStore

_log = logging.getLogger("enrichstatus.dashboard")

_SHOWS = ("auto", "widgets", "html", "lines")


class Dashboard:
    """Watch tasks until all have ended, in the background; it shows itself where it is the last expression of a cell.

    Parameters
    ----------
    source, tasks, into, schedule, deadline, missing_after, errors, prefix
        As for `poll`.
    start : bool
        Start to poll when it is first shown; else at the press of the button, or with ``.start()``.
    show : {"auto", "widgets", "html", "lines"}
        How it shows itself. Unless given: as widgets in a notebook, with HTML beside them that stays readable in the saved
        notebook; as HTML that is updated where there is no ipywidgets; as a line for each update outside of notebooks.

    Raises
    ------
    ValidationError
        Bad tasks or arguments, at once.
    StoreError
        `into` cannot be read.

    Notes
    -----
    It polls in a thread of its own, which lives while there is something to wait for: closing the page or the output does not end it,
    `pause`, `stop`, `stop_all`, the end of all tasks and the end of the kernel do. A dashboard that is started takes the place of an
    earlier one of the same source and tasks, so that a cell that is run again polls once; one that somebody waits for goes on, and
    both share what they are answered. While a cell is running, in `wait` for one, the kernel does not hear
    the buttons; its interrupt ends the wait and stops the poll.

    Examples
    --------
    >>> import enrichstatus as es
    >>> from enrichstatus.simulation import SimulatedStore
    >>> tasks = [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]
    >>> dashboard = es.Dashboard(SimulatedStore(tasks, seed=7, speed=50), tasks)
    >>> dashboard.wait()["status"].item()
    'finished'
    """

    def __init__(
        self,
        source: Source,
        tasks: Any,
        *,
        into: EnrichmentStore | None = None,
        schedule: Iterable[float | Ask] | None = None,
        deadline: Duration | None = None,
        missing_after: Duration = "60s",
        errors: Errors = "raise",
        prefix: str = "",
        start: bool = True,
        show: Literal["auto", "widgets", "html", "lines"] = "auto",
    ):
        choice("show", show, _SHOWS)
        self._how, self._starts = show, start
        self._views: list[views.View] = []
        self._lock = threading.RLock()
        self._watch = Watch(
            source,
            tasks,
            into=into,
            schedule=schedule,
            deadline=deadline,
            missing_after=missing_after,
            errors=errors,
            prefix=prefix,
            changed=self._draw,
        )
        with _LOCK:
            _ALL.add(self)

    @property
    def frame(self) -> Any:
        """All tasks as they are now, with ``status`` and ``dataFound``."""
        return self._watch.progress.update.frame

    @property
    def update(self) -> Update:
        """The last update, as `poll` would have given it."""
        return self._watch.progress.update

    @property
    def phase(self) -> str:
        """What it does: ready, asking, waiting, paused, stopped, done, deadline or failed."""
        return self._watch.progress.phase

    def start(self) -> None:
        """Begin, or go on after a pause, a stop, a deadline or an error."""
        self._watch.start()

    def pause(self) -> None:
        """Send no more requests until it is started again; one under way is ended first."""
        self._watch.pause()

    def ask_now(self) -> None:
        """Send a request without waiting any longer, unless the service wants none until later."""
        self._watch.ask_now()

    def stop(self) -> None:
        """Give up; `wait` then raises. ``start()`` goes on where it was."""
        self._watch.stop()

    def wait(self, timeout: float | None = None) -> Any:
        """Block until all have ended, or for so many seconds at the most; starts it if nobody has.

        Returns
        -------
        A frame like the tasks
            `frame`, finished or, after the timeout, as far as it is.

        Raises
        ------
        PollDeadline, PollInterrupted
            The deadline came; or it was stopped or interrupted. ``.update`` has what is known.
        ValidationError, UnauthorizedError, StoreError
            What ended it, as for `poll`.
        """
        if not self._views and self._kind() == "lines":
            self._show()
        self._watch.wait(timeout)
        return self.frame

    @property
    def widget(self) -> Any:
        """A new view of it, to be put into a layout of your own (an ``ipywidgets.VBox``)."""
        view = views.Widgets(self._watch)
        self._add(view)
        return view.box

    def __repr__(self) -> str:
        # while it is paused no request is due
        update = self.update if self.phase == "waiting" else replace(self.update, next_in=None)
        return f"Dashboard({self.phase}: {update})"

    def _ipython_display_(self) -> None:
        self._show()
        if self._starts:
            self._starts = False  # shown once more, it stays paused if somebody has paused it
            self.start()

    def _show(self) -> None:
        kind = self._kind()
        if kind == "lines":
            self._add(views.Lines(self._watch))
            return
        if kind == "widgets":
            view = views.Widgets(self._watch)
            views.display({"application/vnd.jupyter.widget-view+json": view.reference, "text/plain": ""})
            self._add(view)
            self._add(views.Html(self._watch, hidden_by=view.name))
        else:
            self._add(views.Html(self._watch))

    def _kind(self) -> str:
        if self._how != "auto":
            return self._how
        if not in_notebook():
            return "lines"
        return "widgets" if importlib.util.find_spec("ipywidgets") else "html"

    def _add(self, view: views.View) -> None:
        with self._lock:
            view.draw(self._watch.look())
            self._views.append(view)

    def _draw(self) -> None:
        with self._lock:
            progress = self._watch.look()
            for view in list(self._views):
                try:
                    view.draw(progress)
                    if progress.replaced and progress.phase in OVER and isinstance(view, views.Widgets):
                        # the HTML beside it stays
                        self._views.remove(view)
                        view.close()
                except Exception:  # a view that fails does not end the poll
                    _log.exception("a view of the dashboard cannot be drawn, and is given up")
                    self._views.remove(view)


_ALL: weakref.WeakSet[Dashboard] = weakref.WeakSet()
_LOCK = threading.Lock()


def dashboards() -> list[Dashboard]:
    """List the dashboards that poll at the moment, whatever has become of their names and outputs.

    Returns
    -------
    list of Dashboard
        The one that was started last comes last.

    Examples
    --------
    >>> import enrichstatus as es
    >>> es.dashboards()
    []
    """
    with _LOCK:
        running = [one for one in _ALL if one._watch.runs]
    return sorted(running, key=lambda one: one._watch.turn)


def stop_all() -> int:
    """Stop every dashboard that polls; ``start()`` of each goes on where it was.

    Returns
    -------
    int
        How many were stopped. A request under way is ended first.

    Examples
    --------
    >>> import enrichstatus as es
    >>> es.stop_all()
    0
    """
    running = dashboards()
    for one in running:
        one.stop()
    return len(running)
