"""Files out: the caller's columns come back as they were, in every format, or are refused by name before the work."""

from __future__ import annotations

import csv
import datetime as dt
import decimal
import json
import math
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from enrichstatus.cli import main
from enrichstatus.files.writing.write import write
from enrichstatus.server import Background, create_app
from tests.support.cases import cases, crossed
from tests.support.factory import NOW, ORG, record, uid

FEW = 5
TOKEN = "s3cret-t0ken"
WAYS = ["lookup_to", "lookup", "lookup --url", "plan", "poll"]
MAKERS: dict[pa.DataType, Callable[[random.Random], Any]] = {
    pa.int64(): lambda dice: dice.randint(-(2**63), 2**63 - 1),
    pa.uint64(): lambda dice: dice.randint(0, 2**64 - 1),
    pa.int8(): lambda dice: dice.randint(-128, 127),
    pa.float64(): lambda dice: dice.choice([0.1, 1e22, 5e-324, 1 / 3, -0.0, dice.random(), 2.0**60]),
    pa.float32(): lambda dice: dice.choice([0.5, 2.0**-20, 3.0]),
    pa.decimal128(38, 9): lambda dice: decimal.Decimal(dice.randint(-(10**37), 10**37)).scaleb(-9),
    pa.bool_(): lambda dice: dice.random() < 0.5,
    pa.string(): lambda dice: dice.choice(
        ["00123", "a,b", 'say "hi"', "two\nlines", "é\t", "=1+1", " x ", "null", "1.0"]
    ),
    pa.large_string(): lambda dice: dice.choice(["x", "y"]),
    pa.date32(): lambda dice: dt.date(1, 1, 1) + dt.timedelta(days=dice.randrange(3_600_000)),
    pa.time64("us"): lambda dice: dt.time(1, 2, 3, dice.randrange(10**6)),
    pa.time64("ns"): lambda dice: dice.randrange(86_400 * 10**9),
    pa.null(): lambda dice: None,
    pa.decimal128(38, 10): lambda dice: decimal.Decimal(dice.choice([1, -1, 10**37])).scaleb(-10),
    pa.timestamp("s"): lambda dice: dt.datetime(2026, 11, 1, 9, 0, dice.randrange(60)),
    pa.timestamp("us"): lambda dice: dt.datetime(2026, 11, 1, 9, 0, 0, dice.choice([0, 1000, 123456])),
    pa.timestamp("ns"): lambda dice: dice.randrange(2**60),
    pa.timestamp("us", "UTC"): lambda dice: dt.datetime(2026, 11, 1, 9, 0, 0, dice.choice([0, 1000, 123456]), dt.UTC),
    pa.timestamp("ms", "Europe/Berlin"): lambda dice: dt.datetime(2026, 11, 1, 9, 0, 0, 1000, dt.UTC),
    pa.duration("us"): lambda dice: dt.timedelta(microseconds=dice.randrange(10**12)),
    pa.binary(): lambda dice: dice.randbytes(3),
    pa.list_(pa.int64()): lambda dice: [dice.randrange(2**63), None],
    pa.struct([("a", pa.int64()), ("b", pa.list_(pa.string()))]): lambda dice: {
        "a": dice.randrange(9),
        "b": ["x", "é"],
    },
    pa.dictionary(pa.int32(), pa.string()): lambda dice: dice.choice(["gold", "silver"]),
}
#: What a text of these is read back as, by people's own programs.
TEXTS: dict[str, Callable[[str], Any]] = {
    "int64": int, "uint64": int, "int8": int, "double": float, "float": float, "decimal128(38, 9)": decimal.Decimal,
    "bool": lambda text: {"true": True, "false": False}[text], "date32[day]": dt.date.fromisoformat, "time64[us]": dt.time.fromisoformat,
    "time64[ns]": dt.time.fromisoformat, "decimal128(38, 10)": decimal.Decimal,
    "timestamp[s]": dt.datetime.fromisoformat, "timestamp[us]": dt.datetime.fromisoformat, "timestamp[us, tz=UTC]": dt.datetime.fromisoformat,
    "timestamp[ms, tz=Europe/Berlin]": dt.datetime.fromisoformat,
    "timestamp[ns]": lambda text: pd.Timestamp(text),
}  # fmt: skip


def columns(dice: random.Random, kinds: list[pa.DataType]) -> pa.Table:
    """Make tasks with columns of their own, some of their cells null."""
    own = {
        f"own {place}": pa.array([None if dice.random() < 0.3 else MAKERS[kind](dice) for _ in range(FEW)], kind)
        for place, kind in enumerate(kinds)
    }
    return pa.table({"entityId": [uid(n) for n in range(FEW)], "field": ["emails"] * FEW, **own})


