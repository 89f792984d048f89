"""Request bodies that break the contract, each with what the message says of it."""

from __future__ import annotations

from typing import Any

from tests.support.factory import task, uid

BROKEN: dict[str, tuple[Any, str]] = {
    "no object": ([task(0)], "body is an object"),
    "none": (None, "body is an object"),
    "no tasks": ({}, 'lacks "tasks"'),
    "misspelt": ({"task": []}, 'lacks "tasks"; it has task'),
    "tasks null": ({"tasks": None}, "array of 1 to 200 tasks, not NoneType"),
    "tasks an object": ({"tasks": {"entityId": uid(0)}}, "array of 1 to 200 tasks"),
    "empty": ({"tasks": []}, "1 to 200 tasks, not 0"),
    "201": ({"tasks": [task(n) for n in range(201)]}, "1 to 200 tasks, not 201"),
    "a task that is text": ({"tasks": [task(0), "x"]}, "A task is an object, not str"),
    "a task that is null": ({"tasks": [None]}, "A task is an object, not NoneType"),
    "id missing": ({"tasks": [{"field": "emails"}]}, "row 0: entityId is missing"),
    "id null": ({"tasks": [{"entityId": None, "field": "emails"}]}, "row 0: entityId is missing"),
    "id a number": ({"tasks": [{"entityId": 17, "field": "emails"}]}, "not text"),
    "id no uuid": (
        {"tasks": [task(0), {"entityId": "x", "field": "emails"}]},
        "row 1: entityId 'x' is not a UUID",
    ),
    "id half a surrogate": ({"tasks": [{"entityId": "\ud800", "field": "emails"}]}, "not text"),
    "field missing": ({"tasks": [{"entityId": uid(0)}]}, "row 0: field is missing"),
    "field unknown": ({"tasks": [task(0, "fax")]}, "field 'fax' is not one of emails, phones, summary"),
    "field a list": ({"tasks": [{"entityId": uid(0), "field": ["emails"]}]}, "not text"),
    "type unknown": (
        {"tasks": [task(0) | {"entityType": "robot"}]},
        "entityType 'robot' is not one of person, company",
    ),
    "type null": ({"tasks": [task(0), task(1) | {"entityType": None}]}, "it is not null"),
    "type a number": ({"tasks": [task(0) | {"entityType": 1}]}, "not text"),
}
