"""The lookup from files to files: tasks and answers of any number pass through in pieces, in the order of the tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import RequirementError, ValidationError
from enrichstatus.files.reading import read as files
from enrichstatus.files.results import jsonable
from enrichstatus.files.scratch import scratch
from enrichstatus.files.writing.remote_out import RemoteOutput
from enrichstatus.files.writing.write import Output
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Frame, Rows
from enrichstatus.lookup.arguments import How
from enrichstatus.lookup.leads import leads_column, naming_leads, of_leads, tasks_from_leads
from enrichstatus.lookup.query import gather, places, refuse_clash
from enrichstatus.lookup.requirements import check_shares
from enrichstatus.lookup.tasks import (
    all_uuids,
    bad_tasks,
    keep_problems,
    keys_of,
    number_tasks,
    task_names,
    to_pandas,
    vocabulary,
    with_numbers,
)
from enrichstatus.outcomes import OUTCOMES, outcome
from enrichstatus.presentation import many
from enrichstatus.progress import Progress

#: Rows of one piece.
PIECE = 1 << 17
#: Of the result so many rows are kept to be shown.
HEAD = 8
#: Of bad rows so many are named.
PROBLEMS = 10_000

#: Columns, and how, errors, prefix and require of a call.
Options: TypeAlias = tuple[Sequence[str], How, str, str, Mapping[str, Any] | None]


@dataclass(frozen=True)
class LookupReport:
    """What came of a lookup from files to files.

    Attributes
    ----------
    tasks : int
        Tasks read.
    rows : int
        Rows written: as many, or with ``how="inner"`` those that have a record.
    counts : pandas.DataFrame
        The rows by ``field``, ``status``, ``dataFound`` and ``label``, which says in words what became of them (``no record`` and ``bad
        row`` have no status), with their number in ``tasks``.
    head : pandas.DataFrame
        The first rows.
    files : list of str
        The files written, in the order of the tasks.
    entity_id : str or None
        Of a lead list, the column that was taken for the entities.
    problems : pandas.DataFrame
        With ``errors="coerce"``, what is wrong with bad rows: ``row``, ``column``, ``value`` and ``reason``; the first 10,000.
    problem_count : int
        How many there are.
    """

    tasks: int
    rows: int
    counts: pd.DataFrame
    head: pd.DataFrame
    files: list[str]
    entity_id: str | None
    problems: pd.DataFrame
    problem_count: int

    def to_dict(self) -> dict[str, Any]:
        """Give the same as JSON has it, for programs."""
        told = {"tasks": self.tasks, "rows": self.rows, "counts": self.counts, "files": self.files}
        told |= {"entityId": self.entity_id, "problems": self.problems, "problemCount": self.problem_count}
        given: dict[str, Any] = jsonable(told)
        return given

    def __repr__(self) -> str:
        return f"LookupReport({self})"

    def __str__(self) -> str:
        by_status = self.counts.groupby(self.counts["status"].fillna(self.counts["label"]))["tasks"].sum()
        counts = ", ".join(f"{count:,} {status}" for status, count in by_status.items())
        where = self.files[0] if len(self.files) == 1 else f"{len(self.files)} files, from {self.files[0]} on"
        return f"{many(self.tasks, 'task')} read, {many(self.rows, 'row')} written to {where}: {counts or 'none'}"


class Leads(NamedTuple):
    """How a lead list becomes tasks."""

    entity_id: str
    fields: Sequence[str]
    entity_type: str


@dataclass(frozen=True)
class TaskFiles:
    """Tasks in files of one format, which can be read as often as one likes; or leads, read as tasks."""

    given: files.Files
    leads: Leads | None = None

    @classmethod
    def named(
        cls,
        tasks: Any,
        entity_id: str | None,
        fields: Sequence[str],
        entity_type: str,
        *,
        fields_given: bool,
        **reading: Any,
    ) -> TaskFiles:
        """Find the files that a path, a glob, or a list of these names; they are a lead list unless they have the columns of tasks."""
        if not files.is_path(tasks):
            raise ValidationError(
                f"names files (a path, a glob, or a list of these), not {type(tasks).__name__}; "
                "a frame is looked up with lookup(), which gives one.",
                argument="tasks",
            )
        given = files.Files(tasks, **reading)
        given.warn_renamed()
        if entity_id is None:
            with scratch() as con, files.reading():
                reader = given.stream(con)
                first = next(iter(reader), None)
                head = reader.schema.empty_table() if first is None else pa.Table.from_batches([first])
            entity_id = leads_column(frames.piece(given, head), None, entity_type, fields_given=fields_given)
        return cls(given, None if entity_id is None else Leads(entity_id, fields, entity_type))

    @property
    def paths(self) -> list[str]:
        """Name the files."""
        return self.given.paths

    def pieces(self, con: duckdb.DuckDBPyConnection, *, keys_only: bool = False) -> Iterator[Frame]:
        """Read some rows at a time, in order, with all of their columns or with those of the key; one piece at the least."""
        names = self.given.columns
        if keys_only and names:
            found = [self.leads.entity_id] if self.leads else list(task_names(names).values())
            names = [name for name in names if name in found] or names
        with files.reading():
            reader = self.given.stream(con, names)
            yield self._piece(reader.schema.empty_table())
            for batch in reader:
                yield self._piece(pa.Table.from_batches([batch]))

    def _piece(self, table: pa.Table) -> Frame:
        frame = frames.piece(self.given, table)
        return frames.read(tasks_from_leads(frame, **self.leads._asdict())) if self.leads else frame

    def problems(self, con: duckdb.DuckDBPyConnection) -> tuple[pd.DataFrame, int]:
        """Name the first bad tasks of the table ``problem``, by their leads where they are made of some, and say how many there are."""
        each = len(self.leads.fields) if self.leads else 1
        (count,) = con.execute('select count(distinct ("row" // $1, "column")) from problem', [each]).fetchall()[0]
        found = to_pandas(con.sql('from problem order by "row", "column"').limit(PROBLEMS * each))
        return (of_leads(found, *self.leads[:2]) if self.leads else found), count

    def refuse_bad(self, con: duckdb.DuckDBPyConnection) -> None:
        """Raise for the bad tasks of the relation ``given``, by their leads where they are made of some."""
        with naming_leads(self.leads and self.leads.entity_id, self.leads.fields if self.leads else ()):
            raise bad_tasks(con)


def look_up_files(
    con: duckdb.DuckDBPyConnection,
    tasks: TaskFiles,
    output: Output | RemoteOutput,
    *,
    options: Options,
    progress: Progress,
    question: pa.Table,
    query: str,
    register: Callable[[], None],
    answered: Callable[[], None],
) -> LookupReport:
    """Look up tasks as the asker of `question`, and write them with the columns `names` of the answer.

    `register` is called when the tasks stand there, and makes the relation ``records`` for `query`; `answered` when all have been read.
    """
    names, how, errors, prefix, require = options
    added = [prefix + name for name in names]
    con.register("question", question)
    # a table: DuckDB reports no progress of what scans Arrow
    con.execute("create temp table asker as from question")
    # the tasks are read by another cursor, while this one looks up or is read
    with con.cursor() as beside:
        start = next(tasks.pieces(beside))
        refuse_clash(start, added)
        output.check(start.assign(pa.table({})).schema)
        count, bad = _check(con, beside, tasks, errors)
        progress.reached(10)
        wanted = [*names, *(name for name in ("status", "dataFound") if name not in names)]
        explained = "reason" in wanted and how == "left"
        with progress.following(con, 10, 70):
            register()
            con.register("found", con.sql(query).select("position", *wanted))
            con.execute(_EXPLAINED_SQL if explained else _ORDERED_SQL)
        answered()
        until = _until(con.table("answer").to_arrow_reader(PIECE))
        tally, rows, first = Tally(), 0, 0
        head: list[pa.Table] = []
        with output.open() as write:
            for frame in tasks.pieces(beside):
                table = until(first + len(frame))
                place = places(table, len(frame), first)
                fields = keys_of(frame)["field"]
                invalid = np.zeros(len(frame), bool)
                invalid[bad[slice(*np.searchsorted(bad, (first, first + len(frame))))] - first] = True
                first += len(frame)
                if how == "inner":
                    found = np.flatnonzero(place >= 0)
                    frame, place, fields = frame.take(found), place[found], fields.take(pa.array(found))
                    invalid = invalid[found]
                ordered = gather(table, wanted, place)
                if explained:
                    reason = pc.fill_null(ordered["reason"], "invalid")
                    ordered = ordered.set_column(wanted.index("reason"), "reason", reason)
                result = frame.assign(ordered.select(names).rename_columns(added))
                write(result)
                tally.add(fields, ordered, invalid)
                if rows < HEAD or not head:
                    head.append(result.slice(0, HEAD - rows))
                rows += len(frame)
                progress.reached(70 + 30 * first / max(count, 1))
            counts = tally.counts()
            numbers, shown = map(frames.to_pandas, (counts, pa.concat_tables(head)))
            named = tasks.problems(con) if len(bad) else (pd.DataFrame(columns=["row", "column", "value", "reason"]), 0)
            entity_id = tasks.leads.entity_id if tasks.leads else None
            report = LookupReport(count, rows, numbers, shown, output.files(), entity_id, *named)
            if require:
                nothing = {"status": pa.nulls(1, pa.string()), "dataFound": pa.nulls(1, pa.bool_())}
                left_out = pa.table(nothing | {"tasks": [count - rows]})
                try:
                    check_shares(pa.concat_tables([counts.select(left_out.column_names), left_out]), **require)
                except RequirementError as error:
                    error.report = report
                    raise
        return report


_ORDERED_SQL = "create temp table answer as from found order by position"
_EXPLAINED_SQL = """
create temp table answer as
select
    tasks.position,
    found.* exclude (position) replace (coalesce(found.reason, 'no_record') as reason)
