"""Values in words, for people: one way to write a share, a duration, a number or a name, and one way to lay out a table as HTML."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from html import escape
from typing import Any

import pandas as pd

from enrichstatus.schema import listed

#: Longer texts are cut off.
LONGEST = 36
#: What stands where there is no value.
NONE = "–"
#: Seconds of each unit, with its name and the next smaller unit.
_UNITS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s"))


def share(value: Any) -> str:
    """Write a share as a percentage: all of it only where it is all, and none only where it is none."""
    if pd.isna(value):
        return NONE
    if 0 < value < 0.0005:
        return "<0.1 %"
    return ">99.9 %" if 0.9995 <= value < 1 else f"{100 * value:.1f} %"


def duration(seconds: Any) -> str:
    """Write a duration in its two largest units, and a short one to the tenth of a second."""
    if pd.isna(seconds):
        return NONE
    whole = round(seconds)
    if whole < 100:
        return f"{seconds:.1f}".removesuffix(".0") + " s" if 0 < seconds < 9.95 else f"{whole} s"
    size, unit, part, name = next(row for row in _UNITS if whole >= row[0])
    more = whole % size // part
    return f"{whole // size} {unit} {more} {name}" if more else f"{whole // size} {unit}"


def number(value: Any) -> str:
    """Write a number with its thousands apart, and with decimals only where it has some."""
    if pd.isna(value):
        return NONE
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def many(count: int, what: str) -> str:
    """Write how many there are of what is named in the singular."""
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def credits_of(value: float) -> str:
    """Write an amount of credits."""
    return f"{number(value)} credit{'' if value == 1 else 's'}"


def label(value: Any, longest: int = LONGEST) -> str:
    """Write any value of a column in a few plain words; a day without its hours."""
    if pd.api.types.is_scalar(value) and pd.isna(value):  # a list is never null
        return NONE
    if isinstance(value, pd.Timestamp):
        midnight = not (value.hour or value.minute or value.second or value.microsecond or value.nanosecond)
        return value.strftime("%Y-%m-%d" if midnight else "%Y-%m-%d %H:%M:%S")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a year, for example: numbers that name a group are not quantities
    return short(plain(str(value)), longest)


def short(text: str, longest: int = LONGEST) -> str:
    """Cut off a text that is too long."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


#: They join the parts of an emoji, and the letters of Persian and Hindi words.
_JOINERS = "\u200c\u200d"


def plain(text: str) -> str:
    """Make one line of a text that came from elsewhere, without the characters that a terminal obeys."""
    return " ".join("".join(sign if sign.isprintable() or sign in _JOINERS else " " for sign in text).split())


def of_unknown_status(counts: Mapping[str, int]) -> str:
    """Say how many have a status that is unknown, with the words and what helps; `counts` are by word, and not empty."""
    words = listed([f"{short(plain(word))!r} ({count:,})" for word, count in counts.items()], limit=5)
    return f"{sum(counts.values()):,} with an unknown status: {words}. statuses= (--statuses) says what a word means"


def bar(share: float, cells: int = 10) -> str:
    """Draw a share as a bar of text."""
    full = round(share * cells)
    return "█" * full + "░" * (cells - full)


def unchanged(row: Any, column: Any, html: str) -> str:
    """Leave a cell as it is."""
    return html


def html_table(
    cells: pd.DataFrame,
    *,
    shares: pd.DataFrame | None = None,
    left: Collection[str] = (),
    caption: str = "",
    index: bool = True,
    around: Callable[[Any, Any, str], str] = unchanged,
) -> str:
    """Lay out texts as an HTML table for a light page or a dark one: no colour of its own but half-transparent bars.

    Parameters
    ----------
    cells : DataFrame of str
        The texts; whatever they hold is shown, and none of it is run.
    shares : DataFrame of float, optional
        Where a column of this name has a share from 0 to 1, a bar of that length is drawn behind the text.
    left : collection of str
        The columns whose texts stand at the left; numbers stand at the right.
    caption : str
        What the table shows.
    index : bool
        Whether the index names the rows.
    around : callable
        Gets the names of a row and of a column and a cell's text as HTML, and gives the HTML of the cell.
    """
    styles = [f"padding:1px 8px;white-space:nowrap;text-align:{'left' if name in left else 'right'}" for name in cells]
    heads = [
        f'<th scope="col" style="{style}">{_isolated(str(name))}</th>'
        for name, style in zip(cells, styles, strict=True)
    ]
    # a table has a few rows, and as many columns as a person reads
    rows = []
    for place, (name, row) in enumerate(zip(cells.index, cells.itertuples(index=False, name=None), strict=True)):
        drawn = [
            f'<td style="{style}{_behind(shares, column, place)}">'
            f"{around(name, column, _isolated(text) if column in left else escape(text))}</td>"
            for column, style, text in zip(cells, styles, row, strict=True)
        ]
        first = f'<th scope="row" style="text-align:left">{_isolated(str(name))}</th>' if index else ""
        rows.append(f"<tr>{first}{''.join(drawn)}</tr>")
    above = f'<caption style="text-align:left;opacity:.7">{escape(caption)}</caption>' if caption else ""
    body = "".join(rows) or f'<tr><td colspan="{len(cells.columns)}">no rows</td></tr>'
    head = f"<tr>{'<th></th>' if index else ''}{''.join(heads)}</tr>"
    return f"<table>{above}<thead>{head}</thead><tbody>{body}</tbody></table>"


def _isolated(name: str) -> str:
    """Escape a name, and keep one that runs from right to left from turning its neighbours around."""
    return f"<bdi>{escape(name)}</bdi>"


def _behind(shares: pd.DataFrame | None, column: Any, place: int) -> str:
    if shares is None or column not in shares:
        return ""
    percent = 100 * float(shares[column].iloc[place])
    return f";background:linear-gradient(90deg,rgba(0,140,220,.3) {percent:.1f}%,transparent {percent:.1f}%)"