def read_back(path: Path, schema: pa.Schema) -> dict[str, list[Any]]:
    """Read the caller's columns of an output, as what they were."""
    if path.suffix == ".parquet":
        return pq.read_table(path).select(schema.names).cast(schema).to_pydict()
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8") as file:
            rows: list[dict[str, Any]] = list(csv.DictReader(file))
        return {field.name: [_cell(row[field.name] or None, field) for row in rows] for field in schema}
    rows = [json.loads(line, parse_float=str) for line in path.read_text(encoding="utf-8").splitlines()]
    return {field.name: [_cell(row[field.name], field) for row in rows] for field in schema}


def _cell(value: Any, field: pa.Field) -> Any:
    return TEXTS[str(field.type)](value) if isinstance(value, str) and str(field.type) in TEXTS else value


def as_python(table: pa.Table) -> dict[str, list[Any]]:
    return table.to_pydict()


@pytest.fixture
def store(tmp_path: Path) -> str:
    path = str(tmp_path / "s.duckdb")
    with es.EnrichmentStore(path, org_id=ORG) as made:
        made.load([record(n, status="finished", dataFound=True) for n in range(3)])
    return path


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """A service at which everything has ended."""
    with es.EnrichmentStore() as ended:
        ended.load([record(n, status="finished", dataFound=True) for n in range(FEW)])
        with Background(create_app(ended, tokens={TOKEN: ORG})) as background:
            yield background.url


