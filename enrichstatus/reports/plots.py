"""Pictures of the reports, for people: titles, units, readable on a light page and on a dark one, for the colour-blind too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.ticker import FuncFormatter, MaxNLocator, MultipleLocator, PercentFormatter

from enrichstatus.errors import ValidationError
from enrichstatus.lookup.arguments import parse_number
from enrichstatus.outcomes import LABELS
from enrichstatus.presentation import duration, many, number, share, short
from enrichstatus.reports.axes import (
    EDGE,
    GREY,
    MOST,
    axes_for,
    done,
    ink,
    is_dark,
    largest,
    legend,
    name_groups,
    names_of,
    titled_by,
)
from enrichstatus.reports.axes import unformatted as plain

# Okabe and Ito's colours, for what is not an outcome
_BLUE, _SKY, _GREEN, _ORANGE, _RED, _PINK = "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7"
_LINES = (_BLUE, _ORANGE, _GREEN, _RED, _SKY, _PINK, GREY)
#: How the credits of `waste` are named and hatched, and in which colour where they are not those of one outcome.
_CREDITS = {
    "useful": ("with data", "", None),
    "open": ("pending", "", None),
    "unknown": ("unknown status", "", None),
    "for nothing": ("brought nothing", "//", "#9A6324"),
    "again": ("bought again", "xx", "#882255"),
}


def _colour(label: str) -> str:
    """Give an outcome's colour, on a light figure or a dark one."""
    return LABELS[label].dark if is_dark() else LABELS[label].light


class Drawing(NamedTuple):
    """What is to be drawn, and how."""

    frame: pd.DataFrame
    by: Sequence[str]
    details: Mapping[str, Any]
    ax: Axes | None
    title: str | None
    most: int | None


def draw(
    report: str, frame: pd.DataFrame, by: Sequence[str], details: Mapping[str, Any], ax: Axes | None, **options: Any
) -> Axes:
    """Draw a report of this kind; see `Report.plot`."""
    title, most, kind = options.pop("title", None), options.pop("most", None), options.pop("kind", "share")
    if most is not None:
        parse_number("most", most, least=1, whole=True, what="number of groups")
    draws: dict[tuple[str, object], Callable[[Drawing], Axes]] = {
        ("coverage", "share"): _coverage,
        ("coverage", "status"): _status,
        ("timing", "share"): _timing,
        ("waste", "share"): _waste,
        ("diff", "share"): _diff,
        ("reconcile", "share"): _reconcile,
    }
    if options or (report, kind) not in draws:
        raise ValidationError(
            'plot() takes ax=, title=, most= and, of coverage, kind="share" or "status"; '
            f"not {', '.join(options) or f'kind={kind!r}'}."
        )
    return draws[report, kind](Drawing(frame.reset_index(drop=True), by, details, ax, title, most))


