"""A poll's progress as HTML: for light and dark pages, readable in a saved notebook, with every text escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import Any

import pandas as pd

from enrichstatus.dashboard.chart import picture
from enrichstatus.outcomes import COUNTED, LABELS, outcome
from enrichstatus.polling.background import Progress
from enrichstatus.polling.tracker import NO_RECORD
from enrichstatus.polling.update import Update, cost, reason
from enrichstatus.presentation import duration, html_table, of_unknown_status, share, short
from enrichstatus.schema import KEY


def _name(label: str) -> str:
    """Give the class of an outcome's colour."""
    return "es-" + label.replace(" ", "-")


# Inline, because a notebook that is not trusted shows neither style sheets nor SVG.
_BAR = "display:flex;height:20px;border-radius:4px;overflow:hidden;margin:6px 0 4px"
_MARK = "display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px"

STYLE = """
.enrichstatus{font-family:var(--jp-ui-font-family,system-ui,sans-serif);font-size:13px;line-height:1.5;max-width:920px;
color:var(--jp-ui-font-color1,inherit)}
.enrichstatus .soft{opacity:.72}
.enrichstatus .big{font-size:15px;font-weight:600}
.enrichstatus .trouble{border-left:3px solid #BC3D05;padding:2px 8px;margin:4px 0}
.enrichstatus .side{display:flex;flex-wrap:wrap;gap:8px 20px;align-items:flex-start}
.enrichstatus table{border-collapse:collapse;margin:6px 0;font-variant-numeric:tabular-nums;font-size:13px}
.enrichstatus th,.enrichstatus td{padding:2px 8px;text-align:right;font-weight:400;border:0;background:none;color:inherit}
.enrichstatus thead th{font-weight:600;border-bottom:1px solid rgba(128,128,128,.5)}
.enrichstatus th[scope=row]{text-align:left;font-weight:600}
.enrichstatus caption,.enrichstatus .title{text-align:left;opacity:.72;font-size:12px;caption-side:top;padding:0}
.enrichstatus .latest{font-size:12px}
.enrichstatus .latest td{text-align:left;padding:1px 6px}
.enrichstatus ul{list-style:none;margin:0;padding:0}
"""
# for a dark page of JupyterLab or VS Code; the inline colours are those of a light page
STYLE += "".join(
    f"[data-jp-theme-light=false] .{_name(label)},.vscode-dark .{_name(label)}{{background:{outcome.dark}!important}}\n"
    for label, outcome in LABELS.items()
)


def phase(progress: Progress) -> str:
    """Show what the poll does, which a screen reader reads out when it changes."""
    update = progress.update
    left = update.total - update.settled
    said = {
        "ready": "Ready",
        "paused": "Paused",
        "stopped": "Stopped",
        "done": "Done: all are settled" if update.total else "Done: there are no tasks",
        "deadline": f"The deadline came: {left:,} have not ended",
        "failed": "Given up",
    }.get(progress.phase, "Polling")
    if progress.replaced and progress.phase == "stopped":
        said = "Replaced by a newer dashboard of these tasks"
    if said == "Polling" and progress.wanted != "run":
        said = "Polling, then pauses" if progress.wanted == "pause" else "Polling, then stops"
    return f'<div role="status" class="big">{said}</div>'


def line(progress: Progress, *, live: bool) -> str:
    """Show the numbers, and what came out or comes next; a page that is not live shows no countdown."""
    update = progress.update
    share = math.floor(100 * update.settled / update.total) if update.total else 100
    parts = [f"<b>{share} %</b>", f"{update.settled:,} of {update.total:,} settled"]
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
        parts.append("polling" if wait is None else f"polls in {duration(max(round(wait), 1))}")
    else:
        parts.append("Start goes on" if update.requests else "Start begins")
    parts.append(cost(update))
    return f"<div>{' · '.join(parts)}</div>"


def trouble(progress: Progress) -> str:
    """Show why there was no answer, and what will happen next; nothing where there was one."""
    error = progress.failure if progress.phase == "failed" else progress.update.error
    if error is None or progress.phase in ("done", "deadline"):
        return ""
    why = escape(reason(error))
    if progress.phase == "failed":
        then = "Polling again does not fix this by itself; Start tries once more."
    elif progress.phase in ("asking", "waiting"):
        then = "The poll goes on by itself; Poll now does so at once."
    else:
        then = "Start polls again."
    return f'<div class="trouble" role="alert">{"Ended" if progress.phase == "failed" else "Not answered"}: {why}<br>{then}</div>'