@pytest.fixture
def command(store: str, url: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command on tasks, at the store or, ``lookup --url`` and ``poll``, at the service; gives its exit code."""
    monkeypatch.setenv("ENRICHSTATUS_TOKEN", TOKEN)

    def run(way: str, *arguments: object) -> int:
        at_service = way in ("lookup --url", "poll")
        source = ["--url", url] if at_service else ["--store", store, "--org", ORG]
        return main([way.partition(" ")[0], *map(str, arguments), *source])

    return run


@pytest.mark.parametrize(("ending", "way"), crossed(["parquet", "csv", "ndjson"], WAYS))
def test_the_callers_columns_come_back_as_they_were(
    tmp_path: Path, store: str, ending: str, way: str, command: Callable[..., int]
):
    """Random columns of every type go from file to file; a format that cannot hold one names it, and nothing is written."""
    dice = random.Random(f"{ending} {way}")
    source, out = tmp_path / "tasks.parquet", tmp_path / f"o.{ending}"
    for _ in range(cases(2, 300)):
        kinds = dice.sample(list(MAKERS), 3)
        tasks = columns(dice, kinds)
        pq.write_table(tasks, source)
        out.unlink(missing_ok=True)
        if way == "lookup_to":
            with es.EnrichmentStore(store, org_id=ORG, read_only=True) as made:
                try:
                    made.lookup_to(source, out, now=NOW)
                except es.ValidationError as error:
                    assert "cannot hold the column 'own" in str(error)  # noqa: PT017
        else:
            code = command(way, source, "-o", out)
            assert code == (0 if out.exists() else 2)
        lost = [kind for kind in kinds if not held(kind, ending)]
        assert out.exists() == (not lost), kinds
        if not lost:
            schema = pa.schema([field for field in tasks.schema if field.name.startswith("own")])
            assert read_back(out, schema) == as_python(tasks.select(schema.names)), kinds


def held(kind: pa.DataType, ending: str) -> bool:
    """Whether a format can hold a type."""
    if ending == "parquet":
        return True
    return not (
        pa.types.is_duration(kind) or pa.types.is_binary(kind) or (pa.types.is_nested(kind) and ending == "csv")
    )


def test_instants_within_nested_values_are_spelled_as_any_other_in_json(tmp_path: Path):
    """In lists of every kind, objects and maps, in a part of a table too, with nulls where they were."""
    utc, naive, said = pa.timestamp("us", "UTC"), pa.timestamp("us"), "2026-01-02T03:04:05.123456"
    instant = dt.datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=dt.UTC)
    lists = [[instant], None, [], [None, instant]]
    table = pa.table({
        "plain": pa.array([instant, None, None, instant], utc),
        **{str(kind): pa.array(lists, kind) for kind in (pa.list_(utc), pa.large_list(utc), pa.list_view(utc))},
        "fixed": pa.array([[instant], None, [None], [instant]], pa.list_(utc, 1)),
        "object": pa.array([{"x": instant}, None, {"x": None}, {"x": instant}], pa.struct([("x", utc)])),
        "map": pa.array([[("a", instant)], None, [], [("b", None)]], pa.map_(pa.string(), utc)),
        "deep": pa.array([[{"x": [instant], "y": 1}], None, [None], []], pa.list_(pa.struct([("x", pa.list_(utc)), ("y", pa.int8())]))),
        "bare": pa.array([[instant.replace(tzinfo=None)], None, [], []], pa.list_(naive)),
    })  # fmt: skip

    def spelled(value: Any) -> Any:
        if isinstance(value, dict):
            return {name: spelled(one) for name, one in value.items()}
        if isinstance(value, list):
            return [spelled(one) for one in value]
        return value if not isinstance(value, dt.datetime) else said + ("Z" if value.tzinfo else "")

    rows = [row | {"map": row["map"] and dict(row["map"])} for row in pa.concat_tables([table] * 2).to_pylist()]
    rows = [row | {"map": {} if row["map"] == [] else row["map"]} for row in rows]
    for begin, end in ((0, 8), (1, 3), (2, 7)):
        write(pa.concat_tables([table] * 2).slice(begin, end - begin), tmp_path / "o.ndjson")
        read = [json.loads(line) for line in (tmp_path / "o.ndjson").read_text().splitlines()]
        assert read == spelled(rows[begin:end])


def test_whole_numbers_beside_nulls_stay_whole_in_python(tmp_path: Path):
    """Of an id past 2**53 no digit changes where its column has a null: in a file, in a list, in what comes back."""
    big = 2**53 + 1
    pq.write_table(
        pa.table({"entityId": [uid(0), uid(1)], "field": ["emails"] * 2, "crm": pa.array([big, None])}),
        tmp_path / "t.parquet",
    )
    store = es.EnrichmentStore(org_id=ORG)
    rows = [{"entityId": uid(n), "field": "emails", "crm": crm} for n, crm in enumerate((big, None))]
    for given in (tmp_path / "t.parquet", rows):
        assert store.lookup(given)["crm"][0] == big


BEYOND: dict[str, tuple[Any, str]] = {
    "an instant beyond the calendar": (pa.array([2**62], pa.timestamp("us")), "parquet"),
    "a category of such instants": (pa.array([2**62], pa.timestamp("us")).dictionary_encode(), "parquet"),
    "a key of a map twice": (pa.array([[("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64())), "parquet"),
    "a year beyond 9999": (pa.array([5_000_000], pa.date32()), "parquet csv ndjson"),
    "nanoseconds of a day": (pa.array([1], pa.time64("ns")), "parquet csv ndjson"),
}


@pytest.mark.parametrize("name", BEYOND)
def test_what_a_format_cannot_say_of_a_value_is_refused(tmp_path: Path, name: str):
    """Nothing is written in place of a value that text has no words for, and what pandas has no type for goes from file to file."""
    own, formats = BEYOND[name]
    pq.write_table(pa.table({"entityId": [uid(0)], "field": ["emails"], "own": own}), tmp_path / "t.parquet")
    store = es.EnrichmentStore(org_id=ORG)
    for ending in ("parquet", "csv", "ndjson"):
        out = tmp_path / f"o.{ending}"
        if ending in formats:
            assert store.lookup_to(tmp_path / "t.parquet", out).rows == 1
        else:
            with pytest.raises(es.ValidationError, match=f"o.{ending}' cannot"):
                store.lookup_to(tmp_path / "t.parquet", out)
            assert not out.exists()
    if "map" not in name:
        assert len(store.lookup(tmp_path / "t.parquet")) == 1


def test_csv_for_excel(tmp_path: Path, store: str, capsys: pytest.CaptureFixture[str]):
    """With a byte order mark Excel reads the letters; what it would take for a formula is text, and numbers are numbers."""
    rows = {"lead": [uid(n) for n in range(8)], "=name": ["José", "=1+1", "+49 30 1", "@x", "-5", "-1,5", "-x", "a=b"]}
    pd.DataFrame(rows).to_csv(tmp_path / "l.csv", index=False)
    out = tmp_path / "o.csv"
    arguments = [
        "lookup",
        str(tmp_path / "l.csv"),
        "--entity-id",
        "lead",
        "--fields",
        "emails",
        "--store",
        store,
        "--org",
        ORG,
    ]
    assert main([*arguments, "-o", str(out), "--excel-csv"]) == 0
    assert out.read_bytes().startswith(b"\xef\xbb\xbf")
    assert pd.read_csv(out, dtype=str)["'=name"].tolist() == [
        "José",
        "'=1+1",
        "'+49 30 1",
        "'@x",
        "-5",
        "-1,5",
        "'-x",
        "a=b",
    ]
    assert main([*arguments, "-o", str(out)]) == 0
    assert pd.read_csv(out, dtype=str)["=name"].tolist() == rows["=name"]
    capsys.readouterr()
    assert main([*arguments, "-o", str(tmp_path / "o.parquet"), "--excel-csv"]) == 2
    assert main([*arguments, "--excel-csv"]) == 2
    assert "CSV" in capsys.readouterr().err


NOT_FINITE: dict[str, pa.Array] = {
    "NaN": pa.array([math.nan]),
    "-Infinity": pa.array([-math.inf], pa.float32()),
    "half": pa.array([math.nan]).cast(pa.float16()),
    "in a dictionary": pa.array([math.inf]).dictionary_encode(),
    "in a list": pa.array([[1.5, math.nan]]),
    "in a struct": pa.array([{"NaN": "Infinity", "a": [{"b": -math.inf}]}]),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_numbers_that_json_does_not_have_are_refused(
    tmp_path: Path, store: str, name: str, capsys: pytest.CaptureFixture[str]
):
    """Nothing stands in their place: the column and the file are named, by every command, and of other formats they come back."""
    tasks = pa.table({"entityId": [uid(0)], "field": ["emails"], "own": NOT_FINITE[name], "text": ["NaN, Infinity"]})
    pq.write_table(tasks, tmp_path / "t.parquet")
    given = ["t.parquet"]
    if not pa.types.is_float16(tasks["own"].type) and not pa.types.is_dictionary(tasks["own"].type):
        (tmp_path / "t.json").write_text(json.dumps(tasks.to_pylist()), encoding="utf-8")
        given.append("t.json")
    for source, ending in crossed(given, ("json", "ndjson")):
        out = tmp_path / f"o.{ending}"
        with pytest.raises(es.ValidationError, match=f"o.{ending}' cannot be written: the column 'own' holds NaN or"):
            es.EnrichmentStore(org_id=ORG).lookup_to(tmp_path / source, out)
        for command in ("lookup", "plan")[: cases(1 + (name == "NaN"), 2)]:
            arguments = [command, str(tmp_path / source), "--store", store, "--org", ORG, "-o", str(out)]
            assert main(arguments) == 2
            assert "'own' holds NaN" in capsys.readouterr().err
        assert not out.exists()
    es.EnrichmentStore(org_id=ORG).lookup_to(tmp_path / "t.parquet", tmp_path / "o.parquet")
    assert str(pq.read_table(tmp_path / "o.parquet")["own"].to_pylist()) == str(tasks["own"].to_pylist())
    tasks = tasks.drop_columns("own").append_column("own", pa.array([1.5]).dictionary_encode())
    pq.write_table(tasks, tmp_path / "t.parquet")
    es.EnrichmentStore(org_id=ORG).lookup_to(tmp_path / "t.parquet", tmp_path / "o.json")
    assert json.loads((tmp_path / "o.json").read_text(encoding="utf-8"))[0]["own"] == 1.5


def strict(path: Path) -> Any:
    """Read JSON as readers do that take none of Python's NaN."""
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))


