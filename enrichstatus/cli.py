"""The command line: ``enrichstatus load`` and ``enrichstatus lookup``."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import version
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from enrichstatus.errors import EnrichStatusError, StoreError, StoreLockedError, ValidationError
from enrichstatus.schema import listed

if TYPE_CHECKING:
    import pandas as pd

    from enrichstatus.sources.store import EnrichmentStore

_BAD_INPUT = 2
_FAILED = 1
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit code 0, 2 for bad input, 1 for what failed otherwise, each with one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name, or our bars, that the terminal has no letters for
            stream.reconfigure(errors="replace")
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
        sys.stdout.flush()
    except ValidationError as error:
        return _complain(error, _BAD_INPUT)
    except (EnrichStatusError, OSError, MemoryError, UnicodeError) as error:
        if isinstance(error, BrokenPipeError):
            # the reader of a pipe has seen enough; what is left must not be complained of at exit either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _FAILED
        return _complain(error, _FAILED)
    except KeyboardInterrupt:
        return _complain("interrupted; nothing was written", _INTERRUPTED)
    return 0


def _complain(error: object, code: int) -> int:
    """Say what is wrong in one line, with Python's arguments in the words of the command line."""
    text = (
        str(error)
        .replace(":\n  row", ": row")
        .replace("\n  ", "; ")
        .replace(" in .problems\n", ". ")
        .replace("\n", ". ")
    )
    text = re.sub(r'\b(\w+)="(\w+)"', lambda found: f"--{found[1].replace('_', '-')} {found[2]}", text)
    text = re.sub(r"\b(\w+)=(?=\s)", lambda found: f"--{found[1].replace('_', '-')}", text)
    if text == "Organization ID is missing":
        text += ": say whose records to look in with --org"
    print(f"enrichstatus: {text}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="enrichstatus", description="The status of lead enrichment, for a whole list at once."
    )
    parser.add_argument("--version", action="version", version=f"enrichstatus {version('enrichstatus')}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    load = commands.add_parser("load", help="load enrichment records into a store")
    load.set_defaults(run=_load)
    load.add_argument(
        "records",
        nargs="+",
        metavar="RECORDS",
        help="files or globs: .csv .tsv .json .ndjson .parquet, .gz or .zst behind",
    )
    load.add_argument("--store", required=True, metavar="FILE", help="the store's file; made where there is none")
    load.add_argument("--org", metavar="ORG", help="the organization of records that carry none")
    load.add_argument(
        "--errors",
        choices=["raise", "reject"],
        default="raise",
        help="on bad records load nothing (default), or load the others",
    )
    load.add_argument("--rejects", metavar="FILE", help="where to write what is wrong with rejected records")
    load.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="a column under another name; can be repeated",
    )

    lookup = commands.add_parser("lookup", help="look up the status of tasks, or of a lead list")
    lookup.set_defaults(run=_lookup)
    lookup.add_argument("tasks", metavar="TASKS", help="tasks (entityId, field), or a lead list with --entity-id")
    source = lookup.add_mutually_exclusive_group(required=True)
    source.add_argument("--store", metavar="FILE", help="a store to look in; it is only read")
    source.add_argument("--records", nargs="+", metavar="PATH", help="record files to look in, without a store")
    lookup.add_argument("--org", metavar="ORG", help="the organization whose records to look in")
    lookup.add_argument("--entity-id", metavar="COLUMN", help="the column of a lead list that holds the entity's UUID")
    lookup.add_argument("--fields", metavar="FIELD,…", help="with --entity-id: the fields to ask for (default: all)")
    lookup.add_argument("--entity-type", metavar="TYPE", help="with --entity-id: person (default) or company")
    lookup.add_argument(
        "--columns",
        default="status,dataFound",
        metavar="COLUMN,…",
        help='a record\'s columns to add, or "all"',
    )
    lookup.add_argument("--prefix", default="", help="put before the names of the added columns")
    lookup.add_argument(
        "--how",
        choices=["left", "inner"],
        default="left",
        help="keep tasks without a record (default), or not",
    )
    lookup.add_argument(
        "--errors",
        choices=["raise", "coerce"],
        default="raise",
        help="on bad tasks stop (default), or give them no status",
    )
    lookup.add_argument(
        "--now", metavar="INSTANT", help="judge the timeout rule at this instant (default: the clock's)"
    )
    lookup.add_argument(
        "--max-processing-time",
        action="append",
        default=[],
        metavar="[FIELD=]TIME",
        help="pending for longer is a timeout, e.g. 800s (default) or phones=30min; can be repeated",
    )
    lookup.add_argument("-o", "--output", metavar="FILE", help="write the rows: .csv .tsv .parquet .json .ndjson")
    return parser


