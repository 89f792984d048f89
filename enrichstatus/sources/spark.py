"""The source for where one machine is outgrown: records in a Spark cluster, asked by the same query."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from enrichstatus import frames
from enrichstatus.errors import EnrichStatusError, StoreError, ValidationError
from enrichstatus.lookup import (
    LOOKUP_SQL,
    MAX_PROCESSING_TIME,
    Columns,
    Errors,
    How,
    Instant,
    asked,
    asker,
    choice,
    look_up,
    parse_limits,
    parse_org,
    parse_prefix,
    refuse_taken,
)
from enrichstatus.schema import COLUMNS, FIELDS, KEY
from enrichstatus.sources.batches import Tables
from enrichstatus.sources.loading import record_names
from enrichstatus.sources.querying import PREFIX, query_many
from enrichstatus.tasks import check, key_names, parse_fields

if TYPE_CHECKING:
    import duckdb
    from pyspark.sql import DataFrame, SparkSession

# The same query; of its words Spark calls one otherwise. Its relations are named by frames, which Spark puts in for {…}.
_ANSWER_SQL = f"""
with tasks as (select * from {{tasks}}),
records as (select * from {{records}}),
asker as (select * from {{asker}}),
answer as ({LOOKUP_SQL.replace("epoch_us(", "unix_micros(")})
select * from answer
"""  # noqa: S608  of constants
#: So many bad tasks are fetched to be named.
_NAMED = 1000


class SparkEnrichmentStore:
    """Enrichment records in a Spark cluster, and the status of any number of tasks as one join over them.

    Parameters
    ----------
    spark : SparkSession
        The session (Spark 4), which stays the caller's to stop; Spark Connect too.
    records : Spark DataFrame
        The records, with the columns that `EnrichmentStore.load` takes: ``spark.read.parquet(…)``, say. Nothing is read before a
        lookup is. Ids are text or 16 bytes; times are timestamps or ISO 8601, and UTC where they have no zone.
    org_id : str, optional
        The organization that asks, and whose records those are that name none; each call can name another.
    max_processing_time
        As for `EnrichmentStore`.
    fields : sequence of str
        The allowed fields.
    errors : {"raise", "reject"}
        What bad records of the asking organization do, when they are read: ``raise`` fails and names one, ``reject`` leaves them out.
    columns : mapping, optional
        Columns under other names, ``{"theirs": "ours"}``.

    Raises
    ------
    ValidationError
        An argument is unusable, or a column is missing.
    StoreError
        The session has been stopped.
    EnrichStatusError
        pyspark is not installed.

    Examples
    --------
    In a cluster's session, from table to table, lazily::

        store = es.SparkEnrichmentStore(spark, spark.table("enrichments"), org_id="org_1")
        store.lookup(spark.table("tasks")).write.saveAsTable("status")
    """

    def __init__(
        self,
        spark: SparkSession,
        records: DataFrame,
        *,
        org_id: str | None = None,
        max_processing_time: str | float | timedelta | Mapping[str, str | float | timedelta] = MAX_PROCESSING_TIME,
        fields: Sequence[str] = FIELDS,
        errors: Literal["raise", "reject"] = "raise",
        columns: Mapping[str, str] | None = None,
    ):
        _check_spark(spark, records)
        choice("errors", errors, ("raise", "reject"))
        parse_org(org_id)
        self.org_id = org_id
        self.fields = parse_fields(fields)
        self._limits = parse_limits(max_processing_time, self.fields)
        self._strict = errors == "raise"
        with _running(spark):
            self._names = record_names(records.columns, columns)
        self._spark, self._records = spark, records
        self._tables = Tables(self.fields)

    @property
    def max_processing_time(self) -> dict[str, timedelta]:
        """By field, for how long a record may be pending before it is reported as ``timeout``."""
        return dict(self._limits)

    def lookup(
        self,
        tasks: Any,
        *,
        columns: Columns = ("status", "dataFound"),
        how: How = "left",
        errors: Errors = "raise",
        now: Instant = None,
        prefix: str = "",
        org_id: str | None = None,
    ) -> Any:
        """Answer tasks of any number with the same frame and the asked columns.

        Parameters
        ----------
        tasks : Spark DataFrame, or anything that `EnrichmentStore.lookup` takes
            A Spark DataFrame gives one, lazily, whose rows are in whatever order Spark gives them; all others are sent to the cluster
            and answered in kind and in order.
        columns, how, now, prefix, org_id
            As for `EnrichmentStore.lookup`.
        errors : {"raise", "coerce"}
            As there. To raise, the keys of a Spark DataFrame are read once, before the lookup is; with ``coerce`` nothing is.

        Returns
        -------
        A frame of the same kind, with the dtypes of `EnrichmentStore.lookup`; in Spark ``string``, ``boolean``, ``timestamp``, ``double``.

        Raises
        ------
        ValidationError
            As for `EnrichmentStore.lookup`; a bad record, where tasks are no Spark DataFrame (else Spark says so when it reads it).
        StoreError
            The session has been stopped, or Spark failed.
        """
        asking = self.org_id if org_id is None else org_id
        question = asker(asking, self._limits, now)
        if _is_spark(tasks):
            return self._look_up_there(tasks, question, columns=columns, how=how, errors=errors, prefix=prefix)
        with self._tables.cursor() as con:
            return look_up(
                con,
                tasks,
                lambda names, count: self._answer(con, question, names),
                columns=columns,
                how=how,
                errors=errors,
                prefix=prefix,
            )

    def query(self, body: Any, *, org_id: str | None = None, now: Instant = None) -> list[dict[str, Any]]:
        """Answer the contract's request, as `EnrichmentStore.query` does."""

        def find(tasks: pa.Table) -> Any:
            return self.lookup(tasks, columns=COLUMNS, how="inner", now=now, prefix=PREFIX, org_id=org_id)

        [answer] = query_many(find, [body])
        if isinstance(answer, ValidationError):
            raise answer
        return answer

    def __repr__(self) -> str:
        org = f", org_id={self.org_id!r}" if self.org_id else ""
        names = ", ".join(name for name in COLUMNS if name in self._names)
        return f"SparkEnrichmentStore({type(self._records).__name__}{org})\nrecords with {names}"

    def _query(self, tasks: DataFrame, question: pa.Table, names: Sequence[str]) -> DataFrame:
        """Ask the query of tasks, of which ``position`` may be anything that tells them apart."""
        from enrichstatus.sources import spark_columns

        org_id = question["orgId"][0].as_py()
        records = spark_columns.records(
            self._records, self._names, self.fields, org_id=org_id, owner=self.org_id, strict=self._strict
        )
        asking = self._spark.createDataFrame(question)
        return self._spark.sql(_ANSWER_SQL, tasks=tasks, records=records, asker=asking).select("position", *names)

    def _answer(self, con: duckdb.DuckDBPyConnection, question: pa.Table, names: Sequence[str]) -> pa.Table:
        keys = con.sql(_KEYS_SQL).to_arrow_table()
        with _running(self._spark):
            return self._query(self._spark.createDataFrame(keys), question, names).toArrow()

    def _look_up_there(
        self, tasks: DataFrame, question: pa.Table, *, columns: Columns, how: How, errors: Errors, prefix: str
    ) -> DataFrame:
        from pyspark.sql import functions as fn

        from enrichstatus.sources import spark_columns

        names = asked(columns)
        choice("how", how, ("left", "inner"))
        choice("errors", errors, ("raise", "coerce"))
        added = [parse_prefix(prefix) + name for name in names]
        with _running(self._spark):
            theirs = tasks.columns
            refuse_taken(theirs, added, caseless=True)
            # any names may be the caller's, ours and theirs are told apart by new ones
            own = [f"own_{place}" for place in range(len(theirs))]
            found = {ours: own[theirs.index(name)] for ours, name in key_names(theirs).items()}
            renamed = tasks.toDF(*own)
            keys = spark_columns.keys(renamed, found, self.fields)
            keyed = renamed.select("*", *(keys[name].alias(f"key_{name}") for name in KEY))
            # null where a part of it is
            keyed = keyed.select("*", fn.concat(*(fn.col(f"key_{name}") for name in KEY)).alias("key"))
            if errors == "raise":
                self._refuse_bad(keyed, found)
            distinct = keyed.where(fn.col("key").isNotNull()).select(
                fn.col("key").alias("position"), *(fn.col(f"key_{name}").alias(name) for name in KEY)
            )
            answer = self._query(distinct.distinct(), question, names)
            answer = answer.toDF("position", *(f"answer_{name}" for name in names))
            joined = keyed.join(answer, fn.col("key") == fn.col("position"), how)
            answers = {name: fn.col(f"answer_{name}") for name in names}
            if "reason" in names:
                unknown = fn.when(fn.col("key").isNull(), "invalid").otherwise("no_record")
                answers["reason"] = fn.coalesce(answers["reason"], unknown)
            return joined.select(*own, *answers.values()).toDF(*theirs, *added)

    def _refuse_bad(self, keyed: DataFrame, found: Mapping[str, str]) -> None:
        """Raise where tasks are bad, in the words of a store."""
        from pyspark.sql import functions as fn

        bad = keyed.where(fn.col("key").isNull())
        given = [fn.col(column).cast("string").alias(name) for name, column in found.items()]
        table = bad.select(*given).limit(_NAMED + 1).toArrow()
        if not len(table):
            return
        with self._tables.cursor() as con:
            try:
                check(con, frames.read(table.slice(0, _NAMED)))
            except ValidationError as error:
                problems = error.problems
        assert problems is not None
        shown = problems.head(3).fillna({"value": ""})
        lines = (shown["column"] + " '" + shown["value"].str.slice(0, 60) + "' " + shown["reason"]).tolist()
        count = f"{len(table):,}" if len(table) <= _NAMED else f"More than {_NAMED:,}"
        raise ValidationError(
            f"{count} bad task{'s' if len(table) > 1 else ''}, such as:"
            + "".join(f"\n  {line}" for line in lines)
            + '\nMend them, or pass errors="coerce" to give them a null status.',
            problems.drop(columns="row"),
        )


