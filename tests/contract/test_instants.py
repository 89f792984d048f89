"""Instants: which text is one, and that every source reads the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.errors import ServiceError
from enrichstatus.lookup.arguments import parse_instant
from enrichstatus.schema import COLUMNS
from enrichstatus.sources.client import responses
from tests.support.factory import NOW, ORG, record, task
from tests.support.misbehaving import Misbehaving, encoded, message

T = "2026-11-01T10:00:00"
#: By their value, or None where they have no single meaning.
SPELLINGS: dict[str, str | None] = {
    f"{T}.000Z": T,
    f"{T}Z": T,
    f"{T}z": T,
    "2026-11-01t10:00:00z": T,
    f"{T}UTC": T,
    f"{T} UTC": T,
    f"{T} utc": T,
    f"{T}GMT": T,
    "2026-11-01 10:00:00 GMT": T,
    "2026-11-01 10:00:00": T,
    "2026-11-01 10:00:00+00": T,
    f" {T}Z\r\n": T,
    T: T,
    "2026-11-01": "2026-11-01T00:00:00",
    "2026-11-01 10:00": T,
    "2026-11-01T10:00Z": T,
    "2026-11-01T10:00 UTC": T,
    "2026-11-01T11:00+01:00": T,
    f"{T}+01:00": "2026-11-01T09:00:00",
    f"{T} +01:00": "2026-11-01T09:00:00",
    f"{T}+0100": "2026-11-01T09:00:00",
    f"{T}+01": "2026-11-01T09:00:00",
    f"{T}-0130": "2026-11-01T11:30:00",
    f"{T}-00:00": T,
    f"{T}+14:00": "2026-10-31T20:00:00",
    f"{T}.5": f"{T}.5",
    f"{T},123Z": f"{T}.123",
    f"{T}.123456+01:00": "2026-11-01T09:00:00.123456",
    f"{T}.1234567Z": f"{T}.123456",
    f"{T}.123456789Z": f"{T}.123456",
    f"{T}.999999999 UTC": f"{T}.999999",
    "1969-12-31T23:59:59.9999999Z": "1969-12-31T23:59:59.999999",
    "2024-02-29T23:59:59.000Z": "2024-02-29T23:59:59",
    "0001-01-01T00:00:00.000Z": "0001-01-01T00:00:00",
    "9999-12-31T23:59:59.999999Z": "9999-12-31T23:59:59.999999",
    **dict.fromkeys(
        [
            *(
                f"2026-11-01 10:00:00 {zone}"
                for zone in ("BST", "IST", "CST", "EST", "PST8PDT", "Z0", "UTC+1", "Europe/London")
            ),
            *(
                f"2026-11-01T{time}.000Z"
                for time in ("24:00:00", "25:00:00", "10:60:00", "10:00:60", " 9:00:00", "9:00:00")
            ),
            *(
                f"{day}T10:00:00.000Z"
                for day in ("26-11-01", " 026-11-01", "2026-02-30", "2026-13-01", "0000-01-01", "-026-11-01")
            ),
            "2026-11-01T24:00:00",
            "2026-11-01T10",
            "2026-11-01Z",
            "2026-1-5",
            "26-11-01",
            "01/11/2026",
            "20261101T100000Z",
            "12026-11-01T10:00:00Z",
            "0001-01-01T00:00:00+01:00",
            "9999-12-31T23:30:00-01:00",
            f"{T}.1234567890Z",
            f"{T}+15:00",
            f"{T}+1",
            f"{T}Z Z",
            f"{T}Z\u00a0",
            "٢٠٢٦-11-01T10:00:00Z",
            "10:00:00",
            "epoch",
            "now",
            "today",
            "infinity",
            "-infinity",
            "1793527200",
            "1793527200000",
        ]
    ),
}
RECORDS = [record(place, createdAt=text, updatedAt=None) for place, text in enumerate(SPELLINGS)]


def expected(texts: dict[str, str | None]) -> list[pd.Timestamp | None]:
    return [None if value is None else pd.Timestamp(value, tz="UTC") for value in texts.values()]


def read(
    kind: str, records: list[dict[str, Any]], tmp_path: Path, request: pytest.FixtureRequest, **options: Any
) -> Any:
    """Look up when records were created in a source of a kind; null is where that is not an instant."""
    types = [(name, pa.bool_() if name == "dataFound" else pa.string()) for name in COLUMNS]
    table = pa.Table.from_pylist(records, pa.schema(types))
    options |= {"errors": "reject"}
    if kind == "store":
        source: Any = es.EnrichmentStore(org_id=ORG)
        source.load(table, **options)
    elif kind == "scan":
        pq.write_table(table, tmp_path / "1.parquet")
        source = es.EnrichmentStore.scan(tmp_path / "1.parquet", org_id=ORG, **options)
    else:
        spark = request.getfixturevalue("spark")
        source = es.SparkEnrichmentStore(spark, spark.createDataFrame(table), org_id=ORG, **options)
    answer = source.lookup([task(place) for place in range(len(records))], columns="createdAt", now=NOW)
    return [None if pd.isna(value) else value for value in answer["createdAt"]]


SOURCES = ["store", "scan", pytest.param("spark", marks=pytest.mark.machine("spark"))]


@pytest.mark.parametrize("kind", [*SOURCES, "client"])
def test_every_source_reads_the_same_text_as_the_same_instant(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
):
    """What has one meaning is read, to the microsecond; zones by name, short years, the hour 24 and words are not instants."""
    if kind != "client":
        assert dict(zip(SPELLINGS, read(kind, RECORDS, tmp_path, request), strict=True)) == dict(
            zip(SPELLINGS, expected(SPELLINGS), strict=True)
        )
        return
    good = [one | {"updatedAt": one["createdAt"]} for one in RECORDS if SPELLINGS[one["createdAt"]]]
    with (
        Misbehaving(lambda *_: lambda wire, _: wire.send(message(body=encoded(good)))) as server,
        es.EnrichmentClient(server.url, token="token") as client,
    ):
        tasks = [{name: one[name] for name in ("entityId", "entityType", "field")} for one in good]
        answer = client.lookup(tasks, columns=["createdAt", "updatedAt"], now=NOW)
    values = [value for value in expected(SPELLINGS) if value is not None]
    assert answer["createdAt"].to_list() == answer["updatedAt"].to_list() == values
    for one in RECORDS:
        if SPELLINGS[one["createdAt"]] is None:
            with pytest.raises(ServiceError, match="whose createdAt is of a wrong type"):
                responses.table([one], {})


def test_an_argument_reads_text_as_records_do():
    """``now=`` and ``since=`` take what a record's instant may be, and refuse what it may not."""
    for text, value in SPELLINGS.items():
        if value is None:
            with pytest.raises(es.ValidationError, match="now= takes a datetime or text"):
                parse_instant(text)
        else:
            assert parse_instant(text) == pd.Timestamp(value, tz="UTC")