def _coverage(drawing: Drawing) -> Axes:
    frame, by, details, ax, title, most = drawing
    rows, left = largest(frame, "tasks", most)
    found = details.get("found")
    what = "with data" if found is None else f"with data, and {short(plain(found))},"
    lines = len(rows) if found is None else 1.6 * len(rows)
    ax = axes_for(
        ax,
        lines,
        title or f"Share {what} of the tasks that have ended{titled_by(by)}",
        left,
        legend=int(found is not None),
    )
    measure = details.get("measure")
    if measure is None:
        _shares(ax, rows, rows, _BLUE, 0.66, 0)
    else:
        _shares(ax, rows, rows, _BLUE, 0.36, -0.19, label="with data")
        theirs = measure.reset_index(drop=True).loc[rows.index]
        _shares(ax, theirs, rows, _ORANGE, 0.36, 0.19, label=plain(details["found"]))
        legend(ax)
    small = rows["small"].to_numpy(bool)
    name_groups(ax, rows, by)
    # what is written beside a full bar needs room
    ax.set_xlim(0, 1.2)
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
    for place, part, ended, mark, high in zip(
        y, shown["share"], rows["ended"], small, shown["high"].fillna(0), strict=True
    ):
        said = "nothing has ended" if pd.isna(part) else share(part)
        said += f"  n = {ended:,}" if mark and ended else ""
        ax.annotate(said, (high, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize="small")


def _status(drawing: Drawing) -> Axes:
    frame, by, details, ax, title, most = drawing
    rows, left = largest(frame, "tasks", most)
    ax = axes_for(ax, len(rows), title or f"What became of the tasks{titled_by(by)}", left, legend=2)
    parts = details["outcomes"].reset_index(drop=True).loc[rows.index]
    shares = parts.div(rows["tasks"].clip(lower=1), axis=0)
    start = np.zeros(len(rows))
    for name in [name for name in parts.columns if parts[name].any()]:
        ax.barh(np.arange(len(rows)), shares[name], left=start, height=0.66, label=name, color=_colour(name), **EDGE)
        start = start + shares[name].to_numpy()
    for place, (tasks, part) in enumerate(zip(rows["tasks"], rows["share"], strict=True)):
        said = f"{tasks:,}" if pd.isna(part) else f"{tasks:,}; {share(part)}"
        ax.annotate(said, (1, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize="small")
    name_groups(ax, rows, by)
    # a share is of what has ended, which is not the whole bar
    ax.set_xlim(0, 1.24)
    ax.set_xticks([])
    ax.set_xlabel("a bar is all tasks; beside it their number, and the share with data of those that have ended")
    legend(ax)
    ax.spines["bottom"].set_visible(False)
    return done(ax, "x")


def _timing(drawing: Drawing) -> Axes:
    frame, by, details, ax, title, most = drawing
    order = sorted(range(len(details["rows"])), key=lambda at: -frame["records"][details["rows"][at]])
    shown = sorted(order[: min(most or len(_LINES), len(details["rows"]))])
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
        style = ("-", "--", ":", "-.")[place // len(_LINES) % 4]
        ax.step(
            seconds,
            ended,
            where="post",
            color=_LINES[place % len(_LINES)],
            ls=style,
            lw=1.8,
            label=f"{names[row]}: {_half(frame, row)}",
        )
    distinct = sorted(set(limits.values()))
    for place, limit in enumerate(distinct):
        of = ", ".join(plain(name) for name in limits if limits[name] == limit)
        said = "maximum processing time" if len(distinct) == 1 else f"maximum of {of}"
        ax.axvline(limit, color=ink(), ls=(0, (4, 3)), lw=1.2)
        # up and down in turn, or those of two that are close would lie on each other
        ax.annotate(
            f"{said}: {duration(limit)}",
            (limit, 0.5 * (place % 2) + 0.02),
            xytext=(-4, 0),
            textcoords="offset points",
            rotation=90,
            ha="right",
            fontsize="small",
            # not struck through by the line of another
            bbox={"facecolor": ax.get_facecolor(), "edgecolor": "none", "pad": 1},
        )
    ax.set(xlim=(0, end), ylim=(0, 1.02), ylabel="share that has ended")
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


def _waste(drawing: Drawing) -> Axes:
    what = drawing.details["what"]
    parts = {
        name: (said, hatch, own or _colour(said))
        for name, (said, hatch, own) in _CREDITS.items()
        if name in drawing.details["credits"]
    }
    spent = "credits spent" if what == "credits" else "purchases"
    return _stacked(drawing, "bought", f"What the {what} brought", spent, parts)


def _reconcile(drawing: Drawing) -> Axes:
    """Draw the credits by what they were charged for, and below zero what was given back; what was not charged is counted."""
    own = {name: (name, hatch, colour or _colour("with data")) for name, (hatch, colour) in _CHARGES.items()}
    own |= {name: (name, "", _colour(label)) for name, label in _OUTCOMES.items()}
    parts = {name: own[name] for name in ("charged", *_OUTCOMES, "refunded", *_WRONG, "given back")}
    return _stacked(drawing, "purchases", "What was charged", "credits", parts)


#: How the credits of `reconcile` are hatched, and in which colour; what is wrong is hatched.
_CHARGES = {
    "charged": ("", None),
    "refunded": ("", "#B6DFA5"),
    "charged twice": ("xx", "#882255"),
    "no record": ("//", "#BC3D05"),
    "given back": ("..", GREY),
}
_OUTCOMES = {"no data": "no data", "unknown status": "unknown status"}
_WRONG = ("charged twice", "no record")
#: So many days, weeks or months have room at the least, or a single one would be as wide as the picture.
_FEWEST = 6


def _stacked(drawing: Drawing, size: str, what: str, unit: str, parts: Mapping[str, tuple[str, str, str]]) -> Axes:
    """Draw amounts on each other, by the day, week or month that is among the groups, or by group; negative ones below zero."""
    frame, by, details, ax, title, most = drawing
    amounts = details["credits"].reset_index(drop=True)
    period = next((name for name in by if name in _DAYS), None)
    if period and len(by) > 1:
        amounts = amounts.groupby(frame[period]).sum()
        frame = frame.groupby(period)[[size]].sum().reset_index()
        amounts, by = amounts.reset_index(drop=True), (period,)
    if period:
        frame = frame[frame[period].notna()]
    # of time the latest, of anything else the largest
    rows, left = (
        (frame.tail(most or MOST), max(len(frame) - (most or MOST), 0)) if period else largest(frame, size, most)
    )
    drawn = amounts.loc[rows.index]
    shown = [name for name in parts if drawn[name].any()]
    missing = drawn["no charge"] if "no charge" in drawn else pd.Series(0.0, rows.index)
    named = len(shown) + bool(missing.any())
    lines, which = (11, "latest") if period else (len(rows), "largest")
    ax = axes_for(ax, lines, title or f"{what}{titled_by(by)}", left, legend=max(-(-named // 4), 1), which=which)
    top, bottom = np.zeros(len(rows)), np.zeros(len(rows))
    thin = 0.006 * drawn.abs().sum(axis=1).max()
    places = _days(rows[period]) if period else np.arange(len(rows))
    days = (pd.Series(rows[period]).dt.days_in_month if period == "month" else _DAYS[period]) if period else 1
    for name in shown:
        said, hatch, colour = parts[name]
        heights = drawn[name].to_numpy()
        style: dict[str, Any] = {
            "label": f"{said} ({number(float(abs(heights.sum())))})",
            "color": colour,
            "hatch": hatch,
            **EDGE,
        }
        start = np.where(heights < 0, bottom, top)
        if period:
            bars = ax.bar(places, heights, bottom=start, width=days * 0.82, align="edge", **style)
        else:
            bars = ax.barh(places, heights, left=start, height=0.66, **style)
        # the white line would hide a thin one
        for bar in np.array(bars.patches, dtype=object)[(heights != 0) & (abs(heights) < thin)]:
            bar.set(edgecolor=colour, linewidth=1.5, hatch="")
        top, bottom = top + heights.clip(min=0), bottom + heights.clip(max=0)
    _write_sums(ax, drawn, missing, places + (days * 0.41 if period else 0), top, upright=bool(period))
    if missing.any():
        ax.bar(places[:1], [0], color="none", label=f"no charge ({many(int(missing.sum()), 'purchase')})")
    if period:
        ax.xaxis_date()
        ticks = rows[period].iloc[:: -(-len(rows) // 12)] if len(rows) else rows[period]
        middle = {"day": 0.41, "week": 2.87, "month": 12.5}[period]
        form = "%b %Y" if period == "month" else "%d %b"
        ax.set_xticks(_days(ticks) + middle, [day.strftime(form).lstrip("0") for day in ticks])
        if len(rows):
            free = max(_FEWEST * _DAYS[period] - (places[-1] - places[0] + _DAYS[period]), 0.4 * _DAYS[period]) / 2
            ax.set_xlim(places[0] - free, places[-1] + _DAYS[period] + free)
        else:
            ax.annotate("nothing to show", (0.5, 0.5), xycoords="axes fraction", ha="center", va="center")
        years = sorted(set(rows[period].dt.year))
        span = "" if period == "month" or not years else f", {'–'.join(map(str, dict.fromkeys([years[0], years[-1]])))}"
        ax.set_xlabel({"day": "day", "week": "week that began on Monday", "month": "month"}[period] + span + " (UTC)")
        ax.set_ylabel(unit)
    else:
        name_groups(ax, rows, by)
        ax.set_xlabel(unit)
    axis = ax.yaxis if period else ax.xaxis
    axis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    # what is written needs room
    least, most_ = bottom.min(initial=0), top.max(initial=0) * (1.25 if period else 1.4)
    (ax.set_ylim if period else ax.set_xlim)(1.1 * least, most_ or (1 if not least else -0.5 * least))
    if not (top.any() or bottom.any()):
        axis.set_ticks([])
    if bottom.any():
        (ax.axhline if period else ax.axvline)(0, color=ink(), lw=0.8)
    if named:
        legend(ax)
    return done(ax, "y" if period else "x")


def _write_sums(
    ax: Axes, drawn: pd.DataFrame, missing: pd.Series[float], places: Any, tops: Any, *, upright: bool
) -> None:
    """Write beside each bar what it comes to, and what of it is in question or was not charged."""
    sums = drawn.drop(columns="no charge", errors="ignore").sum(axis=1)
    question = drawn[[name for name in _WRONG if name in drawn]].sum(axis=1)
    between, size = ("\n", "x-small") if upright else ("; ", "small")
    if upright and len(drawn) > _READABLE:
        return  # the numbers would lie on each other
    for place, top, total, wrong, absent in zip(places, tops, sums, question, missing, strict=True):
        said = [number(round(total, 6))]
        said += [f"{number(round(wrong, 6))} in question"] if wrong else []
        said += [f"{absent:,.0f} without a charge"] if absent else []
        at, offset = ((place, top), (0, 3)) if upright else ((top, place), (6, 0))
        ax.annotate(
            between.join(said),
            at,
            xytext=offset,
            textcoords="offset points",
            ha="center" if upright else "left",
            va="bottom" if upright else "center",
            fontsize=size,
        )


#: Numbers over more bars than this would lie on each other.
_READABLE = 8


def _days(instants: pd.Series[pd.Timestamp]) -> Any:
    return dates.date2num(instants)  # type: ignore[no-untyped-call]  # theirs has no hints


_DAYS = {"day": 1, "week": 7, "month": 30}


def _diff(drawing: Drawing) -> Axes:
    frame, _, details, ax, title, most = drawing
    counts = frame["change"].value_counts().rename_axis("change").reset_index(name="tasks")
    counts = counts.sort_values(["tasks", "change"], ascending=[False, True], ignore_index=True)
    rows, left = largest(counts, "tasks", most)
    first, second = details["names"]
    ax = axes_for(ax, len(rows), title or f"Where {first} and {second} differ", left)
    ax.barh(np.arange(len(rows)), rows["tasks"], color=_BLUE, height=0.66)
    for place, tasks in enumerate(rows["tasks"]):
        ax.annotate(
            f"{tasks:,}", (tasks, place), xytext=(6, 0), textcoords="offset points", va="center", fontsize="small"
        )
    name_groups(ax, rows, ["change"])
    ax.margins(x=0.1)
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.set_xlabel(plain(f"tasks, by their change from {first} to {second}"))
    return done(ax, "x")
