"""The source on a Spark cluster: enrichment records that lie in a lake, and the tasks beside them."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

import pyarrow as pa

from enrichstatus.errors import OrganizationWarning, ValidationError
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Kind, ListOrPath
from enrichstatus.lookup.arguments import (
    MAX_PROCESSING_TIME,
    Columns,
    Errors,
    How,
    Instant,
    choice,
    parse_epoch,
    parse_fields,
    parse_limits,
    parse_options,
    parse_org,
)
from enrichstatus.lookup.contract import query
from enrichstatus.lookup.query import NEW_ORGANIZATION, asker, by_key_sql, look_up, no_records_of, refuse_clash
from enrichstatus.lookup.tasks import COERCE, check, problems, task_names, task_tables
from enrichstatus.schema import FIELDS, STRAY, Epoch, listed, parse_statuses, record_names
from enrichstatus.sources.spark.records import POSITION, mixed_instants, raw_keys, records_of, with_keys
from enrichstatus.sources.spark.session import check_session, estimated_bytes, is_spark, numbered, running

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

#: Up to so many tasks, or so many bytes of keys as Spark estimates them, the records that match are found before any are shuffled.
FEW, FEW_BYTES = 10_000, 1 << 21

# Spark has no epoch_us; its word for it is the only one of the query that is not DuckDB's too
_QUERY = f"""
with records as (select records.* from {{records}} as records $narrowed),

asker as (select * from {{asker}}),

answer as ({by_key_sql(POSITION).replace("epoch_us(", "unix_micros(")})

