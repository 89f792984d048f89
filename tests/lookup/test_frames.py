"""Every function that takes a frame takes every kind of frame, or refuses it and says what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import duckdb
import narwhals as nw
import narwhals.stable.v1 as nw1
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest

import enrichstatus as es
from tests.support.factory import NOW, ORG, record, uid

#: Names and the values of two rows; all text.
Columns = dict[str, list[Any]]
CON = duckdb.connect()


def relation(columns: Columns) -> duckdb.DuckDBPyRelation:
    """Make a relation whose texts are ENUMs."""
    kinds = {name: ", ".join(f"'{one}'" for one in sorted({*values, "unused"})) for name, values in columns.items()}
    return CON.from_arrow(pa.table(columns)).project(
        ", ".join(f"{name}::enum({values}) as {name}" for name, values in kinds.items())
    )


def enums(columns: Columns) -> pl.DataFrame:
    return pl.DataFrame(
        columns, schema={name: pl.Enum(sorted({*values, "unused"})) for name, values in columns.items()}
    )


def categories(columns: Columns) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Categorical(values, sorted({*values, "unused"})) for name, values in columns.items()})


def levels(columns: Columns) -> pd.DataFrame:
    return pd.DataFrame(columns).set_index(pd.MultiIndex.from_tuples([("a", 1), ("a", 1)], names=["x", "entityId"]))


KINDS: dict[str, Callable[[Columns], Any]] = {
    "polars categories": lambda columns: pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.Categorical)),
    "polars enums": enums,
    "lazy polars enums": lambda columns: enums(columns).lazy(),
    "pandas categories, some unused": categories,
    "pandas of Arrow": lambda columns: pd.DataFrame(columns).convert_dtypes(dtype_backend="pyarrow"),
    "pandas objects": lambda columns: pd.DataFrame(columns, dtype=object),
    "an index of levels": levels,
    "Arrow dictionaries": lambda columns: pa.table({name: pa.array(values).dictionary_encode() for name, values in columns.items()}),
    "Arrow views": lambda columns: pa.table({name: pa.array(values, pa.string_view()) for name, values in columns.items()}),
    "an Arrow batch": lambda columns: pa.RecordBatch.from_pydict(columns),
    "a relation of enums": relation,
    "narwhals of pandas": lambda columns: nw.from_native(categories(columns)),
    "narwhals of polars": lambda columns: nw.from_native(enums(columns)),
    "stable narwhals": lambda columns: nw1.from_native(pl.DataFrame(columns), eager_only=True),
}  # fmt: skip
TASKS: Columns = {
    "entityId": [uid(0), uid(1)],
    "field": ["emails", "emails"],
    "entityType": ["person", "person"],
    "own": ["a", "b"],
}
LEADS: Columns = {"lead_id": [uid(0), uid(1)], "own": ["a", "b"]}


def table(frame: Any) -> pa.Table:
    """Read what came back."""
    native = nw1.to_native(nw.to_native(frame, pass_through=True), pass_through=True)
    native = native.collect() if hasattr(native, "collect") else native
    read = (
        pa.Table.from_pandas(native)
        if isinstance(native, pd.DataFrame)
        else native.arrow()
        if isinstance(native, duckdb.DuckDBPyRelation)
        else native
        if isinstance(native, pa.Table)  # Arrow 19 cannot hand views on
        else pa.table(native)
    )
    return read.read_all() if isinstance(read, pa.RecordBatchReader) else read


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_frame_is_taken_everywhere(kind: str):
    """Lookups, polls, plans, leads and reports give of each kind what they give of the others, and the kind comes back."""
    make = KINDS[kind]
    with es.EnrichmentStore(org_id=ORG) as store:
        rows = [record(0), record(1, status="failed", dataFound=False)]
        loaded = {
            name: [str(row[name]) for row in rows]
            for name in ("id", "createdAt", "entityId", "field", "status", "orgId")
        }
        assert store.load(make(loaded)).inserted == 2
        tasks = make(TASKS)
        status = store.lookup(tasks, now=NOW)
        assert type(status) is type(tasks) or kind == "an Arrow batch"
        for answer in (status, es.wait(store, tasks), *(update.frame for update in es.poll(store, tasks))):
            assert [one.as_py() for one in table(answer)["status"]] == ["finished", "failed"]
            assert [str(one) for one in table(answer)["own"]] == ["a", "b"]
        plan = es.plan(store, tasks, now=NOW, costs={"emails": 1})
        assert [one.as_py() for one in table(plan.frame)["action"]] == ["no_data", "retry"]
        assert es.coverage(status, by=["field", "own"]).frame["ended"].tolist() == [1, 1]
        assert "0 of 2 tasks differ" in str(es.diff(status, status))
        assert es.require(status, ended=1.0) is status
        assert table(es.spread(status)).num_rows == 2
        leads = es.tasks_from_leads(make(LEADS), entity_id="lead_id", fields=["emails", "phones"])
        assert [one.as_py() for one in table(leads)["field"]] == ["emails", "phones"] * 2
        assert table(store.lookup(leads, now=NOW)).num_rows == 4


REFUSED: dict[str, tuple[Callable[[Columns], Any], str]] = {
    "columns of several levels": (lambda columns: pd.DataFrame(columns).set_axis(pd.MultiIndex.from_product([["a"], columns]), axis=1), r"MultiIndex.*frame\.columns = "),
    "a series": (lambda columns: pd.Series(next(iter(columns.values()))), "DataFrame"),
    "a polars series": (lambda columns: pl.Series(next(iter(columns.values()))), "DataFrame"),
    "numbers for names": (lambda columns: pd.DataFrame(list(zip(*columns.values(), strict=True))), "found 0, 1|have 0, 1|lacks|no column"),
    "a mapping": (lambda columns: columns, "DataFrame"),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_frame_is_refused_everywhere(kind: str):
    """The message says what is expected, or how to name the columns; no function crashes."""
    make, words = REFUSED[kind]
    with es.EnrichmentStore(org_id=ORG) as store:
        for call in (
            lambda: store.lookup(make(TASKS)),
            lambda: store.load(make(TASKS)),
            lambda: es.plan(store, make(TASKS)),
            lambda: es.wait(store, make(TASKS)),
            lambda: next(es.poll(store, make(TASKS))),
            lambda: es.coverage(make(TASKS)),
            lambda: es.diff(make(TASKS), make(TASKS)),
            lambda: es.spread(make(TASKS)),
            lambda: es.require(make(TASKS), ended=1),
            lambda: es.tasks_from_leads(make(LEADS), entity_id="lead_id"),
        ):
            with pytest.raises(es.ValidationError, match=words):
                call()
