"""A poll that is watched: as widgets in a notebook, as HTML where these cannot be shown, as plain lines anywhere else."""

from __future__ import annotations

import importlib.util
import logging
import threading
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa

from enrichstatus.dashboard import html as drawing
from enrichstatus.dashboard import views
from enrichstatus.dashboard.selection import Choice, Table
from enrichstatus.errors import ValidationError, quoted
from enrichstatus.leads.prices import parse_costs, prices_of
from enrichstatus.lookup.arguments import Columns, Errors, choice, is_text
from enrichstatus.lookup.query import Source
from enrichstatus.outcomes import LABELS
from enrichstatus.polling.background import OVER, Progress, Watch, running
from enrichstatus.polling.run import Duration
from enrichstatus.polling.schedules import Ask
from enrichstatus.polling.update import Update
from enrichstatus.progress import in_notebook
from enrichstatus.schema import ENTITY_TYPES, FIELDS

if TYPE_CHECKING:
    from enrichstatus.sources.store.store import EnrichmentStore

_log = logging.getLogger("enrichstatus.dashboard")

_SHOWS = ("auto", "widgets", "html", "lines")


class Dashboard:
    """Watch tasks until all have ended, in the background; it shows itself where it is the last expression of a cell.

    Parameters
    ----------
    source, tasks, into, schedule, deadline, missing_after, errors, prefix, columns
        As for `poll`.
    title : str
        A heading over it, which downloads are named after.
    costs : mapping, optional
        Credits that a record costs, by field, or by field and type of entity, as for `plan`: it shows what the tasks with a record
        come to, by outcome.
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

    A press on a number shows its rows; ``selection`` gives them as a frame. Where a front end hears of no widgets, such as marimo, it is
    shown as it is at that moment: there ``mo.ui.refresh`` shows it again and again, or `widget` is shown itself.

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
        columns: Columns = ("status", "dataFound"),
        title: str = "",
        costs: Mapping[Any, Any] | None = None,
        start: bool = True,
        show: Literal["auto", "widgets", "html", "lines"] = "auto",
    ):
        choice("show", show, _SHOWS)
        if not is_text(title):
            raise ValidationError(f"is text, not {quoted(title)}.", argument="title")
        self._how, self._starts, self.title = show, start, title
        #: the rows that are shown; None are, until a number is pressed
        self.chosen: Choice | None = None
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
            columns=columns,
            beside=("error",),
            changed=self._draw,
        )
        tasks = self._watch.tasks
        prices = parse_costs(costs, getattr(source, "fields", FIELDS), ENTITY_TYPES)
        keys = pa.table({name: pa.array(tasks[name], pa.string()) for name in ("field", "entityType")})
        self._prices = prices_of(keys, prices) if prices else None
        self._table: Table | None = None
        self._watch.board = self

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

    def select(self, outcome: str | None = None, *, field: str | None = None, search: str = "") -> None:
        """Show the rows of an outcome, as a press on its number does.

        Parameters
        ----------
        outcome : str, optional
            What became of them, as the legend says: ``"failed"``, ``"no data"``, ``"pending"`` …; any unless given.
        field : str, optional
            Their field; any unless given.
        search : str
            A text that is somewhere in the row, in whatever case.

        Raises
        ------
        ValidationError
            There is no such outcome or field.
        """
        self.choose(Choice(outcome, field, search))

    @property
    def selection(self) -> Any:
        """The rows that are chosen, as they are now, in the order in which they are shown: a frame like the tasks.

        It has the service's ``error`` beside the columns of `frame`. Where nothing is chosen, it is all rows.
        """
        update = self.update
        return self.table.frame(update, self.table.rows(update, self.chosen or Choice()))

    def choose(self, chosen: Choice | None) -> None:
        """Show these rows in all its views; None hides them."""
        self.chosen = None if chosen is None else self.table.check(chosen)
        self._draw()

    @property
    def table(self) -> Table:
        """Its rows, to be looked through."""
        tracker = self.update.tracker
        if self._table is None or self._table.frame_of is not tracker.frame:
            self._table = Table(self.update)
        return self._table

    def file(self, ending: str) -> bytes:
        """Write the selection in the format of an ending."""
        update = self.update
        return self.table.file(update, self.table.rows(update, self.chosen or Choice()), ending)

    def credits(self, update: Update) -> dict[str, float] | None:
        """Sum the credits of the tasks by what became of them; None without ``costs=``. One that stands in two rows counts once."""
        if self._prices is None:
            return None
        known = update.tracker
        labels = np.zeros(len(self._prices), dtype=np.int64)
        good = known.places >= 0
        labels[known.places[good]] = update.labels()[good]
        sums = np.bincount(labels[known.recorded], self._prices[known.recorded], len(LABELS))
        return {name: float(total) for name, total in zip(LABELS, sums, strict=True)}

    def page(self, progress: Progress) -> str:
        """Draw it as it stays in a notebook."""
        return drawing.page(progress, title=self.title, spent=self.credits(progress.update))

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
        self._watch.progress.blocked = in_notebook() and threading.current_thread() is threading.main_thread()
        self._draw()
        try:
            self._watch.wait(timeout)
        finally:
            self._watch.progress.blocked = False
            self._draw()
        return self.frame

    @property
    def widget(self) -> Any:
        """A new view of it, to be put into a layout of your own (an ``ipywidgets.VBox``)."""
        from enrichstatus.dashboard.live import Live

        view = Live(self)
        self._add(view)
        return view

    def __repr__(self) -> str:
        # while it is paused no request is due
        update = self.update if self.phase == "waiting" else replace(self.update, next_in=None)
        return f"Dashboard({self.phase}: {update})"

    def _ipython_display_(self) -> None:
        self._show()
        self._start_once()

    def _repr_html_(self) -> str:
        """Draw it for a page that shows HTML and hears of no widget, such as marimo: each time it is shown, as it is then."""
        self._start_once()
        return drawing.frame(self.page(self._watch.look()))

    def _start_once(self) -> None:
        if self._starts:
            self._starts = False  # shown once more, it stays paused if somebody has paused it
            self.start()

    def _show(self) -> None:
        kind = self._kind()
        if kind == "lines":
            self._add(views.Lines(self.update))
        elif kind == "widgets":
            view = self.widget
            views.display({"application/vnd.jupyter.widget-view+json": view.reference, "text/plain": ""})
            self._add(views.Html(self, hidden_by=view.name))
        else:
            self._add(views.Html(self))

    def _kind(self) -> str:
        if self._how != "auto":
            return self._how
        if not in_notebook():
            return "lines"
        return "widgets" if importlib.util.find_spec("anywidget") else "html"

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
                    if progress.replaced and progress.phase in OVER and hasattr(view, "close"):
                        # the HTML beside it stays
                        self._views.remove(view)
                        view.close()
                except Exception:  # a view that fails does not end the poll
                    _log.exception("a view of the dashboard cannot be drawn, and is given up")
                    self._views.remove(view)


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
    return [watch.board for watch in running() if isinstance(watch.board, Dashboard)]


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
    stopped = dashboards()
    for one in stopped:
        one.stop()
    return len(stopped)
