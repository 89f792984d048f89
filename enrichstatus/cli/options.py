"""The options that several commands have: how they are declared, read and checked."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from enrichstatus.cli.output import FORMATS
from enrichstatus.errors import StoreError, StoreLockedError, UnauthorizedError, ValidationError, suggested

if TYPE_CHECKING:
    from datetime import datetime

    import pyarrow as pa

    from enrichstatus.cli.output import Output
    from enrichstatus.sources.client.client import EnrichmentClient
    from enrichstatus.sources.store.scanning.scan import Scan
    from enrichstatus.sources.store.store import EnrichmentStore


READING = ("--encoding", "--skip", "--multiline", "--sheet")
TASKS = ("tasks", "--entity-id", "--fields", "--entity-type", *READING)
SERVICE = ("--allow-http", "--rate")
NOW = ("--now", "--max-processing-time")
OUTPUT = ("-o --output", "--format", "--excel-csv")
#: The options that several commands have, as argparse declares them. A command fills in ``{note}``.
_SHARED: dict[str, dict[str, Any]] = {
    "tasks": {"metavar": "TASKS", "help": "tasks (entityId, field), or a lead list"},
    "--entity-id": {
        "metavar": "COLUMN",
        "help": "the column of a lead list that holds the ids (default: the only one that holds UUIDs)",
    },
    "--fields": {"metavar": "FIELD,…", "help": "of a lead list: the fields to look up (default: all)"},
    "--entity-type": {"metavar": "TYPE", "help": "of a lead list: person (default) or company"},
    "--encoding": {
        "metavar": "NAME",
        "help": "how files are encoded, e.g. cp1252 (default: UTF-8, or as their byte order mark says)",
    },
    "--skip": {"type": int, "metavar": "LINES", "help": "leave out so many lines above the header of {note}"},
    "--multiline": {
        "action": "store_true",
        "default": None,
        "help": "read cells in quotes that hold what looks like whole rows",
    },
    "--sheet": {"metavar": "NAME", "help": "the sheet of a workbook (default: the only one that holds something)"},
    "--epoch": {
        "metavar": "UNIT",
        "help": "{note}createdAt and updatedAt are numbers of seconds (s), milliseconds (ms) or microseconds (us) since 1970",
    },
    "--url": {
        "dest": "base_url",
        "metavar": "URL",
        "help": "the service to look in; its token is read from ENRICHSTATUS_TOKEN in the environment",
    },
    "--allow-http": {
        "action": "store_true",
        "default": None,
        "help": "with --url: send the token over plain http to another machine than this one",
    },
    "--rate": {
        "metavar": "N/TIME",
        "help": "with --url: make no more requests than so many in such a time, e.g. 600/min or 10/s",
    },
    "--statuses": {
        "action": "append",
        "metavar": "WORD=STATUS,…",
        "help": "what other words for a status mean, e.g. in_progress=pending,COMPLETED=finished{note}",
    },
    "--now": {"metavar": "INSTANT", "help": "evaluate the timeout rule at this instant (default: now)"},
    "--max-processing-time": {
        "action": "append",
        "metavar": "[FIELD=]TIME",
        "help": "a task that is pending for longer has timed out, e.g. 800s (default) or phones=30min; can be repeated{note}",
    },
    "--errors": {
        "choices": ["raise", "coerce"],
        "default": "raise",
        "help": "where tasks are bad, stop (default), or give them no status",
    },
    "--columns": {"default": "status,dataFound", "metavar": "COLUMN,…", "help": 'a record\'s columns to add, or "all"'},
    "--prefix": {"default": "", "metavar": "TEXT", "help": "put this before the names of {note}"},
    "-o --output": {
        "metavar": "FILE",
        "help": "write the rows: .csv .tsv .xlsx .parquet .json .ndjson; replaces a file; - is stdout",
    },
    "--format": {"choices": FORMATS, "help": "with -o -: how the rows go to stdout (default: csv)"},
    "--excel-csv": {
        "dest": "bom",
        "action": "store_true",
        "default": None,
        "help": "with -o FILE.csv: write for Excel, with a byte order mark and formulas as text",
    },
}


def add_options(command: Any, *options: str, note: str = "", **settings: Any) -> None:
    """Declare some of the shared options for a command."""
    for option in options:
        shared = _SHARED[option] | settings
        command.add_argument(*option.split(), **shared | {"help": shared["help"].format(note=note)})


def add_source(command: Any) -> None:
    """Declare where to look: a store, a service, or record files."""
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--store", metavar="FILE", help="the store to look in; it is only read")
    add_options(source, "--url")
    source.add_argument("--records", nargs="+", metavar="PATH", help="record files, also on s3://…, without a store")
    command.add_argument(
        "--org",
        dest="org_id",
        metavar="ORG",
        help="with --store or --records: the organization whose records to look in; a service knows it from the token",
    )
    add_options(command, "--epoch", note="with --records: ")
    add_options(command, "--statuses", note="; with --url or --records")
    add_options(command, *SERVICE)


def reading(options: argparse.Namespace) -> dict[str, Any]:
    """Give how files of text are read."""
    return {
        "encoding": options.encoding,
        "skip": options.skip or 0,
        "multiline": bool(options.multiline),
        "sheet": options.sheet,
    }


def statuses(options: argparse.Namespace) -> dict[str, str] | None:
    """Read --statuses, a contract's word for each other."""
    given = [part for text in options.statuses or () for part in text.split(",")]
    return by_name([pair(part, "--statuses") for part in given], "--statuses") or None


