"""Amounts of credits on each other: what they brought, and what they were charged for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import dates
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from enrichstatus.errors import ValidationError
from enrichstatus.outcomes import CHARGES, CREDITS, Share
from enrichstatus.presentation import many, number
from enrichstatus.reports.pictures.axes import (
    MOST,
    Drawing,
    axes_for,
    colour_of,
    done,
    edge,
    empty,
    ink,
    largest,
    legend,
    name_groups,
    titled_by,
)


def waste(drawing: Drawing) -> Axes:
    """Draw what the credits brought."""
    what = drawing.details["what"]
    parts = {name: share for name, share in CREDITS.items() if name in drawing.details["credits"]}
    spent = "credits spent" if what == "credits" else "purchases"
    return _stacked(drawing, "bought", f"What the {what} brought", spent, parts)


def reconcile(drawing: Drawing) -> Axes:
    """Draw the credits by what they were charged for, and below zero what was given back; what was not charged is counted."""
    return _stacked(drawing, "purchases", "What was charged", "credits", CHARGES)


#: Of these it is in question whether they should have been charged.
_WRONG = ("charged twice", "no record")
#: So many days, weeks or months have room at the least, or a single one would be as wide as the picture.
_FEWEST = 6


def _stacked(drawing: Drawing, size: str, what: str, unit: str, parts: Mapping[str, Share]) -> Axes:
    """Draw amounts on each other, by the day, week or month that is among the groups, or by group; negative ones below zero."""
    frame, by, details, ax, title, most, sort = drawing
    amounts = details["credits"].reset_index(drop=True)
    period = next((name for name in by if name in _DAYS), None)
    if period and len(by) > 1:
        amounts = amounts.groupby(frame[period]).sum()
        frame = frame.groupby(period)[[size]].sum().reset_index()
        amounts, by = amounts.reset_index(drop=True), (period,)
    if period:
        if sort is not None:
            raise ValidationError(f"has no meaning by {period}: time has an order.", argument="sort")
        frame = frame[frame[period].notna()]
        # of time the latest, of anything else the largest
        rows, left = frame.tail(most or MOST), max(len(frame) - (most or MOST), 0)
    else:
        rows, left = largest(drawing, size, "share wasted")
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
        part = parts[name]
        colour = part.colour or colour_of(part.like)
        heights = drawn[name].to_numpy()
        named_so = f"{part.label} ({number(float(abs(heights.sum())))})"
        style: dict[str, Any] = {"label": named_so, "color": colour, "hatch": part.hatch, **edge()}
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
            empty(ax)
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
        sides: dict[str, Any] = {"ha": "center", "va": "bottom"} if upright else {"ha": "left", "va": "center"}
        ax.annotate(between.join(said), at, xytext=offset, textcoords="offset points", fontsize=size, **sides)


#: Numbers over more bars than this would lie on each other.
_READABLE = 8


def _days(instants: pd.Series[pd.Timestamp]) -> Any:
    return dates.date2num(instants)  # type: ignore[no-untyped-call]  # theirs has no hints


_DAYS = {"day": 1, "week": 7, "month": 30}
