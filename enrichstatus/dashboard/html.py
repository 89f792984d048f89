"""How a poll stands, as HTML: for a page that is light or dark, that may be saved, and that obeys nothing it is shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from enrichstatus.dashboard.chart import picture
from enrichstatus.polling.background import Progress
from enrichstatus.polling.update import Update, cost, reason
from enrichstatus.presentation import duration, html_table, share, short
from enrichstatus.schema import KEY

#: What can have become of a task, in the order in which it is drawn, in colours that the colour-blind tell apart (Okabe and Ito).
_COLOURS = {
    "with data": "#009E73",
    "no data": "#56B4E9",
    "failed": "#D55E00",
    "timeout": "#E69F00",
    "no record": "#CC79A7",
    "bad row": "#F0E442",
    "pending": "rgba(128,128,128,.35)",
}
#: A status that the contract does not have.
_OTHER = "#0072B2"

# Without the style sheet, and without pictures drawn in the page: that is what is left of a saved notebook where it is not trusted.
_BAR = "display:flex;height:20px;border-radius:4px;overflow:hidden;margin:6px 0 4px"
_MARK = "display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px"

STYLE = """
.enrichstatus{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.5;max-width:920px;
color:var(--jp-ui-font-color1,inherit)}
.enrichstatus .soft{opacity:.72}
.enrichstatus .big{font-size:15px;font-weight:600}
.enrichstatus .trouble{border-left:3px solid #D55E00;padding:2px 8px;margin:4px 0}
.enrichstatus .side{display:flex;flex-wrap:wrap;gap:8px 20px;align-items:flex-start}
.enrichstatus table{border-collapse:collapse;margin:6px 0;font-variant-numeric:tabular-nums;font-size:13px}
.enrichstatus th,.enrichstatus td{padding:2px 8px;text-align:right;font-weight:400;border:0;background:none;color:inherit}
.enrichstatus thead th{font-weight:600;border-bottom:1px solid rgba(128,128,128,.5)}
.enrichstatus th[scope=row]{text-align:left;font-weight:600}
.enrichstatus caption,.enrichstatus .title{text-align:left;opacity:.72;font-size:12px;caption-side:top;padding:0}
.enrichstatus .latest{font-size:12px}
.enrichstatus .latest td{text-align:left;padding:1px 6px}
.enrichstatus ul{list-style:none;margin:0;padding:0}
.enrichstatus summary{cursor:pointer}
"""


def phase(progress: Progress) -> str:
    """Say what it does: what a screen reader says when it changes."""
    update = progress.update
    left = update.total - update.ended
    said = {
        "ready": "Ready",
        "paused": "Paused",
        "stopped": "Stopped",
        "done": "Done: all have ended" if update.total else "Done: there are no tasks",
        "deadline": f"The deadline came: {left:,} still pending",
        "failed": "Given up",
    }.get(progress.phase, "Polling")
    if said == "Polling" and progress.wanted != "run":
        said = "Polling, then pauses" if progress.wanted == "pause" else "Polling, then stops"
    return f'<div role="status" class="big">{said}</div>'


def line(progress: Progress, *, live: bool) -> str:
    """Say in numbers how it stands, and what came out or comes next; a page that does not live on tells no countdown."""
    update = progress.update
    share = math.floor(100 * update.ended / update.total) if update.total else 100
    parts = [f"<b>{share} %</b>", f"{update.ended:,} of {update.total:,} ended"]
    if progress.phase == "done":
        came = {name: count for name, count in _parts(update).items() if count}
        parts = (
            ["<b>" + escape(", ".join(f"{count:,} {name}" for name, count in came.items())) + "</b>"] if came else []
        )
        parts.append(f"{update.total:,} tasks in {duration(update.elapsed)}")
    elif not live:
        pass
    elif progress.phase in ("asking", "waiting"):
        if update.half_in is not None:
            most = "" if update.most_in is None else f", 90 % in {duration(round(update.most_in))}"
            parts.append(f"half of the rest in {duration(round(update.half_in))}{most}")
        wait = progress.next_in
        parts.append("asking" if wait is None else f"asks in {duration(max(round(wait), 1))}")
    else:
        parts.append("Start goes on" if update.requests else "Start begins")
    parts.append(cost(update))
    return f"<div>{' · '.join(parts)}</div>"


def trouble(progress: Progress) -> str:
    """Say why there was no answer, and what will happen next; nothing where there was one."""
    error = progress.failure if progress.phase == "failed" else progress.update.error
    if error is None or progress.phase in ("done", "deadline"):
        return ""
    why = escape(reason(error))
    if progress.phase == "failed":
        then = "Asking again does not fix this by itself; Start tries once more."
    elif progress.phase in ("asking", "waiting"):
        then = "The poll goes on and asks again by itself; Ask now does so at once."
    else:
        then = "Start asks again."
    return f'<div class="trouble" role="alert">{"Ended" if progress.phase == "failed" else "Not answered"}: {why}<br>{then}</div>'


def bar(update: Update) -> str:
    """Draw what has become of the tasks as a bar of all of them, with a legend."""
    parts = _parts(update)
    whole = max(update.total, 1)
    spans = "".join(
        f'<span style="width:{100 * count / whole:.3f}%;height:20px;background:{_colour(name)}" title="{escape(name)}: {count:,}"></span>'
        for name, count in parts.items()
        if count
    )
    legend = "".join(
        f'<span style="margin-right:14px;white-space:nowrap">{_mark(name)}{escape(name)} <b>{count:,}</b>'
        f' <span class="soft">{share(count / whole)}</span></span>'
        for name, count in parts.items()
        if count or name in ("with data", "pending")
    )
    said = escape(", ".join(f"{count:,} {name}" for name, count in parts.items() if count), quote=True)
    return (
        f'<div class="bar" style="{_BAR}" role="progressbar" aria-valuemin="0" aria-valuemax="{update.total}" '
        f'aria-valuenow="{update.ended}" aria-valuetext="{said}" aria-label="tasks that have ended">{spans}</div>'
        f"<div>{legend}</div>"
    )


def table(update: Update) -> str:
    """Lay out tasks by field and by what became of them, each number with its share of the field."""
    counts = _by_status(update.counts)
    if counts.empty:
        return ""
    if len(counts) > 1:
        counts.loc["all"] = counts.sum()
    shown = counts[[name for name in counts.columns if counts[name].any() or name in ("with data", "pending")]]
    tasks = counts.sum(axis=1)
    shares = shown.div(tasks.clip(lower=1), axis=0)
    cells = shown.map("{:,}".format)
    cells = cells.where(shown == 0, cells + " · " + shares.map(share))
    cells.insert(0, "tasks", tasks.map("{:,}".format))
    return html_table(cells, shares=shares, caption="tasks by field, and what became of them")


def changes(progress: Progress) -> str:
    """List the latest tasks that have ended."""
    names = progress.update.state.names
    rows = "".join(
        f'<tr><td class="soft">{when:%H:%M:%S}</td>'
        + "".join(f"<td>{cell}</td>" for cell in _change(row, names))
        + "</tr>"
        for when, row in progress.changes
    )
    if not rows:
        return ""
    return f'<div><div class="title">latest to end</div><table class="latest"><tbody>{rows}</tbody></table></div>'


def body(progress: Progress, *, live: bool) -> str:
    """Draw what changes with an update."""
    return (
        trouble(progress)
        + bar(progress.update)
        + table(progress.update)
        + f'<div class="side">{picture(progress, live=live)}{changes(progress)}</div>'
    )


def page(progress: Progress) -> str:
    """Put all of it together, as it stays in a notebook that is saved."""
    return phase(progress) + line(progress, live=False) + body(progress, live=False)


def frame(inner: str, *, extra: str = "", style: str = "") -> str:
    """Put something into the box that the style is for; `extra` is a class of its own."""
    return f'<style>{STYLE}{style}</style><div class="enrichstatus {extra}">{inner}</div>'


def _by_status(counts: pd.DataFrame) -> pd.DataFrame:
    """Give counts by what can have become of a task: a finished one came with data or without."""
    finished = counts["finished"]
    data = np.minimum(counts["with data"], finished)
    told = counts.drop(columns=["tasks", "ended", "finished", "with data"])
    told.insert(0, "with data", data)
    told.insert(1, "no data", finished - data)
    rank = {name: place for place, name in enumerate(_COLOURS)}
    # one that nobody knows stands before those that are still to come
    return told[sorted(told.columns, key=lambda name: rank.get(str(name), rank["bad row"]))]


def _parts(update: Update) -> dict[str, int]:
    sums = _by_status(update.counts).sum()
    parts = {str(name): int(count) for name, count in sums.items()}
    pending = parts.pop("pending")
    # a row that cannot be asked has neither field nor status
    return {**parts, "bad row": update.total - pending - sum(parts.values()), "pending": pending}


def _colour(name: str) -> str:
    return _COLOURS.get(name, _OTHER)


def _mark(name: str) -> str:
    return f'<i style="{_MARK};background:{_colour(name)}"></i>'


def _change(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Give a row's cells: by what a person knows it, else its id; its field, and what became of it."""
    status, found = (row[name] for name in names)
    # what says no more than the id, does not say more to a person
    own = [
        name for name, value in row.items() if name not in names and isinstance(value, str) and value != row["entityId"]
    ]
    own = [name for name in own if name not in KEY][:2] or ["entityId"]
    became = "no record" if pd.isna(status) else status
    if status == "finished":
        became = "with data" if found is not pd.NA and found else "no data"
    told = [escape(short(str(row[name]))) for name in own]
    return [*told, escape(str(row["field"])), _mark(became) + escape(became)]
