"""What the tests share: a store, and the sources that the contract suite runs over."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

import enrichstatus as es
from enrichstatus.schema import COLUMNS
from enrichstatus.sources import answering
from tests.browser import chromium as chromium
from tests.browser import lab as lab
from tests.browser import lab_server as lab_server
from tests.browser import voila as voila
from tests.browser import voila_server as voila_server
from tests.cluster import spark as spark
from tests.factory import ORG
from tests.serving import running

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


@pytest.fixture
def store() -> es.EnrichmentStore:
    return es.EnrichmentStore(org_id=ORG)


# a benchmark is run, not tested
collect_ignore = ["bench"]

MakeSource = Callable[..., es.Source]


@pytest.fixture(params=["memory", "file", "scan", "snapshot", "remote", "spark"])
def make_source(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[MakeSource]:
    """Make a source that holds the given records.

    The store in memory, in a file reopened to read, without its index, and with a snapshot; a client that asks a server,
    and a cluster.
    """
    with ExitStack() as stack:

        def make(records: list[dict[str, Any]], **options: Any) -> es.Source:
            options = {"org_id": ORG} | options
            if request.param == "spark":
                return _on_spark(request.getfixturevalue("spark"), records, options)
            path = ":memory:" if request.param in ("memory", "remote") else tmp_path / f"{uuid.uuid4()}.duckdb"
            store = stack.enter_context(es.EnrichmentStore(path, **options))
            store.load(records)
            if request.param == "remote":
                return stack.enter_context(_client(stack, store, options))
            if request.param in ("file", "snapshot"):
                store.close()
                options |= {"read_only": True, "preload": request.param == "snapshot"}
                store = stack.enter_context(es.EnrichmentStore(path, **options))
            if request.param == "scan":  # the way that many tasks take
                monkeypatch.setattr(answering, "FEW", -1)
            return store

        yield make


def _on_spark(spark: SparkSession, records: list[dict[str, Any]], options: dict[str, Any]) -> es.Source:
    """Make a Spark DataFrame of the records, all columns but one of them text, as a JSON file is read."""
    schema = pa.schema([(name, pa.bool_() if name == "dataFound" else pa.string()) for name in COLUMNS])
    frame = spark.createDataFrame(pa.Table.from_pylist(records, schema))
    return es.SparkEnrichmentStore(spark, frame, **options)


def _client(stack: ExitStack, store: es.EnrichmentStore, options: dict[str, Any]) -> es.EnrichmentClient:
    """Ask the store over HTTP; its clock stands at a time before all records, so that ``now=`` of the client decides."""
    from enrichstatus.server import create_app

    app = create_app(store, {"token": options.pop("org_id")}, clock=lambda: datetime(2000, 1, 1, tzinfo=UTC))
    return es.EnrichmentClient(stack.enter_context(running(app)), token="token", **options)
