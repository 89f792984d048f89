"""What the options of the command line name: columns, tasks, services, stores and files, refused where they name none."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from enrichstatus.errors import StoreError, StoreLockedError, UnauthorizedError, ValidationError
from enrichstatus.schema import listed

if TYPE_CHECKING:
    import pandas as pd

    from enrichstatus.sources.client.client import EnrichmentClient
    from enrichstatus.sources.store.scan import Scan
    from enrichstatus.sources.store.store import EnrichmentStore


def refuse_empty(options: argparse.Namespace) -> None:
    """Refuse an option whose text is empty: it would pass for one that was not given."""
    for name, value in vars(options).items():
        if name != "prefix" and (value == "" or (isinstance(value, list) and "" in value)):
            positional = (options.command, name) in (
                ("load", "records"),
                *((command, "tasks") for command in ("lookup", "plan", "report", "poll")),
            )
            called = name.upper() if positional else f"--{name.replace('_', '-')}"
            raise ValidationError(f"{called} is empty; what it takes is text (is a variable of the shell not set?).")


def refuse_stray(given: Mapping[str, object], partner: str) -> None:
    """Refuse options that mean nothing without another one, which is not there."""
    if stray := [name for name, value in given.items() if value is not None]:
        raise ValidationError(f"{listed(stray)} {'goes' if len(stray) == 1 else 'go'} with {partner}.")


def names(text: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    return tuple(name.strip() for name in text.split(","))


def pair(text: str, option: str) -> tuple[str, str]:
    """Read two names with = between them."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValidationError(f"{option} takes two names with = between them, not {text!r}.")
    return name, value


def numbers(given: Sequence[str] | None, option: str) -> dict[str, float]:
    """Read numbers by name, ``emails=1,phones=10``; an option may be repeated."""
    read = {}
    for text in given or ():
        for part in text.split(","):
            name, value = pair(part.strip(), option)
            try:
                read[name] = float(value)
            except ValueError:
                raise ValidationError(f"{option} takes a number behind each =, not {value!r}.") from None
    return read


def requirements(given: Sequence[str] | None) -> dict[str, float]:
    """Read --require, shares by name."""
    required = numbers(given, "--require")
    if strange := [name for name in required if name not in ("ended", "failed")]:
        raise ValidationError(f"--require takes ended=SHARE and failed=SHARE, not {listed(strange)}.")
    return required


def times(given: Sequence[str] | None) -> Any:
    """Read --max-processing-time, a time for all fields or one for each of some."""
    from enrichstatus.lookup.arguments import MAX_PROCESSING_TIME

    if given and any("=" in text for text in given):
        return dict(pair(text, "--max-processing-time") for text in given)
    return given[-1] if given else MAX_PROCESSING_TIME


def fields(options: argparse.Namespace, known: Sequence[str]) -> Sequence[str]:
    """Say which fields a lead list is asked for; none, where tasks are given and not leads."""
    if not options.entity_id:
        return ()
    chosen = known if options.fields is None else names(options.fields)
    if unknown := [name for name in chosen if name not in known]:
        raise ValidationError(f"--fields names {listed(unknown)}; the fields are {listed(known)}.")
    return chosen


def check_leads(options: argparse.Namespace) -> None:
    """Refuse what is said of a lead list where tasks are given."""
    if options.entity_id is None:
        refuse_stray(
            {"--fields": options.fields, "--entity-type": options.entity_type},
            "--entity-id, which names the column of a lead list's ids",
        )


@contextmanager
def asked_tasks(options: argparse.Namespace, known: Sequence[str]) -> Iterator[Any]:
    """Give the tasks, or those made of a lead list; what is found to be bad in them meanwhile is told by its place there."""
    wanted = fields(options, known)
    tasks = options.tasks
    if wanted:
        from enrichstatus.lookup.tasks import tasks_from_leads

        tasks = tasks_from_leads(
            tasks, entity_id=options.entity_id, fields=wanted, entity_type=options.entity_type or "person"
        )
    try:
        yield tasks
    except ValidationError as error:
        if error.problems is None or not wanted:
            raise
        remedy = "Mend them, or pass --errors coerce to give them no status."
        from enrichstatus.lookup.tasks import bad_rows

        raise bad_rows(error.problems, options.entity_id, len(wanted), remedy) from None


def asked_source(options: argparse.Namespace) -> EnrichmentStore | Scan | EnrichmentClient:
    """Open the store that is looked in, make one of record files, or make a client of the service."""
    from enrichstatus.files import read as files
    from enrichstatus.sources.store.store import EnrichmentStore

    limits = times(options.max_processing_time)
    if options.url is not None:
        return service(options, max_processing_time=limits)
    if options.records and all(files.format_of(path) == "parquet" for path in files.expand(options.records)):
        return EnrichmentStore.scan(options.records, org_id=options.org, max_processing_time=limits)
    stored = options.store is not None
    path = store_file(options.store) if stored else ":memory:"
    store = opened(path, org_id=options.org, max_processing_time=limits, read_only=stored)
    try:
        if options.records:
            store.load(options.records)
    except BaseException:
        store.close()
        raise
    return store


def service(options: argparse.Namespace, **settings: Any) -> EnrichmentClient:
    """Make a client of the service that is asked, with the token of the environment."""
    from enrichstatus.sources.client.client import EnrichmentClient

    try:
        return EnrichmentClient(options.url, allow_http=bool(options.allow_http), **settings)
    except UnauthorizedError:
        raise ValidationError(
            "There is no ENRICHSTATUS_TOKEN in the environment: put the token of the service there."
        ) from None


def write(frame: pd.DataFrame, path: str) -> None:
    """Write rows to a file, in the format that its ending names."""
    import pyarrow as pa

    from enrichstatus.files import write as writing

    writing.write(pa.Table.from_pandas(frame, preserve_index=False), path)


def opened(path: str, **settings: Any) -> EnrichmentStore:
    """Open a store of the command line; what is none is bad input, one that somebody else holds is not."""
    from enrichstatus.sources.store.store import EnrichmentStore

    try:
        return EnrichmentStore(path, **settings)
    except StoreLockedError:
        raise
    except StoreError as error:
        raise ValidationError(str(error)) from error


def store_file(path: str) -> str:
    """Refuse a store that would end with the command."""
    if path == ":memory:":
        raise ValidationError("--store names a file; what is in memory ends with the command.")
    return path
