"""A poll's progress as HTML: for light and dark pages, readable in a saved notebook, with every text escaped."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from enrichstatus.dashboard.chart import picture
from enrichstatus.errors import PartialLookupError, ServiceError, StoreError, UnauthorizedError, ValidationError
from enrichstatus.outcomes import COUNTED, LABELS, outcome
from enrichstatus.polling.background import Progress
from enrichstatus.polling.tracker import NO_RECORD, PENDING
from enrichstatus.polling.update import Update, cost, reason
from enrichstatus.presentation import duration, html_table, number, of_unknown_status, share, short, unchanged
from enrichstatus.schema import KEY

if TYPE_CHECKING:
    from enrichstatus.dashboard.selection import Choice


def _name(label: str) -> str:
    """Give the class of an outcome's colour."""
    return "es-" + label.replace(" ", "-")


# Inline, because a notebook that is not trusted shows neither style sheets nor SVG.
_BAR = "display:flex;height:20px;border-radius:4px;overflow:hidden;margin:6px 0 4px"
_MARK = "display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px"

STYLE = """
.enrichstatus{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.5;max-width:1100px;
color:var(--jp-ui-font-color1,inherit)}
.enrichstatus .soft{opacity:.72}
.enrichstatus .big{font-size:15px;font-weight:600}
.enrichstatus .heading{font-size:17px;font-weight:600;margin:0 0 2px}
.enrichstatus .bad{color:#BC3D05}
[data-jp-theme-light=false] .enrichstatus .bad,.vscode-dark .enrichstatus .bad,.dark .enrichstatus .bad{color:#FF9068}
.enrichstatus .wide{overflow-x:auto;max-width:100%}
.enrichstatus button{font:inherit;color:inherit;background:rgba(128,128,128,.14);border:1px solid rgba(128,128,128,.45);border-radius:4px;
padding:2px 12px;margin:0 6px 0 0;cursor:pointer}
.enrichstatus button:hover{background:rgba(128,128,128,.3)}
.enrichstatus button:disabled{opacity:.45;cursor:default}
.enrichstatus button.cell{background:none;border-color:transparent;padding:0 4px;margin:0 -4px;border-radius:3px}
.enrichstatus button.cell[data-do=select]{text-decoration:underline dotted rgba(128,128,128,.9);text-underline-offset:3px}
.enrichstatus button.cell:hover{text-decoration:underline;background:rgba(128,128,128,.2)}
.enrichstatus button.cell[aria-pressed=true]{background:rgba(0,120,212,.25);border-color:rgba(0,120,212,.9)}
.enrichstatus button:focus-visible,.enrichstatus input:focus-visible{outline:2px solid rgba(0,120,212,.9);outline-offset:1px}
.enrichstatus input{font:inherit;color:inherit;background:transparent;border:1px solid rgba(128,128,128,.6);border-radius:4px;
padding:2px 8px;margin:0 8px 4px 0;min-width:180px}
.enrichstatus .trouble{border-left:3px solid #BC3D05;padding:2px 8px;margin:4px 0}
.enrichstatus .side{display:flex;flex-wrap:wrap;gap:8px 20px;align-items:flex-start}
.enrichstatus table{border-collapse:collapse;margin:6px 0;font-variant-numeric:tabular-nums;font-size:13px}
.enrichstatus th,.enrichstatus td{padding:2px 8px;text-align:right;font-weight:400;border:0;background:none;color:inherit}
.enrichstatus thead th{font-weight:600;border-bottom:1px solid rgba(128,128,128,.5)}
.enrichstatus th[scope=row]{text-align:left;font-weight:600}
.enrichstatus caption,.enrichstatus .title{text-align:left;opacity:.72;font-size:12px;caption-side:top;padding:0}
.enrichstatus .latest{font-size:12px}
.enrichstatus .latest td,.enrichstatus .latest th{text-align:left;padding:1px 6px;white-space:nowrap}
.enrichstatus ul{list-style:none;margin:0;padding:0}
"""
# for a dark page of JupyterLab or VS Code; the inline colours are those of a light page
STYLE += "".join(
    f"[data-jp-theme-light=false] .{_name(label)},.vscode-dark .{_name(label)},.dark .{_name(label)}"
    f"{{background:{outcome.dark}!important}}\n"
    for label, outcome in LABELS.items()
)


