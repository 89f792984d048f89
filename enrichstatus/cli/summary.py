"""What a command shows of looked-up tasks: by field what became of them, then the first rows."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from enrichstatus.files.plain import as_text
from enrichstatus.frames.frames import to_pandas
from enrichstatus.outcomes import COUNTED, LABELS
from enrichstatus.presentation import bar, label, many, share
from enrichstatus.schema import KEY
from enrichstatus.sources.store.answering.lookup_files import Tally

#: So many rows are shown.
_HEAD = 8


def head(table: pa.Table) -> pd.DataFrame:
    """Take the rows to show."""
    return to_pandas(as_text(table.slice(0, _HEAD)))


def tally(status: pa.Table, *, prefix: str = "", bad: Sequence[int] = ()) -> pd.DataFrame:
    """Count looked-up tasks by ``field``, ``status`` and ``dataFound``, which stand under `prefix`; their number is in ``tasks``.

    ``label`` says what became of them; `bad` are the rows that are bad.
    """
    invalid, counted = np.zeros(len(status), bool), Tally()
    invalid[list(bad)] = True
    answers = status.select([prefix + "status", prefix + "dataFound"]).rename_columns(["status", "dataFound"])
    counted.add(status["field"], answers, invalid)
    return to_pandas(counted.counts())


def report(counts: pd.DataFrame, head: pd.DataFrame, *, added: Sequence[str], prefix: str = "") -> str:
    """Lay out looked-up tasks for a terminal: what became of them, with the share of the ended that has data, then the first rows.

    `counts` are those of `tally`; `head` has some rows at the least, and `added` are the answer's columns to show of it.
    """
    total = int(counts["tasks"].sum())
    if not total:
        return "0 rows"
    return f"{outcomes(counts)}\n\n{rows(head, added=added, prefix=prefix, total=total)}"


def outcomes(counts: pd.DataFrame) -> str:
    """Lay out what became of tasks by ``field`` and ``label``, with the share of the ended that has data."""
    table = _by_field(counts)
    shown = table[["tasks", *LABELS]].loc[:, lambda whole: whole.any()].map("{:,}".format)
    shown["ended"] = table["ended"].map("{:,}".format)
    drawn = table["share"].map(lambda part: f"{share(part):>7} {bar(0 if pd.isna(part) else part)}")
    shown["with data, of ended"] = drawn
    # two spaces apart: the heads have spaces of their own
    spans = {name: max(len(str(name)), int(shown[name].str.len().max())) + 1 for name in shown}
    return shown.rename_axis(index=None, columns=None).to_string(col_space=spans, line_width=columns())


def figures(counts: pd.DataFrame) -> dict[str, Any]:
    """Give a program what `outcomes` says: by field what became of the tasks, the share that has ended, and of these that with data.

    `counts` have the columns ``field``, ``label`` and ``tasks``.
    """
    table = _by_field(counts)
    ended = table["ended"] / table["tasks"].where(table["tasks"] > 0)
    shares = pd.DataFrame({"ended": ended, "with_data": table["share"]})
    named = table[list(LABELS)].rename(columns=lambda label: label.replace(" ", "_"))
    by_field = {"counts": named.to_dict(orient="index"), "shares": shares.round(6).to_dict(orient="index")}
    return {"tasks": int(table["tasks"].sum()), **by_field}


def _by_field(counts: pd.DataFrame) -> pd.DataFrame:
    """Count by field how many tasks have each label, how many have ``ended``, and of these the ``share`` with data."""
    field = counts["field"].fillna("?").astype(str)
    table = pd.crosstab(field, counts["label"], values=counts["tasks"], aggfunc="sum").fillna(0).astype("int64")
    table = table.reindex(columns=list(LABELS), fill_value=0)
    ended = table[list(COUNTED)].sum(axis=1)
    shares = table["with data"] / ended.where(ended > 0)
    return table.assign(tasks=table.sum(axis=1), ended=ended, share=shares)


def rows(head: pd.DataFrame, *, added: Sequence[str], total: int, prefix: str = "") -> str:
    """Lay out the first rows, of `total`, with the columns there is room for: the answer first, then the caller's own, then the rest."""
    own = [name for name in head.columns if name not in added and name not in KEY]
    own = own or [name for name in head.columns if name in ("entityId", "entityType")]
    cells = head[[*own, "field", *(name for name in added if name != "field")]].map(label)
    spans = {name: max(len(str(name)), int(cells[name].str.len().max())) for name in cells.columns}
    answer = ["field", *(prefix + name for name in ("status", "dataFound", "action", "reason"))]
    wanted = sorted(cells.columns, key=lambda name: (name not in answer, name not in own))
    room = accumulate(spans[name] + 1 for name in wanted)
    fitting = {name for name, used in zip(wanted, room, strict=True) if used <= columns()}
    cells = cells[[name for name in cells.columns if name in fitting]]
    unseen = [many(total - len(cells), "more row")] if total > len(cells) else []
    unseen += [many(len(wanted) - len(fitting), "more column")] if len(fitting) < len(wanted) else []
    more = "\n… " + " and ".join(unseen) if unseen else ""
    left = {name: f"{{:<{span}}}".format for name, span in spans.items()}
    lines = cells.to_string(index=False, justify="left", formatters=left).splitlines()
    return "\n".join(line.rstrip() for line in lines) + more


def columns() -> int:
    """Give the characters of a line of the terminal."""
    return shutil.get_terminal_size((100, 24)).columns
