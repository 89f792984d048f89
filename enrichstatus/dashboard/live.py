"""The live view of a dashboard: its parts as HTML, and what a person presses in them."""

from __future__ import annotations

import gzip
import re
import uuid
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from enrichstatus.dashboard import html as drawing
from enrichstatus.dashboard.selection import Choice
from enrichstatus.errors import EnrichStatusError
from enrichstatus.files.writing.write import ENDINGS
from enrichstatus.polling.background import OVER, Progress
from enrichstatus.polling.update import reason

if TYPE_CHECKING:
    from enrichstatus.dashboard.dashboard import Dashboard

#: Bytes of a piece of a file: a Jupyter server takes no more than a megabyte a second.
_PIECE = 250_000
#: How many files are sent at once.
_FILES = 4
_KINDS = {
    ".csv": ("CSV", "text/csv;charset=utf-8"),
    ".xlsx": ("Excel", "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"),
}
_OFFERED = tuple(ending for ending in _KINDS if ending in ENDINGS)


class Live(anywidget.AnyWidget):
    """One place on a page where a dashboard lives, with buttons."""

    # as text: a path would be watched for changes
    _esm = Path(__file__).with_name("live.js").read_text(encoding="utf-8")
    _css = drawing.STYLE

    name = traitlets.Unicode().tag(sync=True)
    head = traitlets.Unicode().tag(sync=True)
    buttons = traitlets.Unicode().tag(sync=True)
    main = traitlets.Unicode().tag(sync=True)
    tools = traitlets.Unicode().tag(sync=True)
    rows = traitlets.Unicode().tag(sync=True)
    search = traitlets.Unicode().tag(sync=True)

    def __init__(self, dashboard: Dashboard):
        self._dashboard = dashboard
        self._drawn: tuple[object, ...] = ()
        #: the pieces of the files that a page is being sent, with their names
        self._files: dict[str, tuple[list[bytes], dict[str, str]]] = {}
        super().__init__(name=f"es-{uuid.uuid4().hex[:12]}")
        self.on_msg(self._hear)

    @property
    def reference(self) -> dict[str, Any]:
        """Name the widget to a page."""
        return {"version_major": 2, "version_minor": 0, "model_id": self.model_id}

    def draw(self, progress: Progress) -> None:
        """Send what has changed; the countdown changes the head only."""
        board = self._dashboard
        chosen = board.chosen
        with self.hold_sync():
            self.head = drawing.heading(board.title) + drawing.phase(progress) + drawing.line(progress, live=True)
            self.buttons = _buttons(progress)
            self.search = "" if chosen is None else chosen.search
            drawn = (progress.update, drawing.state(progress), chosen)
            if drawn != self._drawn:
                self.main = drawing.body(progress, live=True, spent=board.credits(progress.update), chosen=chosen)
                self.tools = "" if chosen is None else _TOOLS
                self.rows = "" if chosen is None else board.table.html(progress.update, chosen)
            self._drawn = drawn

    def close(self) -> None:
        """Take it from the page, and free what it holds."""
        self.on_msg(self._hear, remove=True)
        if self.layout is not None:
            self.layout.close()
        super().close()

    def _hear(self, _: object, content: dict[str, Any], buffers: object) -> None:
        """Do what was pressed; whatever a page sends that is no such thing is left alone."""
        board, said = self._dashboard, str(content.get("id", ""))
        what = content.get("do")
        if what == "show":
            self.send_state()
            return
        if what == "piece":
            self._send_piece(str(content.get("of", "")), content.get("at"))
            return
        self.send({"id": said})
        if what == "file":
            self._send_file(said, str(content.get("ending")))
            return
        if what in ("start", "pause", "ask_now", "stop"):
            getattr(board, what)()
        elif (chosen := _chosen(content, board.chosen)) is not _NOTHING:
            try:
                board.choose(chosen)
            except EnrichStatusError:
                return  # of a page that shows something else by now

    def _send_file(self, said: str, ending: str) -> None:
        if ending not in _OFFERED:
            return
        board = self._dashboard
        try:
            data = gzip.compress(board.file(ending), 5)
        except (EnrichStatusError, OSError) as error:
            self.send({"id": said, "failed": f"There is no file: {reason(error)}"})
            return
        chosen = board.chosen or Choice()
        words = re.sub(r"[^\w.-]+", "-", " ".join(filter(None, [board.title, chosen.field, chosen.label])), flags=re.A)
        named = {"file": f"{words.strip('-.') or 'tasks'}{ending}", "kind": _KINDS[ending][1]}
        self._files[said] = [data[at : at + _PIECE] for at in range(0, len(data), _PIECE)], named
        for left in list(self._files)[:-_FILES]:  # of a page that was closed, mostly
            del self._files[left]
        self._send_piece(said, 0)

    def _send_piece(self, said: str, at: object) -> None:
        pieces, named = self._files.get(said, ([], {}))
        if isinstance(at, int) and 0 <= at < len(pieces):
            self.send({"id": said, "of": len(pieces), **named}, [pieces[at]])
            if at + 1 == len(pieces):
                del self._files[said]


_NOTHING = object()


def _chosen(content: dict[str, Any], chosen: Choice | None) -> Any:
    """Read what a page wants to be shown; a number that is pressed once more shows nothing any longer."""
    what, now = content.get("do"), chosen or Choice()
    try:
        if what == "select":
            label, field = content.get("label"), content.get("field")
            same = chosen is not None and (chosen.label, chosen.field) == (label, field)
            return None if same else replace(now, label=label, field=field, page=0)
        if what == "search":
            return replace(now, search=str(content.get("text", ""))[:200], page=0)
        if what == "page":
            return replace(now, page=max(int(content["page"]), 0))
        if what == "sort":
            column = max(int(content["column"]), 0)
            return replace(now, sort=column, descending=now.sort == column and not now.descending, page=0)
    except (TypeError, ValueError, KeyError):
        pass
    return _NOTHING


_TOOLS = '<input type="search" placeholder="search these rows" aria-label="search these rows">' + "".join(
    f'<button data-do="file" data-ending="{ending}">Download {_KINDS[ending][0]}</button>' for ending in _OFFERED
)


def _buttons(progress: Progress) -> str:
    """Lay out the buttons that can be pressed; of what is done there is nothing to press."""
    if progress.phase == "done":
        return ""
    running = progress.wanted == "run" and progress.phase not in OVER
    pause, start = ("Pause", "Poll no more until started again"), ("Start", "Poll until all have ended")
    every = (
        ("pause", *pause, True) if running else ("start", *start, True),
        ("ask_now", "Poll now", "Request all that has not ended, without waiting", progress.phase in _ASKED),
        ("stop", "Stop", "Give up waiting; Start goes on where it was", progress.phase not in OVER),
    )
    return "".join(
        f'<button data-do="{do}" title="{tip}"{"" if possible else " disabled"}>{text}</button>'
        for do, text, tip, possible in every
    )


_ASKED = ("ready", "waiting", "paused", "stopped")
