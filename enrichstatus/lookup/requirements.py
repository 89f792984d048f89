"""A gate for pipelines: a list passes when enough of it has ended and little of it has failed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TypeVar

import pyarrow as pa

from enrichstatus.errors import RequirementError, StatusWarning, ValidationError, quoted, suggested
from enrichstatus.frames import frames
from enrichstatus.lookup.arguments import parse_number, parse_prefix
from enrichstatus.outcomes import outcome
from enrichstatus.presentation import of_unknown_status
from enrichstatus.schema import listed

F = TypeVar("F")


def require(
    status: F, *, ended: float | None = None, failed: float | None = None, tasks: int | None = None, prefix: str = ""
) -> F:
    """Let a list pass that has ended well enough, or raise with the figures, so that a pipeline does not ship half a list.

    Parameters
    ----------
    status : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        What a lookup or a poll gave. Of what was looked up with ``how="inner"`` the tasks without a record are not in it, and not
        counted; ``lookup_to(require=)`` and ``--require`` count all tasks.
    ended : float, optional
        The least share of the tasks that has ended, from 0 to 1; a task without a record has not.
    failed : float, optional
        The greatest share of the tasks that may have failed or timed out, from 0 to 1.
    tasks : int, optional
        The least number of tasks; of an empty list any share passes.
    prefix : str
        What stands before ``status``, where the lookup was given one.

    Returns
    -------
    The same object, so that the call can stand in a chain.

    Raises
    ------
    RequirementError
        Something is not reached; ``.figures`` has the number of tasks and both shares.
    ValidationError
        Nothing is required, a share is unusable, or there is no column ``status``.

    Examples
    --------
    >>> import enrichstatus as es
    >>> status = [{"status": "finished"}, {"status": "pending"}]
    >>> es.require(status, ended=0.98)
    Traceback (most recent call last):
    ...
    enrichstatus.errors.RequirementError: Of 2 tasks 1 have ended (50 %), and 98 % are required.
    """
    check_requirements(ended=ended, failed=failed, tasks=tasks)
    parse_prefix(prefix)
    frame = frames.read(status)
    name = prefix + "status"
    if name not in frame.columns and len(frame):
        raise ValidationError(
            f"There is no column {name!r}; found {listed(frame.columns)}. What a lookup gave is required."
        )
    words = frame.arrow([name]).column(0).cast(pa.string()) if len(frame) else pa.chunked_array([], pa.string())
    found = frame.arrow([data]).column(0) if (data := prefix + "dataFound") in frame.columns and len(frame) else None
    if found is None or not pa.types.is_boolean(found.type):
        found = pa.nulls(len(words), pa.bool_())
    answers = pa.table({"status": words, "dataFound": found})
    counts = answers.group_by(["status", "dataFound"]).aggregate([([], "count_all")])
    check_shares(counts.rename_columns({"count_all": "tasks"}), ended=ended, failed=failed, tasks=tasks)
    return status


def check_requirements(*, ended: float | None = None, failed: float | None = None, tasks: int | None = None) -> None:
    """Check what is required: see `require`."""
    for name, share in (("ended", ended), ("failed", failed)):
        if share is not None:
            parse_number(name, share, least=0, most=1, what="share")
    if tasks is not None:
        parse_number("tasks", tasks, least=0, whole=True)
    if ended is None and failed is None and tasks is None:
        raise ValidationError("Nothing is required: name a share that has ended or failed, or a number of tasks.")


def check_required(require: object) -> None:
    """Check requirements that are given as a mapping."""
    names = ("ended", "failed", "tasks")
    if not isinstance(require, Mapping) or not set(require) <= set(names):
        strange = [name for name in require if name not in names] if isinstance(require, Mapping) else []
        near = suggested(strange[0], names) if strange else ""
        raise ValidationError(
            f'takes some of {listed(names)}, {{"ended": 0.98}} say, not {quoted(require)}.{near}', argument="require"
        )
    check_requirements(**require)


def check_shares(
    counts: pa.Table, *, ended: float | None = None, failed: float | None = None, tasks: int | None = None
) -> None:
    """Raise `RequirementError` where the numbers of ``tasks`` by ``status`` and ``dataFound`` do not reach what is required."""
    count = done = vain = 0
    strange: dict[str, int] = {}
    for row in counts.to_pylist():  # a few statuses, not tasks
        became, number = outcome(row["status"], row["dataFound"]), row["tasks"]
        count, done, vain = count + number, done + number * became.ended, vain + number * became.failed
        if became.word == "unknown":
            strange[row["status"]] = strange.get(row["status"], 0) + number
    figures = {"tasks": count, "ended": done / count if count else 1.0, "failed": vain / count if count else 0.0}
    short = []
    if tasks is not None and count < tasks:
        short.append(f"there are {count:,}, and {tasks:,} are required")
    if ended is not None and figures["ended"] < ended:
        share = math.floor(figures["ended"] * 10_000) / 100  # rounded up it could pass for enough
        short.append(f"{done:,} have ended ({share:g} %), and {ended * 100:.10g} % are required")
    if failed is not None and figures["failed"] > failed:
        share = math.ceil(figures["failed"] * 10_000) / 100
        short.append(f"{vain:,} have failed or timed out ({share:g} %), and at most {failed * 100:.10g} % may")
    if short:
        short += [of_unknown_status(strange)] if strange else []
        raise RequirementError(f"Of {count:,} tasks " + "; ".join(short) + ".", figures)
    if strange:
        warnings.warn(f"{of_unknown_status(strange)}.", StatusWarning, stacklevel=3)
