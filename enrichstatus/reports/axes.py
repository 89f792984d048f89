"""The axes that pictures are drawn on: as large as needed, readable on light and on dark, with text that is not a formula."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.layout_engine import ConstrainedLayoutEngine

from enrichstatus.presentation import label, plain, short

GREY = "#999999"
#: How many groups are drawn unless ``most`` is given.
MOST = 30
_WIDTH = 8.0
#: A thin line between two parts of a bar, also where their colours look alike.
EDGE: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.6}
_LEGEND: dict[str, Any] = {"frameon": False, "fontsize": "small", "handlelength": 1.4, "columnspacing": 1.2}
#: Longer names than this leave no room for the bars.
_WIDEST = 28
#: Columns whose names say less to a person than to a program.
_CALLED = {"createdBy": "who triggered them", "entityType": "type", "orgId": "organization"}


def largest(frame: pd.DataFrame, size: str, most: int | None) -> tuple[pd.DataFrame, int]:
    """Keep the largest groups, in the table's order, and say how many are left out."""
    kept = frame[size].sort_values(ascending=False, kind="stable").index[: most or MOST]
    return frame.loc[sorted(kept)], len(frame) - len(kept)


def axes_for(ax: Axes | None, lines: float, title: str, left: int, *, legend: int = 0, which: str = "largest") -> Axes:
    """Take the caller's axes, or make a figure as high as its lines need, which a notebook shows.

    Over them there is room for a legend of so many lines.
    """
    if ax is None:
        height = 1.5 + 0.34 * max(lines, 1) + 0.3 * legend
        figure, ax = pyplot.subplots(figsize=(_WIDTH, height), layout=ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1))
        if to_rgba(figure.get_facecolor())[3] < 1:
            # see-through, the text would be read on a page whose colour nobody here knows
            figure.set_facecolor("black" if is_dark() else "white")
    aside = f"\n(the {which} only; {left:,} more left out)" if left else ""
    ax.set_title(unformatted(title) + aside, loc="left", fontsize="large", pad=8 + 17 * legend)
    return ax


def name_groups(ax: Axes, rows: pd.DataFrame, by: Sequence[str]) -> None:
    """Name the horizontal bars, the first on top."""
    ax.set_yticks(np.arange(len(rows)), names_of(rows, by).tolist())
    ax.set_ylim(max(len(rows), 1) - 0.4, -0.6)
    ax.tick_params(axis="y", length=0)
    if rows.empty:
        ax.annotate("nothing to show", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")


def names_of(rows: pd.DataFrame, by: Sequence[str]) -> pd.Series[str]:
    """Name each row by its group."""
    if not by:
        return pd.Series("all", index=rows.index)
    if rows.empty:
        return pd.Series(dtype=object)
    return rows[list(by)].map(label).agg(" · ".join, axis=1).map(lambda name: short(name, _WIDEST)).map(unformatted)


def titled_by(by: Sequence[str]) -> str:
    """Name the groups in a title."""
    return f", by {' and '.join(_CALLED.get(name, name) for name in by)}" if by else ""


def unformatted(value: str) -> str:
    """Give text that matplotlib does not read as a formula."""
    return plain(str(value)).replace("$", r"\$")


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
    ax.grid(visible=True, axis=grid, color=GREY, alpha=0.35, lw=0.6)
    ax.set_axisbelow(True)
    return ax
