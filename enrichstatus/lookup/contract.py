"""The wire contract's JSON: a request's body in, its enrichment objects out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
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


def query(find: Callable[..., pa.Table], body: Any) -> list[dict[str, Any]]:
    """Answer a request's body.

    `find` looks up tasks, with the options of a lookup.
    """
    try:
        found = find(tasks_of(body), columns=COLUMNS, how="inner", errors="raise", prefix=PREFIX)
    except ValidationError as error:
        if error.problems is None:
            raise
        raise ValidationError.of_rows("tasks", error.problems, "Nothing was looked up.") from error
    # a record answers one task only, so a task that comes twice in a request has one object
    ids = found[PREFIX + "id"].combine_chunks().dictionary_encode().indices.to_numpy()
    first = np.sort(np.unique(ids, return_index=True)[1])
    return objects(found.take(first).select([PREFIX + name for name in COLUMNS]).rename_columns(COLUMNS))
