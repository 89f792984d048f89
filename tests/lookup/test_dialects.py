"""The query as text: in each dialect it answers as the store does, or at least reads back as it was written."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.csv
import pytest

import enrichstatus as es
from enrichstatus.lookup.query import LOOKUP_SQL, asker
from enrichstatus.schema import COLUMNS, EXPLANATION, FIELDS, SCHEMA
from tests.support.browser import missing
from tests.support.factory import ORG, record, uid

NOW = datetime(2026, 11, 16, 9, tzinfo=UTC)
LIMIT = timedelta(seconds=800)
NAMES = (*COLUMNS, *EXPLANATION.names)
TRANSPILED = ("spark", "bigquery", "snowflake", "postgres")
# Long, for a busy machine: every wait is for a condition, so that only a failure takes this long.
SECONDS = 60

Answers = dict[int, dict[str, Any]]


def records(number: int = 600) -> list[dict[str, Any]]:
    """Make records, several for a key, that differ in all that the rules look at, or in nothing but that."""
    pick = random.Random(7)
    made = []
    for place in range(number):
        edge = pick.choice([-1000, -1, 0, 1, 1000])
        created = NOW - pick.choice(
            [LIMIT + timedelta(microseconds=edge), LIMIT, timedelta(seconds=5), timedelta(days=3)]
        )
        updated = pick.choice([None, created, created + timedelta(seconds=1), NOW])
        status = pick.choice(["pending", "pending", "finished", "failed", "timeout", "cancelled"])
        one = record(
            place,
            entityId=uid(pick.randrange(60)),
            entityType=pick.choice(["person", "person", "company"]),
            field=pick.choice(FIELDS),
            orgId=pick.choice([ORG, ORG, ORG, "org_2"]),
            createdAt=created,
            updatedAt=updated,
            status=status,
            dataFound=pick.choice([None, True, False]),
            error=pick.choice([None, 'of "many"\nlines, ümläut']),
        )
        made.append(one)
        if pick.random() < 0.1:  # as in files that overlap: once more, or as it was
            made.append(dict(one))
        elif updated and pick.random() < 0.2:
            made.append(one | {"updatedAt": None, "status": "pending", "dataFound": None})
        elif pick.random() < 0.2:  # an ended one knows more, whatever its name
            made.append(
                one
                | {"status": pick.choice(["pending", "finished", "cancelled"]), "dataFound": pick.choice([None, True])}
            )
    pick.shuffle(made)
    return made


RECORDS = pa.Table.from_pylist(records(), SCHEMA)
TASKS = pa.Table.from_pylist(
    [
        {"position": place, "entityId": uid(entity), "entityType": kind, "field": field}
        for place, (entity, kind, field) in enumerate(
            [(entity, kind, field) for entity in range(70) for kind in ("person", "company") for field in FIELDS]
            + [(entity, "person", "emails") for entity in range(10)]  # asked twice
        )
    ]
    + [{"position": 10_000, "entityId": None, "entityType": "person", "field": "emails"}]
)
ASKER = asker(ORG, dict.fromkeys(FIELDS, LIMIT), NOW)


@pytest.fixture(scope="module")
def expected() -> Answers:
    """What the store answers."""
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load(RECORDS)
        found = store.lookup(TASKS, columns=NAMES, how="inner", errors="coerce", now=NOW, prefix="_")
    answers = [{name: row["_" + name] for name in NAMES} | {"position": row["position"]} for row in found.to_pylist()]
    assert 200 < len(answers) < len(TASKS)
    assert {row["reason"] for row in answers} == {
        "pending",
        "timed_out_here",
        "timed_out_there",
        "failed",
        "unknown",
        "data",
        "no_data",
    }
    return by_position(answers)


def by_position(rows: list[dict[str, Any]]) -> Answers:
    """Put rows beside their tasks, under the names as the dialect folds them."""
    answers = {row["position"]: {name.lower(): value for name, value in row.items()} for row in rows}
    assert len(answers) == len(rows)
    return answers


def inside(text: str) -> str:
    """Put the query where a model has it: in a ``with`` of its own."""
    return f"with answers as (\n{text}\n) select * from answers"  # noqa: S608 - a text of ours, as a user pastes it


def example(text: str) -> str:
    """Read the asker that the head of a text spells out."""
    return "\n".join(re.findall("^--     (.+)$", text.partition("\n-- asker, for")[2], re.MULTILINE))


def test_that_of_duckdb_is_the_one_the_store_runs(expected: Answers):
    """Word for word the file's, and it answers as the store does, which narrows and types its records before."""
    assert es.lookup_sql() == es.lookup_sql("duckdb") == LOOKUP_SQL
    assert in_duckdb(es.lookup_sql()) == expected


