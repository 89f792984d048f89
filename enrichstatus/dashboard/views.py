"""Where a dashboard is shown without widgets: as HTML that is updated, as lines; `live` has the widget."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Protocol

from enrichstatus.dashboard import html as drawing
from enrichstatus.polling.background import Progress

if TYPE_CHECKING:
    from enrichstatus.dashboard.dashboard import Dashboard
    from enrichstatus.polling.update import Update


def display(bundle: dict[str, Any], **options: Any) -> Any:
    """Show something in the output of a cell."""
    from IPython import display as shown

    show: Any = shown.display
    return show(bundle, raw=True, **options)


class View(Protocol):
    """One place where a dashboard is shown."""

    def draw(self, progress: Progress) -> None:
        """Show the progress; called from any thread, one at a time."""


class Html:
    """HTML in the output of a cell, which is saved with the notebook; out of sight while a live view is on the page."""

    def __init__(self, dashboard: Dashboard, hidden_by: str | None = None):
        self._dashboard = dashboard
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
        """Replace the output, where an update came or the phase changed."""
        drawn = (progress.update, drawing.state(progress))
        if drawn == self._drawn:
            return
        self._drawn = drawn
        page = drawing.frame(self._dashboard.page(progress), extra=self._name, style=self._style)
        bundle = {"text/html": page, "text/plain": str(progress.update)}
        if self._handle is None:
            self._handle = display(bundle, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class Lines:
    """A line for each update."""

    def __init__(self, update: Update):
        self._shown = update

    def draw(self, progress: Progress) -> None:
        """Write a line, where an update came."""
        if progress.update is not self._shown:
            self._shown = progress.update
            sys.stderr.write(f"{progress.update}\n")
            sys.stderr.flush()
