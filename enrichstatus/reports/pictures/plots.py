"""Pictures of the reports, for people: titles, units, readable on a light page and on a dark one, for the colour-blind too."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter

from enrichstatus.errors import ValidationError
from enrichstatus.lookup.arguments import parse_flags, parse_number
from enrichstatus.outcomes import GROUPS
from enrichstatus.presentation import duration, share, short
from enrichstatus.reports.pictures import fonts
from enrichstatus.reports.pictures.amounts import reconcile, waste
from enrichstatus.reports.pictures.axes import (
    DARK,
    Drawing,
    axes_for,
    beside,
    colour_of,
    colours,
    done,
    edge,
    ink,
    largest,
    legend,
    lines_of,
    name_groups,
    names_of,
    titled_by,
)
from enrichstatus.reports.pictures.axes import unformatted as plain


def draw(
    report: str, frame: pd.DataFrame, by: Sequence[str], details: Mapping[str, Any], ax: Axes | None, **options: Any
) -> Axes:
    """Draw a report of this kind; see `Report.plot`."""
    title, most, kind = options.pop("title", None), options.pop("most", None), options.pop("kind", "share")
    sort, dark = options.pop("sort", None), options.pop("dark", False)
    parse_flags(dark=dark)
    if most is not None:
        parse_number("most", most, least=1, whole=True, what="number of groups")
    draws: dict[tuple[str, object], Callable[[Drawing], Axes]] = {
        ("coverage", "share"): _coverage,
        ("coverage", "status"): _status,
        ("timing", "share"): _timing,
        ("waste", "share"): waste,
        ("diff", "share"): _diff,
        ("reconcile", "share"): reconcile,
    }
    if options or (report, kind) not in draws:
        raise ValidationError(
            'plot() takes ax=, title=, most=, sort=, dark= and, of coverage, kind="share" or "status"; '
            f"not {', '.join(options) or f'kind={kind!r}'}."
        )
    with mpl.rc_context(DARK if dark else {}), fonts.fitting(_texts(frame, by, title, details)):
        return draws[report, kind](Drawing(frame.reset_index(drop=True), by, details, ax, title, most, sort))


def _texts(frame: pd.DataFrame, by: Sequence[str], title: str | None, details: Mapping[str, Any]) -> Iterator[str]:
    """Give the texts that are not ours."""
    yield from (title or "", str(details.get("found")), *map(str, details.get("names", ())))
    for name in by:
        yield from map(str, frame[name].unique())


def _coverage(drawing: Drawing) -> Axes:
    by, details, ax, title = drawing.by, drawing.details, drawing.ax, drawing.title
    rows, left = largest(drawing, "tasks", "share")
    found = details.get("found")
    what = "with data" if found is None else f"with data, and {short(plain(found))},"
    lines = lines_of(rows, by) if found is None else 1.6 * lines_of(rows, by)
    title = title or f"Share {what} of the tasks that have ended{titled_by(by)}"
    ax = axes_for(ax, lines, title, left, legend=int(found is not None))
    measure = details.get("measure")
    if measure is None:
        _shares(ax, rows, rows, colour_of("with data"), 0.66, 0)
    else:
        _shares(ax, rows, rows, colour_of("with data"), 0.36, -0.19, label="with data")
        theirs = measure.reset_index(drop=True).loc[rows.index]
        _shares(ax, theirs, rows, GROUPS[0], 0.36, 0.19, label=plain(details["found"]))
        legend(ax)
    small = rows["small"].to_numpy(bool)
    name_groups(ax, rows, by)
    ax.set_xlim(0, 1)
    ax.set_xticks(np.linspace(0, 1, 6))
    ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    hatched = f"; hatched: fewer than {details['small']:,} have ended" if small.any() else ""
    ax.set_xlabel(f"of the tasks that have ended, with 95 % interval{hatched}")
    return done(ax, "x")


def _shares(
    ax: Axes, shown: pd.DataFrame, rows: pd.DataFrame, colour: str, height: float, offset: float, **named: Any
) -> None:
    """Draw the shares of the groups with their intervals, each with what it is; few are hatched."""
    y, shares = np.arange(len(rows)) + offset, shown["share"].fillna(0).to_numpy()
    small = rows["small"].to_numpy(bool)
    bars = ax.barh(y, shares, color=colour, height=height, **named)
    for bar in np.array(bars.patches, dtype=object)[small]:
        bar.set(facecolor=to_rgba(colour, 0.25), edgecolor=colour, hatch="///", linewidth=0.8)
    some = shown["share"].notna().to_numpy()
    ends = shown.loc[some, ["low", "high"]].to_numpy()
    reach = np.abs(ends - shares[some, None]).T
    ax.errorbar(shares[some], y[some], xerr=reach, fmt="none", ecolor=ink(), elinewidth=1.2, capsize=3)
    highest = shown["high"].fillna(0)
    for place, part, ended, mark, high in zip(y, shown["share"], rows["ended"], small, highest, strict=True):
        said = "nothing has ended" if pd.isna(part) else share(part)
        said += f"  n = {ended:,}" if mark and ended else ""
        beside(ax, said, high, place)


def _status(drawing: Drawing) -> Axes:
    by, details, ax, title = drawing.by, drawing.details, drawing.ax, drawing.title
    rows, left = largest(drawing, "tasks", "share")
    ax = axes_for(ax, lines_of(rows, by), title or f"What became of the tasks{titled_by(by)}", left, legend=2)
    parts = details["outcomes"].reset_index(drop=True).loc[rows.index]
    shares = parts.div(rows["tasks"].clip(lower=1), axis=0)
    start = np.zeros(len(rows))
    for name in [name for name in parts.columns if parts[name].any()]:
        bar: dict[str, Any] = {"height": 0.66, "label": name, "color": colour_of(name), **edge()}
        ax.barh(np.arange(len(rows)), shares[name], left=start, **bar)
        start = start + shares[name].to_numpy()
    for place, (tasks, part) in enumerate(zip(rows["tasks"], rows["share"], strict=True)):
        said = f"{tasks:,}" if pd.isna(part) else f"{tasks:,}; {share(part)}"
        beside(ax, said, 1, place)
    name_groups(ax, rows, by)
    ax.set_xlim(0, 1)
    ax.set_xticks([])
    # a share is of what has ended, which is not the whole bar
    ax.set_xlabel("a bar is all tasks; beside it their number,\nand the share with data of those that have ended")
    legend(ax)
    ax.spines["bottom"].set_visible(False)
    return done(ax, "x")


def _timing(drawing: Drawing) -> Axes:
    frame, by, details, ax, title, most, sort = drawing
    if sort is not None:
        raise ValidationError("has no meaning here: the lines have no order.", argument="sort")
    cycle = colours()
    order = sorted(range(len(details["rows"])), key=lambda at: -frame["records"][details["rows"][at]])
    shown = sorted(order[: min(most or len(cycle), len(details["rows"]))])
    left = len(frame) - len(shown)
    ax = axes_for(ax, 11, title or f"How long enrichments take{titled_by(by)}", left)
    limits = {name: details["limits"][name] for name in details["fields"]}
    names = names_of(frame, by)
    longest = [details["longest"][at] for at in shown]
    end = max([*limits.values(), *([max(longest)] if longest and not limits else [])], default=1.0) * 1.06
    for place, at in enumerate(shown):
        row, curve = details["rows"][at], details["curves"][at]
        seconds = np.r_[0.0, curve["seconds"], max(details["longest"][at], curve["seconds"].max() if len(curve) else 0)]
        ended = np.r_[0.0, 1 - curve["pending"], 1 - curve["pending"].iloc[-1] if len(curve) else 0.0]
        colour, style = cycle[place % len(cycle)], ("-", "--", ":", "-.")[place // len(cycle) % 4]
        named = f"{plain(names[row])}: {_half(frame, row)}"
        ax.step(seconds, ended, where="post", color=colour, ls=style, lw=1.8, label=named, clip_on=False)
    distinct = sorted(set(limits.values()))
    for place, limit in enumerate(distinct):
        of = ", ".join(plain(name) for name in limits if limits[name] == limit)
        said = "maximum processing time" if len(distinct) == 1 else f"maximum of {of}"
        ax.axvline(limit, color=ink(), ls=(0, (4, 3)), lw=1.2)
        # up and down in turn, or those of two that are close would lie on each other
        where, text = (limit, 0.5 * (place % 2) + 0.02), f"{said}: {duration(limit)}"
        note = ax.annotate(
            text, where, xytext=(-4, 0), textcoords="offset points", rotation=90, ha="right", fontsize="small"
        )
        # not struck through by the line of another
        note.set_bbox({"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 1})
    ax.set(xlim=(0, end), ylim=(0, 1), ylabel="share that has ended")
    ax.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol=" %"))
    step, unit, name = next(one for one in _UNITS if end <= one[0] * 10 or one is _UNITS[-1])
    ax.xaxis.set_major_locator(MultipleLocator(step) if end / step <= 12 else MaxNLocator(8))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / unit:g}"))
    ax.set_xlabel(f"{name} since the enrichment was triggered")
    if shown:
        legend(ax, above=False)
    return done(ax, "both")


def _half(frame: pd.DataFrame, row: int) -> str:
    """Write how long half of a group takes, and nine of ten, where enough have ended."""
    times = [(name, frame[column][row]) for name, column in (("half", "median"), ("90 %", "p90"))]
    return ", ".join(f"{name} in {duration(time)}" for name, time in times if pd.notna(time)) or "too few have ended"


#: Seconds between two marks of an axis, how many make its unit, and what that is called.
_UNITS = (
    (1, 1, "seconds"),
    (5, 1, "seconds"),
    (15, 1, "seconds"),
    (60, 60, "minutes"),
    (120, 60, "minutes"),
    (600, 60, "minutes"),
    (3600, 3600, "hours"),
    (21600, 3600, "hours"),
    (86400, 86400, "days"),
)


def _diff(drawing: Drawing) -> Axes:
    frame, details, ax, title = drawing.frame, drawing.details, drawing.ax, drawing.title
    counts = frame["change"].value_counts().rename_axis("change").reset_index(name="tasks")
    counts = counts.sort_values(["tasks", "change"], ascending=[False, True], ignore_index=True)
    rows, left = largest(drawing._replace(frame=counts, by=["change"]), "tasks", "")
    first, second = details["names"]
    ax = axes_for(ax, len(rows), title or f"Where {first} and {second} differ", left)
    ax.barh(np.arange(len(rows)), rows["tasks"], color=colours()[0], height=0.66)
    for place, tasks in enumerate(rows["tasks"]):
        beside(ax, f"{tasks:,}", tasks, place)
    name_groups(ax, rows, ["change"])
    ax.margins(x=0.1)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel(plain(f"tasks, by their change from {first} to {second}"))
    return done(ax, "x")