def spelling(options: argparse.Namespace) -> dict[str, str]:
    """Say how the command spells the arguments of Python: ``{"org_id": "--org"}``."""
    declared = options.declared._actions
    return {action.dest: (action.option_strings or [action.metavar])[-1] for action in declared}


def refuse_empty(options: argparse.Namespace) -> None:
    """Refuse an option whose text is empty: it would pass for one that was not given."""
    for name, spelled in spelling(options).items():
        value = getattr(options, name, None)
        if name != "prefix" and (value == "" or (isinstance(value, list) and "" in value)):
            raise ValidationError(f"{spelled} is empty; it takes text (is a variable of the shell not set?).")


def refuse_stray(options: argparse.Namespace, arguments: Sequence[str], partner: str) -> None:
    """Refuse options that mean nothing without another one, which is not there."""
    spelled = spelling(options)
    if stray := [spelled[name] for name in arguments if getattr(options, name) is not None]:
        raise ValidationError(f"{', '.join(stray)} {'goes' if len(stray) == 1 else 'go'} with {partner}.")


def check_source(options: argparse.Namespace) -> None:
    """Refuse options that the source, or a list of tasks, would not heed."""
    if options.records is None:
        refuse_stray(options, ["epoch"], "--records")
    if options.base_url is None:
        refuse_stray(options, ["allow_http", "rate"], "--url")
        if options.org_id is None:
            raise ValidationError("Organization ID is missing: say whose records to look in with --org.")
        if options.store is not None:
            refuse_stray(options, ["statuses"], "--url or --records; those of a store are read when they are loaded")
    else:
        refuse_stray(options, ["org_id"], "--store or --records; a service knows the organization from the token")
        if options.now is None:
            refuse_stray(
                options, ["max_processing_time"], "--now; without it a service goes by its own clock and times"
            )


def names(text: str) -> tuple[str, ...]:
    """Read names with commas between them."""
    return tuple(name.strip() for name in text.split(","))


def pair(text: str, option: str) -> tuple[str, str]:
    """Read two names with = between them."""
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise ValidationError(f"{option} takes two names with = between them, not {text!r}.")
    return name, value


