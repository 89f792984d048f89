"""What the tests share: a store, and the sources that the contract suite runs over."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import enrichstatus as es
from enrichstatus.sources import answering
from tests.factory import ORG


@pytest.fixture
def store() -> es.EnrichmentStore:
    return es.EnrichmentStore(org_id=ORG)


# a benchmark is run, not tested
collect_ignore = ["bench"]

MakeSource = Callable[..., es.Source]


@pytest.fixture(params=["memory", "file", "scan"])
def make_source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeSource:
    """Make a source that holds the given records: the store in memory, in a file reopened to read, and without its index."""

    def make(records: list[dict[str, Any]], **options: Any) -> es.Source:
        path = ":memory:" if request.param == "memory" else tmp_path / f"{uuid.uuid4()}.duckdb"
        source = es.EnrichmentStore(path, **{"org_id": ORG} | options)
        source.load(records)
        if request.param == "file":
            source.close()
            source = es.EnrichmentStore(path, read_only=True, **{"org_id": ORG} | options)
        if request.param == "scan":  # the way that many tasks take
            monkeypatch.setattr(answering, "FEW", -1)
        return source

    return make
