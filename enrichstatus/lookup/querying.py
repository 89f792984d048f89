"""The contract's requests over a store: any number of bodies in, answered by one lookup, their wire objects out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from enrichstatus.errors import ValidationError
from enrichstatus.lookup import contract as wire
from enrichstatus.schema import COLUMNS

#: What one request is answered with: wire objects, or what is wrong with it.
Answer: TypeAlias = list[dict[str, Any]] | ValidationError

#: Keeps the columns of the answer apart from those of the tasks.
PREFIX = "record."


def query_many(find: Callable[[pa.Table], pa.Table], bodies: Sequence[Any]) -> list[Answer]:
    """Answer request bodies, each by itself, from one lookup.

    `find` looks up tasks (with a column ``request``) and gives, in their order, the rows that have a record, its columns under
    `PREFIX`. It raises `ValidationError` with ``.problems`` where tasks are bad: their requests are answered with that, and the
    others are looked up without them.
    """
    read = list(map(_tasks, bodies))
    answers: list[Answer] = [[] if isinstance(tasks, pa.Table) else tasks for tasks in read]
    asked = {place: tasks for place, tasks in enumerate(read) if isinstance(tasks, pa.Table)}
    while asked:
        request = np.repeat(list(asked), [tasks.num_rows for tasks in asked.values()])
        tasks = pa.concat_tables(asked.values()).append_column("request", pa.array(request))
        try:
            _fill(answers, list(asked), find(tasks))
            break
        except ValidationError as error:
            if error.problems is None:
                raise
            for place, problems in _by_request(error.problems, request):
                answers[place] = problems
                del asked[place]
    return answers


def _tasks(body: Any) -> Any:
    try:
        return wire.tasks_of(body)
    except ValidationError as error:
        return error


def _by_request(problems: pd.DataFrame, request: np.ndarray[Any, Any]) -> Iterator[tuple[int, ValidationError]]:
    for place in np.unique(request[problems["row"]]).tolist():
        own = problems[request[problems["row"]] == place]
        own = own.assign(row=own["row"] - np.searchsorted(request, place))
        yield place, ValidationError.of_rows("tasks", own, "Nothing was looked up.")


def _fill(answers: list[Answer], asked: Sequence[int], found: pa.Table) -> None:
    """Put each request's objects in its place; a task asked twice in a request has one."""
    ids = found[PREFIX + "id"].combine_chunks().dictionary_encode()
    request = found["request"].to_numpy()
    # a record answers one task only, so its id tells the tasks of a request apart
    both = request * max(len(ids.dictionary), 1) + ids.indices.to_numpy()
    first = np.sort(np.unique(both, return_index=True)[1])
    records = found.take(first).select([PREFIX + name for name in COLUMNS]).rename_columns(COLUMNS)
    objects = wire.objects(records)
    ends = np.searchsorted(request[first], asked, side="right")
    start = 0
    for one, end in zip(asked, ends.tolist(), strict=True):
        answers[one] = objects[start:end]
        start = end
