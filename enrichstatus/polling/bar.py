"""A progress bar over the updates of a poll, whose clock goes on between two of them."""

from __future__ import annotations

import math
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from enrichstatus.polling.update import Update, reason
from enrichstatus.presentation import duration, many
from enrichstatus.progress import in_notebook, new_bar, watched

#: Seconds between two drawings.
_TICK = 0.5
#: What the bar itself takes at the least: the share, eight blocks and what is around them.
_LEAD = len("100%|") + 8 + len("| ")
#: Columns at the end of the line that stay free: a terminal echoes ^C there.
_FREE = 3
#: Which of the parts there must be room for first.
_SETTLED, _NEXT, _ERROR, _LATEST, _STATUS, _COST, _PENDING, _ELAPSED = range(8)


def follow(updates: Iterable[Update], *, shown: bool | None) -> Iterator[Update]:
    """Draw a bar of the tasks that are settled, and give the updates on; unless `shown` says, in a notebook or at a terminal."""
    with drawn(shown) as draw:
        for update in updates:
            draw(update)
            yield update


@contextmanager
def drawn(shown: bool | None) -> Iterator[Callable[[Update], object]]:
    """Draw a bar of the updates that are handed in, as `follow` does."""
    if not (watched() if shown is None else shown):
        yield lambda update: None
        return
    bar = _Bar()
    try:
        yield bar.take
    finally:
        bar.close()


class _Bar:
    """A bar on stderr or in a notebook; a thread of its own redraws it between two updates."""

    def __init__(self) -> None:
        self._update: Update | None = None
        self._since = time.monotonic()
        self._trouble: str | None = None
        self._lock, self._over = threading.Lock(), threading.Event()
        # the first update says how many tasks there are
        self._drawn: Any = new_bar(total=None, bar_format="{desc}", desc="polling")
        self._thread = threading.Thread(target=self._tick, daemon=True, name="enrichstatus-bar")
        self._thread.start()

    def take(self, update: Update) -> None:
        """Show an update from now on; where an outage begins or ends, that is a line above the bar, which stays."""
        with self._lock:
            if self._update is None:
                self._drawn.reset(update.total)
            self._update, self._since = update, time.monotonic()
            trouble = None if update.error is None else reason(update.error)
            if trouble != self._trouble and _columns() is not None:
                message = "answered again" if trouble is None else f"not answered: {trouble}"
                self._drawn.write(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr)
            self._trouble = trouble
        self._draw()

    def close(self) -> None:
        """Leave the bar as things stand, on a line of its own."""
        self._over.set()
        self._thread.join()
        self._draw()
        self._drawn.close()

    def _tick(self) -> None:
        # where the terminal is gone, no traceback is shown
        with suppress(OSError, ValueError):
            while not self._over.wait(_TICK):
                self._draw()

    def _draw(self) -> None:
        with self._lock:
            columns, update = _columns(), self._update
            self._drawn.ncols = None if columns is None else columns - _FREE
            passed = time.monotonic() - self._since
            if update is None:
                text = "nothing was answered" if self._over.is_set() else f"polling, {duration(int(passed))}"
            else:
                room = math.inf if columns is None else columns - _FREE - _LEAD
                text = status_line(update, None if self._over.is_set() else passed, room)
                # rounded down: 100 % is all
                share = 100 * update.settled // update.total if update.total else 100
                self._drawn.n = update.settled
                self._drawn.bar_format = f"{share:3d}%|{{bar}}| {{desc}}"
            self._drawn.set_description_str(text, refresh=False)
            self._drawn.refresh()


def status_line(update: Update, passed: float | None = None, room: float = math.inf) -> str:
    """Describe an update in `room` columns, `passed` seconds after it; without these it is the last one."""
    parts = _parts(update, passed, whole=room == math.inf)
    kept: set[int] = set()
    spare = 0
    for place in sorted(range(len(parts)), key=lambda place: parts[place][0]):
        rank, text = parts[place]
        # this part counts seconds: its room is fixed, or the others would come and go with it
        size = max(len(text), len("next in 59 s")) if rank == _NEXT else len(text)
        if room < size:
            break  # or more room would show less
        kept.add(place)
        room -= size + len(", ")
        spare += size - len(text)
    return ", ".join(text for place, (_, text) in enumerate(parts) if place in kept) + " " * spare


def _parts(update: Update, passed: float | None, *, whole: bool) -> list[tuple[int, str]]:
    """Give all parts of the description in the order in which they are read, each with its rank."""
    parts = [(_SETTLED, f"{update.settled:,} of {update.total:,} settled")]
    parts += [
        (_PENDING if name == "pending" else _STATUS, f"{count:,} {name}") for name, count in update.by_status().items()
    ]
    if passed is not None and update.most_in is not None and update.most_in > passed:
        what = "90 % of the rest" if whole else "most"
        parts.append((_LATEST, f"{what} in {duration(round(update.most_in - passed))}"))
    if passed is not None and update.next_in is not None:
        left = update.next_in - passed
        parts.append((_NEXT, f"next in {duration(max(round(left), 1))}" if left > 0 else "polling"))
    if update.error is not None:
        parts.append((_ERROR, f"not answered: {reason(update.error)}" if whole else "no answer"))
    parts.append((_COST, many(update.requests, "request")))
    parts.append((_ELAPSED, duration(int(update.elapsed + (passed or 0)))))
    return parts


def _columns() -> int | None:
    """Give the width of the terminal, None where there is none."""
    if in_notebook():
        return None
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return None