def state(progress: Progress) -> str:
    """Say in a few words what the poll does, or why it does nothing."""
    update, error = progress.update, progress.update.error
    phase, left = progress.phase, progress.update.total - progress.update.settled
    if phase == "failed":
        return _refusal(progress.failure)
    if phase == "stopped" and progress.replaced:
        return "Replaced by a newer dashboard of these tasks"
    if phase == "done" and not update.total:
        return "Nothing to do: there are no tasks"
    if phase == "done" and not update.requests and progress.answered is None:
        return "Nothing to do: all had been settled before"
    if phase in _STATES:
        return _STATES[phase].format(left=left)
    if progress.wanted != "run":
        return "Polling, then pauses" if progress.wanted == "pause" else "Polling, then stops"
    if error is None:
        return "Polling"
    if isinstance(error, PartialLookupError):
        return "Polling; a part was not answered"
    if getattr(error, "http_status", None) == 429:
        return "Waiting: the service wants no requests for now"
    return "The service does not answer; the poll goes on"


_STATES = {
    "ready": "Ready",
    "paused": "Paused",
    "stopped": "Stopped",
    "done": "Done: all are settled",
    "deadline": "The deadline came: {left:,} have not ended",
}


def _refusal(error: Exception | None) -> str:
    """Say why a poll was given up."""
    kinds = (
        (UnauthorizedError, "The token was refused"),
        (ValidationError, "The request was refused"),
        (StoreError, "The store cannot be used"),
        (ServiceError, "Given up: the service does not answer"),
    )
    return next((said for kind, said in kinds if isinstance(error, kind)), "Given up")


def phase(progress: Progress) -> str:
    """Show what the poll does, which a screen reader reads out when it changes."""
    troubled = progress.phase in ("asking", "waiting") and progress.update.error
    bad = troubled or progress.phase in ("failed", "deadline")
    return f'<div role="status" class="big{" bad" if bad else ""}">{escape(state(progress))}</div>'


def line(progress: Progress, *, live: bool, now: datetime | None = None) -> str:
    """Show the numbers, and what came out or comes next; a page that is not live shows no countdown."""
    update = progress.update
    now = now or datetime.now().astimezone()
    share = math.floor(100 * update.settled / update.total) if update.total else 100
    parts = [f"<b>{share} %</b>", f"{update.settled:,} of {update.total:,} settled"]
    if progress.phase == "done":
        came = ", ".join(f"{count:,} {name}" for name, count in _parts(update).items() if count)
        parts = [f"<b>{escape(came)}</b>"] if came else []
        parts.append(f"{update.total:,} tasks in {duration(update.elapsed)}")
    elif progress.phase in ("asking", "waiting"):
        parts += _ahead(progress, now) if live else [_end(update, now)]
    elif live:
        parts.append("Start goes on" if update.requests else "Start begins")
    if update.requests or progress.phase != "failed":  # one that was refused at once is not counted
        parts.append(cost(update))
    return f'<div>{" · ".join(filter(None, parts))}</div><div class="soft">{" · ".join(_times(progress, now, live=live))}</div>'


def _ahead(progress: Progress, now: datetime) -> list[str]:
    """Say what is waited for: the next request, and when the tasks are expected to have ended."""
    update, wait = progress.update, progress.next_in
    asks = "a request is under way" if wait is None else f"next request in {duration(max(round(wait), 1))}"
    half = "" if update.half_in is None else f"half of the rest expected to end in {duration(round(update.half_in))}"
    return [half, _end(update, now), asks]


def _end(update: Update, now: datetime) -> str:
    """Say when nine of ten of the rest are expected to have ended, by the clock."""
    if update.most_in is None:
        return ""
    return f"90 % in {duration(round(update.most_in))}, at about {_clock(now + timedelta(seconds=update.most_in), now)}"


def _times(progress: Progress, now: datetime, *, live: bool) -> list[str]:
    """Say for how long it has been going on, when it was answered, and that it goes on unseen; of a still, from when it is."""
    parts = []
    if progress.elapsed and progress.phase != "done":
        parts.append(f"{duration(int(progress.elapsed) if live else progress.update.elapsed)} since it began")
    if progress.answered:
        parts.append(f"last answer at {_clock(progress.answered, now, seconds=True)}")
    if not live:
        parts.append(f"as of {now:%Y-%m-%d %H:%M:%S %Z}")
    elif progress.blocked:
        parts.append(
            "<b>a cell waits for this, so the buttons are heard when it has ended; interrupt the kernel to stop</b>"
        )
    elif progress.phase in ("asking", "waiting"):
        parts.append("goes on when this output is closed, until Stop or es.stop_all()")
    return parts


