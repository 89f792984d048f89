"""A report: a result as a table that reads well in a terminal and in a notebook, and that has a picture."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import pandas as pd

from enrichstatus.files.results import jsonable
from enrichstatus.presentation import duration, html_table, label, many, number, plain, share

if TYPE_CHECKING:
    import altair as alt
    from matplotlib.axes import Axes

#: Rows that are shown of a table; its frame has all.
_MOST = 30


@dataclass(frozen=True, repr=False, eq=False)
class Report:
    """A result: a table, a line that sums it up, and a picture.

    `coverage`, `timing`, `waste`, `reconcile` and `diff` give one.

    Attributes
    ----------
    frame : pandas.DataFrame
        The whole table; its types are the same whatever the data. Shares are from 0 to 1, durations in seconds.
    headline : str
        What it says, in a line.
    kind : str
        Which report it is, by the name of the function that made it.
    by : tuple of str
        The columns that name a row.
    units : mapping
        How a column is to be read: ``share``, ``share of ended``, ``seconds``, ``credits``, ``purchases`` or ``flag``; the others are
        counts or words. What is ``if any`` is shown only where some row has it.
    details : mapping
        What the picture needs beyond the table.

    Examples
    --------
    >>> import enrichstatus as es
    >>> status = [{"field": "emails", "status": "finished", "dataFound": True}]
    >>> report = es.coverage(status)
    >>> report
    1 of 1 ended tasks has data (100.0 %)
    field   tasks  no record  pending  ended  with data  share of ended     low     high  small
    emails      1          0        0      1          1         100.0 %  20.7 %  100.0 %  yes
    >>> report.frame["share"].tolist()
    [1.0]
    """

    frame: pd.DataFrame
    headline: str
    kind: str
    by: tuple[str, ...]
    units: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.frame)

    def to_dict(self) -> dict[str, Any]:
        """Give the same as JSON has it, for programs."""
        told = {"kind": self.kind, "headline": self.headline, "by": list(self.by), "units": dict(self.units)}
        return told | {"rows": jsonable(self.frame)}

    def plot(self, ax: Axes | None = None, **options: Any) -> Axes:
        """Draw the report with matplotlib (extra ``plot``).

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; a new figure unless given.
        **options
            For `coverage` ``kind``: ``"share"`` (default) draws the shares with data and their intervals, ``"status"`` what became
            of the tasks. For all ``title``; ``most``: how many groups are drawn, the largest; ``sort``: ``"share"``, ``"size"`` or
            ``"name"``, else as the table is; ``dark``: for a dark page. Anything else is as matplotlib's style has it.

        Returns
        -------
        matplotlib Axes
            What was drawn on, to be changed at will; ``.figure.savefig("report.png")`` saves it.

        Raises
        ------
        ImportError
            There is no matplotlib; the message says what to install.
        ValidationError
            There is no such picture.
        """
        try:
            import matplotlib  # noqa: F401  imported here, or a fault of our own would look like its absence
        except ImportError as error:
            raise ImportError('Pictures need the extra "plot": pip install "enrichstatus[plot]"') from error
        from enrichstatus.reports.pictures import plots

        return plots.draw(self.kind, self.frame, self.by, self.details, ax, **options)

    def chart(self) -> alt.TopLevelMixin:
        """Make the same an interactive chart with Altair (extra ``charts``).

        Under the pointer it shows the numbers, with their interval where there is one. A click filters: on a group what became of its
        tasks, on a name of the legend the rest.

        Returns
        -------
        altair.Chart
            To be shown, changed or saved: ``.save("chart.html")``.

        Raises
        ------
        ImportError
            There is no Altair; the message says what to install.
        """
        try:
            import altair  # noqa: F401  imported here, or a fault of our own would look like its absence
        except ImportError as error:
            raise ImportError('Charts need the extra "charts": pip install "enrichstatus[charts]"') from error
        from enrichstatus.reports.pictures import charts

        found: alt.TopLevelMixin = charts.chart(self.kind, self.frame, self.by, self.details)
        return found

    def __repr__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """Lay out the headline and the table, with no more columns than there is room for.

        Parameters
        ----------
        width : int, optional
            The characters of a line; any number unless given.

        Returns
        -------
        str
            The first rows; what is left out is said below them, and stands in ``.frame``.
        """
        said = plain(self.headline)
        head = "\n".join(wrap(said, width, break_long_words=False, break_on_hyphens=False)) if width else said
        if self.frame.empty:
            said = f"(no rows: {', '.join(map(plain, self.frame.columns))})"
            return "\n".join([head, *(wrap(said, width) if width else [said])])
        padded: list[pd.Series[str]] = []
        columns = self._columns()
        used = -2
        for name, cells, is_number in columns:
            column = pd.concat([pd.Series([name]), cells])
            span = int(column.str.len().max())
            used += span + 2
            if width and used > width and padded:
                break
            padded.append(column.str.rjust(span) if is_number else column.str.ljust(span))
        lines = [line.rstrip() for line in pd.concat(padded, axis=1, keys=range(len(padded))).agg("  ".join, axis=1)]
        return "\n".join([head, *lines, *self._more(len(columns) - len(padded))])

    def _repr_html_(self) -> str:
        """Lay out the same for a notebook, light or dark."""
        columns = self._columns()
        cells = pd.concat([cells for _, cells, _ in columns], axis=1, keys=[name for name, _, _ in columns])
        shares = self.frame.head(_MOST).filter(regex="^share").fillna(0).rename(columns={"share": "share of ended"})
        table = html_table(cells, shares=shares, left=[name for name, _, number in columns if not number], index=False)
        more = "".join(f"<div style='opacity:.7'>{escape(line)}</div>" for line in self._more())
        return f"<div><b>{escape(plain(self.headline))}</b>{table}{more}</div>"

    def _more(self, columns: int = 0) -> list[str]:
        rows = len(self.frame) - _MOST
        unseen = [many(count, what) for count, what in ((rows, "more row"), (columns, "more column")) if count > 0]
        return [f"… and {' and '.join(unseen)} in .frame"] if unseen else []

    def _columns(self) -> list[tuple[str, pd.Series[str], bool]]:
        """Give the first rows as text that neither a terminal obeys nor anybody has to count digits of, column by column."""
        head = self.frame.head(_MOST).reset_index(drop=True)
        # a flag that no row has says nothing, nor does a number that is zero in all
        marks = [name for name, unit in self.units.items() if unit in ("flag", "if any", "credits if any")]
        head = head.drop(columns=[name for name in marks if not self.frame[name].any()])
        words: dict[str, Callable[[Any], str]] = {"share": share, "share of ended": share, "seconds": duration}
        words |= {"credits": number, "flag": lambda value: "yes" if value else ""}
        numbers = set(head.select_dtypes("number").columns) - set(self.by)
        how = {name: words.get(self.units.get(name, ""), number if name in numbers else label) for name in head.columns}
        # whatever is a share says of what
        heads = {name: "share of ended" for name, unit in self.units.items() if unit == "share of ended"}
        return [
            (plain(heads.get(name, name)), head[name].map(how[name]).astype(object), name in numbers)
            for name in head.columns
        ]
