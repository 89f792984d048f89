"""The axes that pictures are drawn on: as large as needed, readable on light and on dark, with text that is not a formula."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from textwrap import wrap
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.layout_engine import ConstrainedLayoutEngine

from enrichstatus.lookup.arguments import choice
from enrichstatus.outcomes import GROUPS, LABELS
from enrichstatus.presentation import label, plain, short
from enrichstatus.reports.pictures import fonts

GREY = "#999999"
#: How many groups are drawn unless ``most`` is given.
MOST = 30
#: Inches, unless the style has a width of its own.
_WIDTH = 8.0
#: What a dark page is drawn with.
DARK: dict[Any, Any] = {
    "text.color": "#E4E4E4",
    "axes.labelcolor": "#E4E4E4",
    "axes.edgecolor": "#9A9A9A",
    "axes.facecolor": "#1C1C1E",
    "figure.facecolor": "#1C1C1E",
    "savefig.facecolor": "auto",
    "xtick.color": "#E4E4E4",
    "ytick.color": "#E4E4E4",
    "hatch.color": "#1C1C1E",
}
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": "small", "handlelength": 1.4, "columnspacing": 1.2}
#: Characters of a line of a name, lines of it, and characters of it all: longer ones leave no room for the bars.
_LINE, _LINES, _WIDEST = 28, 3, 80
#: Characters of a line of a title: it begins where the bars begin, and must not leave the figure.
_TITLE = 60
#: Stands between the names of a group by several columns.
_BETWEEN = " · "
#: Columns whose names say less to a person than to a program.
_CALLED = {"createdBy": "who triggered them", "entityType": "type", "orgId": "organization"}


class Drawing(NamedTuple):
    """What is to be drawn, and how."""

    frame: pd.DataFrame
    by: Sequence[str]
    details: Mapping[str, Any]
    ax: Axes | None
    title: str | None
    most: int | None
    sort: str | None


def largest(drawing: Drawing, size: str, share: str) -> tuple[pd.DataFrame, int]:
    """Keep the largest groups, in the table's order or as the caller sorts them, and say how many are left out."""
    frame, sort = drawing.frame, drawing.sort
    kept = frame.loc[sorted(frame[size].sort_values(ascending=False, kind="stable").index[: drawing.most or MOST])]
    if sort is not None:
        columns = {"size": size, **({"share": share} if share in frame else {})}
        choice("sort", sort, (*columns, "name"))
        by = names_of(kept, drawing.by).str.casefold() if sort == "name" else -kept[columns[sort]].astype(float)
        kept = kept.loc[by.sort_values(kind="stable").index]  # what has no share comes last
    return kept, len(frame) - len(kept)


def colour_of(label: str) -> str:
    """Give an outcome's colour, on a light figure or a dark one."""
    return LABELS[label].dark if is_dark() else LABELS[label].light


def colours() -> Sequence[str]:
    """Give the colours of groups: those of the style, where it has some of its own."""
    cycle = mpl.rcParams["axes.prop_cycle"]
    return GROUPS if cycle == mpl.rcParamsDefault["axes.prop_cycle"] else cycle.by_key().get("color", GROUPS)


def edge() -> dict[str, Any]:
    """Give a thin line between two parts of a bar, also where their colours look alike, of the colour behind them."""
    return {"edgecolor": mpl.rcParams["axes.facecolor"], "linewidth": 0.6}


