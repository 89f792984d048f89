"""What can become of a task: one word, one label and one colour each, and what each outcome means for counting and buying.

``lookup.sql`` decides which outcome a task has (its column ``reason``); whoever counts, draws or plans reads this table.
"""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """One thing that can become of a task."""

    #: The word in the column ``reason``.
    word: str
    #: What a person reads.
    label: str
    #: Its colour on a light page, and on a dark one: Okabe and Ito's, which the colour-blind tell apart.
    light: str
    dark: str
    #: Whether nothing more will come of it: it is not pending, and there is, or was, a record to wait for.
    ended: bool
    #: Whether a share "with data" counts it among the tasks that have ended.
    counted: bool
    #: Whether a plan buys it again unless it is told otherwise.
    bought: bool


#: In the order in which they are drawn and listed.
OUTCOMES: dict[str, Outcome] = {
    outcome.word: outcome
    for outcome in (
        #       word              label                   light      dark       ended  counted bought
        Outcome("data", "with data", "#009E73", "#2BC499", True, True, False),
        Outcome("no_data", "no data", "#56B4E9", "#56B4E9", True, True, False),
        Outcome("failed", "failed", "#D55E00", "#F07B2B", True, True, True),
        Outcome("timed_out_here", "timeout", "#E69F00", "#F0B429", True, True, True),
        Outcome("timed_out_there", "timeout (service)", "#B87C00", "#C98F1C", True, True, True),
        Outcome("unknown", "unknown status", "#CC79A7", "#DB92BB", True, True, False),
        Outcome("pending", "pending", "#BFBFBF", "#6E6E6E", False, False, False),
        Outcome("unanswered", "unanswered", "#0072B2", "#4C9FD4", False, False, False),
        Outcome("no_record", "no record", "#8C8C8C", "#A6A6A6", False, False, True),
        Outcome("invalid", "bad row", "#F0E442", "#F0E442", False, False, False),
    )
}
