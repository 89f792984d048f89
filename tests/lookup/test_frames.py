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


def dask(columns: Columns) -> Any:
    """Two partitions, under an index with duplicates."""
    library = pytest.importorskip("dask.dataframe", reason='pip install -e ".[test]"')
    frame = pd.DataFrame(columns, index=[5, 5])
    return library.from_map(lambda n: frame.iloc[n : n + 1], range(2), meta=frame.iloc[:0])


def modin(columns: Columns) -> Any:
    return pytest.importorskip("modin.pandas", reason="pip install modin").DataFrame(columns)


def ibis(columns: Columns) -> Any:
    return pytest.importorskip("ibis", reason='pip install "ibis-framework[polars]"').memtable(pa.table(columns))


def daft(columns: Columns) -> Any:
    return pytest.importorskip("daft", reason="pip install daft").from_pydict(columns)


class Cudf:
    """What we use of a frame of cuDF, which needs a graphics card."""

    def __init__(self, table: pa.Table):
        self._table = table

    @property
    def columns(self) -> list[str]:
        names: list[str] = self._table.column_names
        return names

    def to_arrow(self, *, preserve_index: bool) -> pa.Table:
        assert not preserve_index
        return self._table

    @classmethod
    def from_arrow(cls, table: pa.Table) -> Cudf:
        return cls(table)


Cudf.__module__ = "cudf.core.dataframe"


class Stream:
    """Anything else that hands out Arrow: an Arrow table comes back."""

    def __init__(self, columns: Columns):
        self._table = pa.table(columns)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


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
    "Dask": dask,
    "Modin": modin,
    "Ibis": ibis,
    "Daft": daft,
    "what we use of cuDF": lambda columns: Cudf(pa.table(columns)),
    "an Arrow stream": Stream,
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
    if not isinstance(native, pa.Table):
        for way in ("compute", "to_pyarrow", "_to_pandas"):
            native = getattr(native, way)() if hasattr(native, way) else native
    if type(native).__module__.startswith(("cudf", "daft")):
        return (
            native.to_arrow() if type(native).__module__.startswith("daft") else native.to_arrow(preserve_index=False)
        )
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
        assert type(status) is type(tasks) or (kind.startswith("an Arrow") and isinstance(status, pa.Table))
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


def test_a_dask_frame_keeps_its_partitions_index_and_order():
    """What comes back has as many partitions, and the rows with their index where they were."""
    frame = dask(TASKS)
    with es.EnrichmentStore(org_id=ORG) as store:
        status = store.lookup(frame, now=NOW, columns="status")
    assert status.npartitions == 2
    whole = status.compute()
    assert whole.index.tolist() == [5, 5]
    assert whole["own"].tolist() == ["a", "b"]


def test_a_frame_of_an_unknown_library_says_how_it_becomes_one_that_is_known():
    """The message names the method that the frame itself has for it."""

    class Strange:
        columns = ("entityId", "field")

        def to_pandas(self) -> pd.DataFrame:
            return pd.DataFrame(TASKS)

    with (
        es.EnrichmentStore(org_id=ORG) as store,
        pytest.raises(es.ValidationError, match=r"not Strange\. Pass what its \.to_pandas\(\) gives"),
    ):
        store.lookup(Strange())
