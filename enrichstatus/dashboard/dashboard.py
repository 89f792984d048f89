"""A poll that is watched: as widgets in a notebook, as HTML where these cannot be shown, as plain lines anywhere else."""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
import uuid
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from enrichstatus.dashboard import html as drawing
from enrichstatus.lookup.arguments import Errors, choice
from enrichstatus.lookup.query import Source
from enrichstatus.polling.background import OVER, Progress, Watch
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
    It polls in a thread of its own, which lives while there is something to wait for: closing the page does not end it, `pause`,
    `stop`, the end of all tasks and the end of the kernel do. While a cell is running, in `wait` for one, the kernel does not hear
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
        self._views: list[_View] = []
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
        view = _Widgets(self._watch)
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
            self._add(_Lines(self._watch))
            return
        if kind == "widgets":
            view = _Widgets(self._watch)
            _display({"application/vnd.jupyter.widget-view+json": view.reference, "text/plain": ""})
            self._add(view)
            self._add(_Html(self._watch, hidden_by=view.name))
        else:
            self._add(_Html(self._watch))

    def _kind(self) -> str:
        if self._how != "auto":
            return self._how
        if not in_notebook():
            return "lines"
        return "widgets" if importlib.util.find_spec("ipywidgets") else "html"

    def _add(self, view: _View) -> None:
        with self._lock:
            view.draw(self._watch.look())
            self._views.append(view)

    def _draw(self) -> None:
        with self._lock:
            progress = self._watch.look()
            for view in list(self._views):
                try:
                    view.draw(progress)
                except Exception:  # a view that fails does not end the poll
                    _log.exception("a view of the dashboard cannot be drawn, and is given up")
                    self._views.remove(view)


def _display(bundle: dict[str, Any], **options: Any) -> Any:
    from IPython import display

    show: Any = display.display
    return show(bundle, raw=True, **options)


class _View(Protocol):
    """One place where a dashboard is shown."""

    def draw(self, progress: Progress) -> None:
        """Show the progress; called from any thread, one at a time."""


class _Widgets:
    """Live, with buttons."""

    def __init__(self, watch: Watch):
        import ipywidgets

        self.name = f"es-{uuid.uuid4().hex[:12]}"
        self._drawn: tuple[object, ...] = ()
        self._phase, self._line, self._main = (ipywidgets.HTML() for _ in range(3))
        self._go, self._now, self._end = (
            ipywidgets.Button(description=text, tooltip=tip)
            for text, tip in (
                ("Pause", ""),
                ("Poll now", "Request all that has not ended, without waiting"),
                ("Stop", "Give up waiting; Start goes on where it was"),
            )
        )
        self._go.on_click(lambda _: watch.pause() if watch.progress.wanted == "run" else watch.start())
        self._now.on_click(lambda _: watch.ask_now())
        self._end.on_click(lambda _: watch.stop())
        self._buttons = ipywidgets.HBox([self._go, self._now, self._end])
        self.box = ipywidgets.VBox([self._phase, self._line, self._buttons, self._main])

    @property
    def reference(self) -> dict[str, Any]:
        """Name the widget to a page."""
        return {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}

    def draw(self, progress: Progress) -> None:
        # what has not changed is not sent again: the countdown changes one line only
        self._phase.value = drawing.frame(drawing.phase(progress), extra=self.name)
        self._line.value = drawing.frame(drawing.line(progress, live=True))
        drawn = (progress.update, drawing.phase(progress))
        if drawn != self._drawn:
            self._main.value = drawing.frame(drawing.body(progress, live=True))
        self._drawn = drawn
        running = progress.wanted == "run" and progress.phase not in OVER
        self._go.description = "Pause" if running else "Start"
        self._go.tooltip = "Poll no more until started again" if running else "Poll until all have ended"
        self._now.disabled = progress.phase not in ("ready", "waiting", "paused", "stopped")
        self._end.disabled = progress.phase in OVER
        if progress.phase == "done":  # there is nothing left to press them for
            self._buttons.layout.display = "none"


class _Html:
    """HTML in the output of a cell, which is saved with the notebook; out of sight while a live view is on the page."""

    def __init__(self, watch: Watch, hidden_by: str | None = None):
        self._name = f"{hidden_by}-still" if hidden_by else ""
        self._style = ""
        if hidden_by:
            # a live view of an earlier session would show an error in its place
            self._style = (
                f"body:has(.{hidden_by}) .{self._name}{{display:none}}"
                f".jp-OutputArea-child:not(:has(.{hidden_by})):has(+ .jp-OutputArea-child .{self._name}){{display:none}}"
            )
        self._handle: Any = None
        self._drawn: tuple[object, ...] = ()

    def draw(self, progress: Progress) -> None:
        drawn = (progress.update, drawing.phase(progress))
        if drawn == self._drawn:
            return
        self._drawn = drawn
        page = drawing.frame(drawing.page(progress), extra=self._name, style=self._style)
        bundle = {"text/html": page, "text/plain": str(progress.update)}
        if self._handle is None:
            self._handle = _display(bundle, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class _Lines:
    """A line for each update."""

    def __init__(self, watch: Watch):
        self._shown: Update | None = watch.progress.update

    def draw(self, progress: Progress) -> None:
        if progress.update is not self._shown:
            self._shown = progress.update
            sys.stderr.write(f"{progress.update}\n")
            sys.stderr.flush()
