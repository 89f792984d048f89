"""What is in a store, as text for a terminal and as HTML for a notebook, light or dark."""

from __future__ import annotations

from html import escape

import pandas as pd

from enrichstatus.schema import STATUSES, listed


def text(headline: str, counts: pd.DataFrame) -> str:
    """Lay out counts (``orgId``, ``field``, ``status``, ``records``) under a headline, for a fixed-width font."""
    if counts.empty:
        return f"{headline}\n{summary(counts)}"
    table = field_by_status(counts)
    body = table.to_string(formatters={name: "{:,}".format for name in table.columns})
    return f"{headline}\n{summary(counts)}\n{body}"


def html(headline: str, counts: pd.DataFrame) -> str:
    """Lay out the same as HTML; a cell is the deeper the larger its share of the field."""
    head = f"<b>{escape(headline)}</b><br>{escape(summary(counts))}"
    if counts.empty:
        return f"<div>{head}</div>"
    table = field_by_status(counts)
    shares = table.div(table["total"], axis=0)
    rows = "".join(
        f"<tr><th scope='row' style='text-align:left'>{escape(str(field))}</th>"
        + "".join(
            # half-transparent, so that it reads on a light page and on a dark one
            f"<td style='text-align:right;background:rgba(0,114,178,{0.45 * shares.loc[field, status]:.2f})'>{count:,}</td>"
            if status != "total"
            else f"<td style='text-align:right'><b>{count:,}</b></td>"
            for status, count in row.items()
        )
        + "</tr>"
        for field, row in table.iterrows()
    )
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