EPOCHS: dict[str, dict[str, str | None]] = {
    "s": {"1793527200": T, "1793527200.1234567": f"{T}.123456", "1.7935272E9": T, "-1": "1969-12-31T23:59:59"},
    "ms": {"1793527200000": T, "1793527200000.5": f"{T}.0005", "253402300800000": None, "-0.0001": None},
    "us": {"1793527200000000": T, "1793527200000000.9": T, "9" * 18: None, "1e99": None},
}
EPOCHS["ms"]["-0.0001"] = "1969-12-31T23:59:59.999999"


@pytest.mark.parametrize("unit", EPOCHS)
@pytest.mark.parametrize("kind", SOURCES)
def test_numbers_are_instants_where_their_unit_is_declared(
    kind: str, unit: str, tmp_path: Path, request: pytest.FixtureRequest
):
    """``epoch=`` says which numbers these are; what is not a number is read as ever, and what no calendar holds is bad."""
    texts = EPOCHS[unit] | {f"{T}Z": T, "nan": None, "inf": None, "1 000": None, "0x10": None, "true": None}
    records = [record(place, createdAt=text, updatedAt=None) for place, text in enumerate(texts)]
    assert read(kind, records, tmp_path, request, epoch=unit) == expected(texts)


@pytest.mark.parametrize(
    "numbers",
    [
        pa.array([1793527200000, None]),
        pa.array([1793527200000, None], pa.uint64()),
        pa.array([1793527200000.0, None]),
    ],
    ids=lambda numbers: str(numbers.type),
)
def test_columns_of_numbers_are_instants_where_their_unit_is_declared(numbers: pa.Array, tmp_path: Path):
    """So they are in frames, lists, JSON and Parquet; of another unit than declared they are bad."""
    table = pa.Table.from_pylist([record(0), record(1)]).drop_columns(["createdAt", "updatedAt"])
    table = table.append_column("createdAt", numbers)
    pq.write_table(table, tmp_path / "1.parquet")
    (tmp_path / "1.json").write_text(json.dumps(table.to_pylist()), encoding="utf-8")
    for given in (table, table.to_pandas(), table.to_pylist(), tmp_path / "1.parquet", tmp_path / "1.json"):
        store = es.EnrichmentStore(org_id=ORG)
        assert store.load(given, errors="reject").rejected == 2
        report = store.load(given, errors="reject", epoch="ms")
        assert (report.inserted, report.rejected) == (1, 1)
        assert store.lookup([task(0)], columns="createdAt")["createdAt"][0] == pd.Timestamp(T, tz="UTC")


def test_a_unit_that_is_none_is_refused():
    """The message names the three."""
    with pytest.raises(es.ValidationError, match="epoch= is one of 's', 'ms', 'us', not 'ns'"):
        es.EnrichmentStore(org_id=ORG).load([record(0)], epoch="ns")  # type: ignore[arg-type]