select * from answer
"""  # noqa: S608  of constants
# Small as they are, Spark sends the keys to where the records lie
_NARROWED = f"left semi join {{tasks}} as tasks on tasks.position = {POSITION}"


class SparkEnrichmentStore:
    """Enrichment records in a Spark DataFrame, and the status of any number of tasks as one join on the cluster.

    Nothing is loaded or copied: each lookup reads the records as they then are. Sessions of Spark Connect will do.

    Parameters
    ----------
    spark : SparkSession
        The session that the records are of; it stays yours, and is not stopped.
    records : Spark DataFrame
        A record's columns, by their wire names or in snake_case. ``createdAt``, ``entityId``, ``field`` and ``status`` must be there.
        Timestamps are ``timestamp``, or ``timestamp_ntz`` or ISO 8601 text, which without a zone are UTC, whatever the session's zone.
    org_id : str, optional
        The organization whose records are looked up, and that records without one belong to; each call can name another to look up.
    max_processing_time : str, timedelta, seconds, or a mapping of these by field
        A record pending for longer than this is reported as ``timeout``. A mapping leaves the others at the default of 800 s.
    fields : sequence of str
        The allowed fields.
    errors : {"raise", "reject"}
        What a bad record of that organization does: ``raise`` makes the lookup fail when it runs, ``reject`` leaves it out.
    columns : mapping, optional
        Columns under other names, ``{"theirs": "ours"}``; None says that one which looks like the organization is not.
    epoch : {"s", "ms", "us"}, optional
        The unit of instants that are numbers, as for `EnrichmentStore.load`.
    statuses : mapping, optional
        What other words for a status mean than the contract's, ``{"in_progress": "pending"}``; see `EnrichmentStore`.

    Raises
    ------
    ValidationError
        An argument is unusable, or the records lack a column.
    StoreError
        The session was stopped.
    ImportError
        There is no pyspark; the message says what to install.

    Examples
    --------
    ::

        records = spark.read.parquet("s3://lake/enrichments")
        store = es.SparkEnrichmentStore(spark, records, org_id="org_1")
        store.lookup(spark.table("leads")).write.parquet("s3://lake/status")   # a Spark DataFrame in, one out, lazily
        store.lookup(pd.read_csv("leads.csv"))                                 # any other frame is answered in kind
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
        columns: Mapping[str, str | None] | None = None,
        epoch: Epoch | None = None,
        statuses: Mapping[str, str] | None = None,
    ):
        try:
            import pyspark  # noqa: F401  imported here, or a fault of our own would look like its absence
        except ImportError as error:
            raise ImportError('Spark needs the extra "spark": pip install "enrichstatus[spark]"') from error
        choice("errors", errors, ("raise", "reject"))
        if not is_spark(records):
            raise ValidationError(
                f"is a Spark DataFrame, such as spark.read.parquet(…) or spark.table(…) gives, not {type(records).__name__}.",
                argument="records",
            )
        if not callable(getattr(spark, "createDataFrame", None)) or isinstance(spark, type):
            raise ValidationError(f"is a SparkSession, not {type(spark).__name__}.", argument="spark")
        self.org_id = None if org_id is None else parse_org(org_id)
        self.fields, self._statuses = parse_fields(fields), parse_statuses(statuses)
        self._limits = parse_limits(max_processing_time, self.fields)
        self._spark = spark
        self._reject = errors == "reject"
        self._epoch = parse_epoch(epoch)
        with running(self._spark):
            check_session(self._spark, records, "records")
            names = record_names(records.columns, columns)
            if mixed := mixed_instants(records, names):
                raise ValidationError(
                    f"The records have the columns {listed(mixed)}, which are one to us, and of which one is a timestamp: Spark would read "
                    "it in the session's zone. Leave one out, or make one of them, with coalesce() say."
                )
            self._records, numbers = numbered(records)
            self._names = {ours: [numbers[name] for name in theirs] for ours, theirs in names.items()}
            self._stray = listed(names.get(STRAY, ()))
            self._found = listed(records.columns)
        self._known: set[str] = set()  # organizations that are known to have records

    @property
    def max_processing_time(self) -> dict[str, timedelta]:
        """By field, for how long a record may be pending before it is reported as ``timeout``."""
        return dict(self._limits)

    def lookup(
        self,
        tasks: Kind | ListOrPath,
        *,
        columns: Columns = ("status", "dataFound"),
        how: How = "left",
        errors: Errors = "raise",
        now: Instant = None,
        prefix: str = "",
        org_id: str | None = None,
    ) -> Kind:
        """Give back any number of tasks, with the columns of the answer added.

        Parameters
        ----------
        tasks : Spark DataFrame, or any kind of `EnrichmentStore.lookup`
            Columns ``entityId`` (a UUID, in any spelling), ``field`` and ``entityType`` (absent: person), among any others.
        columns, how, now, prefix, org_id
            As for `EnrichmentStore.lookup`. The clock is read when this is called, not when Spark runs.
        errors : {"raise", "coerce"}
            As there. Of a Spark DataFrame, ``raise`` reads the columns of the key at once, and looks whether there is any record of the
            organization; ``coerce`` reads nothing.

        Returns
        -------
        A frame of the same kind. A Spark DataFrame is lazy, its rows are in no order, and its columns are followed by those of the answer;
        of other frames row *i* is task *i*, with the dtypes of `EnrichmentStore.lookup`.

        Raises
        ------
        ValidationError
            No organization, bad tasks (all are in its ``.problems``; Spark's have no ``row``, but ``tasks``, how many there are of the
            kind), an argument that is unusable, or a bad record. That of a lazy frame is Spark's own error, raised where it runs.
        StoreError
            The session was stopped, or Spark failed.

        Warns
        -----
        OrganizationWarning
            There are records, but none of the organization.
        """
        question = asker(self.org_id if org_id is None else org_id, self._limits, now)
        options: dict[str, Any] = {"columns": columns, "how": how, "errors": errors, "prefix": prefix}
        if is_spark(tasks):
            with running(self._spark):
                status = cast("Kind", self._lazy(tasks, question, **options))
            answered = errors != "raise"
        else:
            status, answered = self._look_up(tasks, question, **options)
        if not answered and (message := self._lacks(question["orgId"][0].as_py())):
            warnings.warn(message, OrganizationWarning, stacklevel=2)
        return status

    def query(self, body: Any, *, org_id: str | None = None, now: Instant = None) -> list[dict[str, Any]]:
        """Answer the contract's request by way of Spark: 1 to 200 tasks in, the existing records out; see `EnrichmentStore.query`.

        Parameters
        ----------
        body : dict
            ``{"tasks": [{"entityId": …, "field": …, "entityType": …}]}``.
        org_id, now
            As for `lookup`.

        Returns
        -------
        list of dict
            An object for each distinct task that has a record, in the order of their first appearance.

        Raises
        ------
        ValidationError, StoreError
            As for `lookup`.
        """
        question = asker(self.org_id if org_id is None else org_id, self._limits, now)
        return query(lambda tasks, **options: self._look_up(tasks, question, **options)[0], body)

    def check_organization(self, *, new: bool = False) -> bool:
        """Say whether there is any record; all of them other organizations' is an error, unless ours is meant to be a `new` one."""
        if self.org_id and (message := self._lacks(self.org_id)) and not new:
            raise ValidationError(message, instead=NEW_ORGANIZATION)
        with running(self._spark):
            return _any(self._records)

    def _lacks(self, org_id: str) -> str:
        """Say that there are records, but none of the organization; nothing where that is not so."""
        if org_id not in self._known:
            with running(self._spark):
                if not _any(self._records_of(org_id, reject=True)):
                    return no_records_of(org_id) if _any(self._records) else ""
            self._known.add(org_id)
        return ""

    def __repr__(self) -> str:
        org = f", org_id={self.org_id!r}" if self.org_id else ""
        return f"SparkEnrichmentStore(records with {self._found}{org})"

    def _look_up(self, tasks: Kind | ListOrPath, question: pa.Table, **options: Any) -> tuple[Kind, bool]:
        """Answer a frame that is not Spark's; says too whether any task has a record."""
        answered = False

        def answer(names: tuple[str, ...], count: int) -> pa.Table:
            nonlocal answered
            checked = con.sql(_CHECKED_SQL).to_arrow_table()
            with running(self._spark):
                frame = self._spark.createDataFrame(checked)
                found = frame.join(self._answers(question, frame if count <= FEW else None), "position")
                table = found.select("row", *names).toArrow().rename_columns(["position", *names])
            answered = table.num_rows > 0
            return table

        with task_tables(self.fields) as con:
            status = look_up(lambda: con, tasks, answer, **options)
        return status, answered

    def _lazy(
        self, tasks: DataFrame, question: pa.Table, *, columns: Columns, how: How, errors: Errors, prefix: str
    ) -> DataFrame:
        names = parse_options(columns, how, errors, prefix)
        check_session(self._spark, tasks, "tasks")
        refuse_clash(_Named(tasks.columns), [prefix + name for name in names])
        given, numbers = numbered(tasks)
        keys = {ours: numbers[theirs] for ours, theirs in task_names(tasks.columns).items()}
        keyed = with_keys(self._spark, given, keys, self.fields)
        if errors == "raise":
            self._check(keyed, keys)
        known = {name: f"answer{place}" for place, name in enumerate(names)}
        keys_alone = keyed.select("position")
        answers = self._answers(question, keys_alone if estimated_bytes(keys_alone) <= FEW_BYTES else None)
        answer = answers.selectExpr("position", *(f"{name} as {ours}" for name, ours in known.items()))
        # why a task has no record is known here alone; where it has one, the query said
        why = f"coalesce({known.get('reason')}, case when position is null then 'invalid' else 'no_record' end)"
        added = [why if name == "reason" else ours for name, ours in known.items()]
        joined = keyed.join(answer, "position", how).selectExpr(*given.columns, *added)
        return joined.toDF(*tasks.columns, *(prefix + name for name in names))

    def _check(self, keyed: DataFrame, keys: Mapping[str, str]) -> None:
        """Refuse bad tasks; the driver gets each kind of them once, and says with DuckDB what is wrong with it."""
        bad = keyed.where("position is null").selectExpr(*raw_keys(keys))
        kinds = bad.groupBy(*bad.columns).count().toArrow()
        if not kinds.num_rows:
            return
        with task_tables(self.fields) as con:
            check(con, frames.read(kinds.drop_columns(["count"])), errors="coerce")
            found = problems(con)
        counts = kinds["count"].to_pandas()
        found.insert(0, "tasks", counts.loc[found["row"]].to_numpy())
        raise ValidationError.of_rows("tasks", found.drop(columns="row"), count=int(counts.sum()), instead=COERCE)

    def _records_of(self, org_id: str, *, reject: bool) -> DataFrame:
        return records_of(
            self._spark,
            self._records,
            self._names,
            self.fields,
            org_id=org_id,
            own=self.org_id,
            stray=self._stray,
            statuses=self._statuses,
            reject=reject,
            epoch=self._epoch,
        )

    def _answers(self, question: pa.Table, few: DataFrame | None) -> DataFrame:
        """Run the query over the records of the organization: an answer for each key, or for those of a `few` tasks."""
        frames: dict[str, Any] = {"records": self._records_of(question["orgId"][0].as_py(), reject=self._reject)}
        frames["asker"] = self._spark.createDataFrame(question)
        text = _QUERY.replace("$narrowed", "" if few is None else _NARROWED)
        if few is not None:
            frames["tasks"] = few
        return self._spark.sql(text, **frames)


def _any(records: DataFrame) -> bool:
    return bool(records.limit(1).count())


@dataclass
class _Named:
    """What a lookup has to know of a Spark DataFrame to add columns to it."""

    columns: list[str]
    caseless: bool = True


_CHECKED_SQL = f"select position as row, {POSITION} as position from tasks"  # noqa: S608  of a constant
