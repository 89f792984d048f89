"""The command line: ``enrichstatus load``, ``lookup``, ``plan``, ``report``, ``poll``, ``serve`` and ``token``."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from typing import Any

from enrichstatus import cli_lists, cli_poll, cli_serve
from enrichstatus.arguments import parser
from enrichstatus.errors import (
    EnrichStatusError,
    LookupInterrupted,
    PartialLookupError,
    PollDeadline,
    RequirementError,
    ValidationError,
)
from enrichstatus.options import (
    asked_source,
    asked_tasks,
    check_leads,
    names,
    opened,
    pair,
    refuse_empty,
    refuse_stray,
    requirements,
    store_file,
    write,
)

_BAD_INPUT = 2
_FAILED = 1
_DEADLINE = 3
_REQUIREMENT = 4
_INTERRUPTED = 130
_TERMINATED = 143

#: What Python calls otherwise than the command line, beyond the arguments that are options under their own names.
_WORDS = {
    "There is no base_url=": "There is no --url",
    "base_url=": "--url",
    "allow_http=True": "--allow-http",
    "the token goes in token=": "the token goes in ENRICHSTATUS_TOKEN of the environment",
    "token= is text": "ENRICHSTATUS_TOKEN is text",
    "a line end from a file, perhaps: token.strip() takes it off": "a line end from a file, perhaps: take it off",
    "becomes tasks with tasks_from_leads(leads, entity_id=…, fields=[…])": "takes --entity-id COLUMN",
    "but into= is the store of": "but --org says",
    "open it with org_id=": "pass --org ",
    "have everybody open it with read_only=True": "have everybody only read it",
    ", timedelta(minutes=5) or seconds": "",
    "columns= renames": "--column renames",
    "costs= of ": "--costs of ",
    "name it in costs=": "name it in --costs",
    "costs= has": "--costs has",
    ", and retry= leaves": ", and --retry leaves",
    "org_id=": "--org",
    "The rate of faults is": "--fault-rate is",
    "Faults are some": "--faults takes some",
    " in .problems\n": ". ",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; what goes wrong is told in one line on stderr.

    Exit code 0, 2 for bad input, 3 where a poll's deadline came, 4 where a list does not
    reach what is required, 130 after Ctrl-C, 143 after SIGTERM, 1 for what failed otherwise.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a name, or our bars, that the terminal has no letters for
            stream.reconfigure(errors="replace")
    options = parser().parse_args(arguments)
    try:
        refuse_empty(options)
        match options.command:
            case "load":
                _load(options)
            case "lookup":
                _lookup(options)
            case "plan":
                cli_lists.plan(options, _say)
            case "report":
                cli_lists.report(options, _say)
            case "poll":
                cli_poll.poll(options, _say)
            case "serve":
                cli_serve.serve(options, _say)
            case _:
                cli_serve.token(options, _say)
        sys.stdout.flush()
    except ValidationError as error:
        return _complain(error, _BAD_INPUT)
    except PollDeadline as error:
        return _complain(error, _DEADLINE)
    except RequirementError as error:
        return _complain(error, _REQUIREMENT)
    except (EnrichStatusError, OSError, MemoryError, UnicodeError) as error:
        if isinstance(error, BrokenPipeError):
            # the reader of a pipe has seen enough; what is left must not be complained of at exit either
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return _FAILED
        return _complain(error, _FAILED)
    except KeyboardInterrupt as error:
        code = _TERMINATED if isinstance(error, cli_poll.Terminated) else _INTERRUPTED
        return _complain(str(error) or "interrupted; nothing was written", code)
    return 0


def _say(text: str) -> None:
    print(text, flush=True)


def _complain(error: object, code: int) -> int:
    """Say what is wrong in one line, with Python's arguments in the words of the command line."""
    text = str(error)
    for python, ours in _WORDS.items():
        text = text.replace(python, ours)
    text = text.replace(":\n  row", ": row").replace("\n  ", "; ").replace("\n", ". ")
    text = re.sub(r'\b(\w+)="(\w+)"', lambda found: f"--{found[1].replace('_', '-')} {found[2]}", text)
    text = re.sub(r"\b(\w+)=(?=\s)", lambda found: f"--{found[1].replace('_', '-')}", text)
    if text == "Organization ID is missing":
        text += ": say whose records to look in with --org"
    print(f"enrichstatus: {text}", file=sys.stderr)
    return code


