"""The wire contract's JSON: request bodies in, any number of them in one lookup, their enrichment objects out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ValidationError
from enrichstatus.schema import COLUMNS, listed, timestamps

#: The path of the contract's endpoint, under whatever base URL.
PATH = "/api/v1/operations/enrichment/batch/query"
#: The path at which enrichments are triggered, and that of the credits that are left.
TRIGGER_PATH = PATH.removesuffix("/query")
BALANCE_PATH = "/api/v1/operations/credits/balance"
#: Where a simulated service, and no other, lists what it has charged.
LEDGER_PATH = "/ledger"
#: The contract's limit on the tasks of one request.
BATCH_SIZE = 200
#: The contract's limit on the entities that one request triggers.
TRIGGER_SIZE = 100

#: What one request is answered with: wire objects, or what is wrong with it.
Answer: TypeAlias = list[dict[str, Any]] | ValidationError

#: Keeps the columns of the answer apart from those of the tasks.
PREFIX = "record."

_MEMBERS = ("entityId", "field", "entityType")


def tasks_of(body: Any) -> pa.Table:
    """Read the tasks of a request (``{"tasks": [...]}``), in their order; a task without ``entityType`` is a person.

    Only the shape is checked here: whether an id is a UUID and a field is known is checked as for any task.
    """
    if not isinstance(body, dict):
        raise ValidationError(f'The body is an object {{"tasks": [...]}}, not {type(body).__name__}.')
    if "tasks" not in body:
        raise ValidationError(f'The body lacks "tasks"; it has {listed(body) if body else "no members"}.')
    tasks = body["tasks"]
    if not isinstance(tasks, list) or not 1 <= len(tasks) <= BATCH_SIZE:
        given = f"{len(tasks):,}" if isinstance(tasks, list) else type(tasks).__name__
        raise ValidationError(f'"tasks" is an array of 1 to {BATCH_SIZE} tasks, not {given}.')
    if strangers := set(map(type, tasks)) - {dict}:
        raise ValidationError(f"A task is an object, not {listed(kind.__name__ for kind in strangers)}.")
    try:
        # strict: a number or a list where text belongs is refused
        table = pa.Table.from_pylist(tasks, schema=pa.schema([(name, pa.string()) for name in _MEMBERS]))
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise ValidationError(f"A member of a task is not text: {error}") from error
    types = table["entityType"]
    if Counter(chain.from_iterable(tasks))["entityType"] > len(types) - types.null_count:
        raise ValidationError('"entityType" is "person" or "company", or left out; it is not null.')
    return table.set_column(2, "entityType", types.fill_null("person"))


def objects(records: pa.Table) -> list[dict[str, Any]]:
    """Turn records (`schema.SCHEMA`) into wire objects: ISO 8601 instants, in UTC, to the millisecond."""
    table = records.set_column(1, "createdAt", timestamps(records["createdAt"]))
    table = table.set_column(2, "updatedAt", timestamps(table["updatedAt"]))
    found: list[dict[str, Any]] = table.to_pylist()
    return found


def query_many(find: Callable[[pa.Table], pa.Table], bodies: Sequence[Any]) -> list[Answer]:
    """Answer request bodies, each by itself, from one lookup.

    `find` looks up tasks (with a column ``request``) and gives, in their order, the rows that have a record, its columns under
    `PREFIX`. It raises `ValidationError` with ``.problems`` where tasks are bad: their requests are answered with that, and the
    others are looked up without them.
    """
    read = list(map(_tasks, bodies))
    answers: list[Answer] = [[] if isinstance(tasks, pa.Table) else tasks for tasks in read]
    requests = {place: tasks for place, tasks in enumerate(read) if isinstance(tasks, pa.Table)}
    while requests:
        request = np.repeat(list(requests), [tasks.num_rows for tasks in requests.values()])
        tasks = pa.concat_tables(requests.values()).append_column("request", pa.array(request))
        try:
            _fill(answers, list(requests), find(tasks))
            break
        except ValidationError as error:
            if error.problems is None:
                raise
            for place, problems in _by_request(error.problems, request):
                answers[place] = problems
                del requests[place]
    return answers


def _tasks(body: Any) -> Any:
    try:
        return tasks_of(body)
    except ValidationError as error:
        return error


def _by_request(problems: pd.DataFrame, request: np.ndarray[Any, Any]) -> Iterator[tuple[int, ValidationError]]:
    for place in np.unique(request[problems["row"]]).tolist():
        own = problems[request[problems["row"]] == place]
        own = own.assign(row=own["row"] - np.searchsorted(request, place))
        yield place, ValidationError.of_rows("tasks", own, "Nothing was looked up.")


def _fill(answers: list[Answer], requests: Sequence[int], found: pa.Table) -> None:
    """Put each request's objects in its place; a task that stands in a request twice has one."""
    ids = found[PREFIX + "id"].combine_chunks().dictionary_encode()
    request = found["request"].to_numpy()
    # a record answers one task only, so its id distinguishes the tasks of a request
    both = request * max(len(ids.dictionary), 1) + ids.indices.to_numpy()
    first = np.sort(np.unique(both, return_index=True)[1])
    records = objects(found.take(first).select([PREFIX + name for name in COLUMNS]).rename_columns(COLUMNS))
    ends = np.searchsorted(request[first], requests, side="right")
    start = 0
    for one, end in zip(requests, ends.tolist(), strict=True):
        answers[one] = records[start:end]
        start = end