def _clock(moment: datetime, now: datetime, *, seconds: bool = False) -> str:
    """Write a time of day, with its day where that is another."""
    day = "" if moment.date() == now.date() else "%Y-%m-%d "
    return moment.strftime(f"{day}%H:%M{':%S' if seconds else ''}")


def heading(title: str) -> str:
    """Show the caller's title."""
    return f'<div class="heading">{escape(title)}</div>' if title else ""


def trouble(progress: Progress, *, live: bool = True) -> str:
    """Show why there was no answer, and what will happen next; nothing where there was one."""
    error = progress.failure if progress.phase == "failed" else progress.update.error
    if error is None or progress.phase in ("done", "deadline"):
        return ""
    why = escape(reason(error))
    start = "Start" if live else "start()"
    if progress.phase == "failed":
        then = f"Polling again does not fix this by itself; {start} tries once more."
    elif progress.phase in ("asking", "waiting"):
        then = f"The poll goes on by itself; {'Poll now' if live else 'ask_now()'} does so at once."
    else:
        then = f"{start} polls again."
    return f'<div class="trouble" role="alert">{"Ended" if progress.phase == "failed" else "Not answered"}: {why}<br>{then}</div>'


def strange(update: Update) -> str:
    """Show how many have a status that is unknown, and what helps; nothing where none has."""
    if not update.unknown:
        return ""
    return f'<div class="trouble">{escape(of_unknown_status(update.unknown))}</div>'


def bar(update: Update, *, chosen: Choice | None = None, live: bool = False) -> str:
    """Draw what has become of the tasks as a bar of all of them, with a legend, in which live each outcome is a button."""
    parts = _parts(update)
    if not update.total:
        return ""
    spans = "".join(
        f'<span class="{_name(name)}" style="width:{100 * count / update.total:.3f}%;height:20px;background:{LABELS[name].light}"'
        f' title="{escape(name)}: {count:,}"></span>'
        for name, count in parts.items()
        if count
    )
    legend = "".join(
        f'<span style="margin-right:14px;white-space:nowrap">{_button(inner, name, None, count, chosen) if live else inner}</span>'
        for name, count in parts.items()
        if count or name in _always(update)
        for inner in [f"{mark(name)}{escape(name)} <b>{count:,}</b>"]
    )
    said = escape(", ".join(f"{count:,} {name}" for name, count in parts.items() if count), quote=True)
    return (
        f'<div class="bar" style="{_BAR}" role="progressbar" aria-valuemin="0" aria-valuemax="{update.total}" '
        f'aria-valuenow="{update.settled}" aria-valuetext="{said}" aria-label="tasks that are settled">{spans}</div>'
        f"<div>{legend}</div>"
    )


def _always(update: Update) -> tuple[str, ...]:
    """Name the outcomes that are shown when no task has them, too: of a poll that is over none is pending any longer."""
    return ("with data",) if update.done else ("with data", "pending")


def absent(update: Update) -> str:
    """Show how many of the pending tasks have no record, which may have been bought just now, or never."""
    known = update.tracker
    count = int(np.append((known.status == PENDING) & ~known.recorded, False)[known.places].sum())
    if not count:
        return ""
    wait = duration(update.course.missing_after)
    return (
        f'<div class="soft">{count:,} of the pending {"has" if count == 1 else "have"} no record yet: bought just now, or never. '
        f"The poll waits {wait} for a record.</div>"
    )


def _button(inner: str, label: str | None, field: str | None, count: int, chosen: Choice | None) -> str:
    """Make a button that shows the rows behind a number; pressed again, it hides them."""
    if not count:
        return inner
    pressed = chosen is not None and (chosen.label, chosen.field) == (label, field)
    named = "".join(
        f' data-{name}="{escape(value, quote=True)}"' for name, value in (("label", label), ("field", field)) if value
    )
    said = escape(f"show {' '.join(filter(None, [field, label])) or 'all tasks'}", quote=True)
    return f'<button class="cell" data-do="select"{named} aria-pressed="{str(pressed).lower()}" title="{said}">{inner}</button>'