def by_name(pairs: Sequence[tuple[str, str]], option: str) -> dict[str, str]:
    """Give values by name; two for one name are refused, as one of them would be dropped."""
    read: dict[str, str] = {}
    for name, value in pairs:
        if read.setdefault(name, value) != value:
            raise ValidationError(f"{option} gives {name} both {read[name]!r} and {value!r}; give it one.")
    return read


def numbers(given: Sequence[str] | None, option: str) -> dict[str, float]:
    """Read numbers by name, ``emails=1,phones=10``; an option may be repeated."""
    read = {}
    texts = [pair(part.strip(), option) for text in given or () for part in text.split(",")]
    for name, value in by_name(texts, option).items():
        try:
            read[name] = float(value)
        except ValueError:
            raise ValidationError(f"{option} takes a number behind each =, not {value!r}.") from None
    return read


def times(given: Sequence[str] | None, option: str) -> Any:
    """Read a time for all fields, or ``phones=30d,emails=90d``, one for each of some; an option may be repeated."""
    parts = [part.strip() for text in given or () for part in text.split(",")]
    if any("=" in part for part in parts):
        return by_name([pair(part, option) for part in parts], option)
    return given[-1] if given else None


def limits(options: argparse.Namespace) -> Any:
    """Read --max-processing-time."""
    from enrichstatus.lookup.arguments import MAX_PROCESSING_TIME

    given = times(options.max_processing_time, "--max-processing-time")
    return MAX_PROCESSING_TIME if given is None else given


def instant(options: argparse.Namespace) -> datetime | None:
    """Read --now; without it a service goes by its own clock."""
    from enrichstatus.lookup.arguments import parse_instant

    return None if options.base_url and not options.now else parse_instant(options.now)


def fields(options: argparse.Namespace, known: Sequence[str]) -> Sequence[str]:
    """Say which fields of a lead list are looked up."""
    chosen = known if options.fields is None else names(options.fields)
    if unknown := [name for name in chosen if name not in known]:
        near = suggested(unknown[0], known)
        raise ValidationError(f"--fields names {', '.join(unknown)}; the fields are {', '.join(known)}.{near}")
    return chosen


@contextmanager
def read_tasks(options: argparse.Namespace, known: Sequence[str], say: Output, *, guess: bool = True) -> Iterator[Any]:
    """Give the tasks, or those made of a lead list, in whose rows bad ones are named meanwhile.

    `say` gets the column that was taken where none was named, which is refused without `guess`; and the bad rows where they are not.
    """
    import pyarrow as pa

    from enrichstatus.files.reading.read import Files
    from enrichstatus.files.remote.remote import at_hand
    from enrichstatus.files.writing.write import check_cells, ending_of
    from enrichstatus.frames import frames
    from enrichstatus.lookup.leads import leads_column, naming_leads, of_leads, tasks_from_leads
    from enrichstatus.lookup.tasks import bad_rows

    wanted = fields(options, known)
    # an Arrow table goes in and comes out: pandas would change columns on the way
    with at_hand(options.tasks) as near:
        tasks: Any = frames.of_files(Files(near.paths, **reading(options)))
    kind = getattr(options, "entity_type", None) or "person"
    entity_id = leads_column(tasks, options.entity_id, kind, fields_given=options.fields is not None)
    if entity_id and entity_id != options.entity_id and not guess:
        raise ValidationError(
            f"--entity-id is missing: what is bought is not guessed. {entity_id!r} is the only column that holds UUIDs; "
            f"if it holds the {kind} ids, add --entity-id {shlex.quote(entity_id)}."
        )
    took(entity_id, options, say)
    if entity_id:
        tasks = tasks_from_leads(tasks, entity_id=entity_id, fields=wanted, entity_type=kind)
    if getattr(options, "errors", "raise") == "coerce":
        found = bad_rows(frames.read(tasks), known)
        say.bad = found["row"].unique().tolist()
        say.tell(problems=of_leads(found, entity_id, wanted) if entity_id else found)
    for path in (getattr(options, name, None) for name in ("output", "failed")):
        if path and ending_of(path) != ".html":
            check_cells(frames.read(tasks).assign(pa.table({})), path, bom=bool(options.bom))
    with naming_leads(entity_id, wanted if entity_id else ()):
        yield tasks