def axes_for(ax: Axes | None, lines: float, title: str, left: int, *, legend: int = 0, which: str = "largest") -> Axes:
    """Take the caller's axes, or make a figure as high as its lines need, which a notebook shows.

    Over them there is room for a legend of so many lines.
    """
    text = unformatted(title, lines=_LINES, width=_TITLE)
    if ax is None:
        height = 1.5 + 0.34 * max(lines, 1) + 0.3 * legend + 0.2 * text.count("\n")
        width = mpl.rcParams["figure.figsize"][0]
        width = _WIDTH if width == mpl.rcParamsDefault["figure.figsize"][0] else width
        figure, ax = pyplot.subplots(figsize=(width, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
        if to_rgba(figure.get_facecolor())[3] < 1:
            # see-through, the text would be read on a page whose colour nobody here knows
            figure.set_facecolor("black" if is_dark() else "white")
    aside = f"\n(the {which} only; {left:,} more left out)" if left else ""
    ax.set_title(text + aside, loc="left", fontsize="large", pad=8 + 17 * legend)
    return ax


def name_groups(ax: Axes, rows: pd.DataFrame, by: Sequence[str]) -> None:
    """Name the horizontal bars, the first on top."""
    ax.set_yticks(np.arange(len(rows)), _labels(rows, by))
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    if rows.empty:
        empty(ax)


def empty(ax: Axes) -> None:
    """Say that there is nothing to show."""
    ax.annotate("nothing to show", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")


def beside(ax: Axes, said: str, x: float, y: float) -> None:
    """Write something at the right of a bar that ends there."""
    ax.annotate(said, (x, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize="small")


def names_of(rows: pd.DataFrame, by: Sequence[str]) -> pd.Series[str]:
    """Name each row by its group."""
    if not by:
        return pd.Series("all", index=rows.index)
    if rows.empty:
        return pd.Series(dtype=object)
    names = rows[list(by)].map(lambda value: label(value, _WIDEST)).agg(_BETWEEN.join, axis=1)
    return names.map(lambda name: short(name, _WIDEST))


def _labels(rows: pd.DataFrame, by: Sequence[str]) -> list[str]:
    """Write the names of groups in a few lines, so that groups by several columns differ also where one of their names is long."""
    if len(by) < 2 or rows.empty:
        return [unformatted(name, lines=_LINES) for name in names_of(rows, by)]
    parts = rows[list(by)].map(lambda value: fonts.named(label(value, _WIDEST)))
    return [unformatted(_fitted(row), lines=_LINES) for row in parts.to_numpy().tolist()]


def _fitted(parts: list[str]) -> str:
    """Join the parts of a name; where they take too many lines, the longest is cut."""
    longest = max(range(len(parts)), key=lambda place: len(parts[place]))
    whole, joined = parts[longest], _BETWEEN.join(parts)
    for room in range(len(whole), 8, -1):
        joined = _BETWEEN.join([*parts[:longest], short(whole, room), *parts[longest + 1 :]])
        if len(wrap(joined, _LINE)) <= _LINES:
            break
    return joined


def lines_of(rows: pd.DataFrame, by: Sequence[str]) -> float:
    """Say how many lines the names of groups take, counted in groups of one line."""
    most = names_of(rows, by).map(lambda name: len(wrap(name, _LINE))).max() if len(rows) else 1
    return len(rows) * (1 + 0.35 * (min(int(most), _LINES) - 1))


def titled_by(by: Sequence[str]) -> str:
    """Name the groups in a title."""
    return f", by {' and '.join(_CALLED.get(name, name) for name in by)}" if by else ""


def unformatted(value: str, *, lines: int = 0, width: int = _LINE) -> str:
    """Give text that matplotlib does not read as a formula, in so many lines, with names for what no font can show."""
    text = fonts.named(plain(str(value)))
    if lines:
        text = "\n".join(wrap(text, width, max_lines=lines, placeholder="…"))
    return text.replace("$", r"\$")


def ink() -> str:
    """Give the colour in which text is written, whatever the style: it reads on the figure."""
    return str(mpl.rcParams["text.color"])


def is_dark() -> bool:
    """Report whether text is light, and so the figure dark."""
    return sum(to_rgba(ink())[:3]) > 1.5


def legend(ax: Axes, *, above: bool = True) -> None:
    """Name the colours, where they hide nothing."""
    if above:
        ax.legend(loc="lower left", bbox_to_anchor=(0, 1), borderaxespad=0.3, ncols=4, **_LEGEND)
    else:
        ax.legend(loc="center right", bbox_to_anchor=(0.88, 0.4), **_LEGEND)


def done(ax: Axes, grid: Any) -> Axes:
    """Leave out the lines that say nothing."""
    ax.spines[["top", "right"]].set_visible(False)
    own: dict[str, Any] = {} if mpl.rcParams["axes.grid"] else {"color": GREY, "alpha": 0.35, "lw": 0.6}
    ax.grid(visible=True, axis=grid, **own)
    ax.set_axisbelow(True)
    return ax