_KEYS_SQL = """
select position, entityId::varchar as entityId, entityType::varchar as entityType, field::varchar as field
from tasks
"""


def _is_spark(data: object) -> bool:
    return type(data).__module__.startswith("pyspark.sql.") and hasattr(data, "sparkSession")


def _check_spark(spark: object, records: object) -> None:
    try:
        import pyspark  # noqa: F401
    except ImportError as error:
        raise EnrichStatusError('Spark needs pyspark: pip install "enrichstatus[spark]".') from error
    if not (type(spark).__module__.startswith("pyspark.sql.") and hasattr(spark, "createDataFrame")):
        raise ValidationError(f"spark= is a SparkSession, not {type(spark).__name__}.")
    if not _is_spark(records):
        raise ValidationError(
            f"records= is a Spark DataFrame, not {type(records).__name__}; spark.read.parquet(…) or spark.table(…) gives one."
        )


@contextmanager
def _running(spark: SparkSession) -> Iterator[None]:
    """Say in a line what went wrong in the cluster."""
    from py4j.protocol import Py4JError  # type: ignore[import-untyped]  # it ships no hints
    from pyspark.errors import PySparkException

    try:
        if _stopped(spark):
            raise StoreError("The Spark session has been stopped; make another, and a SparkEnrichmentStore of it.")
        yield
    except (PySparkException, Py4JError, ConnectionError) as error:
        text = str(error)
        if told := re.search(r"enrichstatus: ([^\n]*?)(?: SQLSTATE|$)", text, re.MULTILINE):
            raise ValidationError(
                f'{told[1].rstrip(". ")}. Mend it, or pass errors="reject" to SparkEnrichmentStore to leave such records out.'
            ) from error
        if _stopped(spark):
            raise StoreError(
                "The Spark session has been stopped; make another, and a SparkEnrichmentStore of it."
            ) from error
        raise StoreError(f"Spark failed: {text.strip().partition(chr(10))[0][:300]}") from error


def _stopped(spark: Any) -> bool:
    if hasattr(type(spark), "is_stopped"):  # of Spark Connect
        return bool(spark.is_stopped)
    context = spark._jsc
    return context is None or context.sc().isStopped()
