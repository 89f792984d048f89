"""The pictures of the reports as interactive charts (Altair): the numbers under the pointer, and a click that filters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from enrichstatus.errors import ValidationError
from enrichstatus.outcomes import CHARGES, CREDITS, GROUPS, LABELS
from enrichstatus.presentation import duration, plain, share

#: How a group that was not clicked looks; the width of a chart and the height of a bar, in pixels.
_FAINT, _WIDTH, _HEIGHT = 0.25, 480, 24
#: Points of a curve; more cannot be told apart.
_POINTS = 200


def chart(report: str, frame: pd.DataFrame, by: Sequence[str], details: Mapping[str, Any]) -> Any:
    """Make the chart of a report of this kind; see `Report.chart`."""
    draws = {"coverage": _coverage, "timing": _timing, "waste": _amounts, "reconcile": _amounts, "diff": _diff}
    if report not in draws:
        raise ValidationError(f"There is no chart of {report}.")
    return draws[report](frame.reset_index(drop=True), by, details)


def _names(frame: pd.DataFrame, by: Sequence[str]) -> pd.Series[str]:
    """Name each row by its group; a chart shows a whole name."""
    if not by or frame.empty:
        return pd.Series("all", index=frame.index)
    words = frame[list(by)].map(
        lambda value: f"{value:%Y-%m-%d}" if isinstance(value, pd.Timestamp) else plain(str(value))
    )
    return words.agg(" · ".join, axis=1)


def _palette(colours: Mapping[str, str]) -> Any:
    return alt.Scale(domain=list(colours), range=list(colours.values()))


def _groups(order: Iterable[str]) -> Any:
    return alt.Y("group:N", sort=list(order), title=None, axis=alt.Axis(labelLimit=320))


def _percent(name: str, title: str, axis: Any = alt.X) -> Any:
    return axis(name, title=title, scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format=".0%"))


def _coverage(frame: pd.DataFrame, by: Sequence[str], details: Mapping[str, Any]) -> Any:
    """Draw the shares with their intervals, and below them what became of the groups that are clicked."""
    names = _names(frame, by)
    shares = frame[["tasks", "ended", "with data", "share", "low", "high"]].assign(group=names)
    shares["interval"] = [
        f"{share(low)} – {share(high)}" for low, high in zip(shares["low"], shares["high"], strict=True)
    ]
    clicked = alt.selection_point(fields=["group"], name="group")
    tips = [
        alt.Tooltip("group:N"),
        alt.Tooltip("share:Q", format=".1%", title="with data, of ended"),
        alt.Tooltip("interval:N", title="95 % interval"),
        alt.Tooltip("ended:Q", format=",", title="n (ended)"),
        alt.Tooltip("with data:Q", format=","),
        alt.Tooltip("tasks:Q", format=","),
    ]
    base = alt.Chart(shares).encode(y=_groups(names), tooltip=tips)
    shown = alt.when(clicked).then(alt.value(1)).otherwise(alt.value(_FAINT))
    bars = base.mark_bar(color=LABELS["with data"].light).encode(
        x=_percent("share:Q", "with data, of the tasks that have ended"), opacity=shown
    )
    lines = base.mark_rule(color="#888888").encode(x="low:Q", x2="high:Q")
    left = (bars + lines).add_params(clicked)
    left = left.properties(width=_WIDTH, height=alt.Step(_HEIGHT), title="Share with data")

    parts = details["outcomes"].reset_index(drop=True).assign(group=names)
    parts = parts.melt("group", var_name="outcome", value_name="n").query("n > 0")
    label = alt.selection_point(fields=["outcome"], bind="legend", name="outcome")
    order = [name for name in LABELS if name in set(parts["outcome"])]
    parts["order"] = parts["outcome"].map(order.index)
    right = alt.Chart(parts).encode(
        y=_groups(names),
        x=alt.X("n:Q", stack="zero", title="tasks"),
        color=alt.Color("outcome:N", scale=_palette({name: LABELS[name].light for name in order}), title=None),
        order="order:Q",
        opacity=alt.when(label).then(alt.value(1)).otherwise(alt.value(_FAINT)),
        tooltip=["group:N", "outcome:N", alt.Tooltip("n:Q", format=",")],
    )
    return left & _filtered(right, clicked, "What became of the tasks", label)


def _timing(frame: pd.DataFrame, by: Sequence[str], details: Mapping[str, Any]) -> Any:
    """Draw how many have ended by when; a click on a name shows its line alone."""
    names, curves = _names(frame, by), []
    # of few groups
    for row, curve, longest in zip(details["rows"], details["curves"], details["longest"], strict=True):
        thinned = curve.iloc[:: max(len(curve) // _POINTS, 1)]
        seconds = np.r_[0.0, thinned["seconds"], max(longest, curve["seconds"].max() if len(curve) else 0.0)]
        ended = np.r_[0.0, 1 - thinned["pending"], 1 - curve["pending"].iloc[-1] if len(curve) else 0.0]
        line = {"group": names[row], "seconds": seconds, "ended": ended, "n": frame["records"][row]}
        curves.append(pd.DataFrame(line))
    data = pd.concat(curves) if curves else pd.DataFrame({"group": [], "seconds": [], "ended": [], "n": []})
    data["after"] = data["seconds"].map(duration)
    clicked = alt.selection_point(fields=["group"], bind="legend", name="group")
    colours, names_beside = alt.Scale(range=list(GROUPS)), alt.Legend(labelLimit=320)
    lines = alt.Chart(data).encode(
        x=alt.X("seconds:Q", title="seconds since the enrichment was triggered"),
        y=_percent("ended:Q", "share that has ended", alt.Y),
        color=alt.Color("group:N", title=None, scale=colours, legend=names_beside),
        opacity=alt.when(clicked).then(alt.value(1)).otherwise(alt.value(_FAINT)),
        tooltip=["group:N", "after:N", alt.Tooltip("ended:Q", format=".1%"), alt.Tooltip("n:Q", format=",")],
    )
    lines = lines.mark_line(interpolate="step-after").add_params(clicked)
    return lines.properties(title="How long enrichments take", width=_WIDTH, height=280)


def _amounts(frame: pd.DataFrame, by: Sequence[str], details: Mapping[str, Any]) -> Any:
    """Draw what amounts brought, or were charged for, on each other; a click on a name in the legend shows that part alone."""
    what = details.get("what")  # of a bill everything is in credits
    title, parts = (f"What the {what} brought", CREDITS) if what else ("What was charged", CHARGES)
    names = _names(frame, by)
    drawn = details["credits"].reset_index(drop=True)
    drawn = drawn[[name for name in parts if name in drawn]].rename(columns={name: parts[name].label for name in parts})
    data = drawn.assign(group=names).melt("group", var_name="part", value_name="amount")
    data = data[data["amount"] != 0]
    clicked = alt.selection_point(fields=["part"], bind="legend", name="part")
    colours = {part.label: part.colour or LABELS[part.like].light for part in parts.values()}
    colours = {name: colour for name, colour in colours.items() if name in set(data["part"])}
    bars = alt.Chart(data).encode(
        y=_groups(list(dict.fromkeys(names))),
        x=alt.X("amount:Q", title=what or "credits"),
        color=alt.Color("part:N", scale=_palette(colours), title=None),
        tooltip=["group:N", "part:N", alt.Tooltip("amount:Q", format=",")],
    )
    return _filtered(bars, clicked, title)


def _filtered(chart: Any, clicked: Any, title: str, param: Any = None) -> Any:
    """Draw bars, of which a click shows some alone; `param` is what this chart itself listens to, where that is another."""
    bars = chart.mark_bar().transform_filter(clicked).add_params(param or clicked)
    return bars.properties(width=_WIDTH, height=alt.Step(_HEIGHT), title=title)


def _diff(frame: pd.DataFrame, by: Sequence[str], details: Mapping[str, Any]) -> Any:
    """Draw how many tasks have each change; a click on a change shows its fields."""
    first, second = details["names"]
    data = frame.groupby(["change", "field"], dropna=False).size().rename("tasks").reset_index()
    clicked = alt.selection_point(fields=["field"], bind="legend", name="field")
    bars = alt.Chart(data).encode(
        y=alt.Y("change:N", sort="-x", title=None, axis=alt.Axis(labelLimit=320)),
        x=alt.X("tasks:Q", title=plain(f"tasks, by their change from {first} to {second}")),
        color=alt.Color("field:N", title=None, scale=alt.Scale(range=list(GROUPS))),
        tooltip=["change:N", "field:N", alt.Tooltip("tasks:Q", format=",")],
    )
    return _filtered(bars, clicked, plain(f"Where {first} and {second} differ"))