def took(entity_id: str | None, options: argparse.Namespace, say: Output) -> None:
    """Say which column of a lead list was taken for the entities where none was named."""
    say.tell(entityId=entity_id)
    if entity_id and options.entity_id is None:
        kind = getattr(options, "entity_type", None) or "person"
        say(
            f"The {kind} ids are those of the column {entity_id!r}, the only one that holds UUIDs; --entity-id names another."
        )


def open_source(options: argparse.Namespace) -> EnrichmentStore | Scan | EnrichmentClient:
    """Open the store that is looked in, make one of record files, or make a client of the service."""
    from enrichstatus.files.reading import read as files
    from enrichstatus.sources.store.store import EnrichmentStore

    maximum = limits(options)
    if options.base_url is not None:
        return service(options, max_processing_time=maximum)
    if options.records and all(files.format_of(path) == "parquet" for path in files.expand(options.records)):
        return EnrichmentStore.scan(
            options.records,
            org_id=options.org_id,
            max_processing_time=maximum,
            statuses=statuses(options),
            epoch=options.epoch,
        )
    stored = options.store is not None
    path = store_file(options.store) if stored else ":memory:"
    store = opened(path, org_id=options.org_id, max_processing_time=maximum, read_only=stored)
    try:
        if options.records:
            how = reading(options) | {"skip": 0, "sheet": None}
            store.load(options.records, statuses=statuses(options), epoch=options.epoch, **how)
    except BaseException:
        store.close()
        raise
    return store


def service(options: argparse.Namespace, **settings: Any) -> EnrichmentClient:
    """Make a client of the service, with the token of the environment."""
    from enrichstatus.sources.client.client import EnrichmentClient

    try:
        return EnrichmentClient(
            options.base_url,
            allow_http=bool(options.allow_http),
            rate=options.rate,
            statuses=statuses(options),
            **settings,
        )
    except UnauthorizedError:
        raise ValidationError(
            "There is no ENRICHSTATUS_TOKEN in the environment: put the token of the service there."
        ) from None


def opened(path: str, **settings: Any) -> EnrichmentStore:
    """Open a store of the command line; a file that is not a store is bad input, one that somebody else holds is not."""
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


def check_outputs(options: argparse.Namespace, **outputs: Sequence[str]) -> None:
    """Refuse, before any work, an output that cannot be written, or that would replace what is read or another output.

    `outputs` are options that name files to write, with the endings that such a file may have.
    """
    from enrichstatus.files.reading import read as files
    from enrichstatus.files.writing import remote_out
    from enrichstatus.files.writing import write as writing

    spelled = spelling(options)
    if getattr(options, "output", None) is None and "bom" in spelled:
        refuse_stray(options, ["bom"], "-o FILE.csv")
    outputs = {name: endings for name, endings in outputs.items() if getattr(options, name) is not None}
    known: dict[str, str] = {}
    for name in spelled.keys() & {"tasks", "bill", "records", "store", "into"} if outputs else ():
        given = getattr(options, name)
        paths = files.expand(given) if given and name in ("tasks", "bill", "records") else filter(None, [given])
        known |= dict.fromkeys(paths, spelled[name])
    for name, endings in outputs.items():
        path = getattr(options, name)
        if endings:
            writing.writable(path, endings)
        else:
            remote_out.output(path, overwrite=True)  # a folder too
        if other := writing.replaced(path, known):
            raise ValidationError(
                f"{spelled[name]} would replace {other!r}, which {known[other]} names. Name another file."
            )
        known[path] = spelled[name]


def write(table: pa.Table, path: str, options: argparse.Namespace) -> None:
    """Write rows to a file, in the format that its ending names."""
    from enrichstatus.files.writing import write as writing

    writing.write(table, path, bom=bool(options.bom))