def _load(options: argparse.Namespace) -> None:
    import pyarrow as pa

    from enrichstatus import files

    columns = dict(_pair(text, "--column") for text in options.column)
    if options.rejects:
        files.writable(options.rejects)
    if options.rejects and options.errors != "reject":
        raise ValidationError("--rejects goes with --errors reject.")
    given = files.expand(options.records)  # before a store is made for nothing
    if options.rejects and any(os.path.realpath(options.rejects) == os.path.realpath(path) for path in given):
        raise ValidationError("--rejects names a file of the records, which it would replace.")
    with _opened(_store_file(options.store)) as store:
        report = store.load(options.records, org_id=options.org, errors=options.errors, columns=columns)
    print(report)
    if options.rejects:
        files.write(pa.Table.from_pandas(report.rejects, preserve_index=False), options.rejects)
        print(f"what is wrong with them: {options.rejects}")


def _lookup(options: argparse.Namespace) -> None:
    import pyarrow as pa

    from enrichstatus import display, files
    from enrichstatus.lookup import asked, parse_instant
    from enrichstatus.tasks import tasks_from_leads

    if options.output:
        files.writable(options.output)
    if not options.entity_id and (options.fields is not None or options.entity_type):
        raise ValidationError(
            "--fields and --entity-type are of a lead list: name the column of its ids with --entity-id."
        )
    columns = asked(options.columns if options.columns == "all" else _names(options.columns))
    # the summary needs these two, asked for or not
    needed = (*columns, *(name for name in ("status", "dataFound") if name not in columns))
    now = parse_instant(options.now)
    with _source(options) as store:
        fields = _fields(options, store)
        tasks = options.tasks
        if fields:
            tasks = tasks_from_leads(
                tasks, entity_id=options.entity_id, fields=fields, entity_type=options.entity_type or "person"
            )
        try:
            status = store.lookup(
                tasks, columns=needed, how=options.how, errors=options.errors, now=now, prefix=options.prefix
            )
        except ValidationError as error:
            if error.problems is None or not fields:
                raise
            raise _of_leads(error.problems, options.entity_id, len(fields)) from None
    extra = [options.prefix + name for name in needed if name not in columns]
    if options.output:
        files.write(pa.Table.from_pandas(status.drop(columns=extra), preserve_index=False), options.output)
    print(f"{len(status):,} tasks of {options.org}, judged at {now:%Y-%m-%d %H:%M:%S} UTC\n")
    width = shutil.get_terminal_size((100, 24)).columns
    added = [options.prefix + name for name in columns]
    print(display.report(status, added=added, prefix=options.prefix, width=width))
    if options.output:
        print(f"\n{len(status):,} rows written to {options.output}")


def _source(options: argparse.Namespace) -> EnrichmentStore:
    from enrichstatus.lookup import MAX_PROCESSING_TIME

    times: object = MAX_PROCESSING_TIME
    if any("=" in text for text in options.max_processing_time):
        times = dict(_pair(text, "--max-processing-time") for text in options.max_processing_time)
    elif options.max_processing_time:
        times = options.max_processing_time[-1]
    stored = options.store is not None
    path = _store_file(options.store) if stored else ":memory:"
    store = _opened(path, org_id=options.org, max_processing_time=times, read_only=stored)
    try:
        if options.records:
            store.load(options.records)
    except BaseException:
        store.close()
        raise
    return store


def _fields(options: argparse.Namespace, store: EnrichmentStore) -> Sequence[str]:
    """Say which fields a lead list is asked for; none, where tasks are given and not leads."""
    if not options.entity_id:
        return ()
    fields = store.fields if options.fields is None else _names(options.fields)
    if unknown := [name for name in fields if name not in store.fields]:
        raise ValidationError(f"--fields names {listed(unknown)}; the fields are {listed(store.fields)}.")
    return fields


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(","))


def _opened(path: str, **settings: Any) -> EnrichmentStore:
    """Open a store of the command line; what is none is bad input, one that somebody else holds is not."""
    from enrichstatus.sources.store import EnrichmentStore

    try:
        return EnrichmentStore(path, **settings)
    except StoreLockedError:
        raise
    except StoreError as error:
        raise ValidationError(str(error)) from error


def _store_file(path: str) -> str:
    if path == ":memory:":
        raise ValidationError("--store names a file; what is in memory ends with the command.")
    return path


def _of_leads(problems: pd.DataFrame, entity_id: str, fields: int) -> ValidationError:
    """Name bad tasks by the rows and the column of the lead list they were made of."""
    leads = problems.assign(row=problems["row"] // fields, column=problems["column"].replace("entityId", entity_id))
    return ValidationError.of_rows(
        "leads", leads.drop_duplicates(), 'Mend them, or pass errors="coerce" to give them no status.'
    )


def _pair(text: str, option: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValidationError(f"{option} takes two names with = between them, not {text!r}.")
    return name, value