def table(
    update: Update, *, spent: Mapping[str, float] | None = None, chosen: Choice | None = None, live: bool = False
) -> str:
    """Lay out tasks by field and by what became of them, with the share that has data of those that ended, and with the credits."""
    counts = _by_outcome(update)
    if counts.empty:
        return ""
    if len(counts) > 1:
        counts.loc["all"] = counts.sum()
    ended = counts[list(COUNTED)].sum(axis=1)
    with_data = counts["with data"] / ended.where(ended > 0)
    numbers = counts[[name for name in counts if counts[name].any() or name in _always(update)]].copy()
    numbers.insert(0, "tasks", counts.sum(axis=1))
    cells = numbers.map("{:,}".format)
    cells["with data, of ended"] = with_data.map(share)
    shares = with_data.fillna(0).to_frame("with data, of ended")
    if spent and any(spent.values()):
        sums = {"tasks": sum(spent.values()), **spent}
        cells.loc["credits"] = [number(sums[name]) if sums.get(name) else "" for name in map(str, cells)]
        shares.loc["credits"] = 0.0

    def pressable(row: str, column: str, inner: str) -> str:
        if row not in numbers.index or column not in numbers:
            return inner
        field = None if row == "all" and row not in update.tracker.fields else row
        count = int(numbers[column][row])
        if column == "tasks" and field is None and count < update.total:
            return inner  # bad rows have no field
        return _button(inner, None if column == "tasks" else column, field, count, chosen)

    caption = "tasks by field, and what became of them"
    drawn = html_table(cells, shares=shares, caption=caption, around=pressable if live else unchanged)
    return f'<div class="fields" style="overflow-x:auto">{drawn}</div>'


def changes(progress: Progress) -> str:
    """List the latest tasks that were settled."""
    names = progress.update.tracker.names
    rows = "".join(
        f'<tr><td class="soft">{when:%H:%M:%S}</td>'
        + "".join(f"<td>{cell}</td>" for cell in _change(row, label, names))
        + "</tr>"
        for when, row, label in progress.changes
    )
    if not rows:
        return ""
    table = f'<div class="fields" style="overflow-x:auto"><table class="latest"><tbody>{rows}</tbody></table></div>'
    return f'<div style="min-width:0;max-width:100%"><div class="title">latest settled</div>{table}</div>'


def body(
    progress: Progress, *, live: bool, spent: Mapping[str, float] | None = None, chosen: Choice | None = None
) -> str:
    """Draw what changes with an update."""
    return (
        trouble(progress, live=live)
        + bar(progress.update, chosen=chosen, live=live)
        + absent(progress.update)
        + strange(progress.update)
        + table(progress.update, spent=spent, chosen=chosen, live=live)
        + f'<div class="side">{picture(progress, live=live)}{changes(progress)}</div>'
    )


def page(progress: Progress, *, title: str = "", spent: Mapping[str, float] | None = None) -> str:
    """Put all of it together, as it stays in a notebook that is saved."""
    return heading(title) + phase(progress) + line(progress, live=False) + body(progress, live=False, spent=spent)


def frame(inner: str, *, extra: str = "", style: str = "") -> str:
    """Put something into the box that the style is for; `extra` is a class of its own."""
    return f'<style>{STYLE}{style}</style><div class="enrichstatus {extra}">{inner}</div>'


def _by_outcome(update: Update) -> pd.DataFrame:
    """Count tasks by field (rows) and by what can have become of them (columns)."""
    known = update.tracker
    labels = [
        outcome(None if code == NO_RECORD else word, data).label
        for code, word in enumerate(known.vocabulary)
        for data in (None, False, True)
    ]
    counts = update.tally.reshape(len(known.fields), len(labels))
    table = pd.DataFrame(counts.T, index=labels, columns=known.fields).groupby(level=0).sum()
    return table.reindex(list(LABELS), fill_value=0).T.astype("int64")


def _parts(update: Update) -> dict[str, int]:
    sums = {str(name): int(count) for name, count in _by_outcome(update).sum().items()}
    # a row that cannot be requested has neither field nor status
    return sums | {"bad row": update.total - sum(sums.values())}


def mark(label: str) -> str:
    """Draw an outcome's colour."""
    return f'<i class="{_name(label)}" style="{_MARK};background:{LABELS[label].light}"></i>'


def _change(row: dict[str, Any], label: str, names: Collection[str]) -> list[str]:
    """Give a row's cells: by what a person knows it, else its id; its field, and what became of it."""
    # a column that only repeats the id helps nobody
    texts = [name for name, value in row.items() if isinstance(value, str) and value != row["entityId"]]
    own = [name for name in texts if name not in names and name not in KEY][:2] or ["entityId"]
    known = [escape(short(str(row[name]))) for name in own]
    return [*known, escape(str(row["field"])), mark(label) + escape(label)]