MEMBERS: dict[str, list[Any]] = {
    "whole": [5, None, -(2**63)],
    "beyond 63 bits": [2**64 - 1, 0, 1],
    "beyond 64 bits": [2**90, 1, -(2**64)],
    "number": [0.1, 1e22, 5],
    "digits beside a fraction": [2**53 + 1, 0.5, None],
    "yes": [True, None, False],
    "text": ["007", "", "null"],
    "nested": [{"a": [1, {"b": None}]}, [], None],
    "several": [5, "5", [True]],
    "": [1, 2, 3],
    "WHOLE": ["é", "\n", '"'],
    "none": [None, None, None],
}


@pytest.mark.parametrize(("way", "ending"), crossed([*WAYS, "lookup of leads"], [".json", ".ndjson"]))
def test_what_json_keeps(tmp_path: Path, store: str, way: str, ending: str, command: Callable[..., int]):
    """Numbers, booleans, nested values and nulls of JSON come back as JSON as they were, from every command; a lead list's too."""
    own = [{name: values[n] for name, values in MEMBERS.items()} for n in range(3)]
    keys = [{"lead_id" if "leads" in way else "entityId": uid(n)} for n in range(3)]
    rows = [key | ({} if "leads" in way else {"field": "emails"}) | row for key, row in zip(keys, own, strict=True)]
    source, out = tmp_path / f"t{ending}", tmp_path / "o.json"
    source.write_text(json.dumps(rows) if ending == ".json" else "\n".join(map(json.dumps, rows)), encoding="utf-8")
    if way == "lookup_to":
        with es.EnrichmentStore(store, org_id=ORG, read_only=True) as made:
            made.lookup_to(source, out)
    else:
        leads = ["--entity-id", "lead_id", "--fields", "emails"] if "leads" in way else []
        assert command(way, source, *leads, "-o", out) == 0
    written = strict(out)
    assert [{name: row[name] for name in MEMBERS} for row in written] == own
    kinds = [type(row[name]) for row in written for name in MEMBERS if name != "number"]
    assert kinds == [type(row[name]) for row in own for name in MEMBERS if name != "number"]


