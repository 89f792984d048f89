"""Values in words: as short as a person would say them, and without a sign that a terminal obeys."""

from __future__ import annotations

from typing import Any

import pandas as pd

from enrichstatus.polling.update import spoken
from enrichstatus.presentation import plain

#: What is longer is cut off.
_WIDEST = 36
_NONE = "–"


def share(value: Any) -> str:
    """Say a share as a percentage."""
    return _NONE if pd.isna(value) else f"{100 * value:.1f} %"


def duration(seconds: Any) -> str:
    """Say a duration as short as a person would, and a very short one by the tenth."""
    if pd.isna(seconds):
        return _NONE
    return f"{seconds:.1f} s" if 0 < seconds < 9.95 else spoken(seconds)


def number(value: Any) -> str:
    """Say a number, whole where it is, with its thousands apart."""
    if pd.isna(value):
        return _NONE
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"


def label(value: Any) -> str:
    """Say any value of a column in a few plain words; a day without its hours."""
    if pd.isna(value):
        return _NONE
    if isinstance(value, pd.Timestamp):
        midnight = value == value.normalize()
        return value.strftime("%Y-%m-%d" if midnight else "%Y-%m-%d %H:%M:%S")
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # a year, say: numbers that name a group are no quantities
    text = plain(str(value))
    return text if len(text) <= _WIDEST else text[: _WIDEST - 1] + "…"