from tasks
left join found on found.position = tasks.position
order by tasks.position
"""


def _check(
    con: duckdb.DuckDBPyConnection, beside: duckdb.DuckDBPyConnection, tasks: TaskFiles, errors: str
) -> tuple[int, Rows]:
    """Make the temporary table ``tasks``, as `tasks.check` does of a frame; gives the number of rows, and which are bad."""
    count = 0
    failed: list[BaseException] = []
    fields = vocabulary(con)

    def keys(cast: Callable[[pa.Table], pa.Table]) -> pa.RecordBatchReader:
        nonlocal count
        count = 0
        pieces = tasks.pieces(beside, keys_only=True)
        start = cast(keys_of(next(pieces)))

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal count
            try:
                for frame in pieces:
                    yield from cast(keys_of(frame, count)).cast(start.schema).to_batches()
                    count += len(frame)
            except BaseException as error:  # also Ctrl-C, of which DuckDB would make an error of its own
                failed.append(error)
                raise

        return pa.RecordBatchReader.from_batches(start.schema, batches())

    with con.cursor() as casting:
        con.register("numbered", keys(lambda given: with_numbers(all_uuids(casting, given), fields)))
        try:
            good = number_tasks(con)
        except Exception:
            if failed:  # what went wrong in the reading says more than what DuckDB made of it
                raise failed[0] from None
            raise
    con.unregister("numbered")
    if good == count:
        return count, np.zeros(0, np.int64)
    con.register("given", keys(lambda given: given))
    if errors == "raise":
        tasks.refuse_bad(con)
    try:
        return count, keep_problems(con)
    finally:
        con.unregister("given")


def _until(reader: pa.RecordBatchReader) -> Callable[[int], pa.Table]:
    """Give a function that gives, piece by piece, the ordered answers of the positions below a given one."""
    rest = reader.schema.empty_table()

    def until(end: int) -> pa.Table:
        nonlocal rest
        some = [rest]
        while not len(some[-1]) or some[-1]["position"][-1].as_py() < end:
            batch = next(reader, None)
            if batch is None:
                break
            some.append(pa.Table.from_batches([batch]))
        whole = pa.concat_tables(some)
        cut = int(np.searchsorted(whole["position"].to_numpy(), end))
        rest = whole.slice(cut)
        return whole.slice(0, cut)

    return until


class Tally:
    """Rows counted by field, status and whether there is data."""

    def __init__(self) -> None:
        self._seen: list[pa.Table] = []

    def add(self, fields: pa.ChunkedArray, answers: pa.Table, invalid: npt.NDArray[np.bool_]) -> None:
        """Count some rows: their fields, their answers, and which of them are bad."""
        table = answers.select(["status", "dataFound"]).add_column(0, "field", fields.cast(pa.string()))
        table = table.append_column("invalid", pa.array(invalid))
        self._seen.append(table.group_by(table.column_names).aggregate([([], "count_all")]))

    def counts(self) -> pa.Table:
        """Give the sums, with their number in ``tasks``, and the ``label`` of each."""
        names = ["field", "status", "dataFound", "invalid"]
        sums = pa.concat_tables(self._seen).group_by(names).aggregate([("count_all", "sum")])
        sums = sums.rename_columns([*names, "tasks"]).sort_by([(name, "ascending") for name in names])
        # a few combinations, not tasks
        given = zip(*(sums[name].to_pylist() for name in names[1:]), strict=True)
        labels = [(OUTCOMES["invalid"] if bad else outcome(status, found)).label for status, found, bad in given]
        return sums.set_column(3, "label", pa.array(labels, pa.string()))