def strange(update: Update) -> str:
    """Show how many have a status that is unknown, and what helps; nothing where none has."""
    if not update.unknown:
        return ""
    return f'<div class="trouble">{escape(of_unknown_status(update.unknown))}</div>'


def bar(update: Update) -> str:
    """Draw what has become of the tasks as a bar of all of them, with a legend."""
    parts = _parts(update)
    whole = max(update.total, 1)
    spans = "".join(
        f'<span class="{_name(name)}" style="width:{100 * count / whole:.3f}%;height:20px;background:{LABELS[name].light}"'
        f' title="{escape(name)}: {count:,}"></span>'
        for name, count in parts.items()
        if count
    )
    legend = "".join(
        f'<span style="margin-right:14px;white-space:nowrap">{_mark(name)}{escape(name)} <b>{count:,}</b></span>'
        for name, count in parts.items()
        if count or name in ("with data", "pending")
    )
    said = escape(", ".join(f"{count:,} {name}" for name, count in parts.items() if count), quote=True)
    return (
        f'<div class="bar" style="{_BAR}" role="progressbar" aria-valuemin="0" aria-valuemax="{update.total}" '
        f'aria-valuenow="{update.settled}" aria-valuetext="{said}" aria-label="tasks that are settled">{spans}</div>'
        f"<div>{legend}</div>"
    )


def table(update: Update) -> str:
    """Lay out tasks by field and by what became of them, with the share that has data of those that ended."""
    counts = _by_outcome(update)
    if counts.empty:
        return ""
    if len(counts) > 1:
        counts.loc["all"] = counts.sum()
    ended = counts[list(COUNTED)].sum(axis=1)
    with_data = counts["with data"] / ended.where(ended > 0)
    cells = counts[[name for name in counts if counts[name].any() or name in ("with data", "pending")]].map(
        "{:,}".format
    )
    cells.insert(0, "tasks", counts.sum(axis=1).map("{:,}".format))
    cells["with data, of ended"] = with_data.map(share)
    shares = with_data.fillna(0).to_frame("with data, of ended")
    return html_table(cells, shares=shares, caption="tasks by field, and what became of them")


def changes(progress: Progress) -> str:
    """List the latest tasks that were settled."""
    names = progress.update.tracker.names
    rows = "".join(
        f'<tr><td class="soft">{when:%H:%M:%S}</td>'
        + "".join(f"<td>{cell}</td>" for cell in _change(row, names))
        + "</tr>"
        for when, row in progress.changes
    )
    if not rows:
        return ""
    return f'<div><div class="title">latest settled</div><table class="latest"><tbody>{rows}</tbody></table></div>'


def body(progress: Progress, *, live: bool) -> str:
    """Draw what changes with an update."""
    return (
        trouble(progress)
        + bar(progress.update)
        + strange(progress.update)
        + table(progress.update)
        + f'<div class="side">{picture(progress, live=live)}{changes(progress)}</div>'
    )


def page(progress: Progress) -> str:
    """Put all of it together, as it stays in a notebook that is saved."""
    return phase(progress) + line(progress, live=False) + body(progress, live=False)


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


def _mark(label: str) -> str:
    return f'<i class="{_name(label)}" style="{_MARK};background:{LABELS[label].light}"></i>'


def _change(row: dict[str, Any], names: Sequence[str]) -> list[str]:
    """Give a row's cells: by what a person knows it, else its id; its field, and what became of it."""
    status, found = (row[name] for name in names)
    # a column that only repeats the id helps nobody
    own = [
        name for name, value in row.items() if name not in names and isinstance(value, str) and value != row["entityId"]
    ]
    own = [name for name in own if name not in KEY][:2] or ["entityId"]
    became = outcome(None if pd.isna(status) else status, None if pd.isna(found) else found).label
    known = [escape(short(str(row[name]))) for name in own]
    return [*known, escape(str(row["field"])), _mark(became) + escape(became)]
