"""Rules 2 and 4 of the lookup in vectors, and what explains an answer: ``lookup.sql`` once more, which the tests hold it against."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from enrichstatus.lookup.arguments import Instant, parse_instant, parse_org
from enrichstatus.lookup.vectors.keys import Codes
from enrichstatus.schema import FIRST_MICROSECOND

Flags = npt.NDArray[np.bool_]
Said = npt.NDArray[np.int64] | npt.NDArray[np.uint32]

#: Whether data was found, in what is said of a record.
FOUND = (None, False, True)
#: The words of outcomes.py.
REASONS = ("timed_out_here", "pending", "timed_out_there", "failed", "data", "no_data", "unknown")
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Question(NamedTuple):
    """Who asks, when, and by field since when a record that is still pending has timed out, all in microseconds."""

    org_id: str
    now: int
    since: npt.NDArray[np.int64]
    #: seconds
    maximum: npt.NDArray[np.float64]

    @classmethod
    def of(cls, org_id: str | None, limits: Mapping[str, timedelta], now: Instant) -> Question | None:
        """Read who asks and when; None for what `lookup.query.asker` refuses."""
        org_id = parse_org(org_id)
        moment = (parse_instant(now) - _EPOCH) // _MICROSECOND
        since = np.array([moment - limit // _MICROSECOND for limit in limits.values()], np.int64)
        if not org_id or since.min() < FIRST_MICROSECOND:
            return None
        return cls(org_id, moment, since, np.array([limit.total_seconds() for limit in limits.values()]))

    @classmethod
    def of_asker(cls, asker: pa.Table, limits: Mapping[str, timedelta]) -> Question | None:
        """Read the same from the relation ``asker`` of the query (`lookup.query.asker`)."""
        return cls.of(asker["orgId"][0].as_py(), limits, asker["now"][0].as_py())


class Statuses:
    """What the numbers say that stand for a status and whether data was found (`layout.ROW`)."""

    def __init__(self, recorded: Sequence[str]):
        self.words = [*recorded, "timeout"]
        said = [(word, found) for word in recorded for found in FOUND]
        self._pending = np.array([word == "pending" for word, _ in said], np.bool_)
        self._reasons = np.array([REASONS.index(_reason(word, found)) for word, found in said], np.int64)

    def pending(self, said: Said) -> Flags:
        """Say which are still pending as they were recorded."""
        flags: Flags = self._pending[said]
        return flags

    def timed_out(self, said: Said, created: npt.NDArray[np.int64], field: Codes, question: Question) -> Flags:
        """Rule 4: a record that is pending, and older than the maximum processing time (strictly), has timed out."""
        flags: Flags = self._pending[said] & (created < question.since[field])
        return flags

    def codes(self, said: Said, timed_out: Flags) -> Codes:
        """Give the places of the statuses in `words`."""
        return np.where(timed_out, len(self.words) - 1, said.astype(np.int64) // len(FOUND))

    def reasons(self, said: Said, timed_out: Flags) -> Codes:
        """Give the places of the reasons in `REASONS`."""
        return np.where(timed_out, REASONS.index("timed_out_here"), self._reasons[said])


def answers(
    statuses: Statuses, said: Said, created: npt.NDArray[np.int64], field: Codes, question: Question
) -> dict[str, Callable[[], pa.Array]]:
    """Give what makes the columns of an answer that the rules have a say in, of records as they were said and created."""
    timed_out = statuses.timed_out(said, created, field, question)
    # as DuckDB divides
    age = (question.now - created) / 1e6
    return {
        "status": lambda: words(statuses.codes(said, timed_out), statuses.words),
        # rule 5 was heeded by what is said
        "dataFound": lambda: pa.array(FOUND).take(pa.array(said % len(FOUND))),
        "reason": lambda: words(statuses.reasons(said, timed_out), REASONS),
        "age": lambda: pa.array(age),
        "expiresIn": lambda: pa.array(np.maximum(question.maximum[field] - age, 0), mask=~statuses.pending(said)),
    }


def _reason(status: str, found: bool | None) -> str:
    if status in ("pending", "failed"):
        return status
    if status == "timeout":
        return "timed_out_there"
    if found:
        return "data"
    return "no_data" if status == "finished" or found is False else "unknown"


def words(codes: Codes, vocabulary: Sequence[str]) -> pa.Array:
    """Give the words of a vocabulary that stand in these places."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(vocabulary, pa.string()))