def _load(options: argparse.Namespace) -> None:
    import pyarrow as pa

    from enrichstatus import files, writing

    columns = dict(pair(text, "--column") for text in options.column)
    if options.rejects:
        writing.writable(options.rejects)
    if options.rejects and options.errors != "reject":
        raise ValidationError("--rejects goes with --errors reject.")
    given = files.expand(options.records)  # before a store is made for nothing
    if options.rejects and any(os.path.realpath(options.rejects) == os.path.realpath(path) for path in given):
        raise ValidationError("--rejects names a file of the records, which it would replace.")
    with opened(store_file(options.store)) as store:
        report = store.load(options.records, org_id=options.org, errors=options.errors, columns=columns)
    print(report)
    if options.rejects:
        writing.write(pa.Table.from_pandas(report.rejects, preserve_index=False), options.rejects)
        print(f"what is wrong with them: {options.rejects}")


def _lookup(options: argparse.Namespace) -> None:
    from enrichstatus import display
    from enrichstatus.lookup import asked, parse_instant

    _check(options)
    columns = asked(options.columns if options.columns == "all" else names(options.columns))
    required = requirements(options.require)
    # the summary needs these two, asked for or not
    needed = (*columns, *(name for name in ("status", "dataFound") if name not in columns))
    # a service judges by its own clock, unless told otherwise
    now = None if options.url and not options.now else parse_instant(options.now)
    extra = [options.prefix + name for name in needed if name not in columns]
    with asked_source(options) as source:
        try:
            with asked_tasks(options, source.fields) as tasks:
                status = source.lookup(
                    tasks, columns=needed, how=options.how, errors=options.errors, now=now, prefix=options.prefix
                )
        except (PartialLookupError, LookupInterrupted) as error:
            raise _in_part(options, error, extra) from None
    missed = _missed(status, required, options)
    if options.output and not missed:
        write(status.drop(columns=extra), options.output)
    whose = f"answered by {options.url}" if options.url else f"of {options.org}"
    print(f"{len(status):,} tasks {whose}" + (f", judged at {now:%Y-%m-%d %H:%M:%S} UTC\n" if now else "\n"))
    width = shutil.get_terminal_size((100, 24)).columns
    added = [options.prefix + name for name in columns]
    print(display.report(status, added=added, prefix=options.prefix, width=width))
    if missed:
        sys.stdout.flush()
        raise missed
    if options.output:
        print(f"\n{len(status):,} rows written to {options.output}")


def _missed(status: Any, required: Mapping[str, Any], options: argparse.Namespace) -> RequirementError | None:
    """Say what of the required is not reached: then nothing is written, for a pipeline must not ship half a list."""
    if not required:
        return None
    from enrichstatus.gate import require

    try:
        require(status, **required, prefix=options.prefix)
    except RequirementError as error:
        return RequirementError(f"{error} Nothing was written." if options.output else str(error), error.figures)
    return None


def _check(options: argparse.Namespace) -> None:
    """Refuse, before any work, files that cannot be written and options that would not be heeded."""
    from enrichstatus import writing

    if options.url is None:
        refuse_stray({"--allow-http": options.allow_http, "--failed": options.failed}, "--url")
    else:
        refuse_stray({"--org": options.org}, "--store or --records; of a service the token tells the organization")
        if options.now is None:
            refuse_stray(
                {"--max-processing-time": options.max_processing_time},
                "--now; without it a service judges by its own clock and times",
            )
    if options.output is None:
        refuse_stray({"--failed": options.failed}, "-o, which takes the rows that were answered")
    check_leads(options)
    for path in filter(None, (options.output, options.failed)):
        writing.writable(path)
    others = [os.path.realpath(path) for path in (options.output, options.tasks) if path]
    if options.failed and os.path.realpath(options.failed) in others:
        raise ValidationError("--failed names the file of -o or of the tasks, which it would replace.")


def _in_part(
    options: argparse.Namespace, error: PartialLookupError | LookupInterrupted, extra: Sequence[str]
) -> EnrichStatusError | KeyboardInterrupt:
    """Write what was answered and what was not, where --failed names a file for it; gives what to say of it.

    Without, nothing is written: a pipeline must not take half a list for a whole one.
    """
    lost, answered = len(error.failed), len(error.result)
    # --how inner leaves some answered tasks out: how many there were in all is not known here
    text = f"{lost:,}" + (f" of {lost + answered:,}" if options.how == "left" else "") + " tasks were not answered"
    cause = str(error.causes[0]).rstrip(".") if isinstance(error, PartialLookupError) else ""
    if options.failed:
        # first the rest: answered rows without it would pass for all
        write(error.failed, options.failed)
        write(error.result.drop(columns=extra), options.output)
        text += f": {cause}. " if cause else ". "
        text += f"The answered rows are in {options.output}, the others in {options.failed}"
    else:
        keep = "--failed FILE" if options.output else "-o FILE and --failed FILE"
        text += f"; nothing was written. Look them up again, or pass {keep} to keep what was answered."
        text += f" {cause}." if cause else ""
    if isinstance(error, LookupInterrupted):
        return KeyboardInterrupt(f"interrupted: {text}")
    return EnrichStatusError(text)
