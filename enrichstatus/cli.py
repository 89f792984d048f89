"""The command line: ``enrichstatus load``, ``lookup``, ``serve`` and ``token``."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from enrichstatus.arguments import parser
from enrichstatus.errors import EnrichStatusError, StoreError, StoreLockedError, ValidationError
from enrichstatus.schema import listed

if TYPE_CHECKING:
    import pandas as pd

    from enrichstatus.sources.client import EnrichmentClient
    from enrichstatus.sources.store import EnrichmentStore

_BAD_INPUT = 2
_FAILED = 1
_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; exit code 0, 2 for bad input, 1 for what failed otherwise, each with one line on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name, or our bars, that the terminal has no letters for
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    try:
        {"load": _load, "lookup": _lookup, "serve": _serve, "token": _token}[options.command](options)
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
    # a service judges by its own clock, unless told otherwise
    now = None if options.url and not options.now else parse_instant(options.now)
    with _source(options) as source:
        fields = _fields(options, source)
        tasks = options.tasks
        if fields:
            tasks = tasks_from_leads(
                tasks, entity_id=options.entity_id, fields=fields, entity_type=options.entity_type or "person"
            )
        try:
            status = source.lookup(
                tasks, columns=needed, how=options.how, errors=options.errors, now=now, prefix=options.prefix
            )
        except ValidationError as error:
            if error.problems is None or not fields:
                raise
            raise _of_leads(error.problems, options.entity_id, len(fields)) from None
    extra = [options.prefix + name for name in needed if name not in columns]
    if options.output:
        files.write(pa.Table.from_pandas(status.drop(columns=extra), preserve_index=False), options.output)
    whose = f"answered by {options.url}" if options.url else f"of {options.org}"
    print(f"{len(status):,} tasks {whose}" + (f", judged at {now:%Y-%m-%d %H:%M:%S} UTC\n" if now else "\n"))
    width = shutil.get_terminal_size((100, 24)).columns
    added = [options.prefix + name for name in columns]
    print(display.report(status, added=added, prefix=options.prefix, width=width))
    if options.output:
        print(f"\n{len(status):,} rows written to {options.output}")


def _source(options: argparse.Namespace) -> EnrichmentStore | EnrichmentClient:
    from enrichstatus.sources.client import EnrichmentClient

    times = _times(options)
    if options.url:
        if options.org:
            raise ValidationError(
                "--org goes with --store or --records; of a service the token tells the organization."
            )
        return EnrichmentClient(options.url, allow_http=options.allow_http, max_processing_time=times)
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


def _times(options: argparse.Namespace) -> Any:
    from enrichstatus.lookup import MAX_PROCESSING_TIME

    if any("=" in text for text in options.max_processing_time):
        return dict(_pair(text, "--max-processing-time") for text in options.max_processing_time)
    return options.max_processing_time[-1] if options.max_processing_time else MAX_PROCESSING_TIME


def _fields(options: argparse.Namespace, source: EnrichmentStore | EnrichmentClient) -> Sequence[str]:
    """Say which fields a lead list is asked for; none, where tasks are given and not leads."""
    if not options.entity_id:
        return ()
    fields = source.fields if options.fields is None else _names(options.fields)
    if unknown := [name for name in fields if name not in source.fields]:
        raise ValidationError(f"--fields names {listed(unknown)}; the fields are {listed(source.fields)}.")
    return fields


def _serve(options: argparse.Namespace) -> None:
    simulated = {"--tasks": options.tasks, "--entity-id": options.entity_id, "--fields": options.fields}
    if not options.simulate and (given := [name for name, value in simulated.items() if value is not None]):
        raise ValidationError(f"{listed(given)} goes with --simulate.")
    if options.simulate and not options.tasks:
        raise ValidationError("--simulate needs --tasks: what was triggered.")
    if not options.simulate and not options.tokens:
        raise ValidationError("--store needs --tokens: who may ask. Make one with: enrichstatus token new")
    try:
        from enrichstatus.server import create_app
        from enrichstatus.serving import serve
    except ImportError as error:
        raise EnrichStatusError(str(error)) from error
    app: Any
    with (
        _simulated(options)
        if options.simulate
        else _opened(
            _store_file(options.store), max_processing_time=_times(options), read_only=not options.writable
        ) as store
    ):
        app = create_app(store, options.tokens or {_SIMULATED: store.org_id})
        what = options.store
        if options.simulate:
            from enrichstatus.simulation import Faults

            app = Faults(app, rate=options.fault_rate, kinds=_names(options.faults), seed=options.seed)
            what = f"a simulated service over {options.tasks}" + ("" if options.tokens else f", token {_SIMULATED}")
        serve(
            app,
            host=options.host,
            port=options.port,
            ready=lambda url: print(f"serving {what} at {url} (Ctrl-C stops)", flush=True),
        )


#: The token of a simulated service that was given no tokens: it protects nothing.
_SIMULATED = "simulated"


def _simulated(options: argparse.Namespace) -> EnrichmentStore:
    from enrichstatus.schema import FIELDS
    from enrichstatus.simulation import SimulatedStore
    from enrichstatus.tasks import tasks_from_leads

    tasks = options.tasks
    if options.entity_id:
        fields = FIELDS if options.fields is None else _names(options.fields)
        tasks = tasks_from_leads(tasks, entity_id=options.entity_id, fields=fields)
    return SimulatedStore(tasks, seed=options.seed, speed=options.speed)


def _token(options: argparse.Namespace) -> None:
    from enrichstatus.tokens import new_token

    token = new_token(options.tokens, options.org)
    print(f"a token of {options.org}; its digest is in {options.tokens}, itself it is shown only here:\n{token}")


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