def test_members_of_json_have_types_in_other_formats(tmp_path: Path):
    """In Parquet and in frames the members of one type have it; the others are JSON, and text in CSV and in frames."""
    rows = [
        {"entityId": uid(n), "field": "emails"} | {name: values[n] for name, values in MEMBERS.items()}
        for n in range(3)
    ]
    (tmp_path / "t.json").write_text(json.dumps(rows))
    store = es.EnrichmentStore(org_id=ORG)
    for ending in ("parquet", "csv"):
        store.lookup_to(tmp_path / "t.json", tmp_path / f"o.{ending}")
    kinds = {field.name: str(field.type) for field in pq.read_schema(tmp_path / "o.parquet")}
    assert [kinds[name] for name in MEMBERS] == [
        "int64", "uint64", "extension<arrow.json>", "double", "extension<arrow.json>", "bool", "string",
        "extension<arrow.json>", "extension<arrow.json>", "int64", "string", "string",
    ]  # fmt: skip
    with (tmp_path / "o.csv").open(newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    frame = store.lookup(tmp_path / "t.json")
    assert [row["several"] for row in cells] == frame["several"].tolist() == ["5", "5", "[true]"]
    assert [row["beyond 64 bits"] for row in cells] == [str(2**90), "1", str(-(2**64))]
    assert frame["whole"].tolist() == [5, pd.NA, -(2**63)]


ODD: dict[str, Callable[[], Any]] = {
    "polars categories": lambda: pl.DataFrame({"entityId": [uid(0), "x"], "field": ["emails"] * 2}, schema={"entityId": pl.Categorical, "field": pl.Categorical}),
    "polars enum": lambda: pl.DataFrame({"entityId": [uid(0), "x"], "field": ["emails"] * 2}, schema={"entityId": pl.String, "field": pl.Enum(["fax", "emails"])}),
    "unused categories": lambda: pd.DataFrame({"entityId": [uid(0), "x"], "field": pd.Categorical(["emails"] * 2, ["fax", "emails"])}),
    "whole numbers beyond 64 bits": lambda: pd.DataFrame({"entityId": [uid(0), 2**70], "field": ["emails"] * 2}),
    "not a number": lambda: [{"entityId": uid(0), "field": "emails"}, {"entityId": math.inf, "field": "emails"}],
    "a whole number beyond 64 bits beside nothing": lambda: [{"entityId": uid(0), "field": "emails"}, {"entityId": "x", "field": "emails", "n": 2**63}],
    "nested": lambda: [{"entityId": uid(0), "field": "emails"}, {"entityId": {"a": [1]}, "field": "emails"}],
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_odd_values_are_bad_values(name: str):
    """What is not a UUID is named with its row, or has no status; no value makes a call crash, in any function that takes a frame."""
    store = es.EnrichmentStore(org_id=ORG)
    store.load([record(0, status="finished", dataFound=True)])
    given = ODD[name]()
    with pytest.raises(es.ValidationError, match="row 1: entityId"):
        store.lookup(given)
    status = store.lookup(given, errors="coerce", columns=("status", "dataFound", "reason"))
    assert [pd.isna(one) or one for one in status["status"]] == ["finished", True]
    plan = es.plan(store, given)
    assert list(plan.frame["action"]) == ["have", "invalid"]
    es.spread(status)
    es.coverage(status)


def test_columns_of_several_levels_are_refused(store: str):
    """A frame whose columns have two names says how to give them one."""
    frame = pd.DataFrame([[uid(0), "emails"]], columns=pd.MultiIndex.from_tuples([("entityId", ""), ("field", "")]))
    for call in (
        lambda: es.EnrichmentStore(org_id=ORG).lookup(frame),
        lambda: es.tasks_from_leads(frame, entity_id="entityId"),
    ):
        with pytest.raises(es.ValidationError, match=r"several levels .*MultiIndex.*frame\.columns = "):
            call()
