"""Where a list has data and where it has none, as shares of the tasks that have ended."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError, quoted
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Frame
from enrichstatus.lookup.arguments import is_text, parse_number
from enrichstatus.lookup.tasks import unusable
from enrichstatus.outcomes import COUNTED, LABELS, OUTCOMES, places
from enrichstatus.presentation import of_unknown_status, share
from enrichstatus.reports.groups import By, comparable, parse_by, segment
from enrichstatus.reports.groups import found as column_named
from enrichstatus.reports.report import Report

#: How a column of text says that something is not found, and that it is.
_NO, _YES = ("false", "no", "0"), ("true", "yes", "1")
#: The standard normal's quantile for an interval of 95 %.
_Z = 1.959963984540054
_COVERAGE = ("tasks", "no record", "pending", "ended", "with data", "share", "low", "high", "small")
_UNKNOWN = OUTCOMES["unknown"].label
#: Whether it has ended with a known status, by the place of the label.
_ENDED = np.array([label in COUNTED for label in LABELS])
_UNITS = {"share": "share of ended", "low": "share", "high": "share", "small": "flag"}


def coverage(status: Any, by: By = "field", *, found: str | None = None, prefix: str = "", small: int = 30) -> Report:
    """Report where data was found, as a share of the tasks that have ended: by field, or by any columns of the list.

    Parameters
    ----------
    status : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        What a lookup gave: *n* rows with ``status``, ``dataFound`` and the columns of `by`.
    by : str, sequence of str or None
        The columns whose values make the groups, null among them; None for all tasks in one row.
    found : str, optional
        A column of the list that is true of what counts as found for you, ``"email_verified"`` say: booleans, 1 and 0, or text
        (``true``, ``yes``, ``1``, ``false``, ``no``, ``0``); null is not found. Its share of the tasks that have ended stands beside
        the share with data.
    prefix : str
        The prefix that the lookup gave its columns.
    small : int
        Groups of which fewer tasks than this have ended are marked: their shares mean little.

    Returns
    -------
    Report
        ``.frame`` has the columns of `by`, and for each group ``tasks``, ``no record``, ``pending``, ``ended`` (those with a record
        that is not pending: timeouts and failures too, though no unknown status), ``with data``, the ``share`` with data of those that
        ended with its 95 % interval (Wilson's score) from ``low`` to ``high``, and ``small``; with `found` also that column's count,
        and its ``share …``. Where some have an ``unknown status``, a column counts these.
        The largest group comes first; numbers and dates keep their own order.

    Raises
    ------
    ValidationError
        A column is missing, ambiguous or of an unusable type, or an argument is unusable.

    Examples
    --------
    >>> import enrichstatus as es
    >>> status = [
    ...     {"source": "Webinar", "status": "finished", "dataFound": True},
    ...     {"source": "Webinar", "status": "failed", "dataFound": None},
    ...     {"source": "Webinar", "status": "pending", "dataFound": None},
    ... ]
    >>> es.coverage(status, by="source").frame[["source", "tasks", "ended", "with data", "share"]]
        source  tasks  ended  with data  share
    0  Webinar      3      2          1    0.5
    """
    names = parse_by(by)
    parse_number("small", small, least=0, whole=True, what="number of tasks")
    if found is not None and not is_text(found):
        raise ValidationError(f"takes the name of a column, not {quoted(found)}.", argument="found")
    frame = frames.read(status)
    words, data = answers(frame, prefix)
    if _is_nothing(frame):
        columns = pa.table({name: pa.array([], pa.string()) for name in names})
    else:
        theirs = [column_named(frame.columns, name, what="names", argument="by") for name in names]
        columns = comparable(frame.arrow(theirs)).rename_columns(list(names))
    measure = [] if found is None else [found, f"share {found}"]
    segments = segment(columns, len(frame), reserved=(*_COVERAGE, *LABELS, *measure))
    size = len(LABELS)
    place = places(words, data)
    if words.null_count:  # no record, or a bad row
        place[unusable(frame) & words.is_null().to_numpy()] = list(LABELS).index(OUTCOMES["invalid"].label)
    pairs = np.bincount(segments.code * size + place, minlength=len(segments) * size)
    counts = pd.DataFrame(pairs.reshape(-1, size), columns=list(LABELS)).astype(np.int64)
    counts["tasks"] = segments.count()
    counts["ended"] = counts[list(COUNTED)].sum(axis=1)
    counts["share"], counts["low"], counts["high"] = _wilson(counts["with data"], counts["ended"])
    counts["small"] = counts["ended"] < small
    details: dict[str, Any] = {"small": small}
    said = ""
    ended, with_data = int(counts["ended"].sum()), int(counts["with data"].sum())
    if found is not None:
        if found in _COVERAGE or found in LABELS:
            raise ValidationError(
                f"names {found!r}, which the report has a column for; rename yours.", argument="found"
            )
        true = _measured(frame, found) & _ENDED[place]
        counts[found] = np.bincount(segments.code[true], minlength=len(segments)).astype(np.int64)
        counts[measure[1]], *ends = _wilson(counts[found], counts["ended"])
        counts["found low"], counts["found high"] = ends
        count = int(counts[found].sum())
        said = f", and {count:,} {'has' if count == 1 else 'have'} {found} ({share(count / ended)})" if ended else ""
    table = segments.report(counts, "tasks")
    if found is not None:
        ranges = table[[found, measure[1], "found low", "found high"]]
        details |= {"found": found, "measure": ranges.set_axis(["count", "share", "low", "high"], axis=1)}
    left = {name: int(counts[name].sum()) for name in LABELS if name not in (*COUNTED, _UNKNOWN)}
    strange = dict(Counter(words.filter(pa.array(place == list(LABELS).index(_UNKNOWN))).to_pylist()))
    return Report(
        table[[*names, *_COVERAGE[:-1], *([_UNKNOWN] if strange else []), *measure, "small"]],
        _covered(with_data, ended, said, left) + (f"; {of_unknown_status(strange)}" if strange else ""),
        "coverage",
        names,
        _UNITS | dict.fromkeys(measure[1:], "share"),
        {"outcomes": table[list(LABELS)], **details},
    )


def _measured(frame: Frame, name: str) -> npt.NDArray[np.bool_]:
    """Read which rows a column says are found."""
    if _is_nothing(frame):
        return np.zeros(0, dtype=bool)
    theirs = column_named(frame.columns, name, what="names", argument="found")
    given = column = comparable(frame.arrow([theirs])).column(0)
    if pa.types.is_string(column.type):
        column = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        known, strange = pa.array([*_NO, *_YES]), "text"
        truth = pc.greater_equal(pc.index_in(column, known), len(_NO))
        bad = pc.and_(pc.is_valid(column), pc.is_null(truth))
    elif pa.types.is_boolean(column.type) or pa.types.is_null(column.type):
        truth, bad, strange = column.cast(pa.bool_()), None, ""
    elif not pa.types.is_integer(column.type) and not pa.types.is_floating(column.type):
        raise ValidationError(
            f"names the column {name!r} of {column.type}, which must be true or false.", argument="found"
        )
    else:
        numbers = column.cast(pa.float64())
        truth, strange = pc.equal(numbers, 1), "numbers"
        bad = pc.invert(pc.fill_null(pc.or_(truth, pc.equal(numbers, 0)), True))
    if bad is not None and pc.any(bad).as_py():
        example = given.filter(bad)[0].as_py()
        raise ValidationError(
            f"names the column {name!r}, whose {strange} must be true or false (or null); {example!r} is not.",
            argument="found",
        )
    found: npt.NDArray[np.bool_] = truth.fill_null(False).to_numpy().astype(bool)
    return found


def _is_nothing(frame: Frame) -> bool:
    """Distinguish a list of no objects, which has no columns either, from one that lacks a column."""
    return frame.objects and not len(frame)


def answers(frame: Frame, prefix: str, who: str = "coverage()") -> tuple[pa.ChunkedArray, pa.ChunkedArray]:
    """Read ``status`` and ``dataFound`` of a frame."""
    if not is_text(prefix):
        raise ValidationError(
            f"takes the text that the lookup put before its columns, not {quoted(prefix)}.", argument="prefix"
        )
    if _is_nothing(frame):
        return pa.chunked_array([], pa.string()), pa.chunked_array([], pa.bool_())
    try:
        names = [column_named(frame.columns, prefix + name, what=f"{who} needs") for name in ("status", "dataFound")]
    except ValidationError as error:
        raise ValidationError(
            f"{error} Look the tasks up first, and give the prefix that the lookup was given."
        ) from error
    words, data = comparable(frame.arrow(names)).columns
    if words.null_count == len(words):
        words = pa.chunked_array([pa.nulls(len(words), pa.string())])
    if words.type != pa.string():
        raise ValidationError(
            f"The column {names[0]!r} holds {words.type}, not the text of a status such as 'finished'."
        )
    try:
        return words, data.cast(pa.bool_())
    except (pa.ArrowException, ValueError) as error:
        raise ValidationError(f"The column {names[1]!r} must hold true, false or null: {error}") from error


def _wilson(hits: pd.Series[int], trials: pd.Series[int]) -> tuple[Any, Any, Any]:
    """Give the share and Wilson's 95 % interval, NaN where nothing was tried."""
    n = trials.to_numpy(np.float64)
    n = np.where(n > 0, n, np.nan)
    found = hits.to_numpy(np.float64) / n
    middle = (found + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * np.sqrt(found * (1 - found) / n + _Z**2 / (4 * n**2))
    # the bounds at none and at all are exactly these; rounding puts them a hair beside
    low = np.where(found == 0, 0.0, middle - half)
    return found, low, np.where(found == 1, 1.0, middle + half)


def _covered(with_data: int, ended: int, said: str, left: dict[str, int]) -> str:
    words = {"no record": "without a record", "bad row": f"bad row{'s' if left['bad row'] != 1 else ''}"}
    out = [f"{count:,} {words.get(name, name)}" for name, count in left.items() if count]
    aside = f"; {' and '.join(out)} left out" if out else ""
    if not ended:
        return f"No task has ended{aside}"
    verb = "has" if with_data == 1 else "have"
    return f"{with_data:,} of {ended:,} ended tasks {verb} data ({share(with_data / ended)}){said}{aside}"
