"""Where a dashboard is shown: as widgets, as HTML that is updated, as lines."""

from __future__ import annotations

import sys
import uuid
from typing import Any, Protocol

from enrichstatus.dashboard import html as drawing
from enrichstatus.polling.background import OVER, Progress, Watch
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


class Widgets:
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

    def close(self) -> None:
        """Take it from the page, and free what it holds."""
        for widget in (*self._buttons.children, self._phase, self._line, self._main, self._buttons, self.box):
            for part in ("layout", "style"):
                if widget.has_trait(part):
                    getattr(widget, part).close()
            widget.close()

    @property
    def reference(self) -> dict[str, Any]:
        """Name the widget to a page."""
        return {"version_major": 2, "version_minor": 0, "model_id": self.box.model_id}

    def draw(self, progress: Progress) -> None:
        """Send what has changed."""
        # the countdown changes one line only
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


class Html:
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
        """Replace the output, where an update came or the phase changed."""
        drawn = (progress.update, drawing.phase(progress))
        if drawn == self._drawn:
            return
        self._drawn = drawn
        page = drawing.frame(drawing.page(progress), extra=self._name, style=self._style)
        bundle = {"text/html": page, "text/plain": str(progress.update)}
        if self._handle is None:
            self._handle = display(bundle, display_id=True)
        else:
            self._handle.update(bundle, raw=True)


class Lines:
    """A line for each update."""

    def __init__(self, watch: Watch):
        self._shown: Update | None = watch.progress.update

    def draw(self, progress: Progress) -> None:
        """Write a line, where an update came."""
        if progress.update is not self._shown:
            self._shown = progress.update
            sys.stderr.write(f"{progress.update}\n")
            sys.stderr.flush()
