"""Dashboards that are stopped when their test has run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import enrichstatus as es
from tests.support.boards import Make
from tests.support.waiting import threads, until


@pytest.fixture
def make() -> Iterator[Make]:
    """Make a dashboard that polls again at once; it is stopped when the test has run."""
    made: list[es.Dashboard] = []

    def make(source: Any, tasks: Any, **options: Any) -> es.Dashboard:
        made.append(es.Dashboard(source, tasks, **{"schedule": [0.001]} | options))
        return made[-1]

    yield make
    for one in made:
        one.stop()
    until(lambda: not threads())
