"""A picture of the course of a poll: how many were settled by when, and how many are expected to be."""

from __future__ import annotations

import base64
import math
from typing import Any

import numpy as np

from enrichstatus.polling.background import Progress
from enrichstatus.presentation import duration

#: The picture's size, and the room beside and below its axes, in pixels; and what a character of a number takes, in a wide font.
_WIDTH, _HEIGHT = 360, 170
_RIGHT, _TOP, _BOTTOM = 10, 8, 22
_CHARACTER = 7.4
#: Lines and text of a picture that is shown on whatever it is shown on.
_GREY = "#888888"
#: In a page they have the colour of its text.
_COLOUR = 'color="currentColor"'


def picture(progress: Progress, *, live: bool) -> str:
    """Draw how many were settled by when, and how many are expected to be, as a dashed line."""
    update = progress.update
    if not update.total:
        return ""
    points = np.array([*progress.points, (update.elapsed, update.settled)], dtype=float)
    far = update.most_in if update.most_in is not None and progress.phase not in ("done", "deadline") else None
    # a long tail ahead must not squeeze what has been
    span = max(update.elapsed + min((far or 0.0) * 1.15, max(update.elapsed, 30.0)), 5.0)
    ahead = ""
    if far is not None and update.settled < update.total:
        seconds = np.linspace(0, span - update.elapsed, 60)
        ended = update.settled + update.outlook.ahead(seconds) * (update.total - update.settled)
        # it begins above the course: some have ended unseen since the last request
        way = np.stack([update.elapsed + seconds, ended], axis=1)
        path = _path(np.concatenate([points[-1:], way]), span, update.total)
        ahead = f'<path d="M{path}" fill="none" stroke="currentColor" stroke-opacity=".65" stroke-dasharray="4 4"/>'
    course = _path(points, span, update.total)
    right, bottom = _place(np.array([[update.elapsed, 0.0]]), span, update.total)[0]
    area = f'<path d="M{course}L{right:.1f} {bottom:.1f}L{_left(update.total):.1f} {bottom:.1f}Z" fill="currentColor" fill-opacity=".18"/>'
    text = f"{update.settled:,} of {update.total:,} were settled after {duration(update.elapsed)}"
    if far is not None:
        text += f"; 90 % of the rest are expected within {duration(round(far))}"
    image = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{text}" width="{_WIDTH}" height="{_HEIGHT}" '
        f'viewBox="0 0 {_WIDTH} {_HEIGHT}" font-size="11" font-family="sans-serif" fill="currentColor" {_COLOUR}>'
        f"<title>{text}</title>{_axes(span, update.total)}{area}"
        f'<path d="M{course}" fill="none" stroke="currentColor" stroke-width="2"/>{ahead}</svg>'
    )
    if not live:
        content = base64.b64encode(image.replace(_COLOUR, f'color="{_GREY}"').encode()).decode()
        image = f'<img alt="{text}" src="data:image/svg+xml;base64,{content}"/>'
    return f'<div><div class="title">settled over time, and the estimate ahead</div>{image}</div>'


def _left(total: int) -> float:
    """Give the room for the numbers beside the axis: the largest must not be cut."""
    return 9 + _CHARACTER * max(len(f"{total:,}"), 5)


def _place(points: Any, span: float, total: int) -> Any:
    """Give the pixels of seconds and numbers of tasks."""
    left = _left(total)
    size = np.array([_WIDTH - left - _RIGHT, -(_HEIGHT - _TOP - _BOTTOM)])
    return np.array([left, _HEIGHT - _BOTTOM]) + points / np.array([span, total]) * size


def _path(points: Any, span: float, total: int) -> str:
    return "L".join(f"{x:.1f} {y:.1f}" for x, y in _place(points, span, total))


def _axes(span: float, total: int) -> str:
    """Draw a line for each round number, with the number."""
    unit, name = (1.0, "s") if span < 180 else (60.0, "min") if span < 3 * 3600 else (3600.0, "h")
    drawn = []
    for count in _round(total, 3):
        _, y = _place(np.array([[0.0, count]]), span, total)[0]
        drawn.append(
            f'<line x1="{_left(total):.1f}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="currentColor" stroke-opacity=".18"/>'
        )
        drawn.append(f'<text x="{_left(total) - 5:.1f}" y="{y + 4:.1f}" text-anchor="end">{count:,.0f}</text>')
    for value in _round(span / unit, 5):
        x, _ = _place(np.array([[value * unit, 0.0]]), span, total)[0]
        drawn.append(
            f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{value:g}{f" {name}" if value else ""}</text>'
        )
    return "".join(drawn)


def _round(whole: float, most: int) -> list[float]:
    """Give round numbers from 0 up to that one, about so many, and no fractions."""
    step = 10.0 ** math.floor(math.log10(max(whole / most, 1)))
    step *= next((times for times in (1, 2, 5) if whole / (step * times) <= most), 10)
    numbers: list[float] = np.arange(0, whole * (1 + 1e-9), step).tolist()
    return numbers