def in_duckdb(text: str) -> Answers:
    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        for name, table in (("tasks", TASKS), ("records", RECORDS), ("asker", ASKER)):
            con.register(name, table)
        return by_position(con.sql(inside(text)).to_arrow_table().to_pylist())


@pytest.mark.slow
def test_that_of_spark_answers_as_the_store_does(expected: Answers, spark: Any):
    """On a session of Spark; and the asker that its head spells out is one for every field."""
    text = es.lookup_sql("spark")
    for name, table in (("tasks", TASKS), ("records", RECORDS), ("asker", ASKER)):
        spark.createDataFrame(table).createOrReplaceTempView(name)
    try:
        assert by_position(spark.sql(inside(text)).toArrow().to_pylist()) == expected
        check_asker(spark.sql(example(text)).toArrow().to_pylist())
    finally:
        for name in ("tasks", "records", "asker"):
            spark.catalog.dropTempView(name)


def check_asker(rows: list[dict[str, Any]]) -> None:
    rows = [{name.lower(): value for name, value in row.items()} for row in rows]
    assert sorted(row["field"] for row in rows) == sorted(FIELDS)
    for row in rows:
        assert (row["orgid"], row["maximum"], row["now"] - row["pendingsince"]) == (ORG, 800.0, LIMIT)
        assert abs(row["now"] - datetime.now(UTC)) < timedelta(minutes=5)


def test_that_of_postgres_answers_as_the_store_does(expected: Answers, psql: Callable[[str], str]):
    """On a PostgreSQL, keys cast to UUID or not; and the asker that its head spells out is one for every field."""
    text = es.lookup_sql("postgres")
    for name, table in (("tasks", TASKS), ("records", RECORDS), ("asker", ASKER)):
        psql(create(name, table))
    assert rows(psql, inside(text)) == expected
    psql("alter table tasks alter entityId type uuid using entityId::uuid")
    psql("alter table records alter entityId type uuid using entityId::uuid, alter id type uuid using id::uuid")
    assert rows(psql, inside(text)) == expected
    check_asker(list(read(psql, example(text))))


def rows(psql: Callable[[str], str], query: str) -> Answers:
    return by_position(list(read(psql, query)))


def read(psql: Callable[[str], str], query: str) -> Iterator[dict[str, Any]]:
    """Read rows by way of JSON, which tells null from text and one type from another."""
    statement = f"select row_to_json(row) from ({query}) as row"  # noqa: S608 - a text of ours
    for line in psql(statement).splitlines():
        row = json.loads(line)
        yield {
            name: datetime.fromisoformat(value)
            if value and name in ("createdat", "updatedat", "now", "pendingsince")
            else value
            for name, value in row.items()
        }


def create(name: str, table: pa.Table) -> str:
    """Write the statements that make a table of PostgreSQL."""
    types = {"string": "text", "bool": "boolean", "double": "double precision", "int64": "bigint"}
    columns = ", ".join(f"{field.name} {types.get(str(field.type), 'timestamptz')}" for field in table.schema)
    content = io.BytesIO()
    pyarrow.csv.write_csv(table, content)
    return (
        f"create table {name} ({columns});\ncopy {name} from stdin with csv header;\n{content.getvalue().decode()}\\.\n"
    )


