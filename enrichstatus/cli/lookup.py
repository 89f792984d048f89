"""The command ``enrichstatus lookup``: what becomes of a list, said and written."""

from __future__ import annotations

import argparse
import os
import shutil
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from enrichstatus.cli.options import (
    asked_source,
    asked_tasks,
    check_leads,
    fields,
    names,
    refuse_stray,
    requirements,
    write,
)
from enrichstatus.errors import (
    EnrichStatusError,
    LookupInterrupted,
    PartialLookupError,
    RequirementError,
    ValidationError,
)

if TYPE_CHECKING:
    import pandas as pd


def lookup(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Look up a list, from file to file where the records are at hand; `say` is told how many are what, and the first rows."""
    from enrichstatus.lookup.arguments import parse_columns, parse_instant

    _check(options)
    columns = parse_columns(options.columns if options.columns == "all" else names(options.columns))
    required = requirements(options.require)
    # a service judges by its own clock, unless told otherwise
    now = None if options.url and not options.now else parse_instant(options.now)
    settings = {"how": options.how, "errors": options.errors, "now": now, "prefix": options.prefix}
    whose = f"answered by {options.url}" if options.url else f"of {options.org}"
    judged = f", judged at {now:%Y-%m-%d %H:%M:%S} UTC\n" if now else "\n"

    def told(counts: pd.DataFrame, head: pd.DataFrame) -> None:
        from enrichstatus import presentation as display

        width = shutil.get_terminal_size((100, 24)).columns
        added = [options.prefix + name for name in columns]
        say(f"{int(counts['tasks'].sum()):,} tasks {whose}{judged}")
        say(display.report(counts, head, added=added, prefix=options.prefix, width=width))

    with asked_source(options) as source:
        ask = _framed if options.url or not options.output else _filed
        rows = ask(options, source, columns, required, settings, told)
    if options.output:
        say(f"\n{rows:,} rows written to {options.output}")


def _filed(
    options: argparse.Namespace,
    source: Any,
    columns: Sequence[str],
    required: dict[str, Any],
    settings: dict[str, Any],
    told: Callable[[pd.DataFrame, pd.DataFrame], None],
) -> int:
    """From file to file: a list of any length, in bounded memory."""
    wanted = fields(options, source.fields)
    leads = {"entity_id": options.entity_id, "fields": wanted, "entity_type": options.entity_type or "person"}
    try:
        report = source.lookup_to(
            options.tasks,
            options.output,
            columns=columns,
            require=required or None,
            memory_limit=options.memory_limit,
            overwrite=True,
            **settings,
            **(leads if wanted else {}),
        )
    except RequirementError as error:
        told(error.report.counts, error.report.head)
        raise RequirementError(f"{error} Nothing was written.", error.figures) from None
    told(report.counts, report.head)
    return int(report.rows)


def _framed(
    options: argparse.Namespace,
    source: Any,
    columns: Sequence[str],
    required: dict[str, Any],
    settings: dict[str, Any],
    told: Callable[[pd.DataFrame, pd.DataFrame], None],
) -> int:
    """By way of a frame: to be shown only, or asked of a service, which may answer a part."""
    from enrichstatus import presentation as display
    from enrichstatus.lookup.requirements import require

    # the summary needs these two, asked for or not
    needed = (*columns, *(name for name in ("status", "dataFound") if name not in columns))
    extra = [options.prefix + name for name in needed if name not in columns]
    try:
        with asked_tasks(options, source.fields) as tasks:
            status = source.lookup(tasks, columns=needed, **settings)
    except (PartialLookupError, LookupInterrupted) as error:
        raise _in_part(options, error, extra) from None
    told(display.tally(status, prefix=options.prefix), status)
    if required:
        try:
            require(status, **required, prefix=options.prefix)
        except RequirementError as error:
            raise RequirementError(
                f"{error} Nothing was written." if options.output else str(error), error.figures
            ) from None
    if options.output:
        write(status.drop(columns=extra), options.output)
    return len(status)


def _check(options: argparse.Namespace) -> None:
    """Refuse, before any work, files that cannot be written and options that would not be heeded."""
    from enrichstatus.files import write as writing

    if options.url is None:
        refuse_stray({"--allow-http": options.allow_http, "--failed": options.failed}, "--url")
    else:
        refuse_stray({"--memory-limit": options.memory_limit}, "--store or --records")
        refuse_stray({"--org": options.org}, "--store or --records; of a service the token tells the organization")
        if options.now is None:
            refuse_stray(
                {"--max-processing-time": options.max_processing_time},
                "--now; without it a service judges by its own clock and times",
            )
    if options.output is None:
        refuse_stray({"--failed": options.failed}, "-o, which takes the rows that were answered")
        refuse_stray({"--memory-limit": options.memory_limit}, "-o; what is only shown is looked up as a whole")
    check_leads(options)
    if options.output and options.url is None:
        writing.Output(options.output, overwrite=True)  # a folder too
    for path in filter(None, (options.output if options.url else None, options.failed)):
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
