"""The contract in process: request bodies in, wire objects out."""

from __future__ import annotations

import pytest

import enrichstatus as es
from tests.support.bodies import BROKEN
from tests.support.factory import NOW, record, task, uid


def test_the_answer_is_wire_objects_of_existing_records(store: es.EnrichmentStore):
    """An object has the contract's members, in its order, its instants in UTC to the millisecond, its nulls as None."""
    store.load([record(0, createdAt="2026-11-16T10:00:00.1234+02:00"), record(1, orgId="org_2")])
    answer = store.query({"tasks": [task(5), task(1), task(0)]}, now=NOW)
    assert answer == [record(0, createdAt="2026-11-16T08:00:00.123Z")]
    assert list(answer[0]) == list(record(0))


def test_one_object_for_each_distinct_task_in_order_of_appearance(store: es.EnrichmentStore):
    """A task requested twice, in whatever spelling, is answered once, where it first stood."""
    store.load([record(n) for n in range(5)])
    tasks = [
        task(3),
        task(1),
        {"entityId": uid(3).upper(), "field": "emails", "entityType": "person"},
        task(4),
        task(1),
    ]
    assert [one["entityId"] for one in store.query({"tasks": tasks}, now=NOW)] == [uid(3), uid(1), uid(4)]


def test_the_timeout_rule_and_nulls_are_applied(store: es.EnrichmentStore):
    """A pending record that is too old is a timeout on the wire too, its dataFound null."""
    store.load([record(0, status="pending", dataFound=True)])
    assert [(one["status"], one["dataFound"]) for one in store.query({"tasks": [task(0)]}, now=NOW)] == [
        ("timeout", None)
    ]


@pytest.mark.parametrize("count", [1, 200])
def test_1_to_200_tasks_are_answered(store: es.EnrichmentStore, count: int):
    """The contract's batch sizes, both ends."""
    store.load([record(n) for n in range(count)])
    assert len(store.query({"tasks": [task(n) for n in range(count)]}, now=NOW)) == count


@pytest.mark.parametrize("name", BROKEN)
def test_a_body_that_breaks_the_contract_is_a_validation_error(store: es.EnrichmentStore, name: str):
    """Each way to break the contract has its message, the contract's code and status 400."""
    body, message = BROKEN[name]
    with pytest.raises(es.ValidationError, match=message) as caught:
        store.query(body, now=NOW)
    assert (caught.value.code, caught.value.http_status) == ("VALIDATION_ERROR", 400)


def test_no_organization_is_the_contracts_error():
    """Without an organization the message is exactly the contract's, before anything else is evaluated."""
    with (
        es.EnrichmentStore() as store,
        pytest.raises(es.ValidationError, match=r"^Organization ID is missing$"),
    ):
        store.query({"tasks": []})


def test_a_query_that_fails_tells_nothing_of_the_inside(store: es.EnrichmentStore):
    """When DuckDB fails, the error is the contract's 500 and its text says nothing of files or SQL."""
    store.load([record(0)])
    with store._cursor() as con:
        con.execute("drop table enrichments")
    with pytest.raises(es.InternalError) as caught:
        store.query({"tasks": [task(0)]}, now=NOW)
    assert str(caught.value) == "The query failed."
    assert (caught.value.code, caught.value.http_status) == ("INTERNAL_ERROR", 500)
    assert caught.value.__cause__ is not None


def test_the_tree_of_exceptions_is_the_documented_one():
    """Everything derives from one base; codes and statuses are the contract's."""
    assert issubclass(es.ValidationError, ValueError)
    assert issubclass(es.StoreLockedError, es.StoreError)
    assert (es.UnauthorizedError.code, es.UnauthorizedError.http_status) == ("UNAUTHORIZED", 401)
    for error in (es.ValidationError, es.UnauthorizedError, es.InternalError, es.StoreError):
        assert error.__bases__[0] is es.EnrichStatusError
