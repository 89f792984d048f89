"""What type checkers infer: the kind of frame that goes in comes out. `mypy` and `pyright` check it; nothing runs it."""

from pathlib import Path
from typing import Any, assert_type

import duckdb
import pandas as pd
import polars as pl
import pyspark.sql as spark

import enrichstatus as es

PandasPlan = es.Plan[pd.DataFrame]


def a_frame_of_the_same_kind_comes_back(
    store: es.EnrichmentStore,
    client: es.EnrichmentClient,
    source: es.Source,
    pandas: pd.DataFrame,
    polars: pl.DataFrame,
    lazy: pl.LazyFrame,
    relation: duckdb.DuckDBPyRelation,
) -> None:
    assert_type(store.lookup(pandas), pd.DataFrame)
    assert_type(store.lookup(tasks=polars, columns="all", how="inner", org_id="org_1"), pl.DataFrame)
    assert_type(store.lookup(lazy, now="2026-11-16"), pl.LazyFrame)
    assert_type(store.lookup(relation), duckdb.DuckDBPyRelation)
    assert_type(client.lookup(polars, prefix="r_"), pl.DataFrame)
    assert_type(source.lookup(relation), duckdb.DuckDBPyRelation)
    assert_type(es.tasks_from_leads(pandas, entity_id="lead_id"), pd.DataFrame)
    assert_type(es.tasks_from_leads(lazy, entity_id="lead_id"), pl.LazyFrame)
    assert_type(es.spread(store.lookup(polars)), pl.DataFrame)
    assert_type(es.spread(relation, prefix="r_"), duckdb.DuckDBPyRelation)
    assert_type(es.wait(client, polars, deadline="30min"), pl.DataFrame)
    assert_type(es.as_completed(client, pandas), es.Completed[pd.DataFrame])
    assert_type(es.plan(store, polars), es.Plan[pl.DataFrame])
    assert_type(es.plan(store, polars).frame, pl.DataFrame)


def lists_and_paths_give_pandas(store: es.EnrichmentStore, path: Path, tasks: list[dict[str, str]]) -> None:
    assert_type(store.lookup([{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]), pd.DataFrame)
    assert_type(store.lookup(tasks), pd.DataFrame)
    assert_type(store.lookup("leads.csv"), pd.DataFrame)
    assert_type(store.lookup([path, path]), pd.DataFrame)
    assert_type(es.tasks_from_leads(path, entity_id="lead_id"), pd.DataFrame)
    assert_type(es.wait(store, path), pd.DataFrame)
    assert_type(es.plan(store, tasks), PandasPlan)


def arrow_has_no_types_of_its_own(store: es.EnrichmentStore, arrow: Any) -> None:
    assert_type(store.lookup(arrow), Any)


def spark_frames_stay_sparks(cluster: es.SparkEnrichmentStore, frame: spark.DataFrame) -> None:
    assert_type(cluster.lookup(frame), spark.DataFrame)
    assert_type(cluster.lookup("leads.csv"), pd.DataFrame)


def what_is_no_frame_is_refused(store: es.EnrichmentStore) -> None:
    store.lookup(3)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    store.lookup({"entityId": "x"})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    es.wait(store, [], timeout=3)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
