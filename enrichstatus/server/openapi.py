"""The contract's types: they check a request's body, and the OpenAPI document is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated, Any, Literal, NamedTuple

import msgspec
from msgspec import Meta, Struct

from enrichstatus.lookup.contract import BALANCE_PATH, BATCH_SIZE, LEDGER_PATH, PATH, TRIGGER_PATH, TRIGGER_SIZE
from enrichstatus.schema import ENTITY_TYPES, FIELDS

_EXAMPLE = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6"
_UUID = {"format": "uuid", "examples": [_EXAMPLE]}
_INSTANT = {"format": "date-time", "examples": ["2025-01-13T10:30:00.000Z"]}

Uuid = Annotated[str, Meta(extra_json_schema=_UUID)]
Instant = Annotated[str, Meta(extra_json_schema=_INSTANT, description="ISO 8601, UTC, milliseconds")]


class Types(NamedTuple):
    """The types of one service, whose fields the store decides."""

    request: Any
    answer: Any
    trigger: Any


class Problem(Struct):
    """What is wrong."""

    code: Annotated[str, Meta(examples=["VALIDATION_ERROR"])]
    message: str


class Balance(Struct):
    """The credits that are left."""

    balance: int
    organizationId: str  # noqa: N815  the contract's own name


class Charge(Struct):
    """What one purchase was charged."""

    creditTransactionId: Uuid  # noqa: N815  as records have it
    credits: float
    createdAt: Instant  # noqa: N815
    entityId: Uuid  # noqa: N815
    entityType: str  # noqa: N815
    field: str


class Error(Struct):
    """The body of every answer that is not 200."""

    error: Problem


_STATUS = "pending, finished, timeout, failed, or another that has ended"


def types(fields: Sequence[str] = FIELDS) -> Types:
    """Make the types of a request and its answer for these fields."""
    field: Any = Literal[tuple(fields)]
    entity_type: Any = Literal[ENTITY_TYPES]
    members: list[Any] = [("entityId", Uuid), ("field", field), ("entityType", entity_type, ENTITY_TYPES[0])]
    task = msgspec.defstruct("Task", members)
    tasks = Annotated[list[task], Meta(min_length=1, max_length=BATCH_SIZE)]  # type: ignore[valid-type]
    request = msgspec.defstruct("Request", [("tasks", tasks)])
    persons = Annotated[list[Uuid], Meta(min_length=1, max_length=TRIGGER_SIZE)]
    trigger = msgspec.defstruct("Trigger", [("personIds", persons), ("field", field)])
    enrichment = msgspec.defstruct(
        "Enrichment",
        [
            ("id", Uuid),
            ("createdAt", Instant),
            ("updatedAt", Instant | None),
            ("entityId", Uuid),
            ("entityType", entity_type),
            ("field", field),
            ("status", Annotated[str, Meta(description=_STATUS)]),
            ("error", str | None),
            ("dataFound", Annotated[bool | None, Meta(description="null while pending")]),
            ("createdBy", str | None),
            ("orgId", str),
            ("globalEnrichmentId", str | None),
            ("creditTransactionId", str | None),
        ],
    )
    return Types(request, list[enrichment], trigger)  # type: ignore[valid-type]


def document(types: Types, *, triggers: bool = False) -> dict[str, Any]:
    """Describe the service in OpenAPI 3.1; one that is simulated can be triggered too."""
    (request, answer, trigger, error, balance, charges), schemas = msgspec.json.schema_components(
        (types.request, types.answer, types.trigger, Error, Balance, list[Charge]),
        ref_template="#/components/schemas/{name}",
    )
    if not triggers:
        for name in ("Trigger", "Balance", "Charge"):
            del schemas[name]
    query = {
        "operationId": "queryEnrichments",
        "summary": "The status of up to 200 enrichment tasks",
        "description": "One object for each distinct task that has a record, in the order of first appearance.",
        **_with_body(request, "The records there are.", answer, error),
    }
    begin = {
        "operationId": "triggerEnrichments",
        "summary": f"Enrich a field of up to {TRIGGER_SIZE} persons",
        "description": "One object for each distinct person; what is pending or has finished is not bought again.",
        **_with_body(trigger, "The records, new ones among them.", answer, error),
    }
    begin["responses"]["402"] = _answer("The credits do not suffice.", error)
    simulated = {
        TRIGGER_PATH: {"post": begin},
        BALANCE_PATH: {"get": _shown("balance", "The credits that are left", balance, error)},
        LEDGER_PATH: {"get": _shown("ledger", "All charges, in order", charges, error)},
    }
    plain = {"type": "object"}
    health = {
        "operationId": "health",
        "summary": "Whether the store can be read",
        "responses": {"200": _answer("It can.", plain), "503": _answer("It cannot.", error)},
    }
    this = {"operationId": "openapi", "summary": "This document", "responses": {"200": _answer("It.", plain)}}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Batch enrichment status", "version": version("enrichstatus")},
        "paths": {
            PATH: {"post": query},
            **(simulated if triggers else {}),
            "/healthz": {"get": health},
            "/openapi.json": {"get": this},
        },
        "components": {"schemas": schemas, "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}}},
    }


def _shown(operation: str, summary: str, answer: Any, error: Any) -> dict[str, Any]:
    """Describe what is shown to the organization of a token."""
    refused = {"400": _answer("The token has no organization.", error), "401": _answer(_NO_TOKEN, error)}
    responses = {"200": _answer(f"{summary}.", answer), **refused}
    return {"operationId": operation, "summary": summary, "security": [{"bearer": []}], "responses": responses}


def _with_body(body: Any, success: str, answer: Any, error: Any) -> dict[str, Any]:
    """Describe what is the same for every request with a body and a token."""
    responses = {
        "200": _answer(success, answer),
        "400": _answer("The body breaks the contract, or the token has no organization.", error),
        "401": _answer(_NO_TOKEN, error),
        "500": _answer("The query failed on the server.", error),
    }
    content = {"required": True, "content": _json(body)}
    return {"security": [{"bearer": []}], "requestBody": content, "responses": responses}


_NO_TOKEN = "There is no token, or a wrong one."


def _answer(description: str, schema: Any) -> dict[str, Any]:
    return {"description": description, "content": _json(schema)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
