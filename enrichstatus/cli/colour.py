"""Colour at a terminal: what became of tasks, in the colours of the dashboard."""

from __future__ import annotations

import os
import re
from typing import Any

#: What stands for an outcome in a plan, by the label whose colour it has.
_ACTIONS = {
    "have": "with data",
    "no_data": "no data",
    "in_flight": "pending",
    "retry": "failed",
    "trigger": "no record",
}


def coloured(text: str, stream: Any, when: str) -> str:
    """Colour the words for outcomes, and the bars; `when` is ``always``, ``never``, or ``auto``: at a terminal, unless NO_COLOR is set."""
    if when == "never" or (when == "auto" and (os.environ.get("NO_COLOR") or not stream.isatty())):
        return text
    from rich.console import Console
    from rich.text import Text

    # of a terminal rich knows how many colours it has, and what TERM says
    forced: Any = {"force_terminal": True, "no_color": False, "color_system": "truecolor"} if when == "always" else {}
    console = Console(file=stream, highlight=False, soft_wrap=True, **forced)
    styled = Text(text)
    for pattern, style in _styles():
        styled.highlight_regex(pattern, style)
    with console.capture() as capture:
        console.print(styled, end="")
    return capture.get()


def _styles() -> list[tuple[re.Pattern[str], str]]:
    from enrichstatus.outcomes import LABELS, OUTCOMES

    light = os.environ.get("COLORFGBG", "").rpartition(";")[2] in ("7", "15")
    # letters are thinner than bars: of the two colours that which is further from the page
    colours = {label: (min if light else max)(one.light, one.dark, key=_brightness) for label, one in LABELS.items()}
    data, nothing = (colours[OUTCOMES[word].label] for word in ("data", "no_data"))
    words = {rf"(?<=  ){label}(?=  |$)": colour for label, colour in colours.items()}
    words |= {rf"^{action}(?= )": colours[label] for action, label in _ACTIONS.items()}
    words |= {r"\bfinished\s+True\b": data, r"\bfinished\s+False\b": nothing, "█+": data}
    words |= {rf"(?<= ){label}(?=\s+–)": colour for label, colour in colours.items()}
    words["░+"] = "dim"
    return [(re.compile(pattern, re.MULTILINE), colour) for pattern, colour in words.items()]


def _brightness(colour: str) -> float:
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return 0.3 * red + 0.6 * green + 0.1 * blue
