"""The wire contract's JSON: a request in, enrichment objects out."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from typing import Any

import pyarrow as pa

from enrichstatus.errors import ValidationError
from enrichstatus.schema import listed, timestamps

#: The path of the contract's endpoint, under whatever base URL.
PATH = "/api/v1/operations/enrichment/batch/query"
#: The contract's limit on the tasks of one request.
BATCH_SIZE = 200

_MEMBERS = ("entityId", "field", "entityType")


def tasks_of(body: Any) -> pa.Table:
    """Read the tasks of a request (``{"tasks": [...]}``), in their order; a task without ``entityType`` is a person.

    Only the shape is judged here: whether an id is a UUID and a field is known is checked like any task is.
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
