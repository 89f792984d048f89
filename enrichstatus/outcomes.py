"""What can become of a task: one word, one label and one colour each, and what each outcome means for counting and buying.

``lookup.sql`` decides which outcome a task has (its column ``reason``); whoever counts, draws or plans reads this table.

A task has *ended* when it has a record and that is not pending: with data or without, failed, timed out, or with a status that
nobody knows. A task without a record has not ended, as there is nothing that could; a poll stops waiting for one after
``missing_after``. A share "with data" is of the tasks that have ended with a status that is known: what an unknown one means, nobody
can say, so it is counted by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


class Outcome(NamedTuple):
    """One thing that can become of a task."""

    #: The word in the column ``reason``.
    word: str
    #: What a person reads. The two timeouts share theirs, as they share the status.
    label: str
    #: Its colour on a light page, and on a dark one; any two are apart for the colour-blind too, of whatever kind.
    light: str
    dark: str
    #: Whether it has ended.
    ended: bool
    #: Whether a plan buys it, or buys it again, by default.
    bought: bool

    @property
    def counted(self) -> bool:
        """Whether a share "with data" counts it: of all that have ended with a known status, and of nothing else."""
        return self.ended and self.word != "unknown"

    @property
    def failed(self) -> bool:
        """Whether it ended in vain, so that buying it again may help."""
        return self.ended and self.bought


#: In the order in which they are drawn and listed.
OUTCOMES: dict[str, Outcome] = {
    outcome.word: outcome
    for outcome in (
        #       word               label             light      dark       ended  bought
        Outcome("data", "with data", "#16C56F", "#0CA65B", True, False),
        Outcome("no_data", "no data", "#3089C0", "#63D0FC", True, False),
        Outcome("failed", "failed", "#BC3D05", "#AB3715", True, True),
        Outcome("timed_out_here", "timeout", "#E8A90B", "#E9A102", True, True),
        Outcome("timed_out_there", "timeout", "#E8A90B", "#E9A102", True, True),
        Outcome("unknown", "unknown status", "#692060", "#A83B9E", True, False),
        Outcome("pending", "pending", "#C7C7C7", "#5C5C5C", False, False),
        Outcome("unanswered", "unanswered", "#092E9A", "#0A46E0", False, False),
        Outcome("no_record", "no record", "#767676", "#A8A8A8", False, True),
        Outcome("invalid", "bad row", "#151515", "#F7F7F7", False, False),
    )
}
#: The labels, each once, with one of its outcomes.
LABELS: dict[str, Outcome] = {outcome.label: outcome for outcome in OUTCOMES.values()}
#: What a share "with data" is of.
COUNTED = tuple(label for label, outcome in LABELS.items() if outcome.counted)

#: Okabe and Ito's colours, for groups that are not outcomes, in the order in which they are taken.
GROUPS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#999999")


class Share(NamedTuple):
    """A part of an amount of credits: what it is called, and its colour or the outcome whose colour it has; what is wrong is hatched."""

    label: str
    like: str = ""
    colour: str = ""
    hatch: str = ""


#: What credits brought, as `waste` names it.
CREDITS = {
    "useful": Share("with data", like="with data"),
    "open": Share("pending", like="pending"),
    "unknown": Share("unknown status", like="unknown status"),
    "for nothing": Share("brought nothing", colour="#9A6324", hatch="//"),
    "again": Share("bought again", colour="#882255", hatch="xx"),
}
#: What credits were charged for, as `reconcile` names it.
CHARGES = {
    "charged": Share("charged", like="with data"),
    "no data": Share("no data", like="no data"),
    "unknown status": Share("unknown status", like="unknown status"),
    "refunded": Share("refunded", colour="#B6DFA5"),
    "charged twice": Share("charged twice", colour="#882255", hatch="xx"),
    "no record": Share("no record", like="failed", hatch="//"),
    "given back": Share("given back", colour="#999999", hatch=".."),
}

_STATUSES = {None: "no_record", "pending": "pending", "unanswered": "unanswered", "timeout": "timed_out_there"}


def outcome(status: str | None, found: bool | None) -> Outcome:
    """Give the outcome of a task by its ``status`` and ``dataFound``, as ``lookup.sql`` decides it.

    These two do not show whose timeout it was, nor whether a task without a record is a bad row.
    """
    if status in (*_STATUSES, "failed"):
        word = _STATUSES.get(status, "failed")
    elif found:
        word = "data"
    else:
        word = "no_data" if status == "finished" or found is not None else "unknown"
    return OUTCOMES[word]


def places(status: pa.ChunkedArray, found: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Give of each task the place of its label in `LABELS`, by its ``status`` (text) and ``dataFound`` (boolean)."""
    encoded = status.combine_chunks().dictionary_encode("encode")
    order = list(LABELS)
    # a few statuses, not tasks
    table = [
        [order.index(outcome(word, data).label) for data in (None, False, True)]
        for word in encoded.dictionary.to_pylist()
    ]
    column = pc.fill_null(pc.add(found.cast(pa.int8()), pa.scalar(1, pa.int8())), 0).to_numpy()
    rows = encoded.indices.to_numpy(zero_copy_only=False)
    found_places: npt.NDArray[np.int64] = np.array(table, np.int64).reshape(-1, 3)[rows, column]
    return found_places