@pytest.mark.parametrize("dialect", TRANSPILED)
def test_a_text_reads_back_as_it_was_written(dialect: str, expected: Answers):
    """Read by its dialect's grammar it is written the same again, nothing unsupported; read back into DuckDB's it answers the same."""
    sqlglot = pytest.importorskip("sqlglot")
    text = es.lookup_sql(dialect)
    strict = {"unsupported_level": sqlglot.ErrorLevel.RAISE}
    (query,) = sqlglot.parse(text, read=dialect)
    again = query.sql(dialect, pretty=True, **strict)
    body = text[re.search("^WITH ", text, re.MULTILINE).start() :]
    assert without_comments(again) == without_comments(body)
    assert "epoch_us" not in text.lower()
    assert in_duckdb(query.sql("duckdb", **strict)) == expected
    (spelled,) = sqlglot.parse(example(text), read=dialect)
    assert [column.alias_or_name.lower() for column in spelled.selects] == [name.lower() for name in ASKER.column_names]


def without_comments(text: str) -> list[str]:
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL).split()


@pytest.mark.parametrize("dialect", TRANSPILED)
def test_a_text_says_what_it_wants_and_what_it_was_tested_on(dialect: str):
    """Its head keeps that of the file and says whether it was run; the rules stand in it as comments."""
    text = es.lookup_sql(dialect)
    head = text[: text.index("WITH ")]
    assert head.startswith(LOOKUP_SQL[: LOOKUP_SQL.index("with ")])
    assert all(line.startswith("-- ") for line in head.splitlines())
    assert ("not run" in head) == (dialect in ("bigquery", "snowflake"))
    assert re.findall(r"/\* rule (\d)", text) == ["1", "2", "3", "4", "5"]
    assert not set("{}%") & set(text), "a template would take them for its own"


def test_an_unknown_dialect_is_refused():
    """The message names those that there are."""
    with pytest.raises(
        es.ValidationError, match="dialect= is one of 'duckdb', 'spark', 'bigquery', 'snowflake', 'postgres'"
    ):
        es.lookup_sql("oracle")


def test_without_sqlglot_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    """Where the extra is missing the message names it; DuckDB's needs none."""
    monkeypatch.setitem(sys.modules, "sqlglot", None)
    assert es.lookup_sql() == LOOKUP_SQL
    with pytest.raises(es.EnrichStatusError, match=re.escape('pip install "enrichstatus[sql]"')):
        es.lookup_sql("postgres")


# --- engines ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def psql() -> Iterator[Callable[[str], str]]:
    """A PostgreSQL of its own, reached by a socket in its folder; gives what runs statements and says what they print."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    path = os.pathsep.join([*map(str, reversed(found)), os.environ["PATH"]])  # Debian's servers are not on the PATH
    if shutil.which("initdb", path=path) is None:
        missing("needs a PostgreSQL: apt-get install postgresql")
    # the server refuses to run as root
    somebody: dict[str, Any] = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="enrichstatus-", dir="/tmp") as folder:  # a socket's path has 107 bytes
        if somebody:
            shutil.chown(folder, somebody["user"])

        def run(name: str, *options: str, **more: Any) -> subprocess.CompletedProcess[str]:
            program = str(shutil.which(name, path=path))
            return subprocess.run(
                [program, *options], capture_output=True, text=True, cwd=folder, timeout=SECONDS, **more
            )

        def psql(statements: str) -> str:
            told = run(
                "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-h", folder, "-U", "tester", "postgres", input=statements
            )
            assert told.returncode == 0, told.stderr
            return told.stdout

        initialized = run(
            "initdb", "-D", f"{folder}/data", "-U", "tester", "-E", "UTF8", "--locale=C", "--no-sync", **somebody
        )
        assert initialized.returncode == 0, initialized.stderr
        settings = [f"unix_socket_directories={folder}", "listen_addresses=", "fsync=off", "timezone=Asia/Kolkata"]
        command = [str(shutil.which("postgres", path=path)), "-D", f"{folder}/data"]
        with open(f"{folder}/log.txt", "w+") as log:
            server = subprocess.Popen(
                command + [part for setting in settings for part in ("-c", setting)],
                stdout=log,
                stderr=log,
                cwd=folder,
                **somebody,
            )
            try:
                deadline = time.monotonic() + SECONDS
                while run("pg_isready", "-h", folder).returncode:
                    told = Path(log.name).read_text()
                    assert server.poll() is None, told
                    assert time.monotonic() < deadline, told
                    time.sleep(0.05)
                yield psql
            finally:
                server.terminate()
                server.wait(SECONDS)
