"""What is in a store, as text for a terminal and as HTML for a notebook, light or dark."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextvars import ContextVar
from functools import partial
from html import escape
from itertools import accumulate

import pandas as pd
import pyarrow as pa

from enrichstatus.schema import KEY, PANDAS_TYPES, STATUSES, listed

#: Whether who asks shows the progress already, so that nobody below draws a bar of its own.
progress_is_shown: ContextVar[bool] = ContextVar("progress_is_shown", default=False)


def in_notebook() -> bool:
    """Tell whether there is a notebook's kernel around us, which takes what is displayed."""
    ipython = sys.modules.get("IPython")  # whoever is in one has loaded it
    shell = None if ipython is None else ipython.get_ipython()
    return getattr(shell, "kernel", None) is not None


def plain(text: str) -> str:
    """Make one line of a text that came from elsewhere, and of its signs those that a terminal does not obey."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def text(headline: str, counts: pd.DataFrame) -> str:
    """Lay out counts (``orgId``, ``field``, ``status``, ``records``) under a headline, for a fixed-width font."""
    if counts.empty:
        return f"{headline}\n{summary(counts)}"
    table = field_by_status(counts)
    body = table.to_string(formatters=dict.fromkeys(table.columns, "{:,}".format))
    return f"{headline}\n{summary(counts)}\n{body}"


def html(headline: str, counts: pd.DataFrame) -> str:
    """Lay out the same as HTML; a cell is the deeper the larger its share of the field."""
    head = f"<b>{escape(headline)}</b><br>{escape(summary(counts))}"
    if counts.empty:
        return f"<div>{head}</div>"
    table = field_by_status(counts)
    shares = table.drop(columns="total").div(table["total"], axis=0) * 0.5
    # half-transparent, so that it reads on a light page and on a dark one
    colours = shares.map("background:rgba(0,114,178,{:.2f})".format).assign(total="font-weight:bold")
    cells = table.map("{:,}".format)
    cells = "<td style='text-align:right;" + colours + "'>" + cells + "</td>"
    names = "<th scope='row' style='text-align:left'>" + cells.index.map(str).map(escape) + "</th>"
    rows = "".join("<tr>" + names + cells.agg("".join, axis=1) + "</tr>")
    heads = "".join(f"<th scope='col' style='text-align:right'>{escape(str(name))}</th>" for name in table.columns)
    return (
        f"<div>{head}<table><caption style='text-align:left;opacity:.7'>records by field and status, as recorded</caption>"
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def summary(counts: pd.DataFrame) -> str:
    """Say how many records there are, and whose."""
    organizations = counts.groupby("orgId")["records"].sum().sort_values(ascending=False).index
    whose = f" of {listed(organizations, limit=5)}" if len(organizations) else ""
    return f"{int(counts['records'].sum()):,} records{whose}"


def field_by_status(counts: pd.DataFrame) -> pd.DataFrame:
    """Count records by field (rows) and status (columns, the documented ones first), with a total."""
    table = counts.pivot_table(index="field", columns="status", values="records", aggfunc="sum", fill_value=0)
    known = [status for status in STATUSES if status in table.columns]
    table = table[known + [status for status in table.columns if status not in known]].astype("int64")
    table["total"] = table.sum(axis=1)
    return table.rename_axis(index=None, columns=None)


def tally(status: pd.DataFrame, *, prefix: str = "") -> pd.DataFrame:
    """Count looked-up tasks by ``field``, ``status`` and ``dataFound``, which stand under `prefix`; their number is in ``tasks``."""
    given = status[["field", prefix + "status", prefix + "dataFound"]].set_axis(
        ["field", "status", "dataFound"], axis=1
    )
    text = PANDAS_TYPES[pa.string()]  # the same, whatever the data: a column of nulls is no column of numbers
    typed = given.astype({"field": text, "status": text, "dataFound": "boolean"})
    return typed.groupby(list(typed.columns), dropna=False).size().rename("tasks").reset_index()


def report(
    counts: pd.DataFrame, head: pd.DataFrame, *, added: Sequence[str], prefix: str = "", width: int = 100
) -> str:
    """Lay out looked-up tasks for a terminal: by field the statuses and the share that has data, then the first rows.

    `counts` are those of `tally`; `head` has some rows at the least, and `added` are the answer's columns to show of it.
    """
    total = int(counts["tasks"].sum())
    if not total:
        return "0 rows"
    field = counts["field"].fillna("?").astype(str)
    status = counts["status"].fillna(_NO_RECORD).astype(str)
    table = pd.crosstab(field, status, values=counts["tasks"], aggfunc="sum").fillna(0).astype("int64")
    statuses = [name for name in STATUSES if name in table.columns]
    statuses += [name for name in table.columns if name not in (*STATUSES, _NO_RECORD)]
    table = table[[*statuses, *(name for name in (_NO_RECORD,) if name in table.columns)]]
    table.insert(0, "tasks", table.sum(axis=1))
    shown = table.map("{:,}".format)
    found = counts["tasks"].where(counts["dataFound"].fillna(value=False), 0)
    share = found.groupby(field).sum() / table["tasks"]
    shown["with data"] = share.map(lambda part: f"{part:4.0%} {_bar(part)}")
    first = rows(head, added=added, prefix=prefix, width=width, total=total)
    return f"{shown.rename_axis(index=None, columns=None).to_string()}\n\n{first}"


_NO_RECORD = "no record"


def rows(
    status: pd.DataFrame,
    *,
    added: Sequence[str],
    prefix: str = "",
    width: int = 100,
    most: int = 8,
    total: int | None = None,
) -> str:
    """Lay out the first rows, of `total`, with the columns there is room for: the answer first, then the caller's own, then the rest."""
    total = len(status) if total is None else total
    own = [name for name in status.columns if name not in added and name not in KEY]
    own = own or [name for name in status.columns if name in ("entityId", "entityType")]
    cells = status[[*own, "field", *(name for name in added if name != "field")]].head(most).map(_cell)
    spans = {name: max(len(str(name)), int(cells[name].str.len().max())) for name in cells.columns}
    answer = ["field", *(prefix + name for name in ("status", "dataFound", "action", "reason"))]
    wanted = sorted(cells.columns, key=lambda name: (name not in answer, name not in own))
    room = accumulate(spans[name] + 1 for name in wanted)
    fitting = {name for name, used in zip(wanted, room, strict=True) if used <= width}
    cells = cells[[name for name in cells.columns if name in fitting]]
    unseen = [f"{total - len(cells):,} more rows"] if total > len(cells) else []
    unseen += [f"{len(wanted) - len(fitting)} more columns"] if len(fitting) < len(wanted) else []
    more = "\n… " + " and ".join(unseen) if unseen else ""
    left = {name: partial(_ljust, spans[name]) for name in cells.columns}
    return cells.to_string(index=False, justify="left", formatters=left) + more


def _ljust(span: int, cell: str) -> str:
    return cell.ljust(span)


def _cell(value: object) -> str:
    """One value as short text; a name may hold anything, and a terminal obeys control characters."""
    if pd.isna(value):  # type: ignore[call-overload]  # a cell is a scalar
        return "–"
    text = value.strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, pd.Timestamp) else str(value)
    text = "".join(sign if sign.isprintable() else "�" for sign in text)
    return text if len(text) <= 36 else text[:35] + "…"


def _bar(share: float, cells: int = 10) -> str:
    full = round(share * cells)
    return "█" * full + "░" * (cells - full)
