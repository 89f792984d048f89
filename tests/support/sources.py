"""The sources that the contract suite runs over."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.schema import COLUMNS
from enrichstatus.sources.store.answering import point_lookup
from tests.support.factory import ORG
from tests.support.serving import running

MakeSource = Callable[..., es.Source]


@pytest.fixture(params=["memory", "file", "snapshot", "parquet", "spark", "remote"])
def make_source(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeSource]:
    """Make a source that holds the given records.

    Each answers in a way of its own: the store in memory through its index, as few tasks are; in a file that is opened again to read by
    scanning it, as many are; and through a snapshot. The records are read where they lie in Parquet, or by a Spark cluster; and a client
    asks a server, awaited and blocking by turns.
    """
    with ExitStack() as stack:

        def make(records: list[dict[str, Any]], **options: Any) -> es.Source:
            options = {"org_id": ORG} | options
            path = ":memory:" if request.param in ("memory", "remote") else tmp_path / f"{uuid.uuid4()}.duckdb"
            if request.param == "parquet":
                return stack.enter_context(es.EnrichmentStore.scan(_written(records, tmp_path), **options))
            if request.param == "spark":
                session = request.getfixturevalue("spark")
                return es.SparkEnrichmentStore(session, session.createDataFrame(_table(records)), **options)
            store = stack.enter_context(es.EnrichmentStore(path, **options))
            store.load(records)
            if request.param == "remote":
                return stack.enter_context(Remote(_serve(stack, store, options), **options))
            if request.param in ("file", "snapshot"):
                store.close()
                options |= {"read_only": True, "preload": request.param == "snapshot"}
                store = stack.enter_context(es.EnrichmentStore(path, **options))
            if request.param == "file":
                monkeypatch.setattr(point_lookup, "FEW", -1)
            return store

        yield make


def _table(records: list[dict[str, Any]]) -> pa.Table:
    """Take records as a JSON file has them: all columns but one are text."""
    types = [(name, pa.bool_() if name == "dataFound" else pa.string()) for name in COLUMNS]
    return pa.Table.from_pylist(records, pa.schema(types))


def _written(records: list[dict[str, Any]], folder: Path) -> str:
    """Write records to two Parquet files; gives their glob."""
    folder = folder / str(uuid.uuid4())
    folder.mkdir()
    half = len(records) // 2
    for part, some in enumerate((records[:half], records[half:])):
        pq.write_table(_table(some), folder / f"{part}.parquet")
    return str(folder / "*.parquet")


class Remote:
    """A client whose lookups are awaited and block by turns: the first is awaited, so that each test meets it."""

    def __init__(self, url: str, **options: Any):
        self._client = es.AsyncEnrichmentClient(url, token="token", **options)
        self._awaits = cycle((True, False))

    def lookup(self, tasks: Any, **options: Any) -> Any:
        if next(self._awaits):
            return asyncio.run(self._client.lookup(tasks, **options))
        return self._client.blocking.lookup(tasks, **options)

    def __enter__(self) -> Remote:
        return self

    def __exit__(self, *exception: object) -> None:
        asyncio.run(self._client.aclose())


def _serve(stack: ExitStack, store: es.EnrichmentStore, options: dict[str, Any]) -> str:
    """Serve the store over HTTP; its clock stands at a time before all records, so that ``now=`` of the client decides."""
    from enrichstatus.server import create_app

    app = create_app(store, {"token": options.pop("org_id")}, clock=lambda: datetime(2000, 1, 1, tzinfo=UTC))
    return stack.enter_context(running(app))
