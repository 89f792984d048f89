"""The command ``enrichstatus lookup``: the status of a list, shown and written."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from enrichstatus.cli.commands.poll import Terminated, terminable
from enrichstatus.cli.options import (
    NOW,
    OUTPUT,
    TASKS,
    add_options,
    add_source,
    check_outputs,
    check_source,
    fields,
    instant,
    names,
    numbers,
    open_source,
    read_tasks,
    reading,
    refuse_stray,
    took,
    write,
)
from enrichstatus.cli.parser import add_command
from enrichstatus.errors import (
    EnrichStatusError,
    LookupInterrupted,
    PartialLookupError,
    RequirementError,
    ValidationError,
    suggested,
)

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from enrichstatus.cli.output import Output


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "lookup",
        lookup,
        help="look up the status of tasks, or of a lead list",
        examples={
            "what a list has": "enrichstatus lookup leads.csv --store leads.duckdb --org org_acme --fields emails,phones",
            "for Excel": "enrichstatus lookup leads.xlsx --store leads.duckdb --org org_acme -o status.xlsx",
            "for another program": "enrichstatus lookup leads.csv --records dump.json --org org_acme -o - --format ndjson | jq .status",
        },
    )
    add_options(command, *TASKS, note="TASKS")
    add_source(command)
    add_options(command, "--columns")
    add_options(command, "--prefix", note="the columns that are added")
    command.add_argument(
        "--how", choices=["left", "inner"], default="left", help="keep tasks without a record (default), or not"
    )
    add_options(command, "--errors", *NOW, note="; with --url it needs --now")
    command.add_argument(
        "--as-of",
        metavar="INSTANT",
        help="with --store: answer as it was known at this instant, with the loads that were done by then",
    )
    add_options(command, *OUTPUT)
    command.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="with -o, which goes from file to file: how much memory DuckDB may use, e.g. 6GB; the rest waits on disk",
    )
    command.add_argument(
        "--require",
        action="append",
        metavar="ended=SHARE",
        help="of all tasks at least so many must have ended, e.g. ended=0.98, or at most so many have failed, e.g. failed=0.02; "
        "else nothing is written (exit code 4)",
    )
    command.add_argument(
        "--failed",
        metavar="FILE",
        help="with --url and -o: where a service answers only some tasks, write those to -o and the others here (exit code 1)",
    )


def lookup(options: argparse.Namespace, say: Output) -> None:
    """Look up a list; SIGTERM ends it as Ctrl-C does."""
    with terminable() as terminated:
        try:
            _lookup(options, say)
        except KeyboardInterrupt as interrupt:
            raise (Terminated(*interrupt.args) if terminated else interrupt) from None


def _lookup(options: argparse.Namespace, say: Output) -> None:
    """Look up a list, from file to file where the records are at hand; `say` gets how many are what, and the first rows."""
    from enrichstatus.lookup.arguments import parse_columns, parse_instant

    _check(options)
    if options.store is None:
        refuse_stray(options, ["as_of"], "--store")
    columns = parse_columns(options.columns if options.columns == "all" else names(options.columns))
    required = _required(options)
    as_of = None if options.as_of is None else parse_instant(options.as_of, "as_of")
    now = as_of if options.now is None and as_of else instant(options)
    settings: dict[str, Any] = {"how": options.how, "errors": options.errors, "now": now, "prefix": options.prefix}
    if as_of:
        settings["as_of"] = as_of
    whose = f"answered by {options.base_url}" if options.base_url else f"of {options.org_id}"
    evaluated = f", evaluated at {now:%Y-%m-%d %H:%M:%S} UTC\n" if now else "\n"

    def show(counts: pd.DataFrame, head: pd.DataFrame) -> None:
        from enrichstatus.cli import summary
        from enrichstatus.presentation import many

        added = [options.prefix + name for name in columns]
        say(f"{many(int(counts['tasks'].sum()), 'task')} {whose}{evaluated}")
        say(summary.report(counts, head, added=added, prefix=options.prefix))
        say.tell(**summary.figures(counts))

    with open_source(options) as source:
        look_up = _framed if options.base_url or not options.output else _filed
        try:
            rows = look_up(options, source, columns, required, settings, show, say)
        finally:
            say.tell(requests=getattr(source, "requests", None))
    if options.output:
        from enrichstatus.presentation import many

        say.tell(rows=rows)
        say.wrote(options.output)
        say(f"\n{many(rows, 'row')} written to {options.output}")


def _filed(
    options: argparse.Namespace,
    source: Any,
    columns: Sequence[str],
    required: dict[str, Any],
    settings: dict[str, Any],
    show: Callable[[pd.DataFrame, pd.DataFrame], None],
    say: Output,
) -> int:
    """From file to file: a list of any length, in bounded memory."""
    try:
        report = source.lookup_to(
            options.tasks,
            options.output,
            columns=columns,
            require=required or None,
            memory_limit=options.memory_limit,
            overwrite=True,
            bom=bool(options.bom),
            **reading(options),
            **settings,
            entity_id=options.entity_id,
            fields=None if options.fields is None else fields(options, source.fields),
            entity_type=options.entity_type or "person",
        )
    except RequirementError as error:
        _told(error.report, options, say)
        show(error.report.counts, error.report.head)
        raise RequirementError(f"{error} Nothing was written.", error.figures) from None
    _told(report, options, say)
    show(report.counts, report.head)
    return int(report.rows)


def _told(report: Any, options: argparse.Namespace, say: Output) -> None:
    """Say what was taken for the entities, and what is bad."""
    took(report.entity_id, options, say)
    if report.problem_count:
        say.tell(problems=report.problems, problemCount=report.problem_count)


def _framed(
    options: argparse.Namespace,
    source: Any,
    columns: Sequence[str],
    required: dict[str, Any],
    settings: dict[str, Any],
    show: Callable[[pd.DataFrame, pd.DataFrame], None],
    say: Output,
) -> int:
    """By way of a frame: to be shown only, or looked up in a service, which may answer a part."""
    from enrichstatus.cli import summary
    from enrichstatus.lookup.requirements import require

    # the summary needs these two, named in --columns or not
    needed = (*columns, *(name for name in ("status", "dataFound") if name not in columns))
    extra = [options.prefix + name for name in needed if name not in columns]
    try:
        with read_tasks(options, source.fields, say) as tasks:
            # all tasks, also with --how inner: what is required is required of them all
            status = source.lookup(tasks, columns=needed, **settings | {"how": "left"})
    except (PartialLookupError, LookupInterrupted) as error:
        raise _in_part(options, error, extra) from None
    kept = _kept(options, status)
    bad = say.bad if options.how == "left" else ()
    show(summary.tally(kept, prefix=options.prefix, bad=bad), summary.head(kept))
    if required:
        try:
            require(status, **required, prefix=options.prefix)
        except RequirementError as error:
            raise RequirementError(
                f"{error} Nothing was written." if options.output else str(error), error.figures
            ) from None
    if options.output:
        write(kept.drop_columns(extra), options.output, options)
    return len(kept)


def _kept(options: argparse.Namespace, status: pa.Table) -> pa.Table:
    """Leave out tasks without a record, where --how says so."""
    return status if options.how == "left" else status.filter(status[options.prefix + "status"].is_valid())


def _check(options: argparse.Namespace) -> None:
    """Refuse, before any work, files that cannot be written and options that would not be heeded."""
    from enrichstatus.files.writing import write as writing

    if options.base_url is None:
        refuse_stray(options, ["failed"], "--url")
    else:
        refuse_stray(options, ["memory_limit"], "--store or --records")
    if options.output is None:
        refuse_stray(options, ["failed"], "-o, which takes the rows that were answered")
        refuse_stray(options, ["memory_limit"], "-o; what is only shown is looked up as a whole")
    check_source(options)
    # from file to file a folder can be written too
    check_outputs(options, output=writing.ENDINGS if options.base_url else (), failed=writing.ENDINGS)


def _required(options: argparse.Namespace) -> dict[str, float]:
    """Read --require, shares by name."""
    required = numbers(options.require, "--require")
    if strange := [name for name in required if name not in ("ended", "failed")]:
        near = suggested(strange[0], ("ended", "failed"))
        raise ValidationError(f"--require takes ended=SHARE and failed=SHARE, not {', '.join(strange)}.{near}")
    for name, share in required.items():
        if not 0 <= share <= 1:
            raise ValidationError(f"--require takes a share from 0 to 1 for {name}, e.g. {name}=0.98, not {share:g}.")
    return required


def _in_part(
    options: argparse.Namespace, error: PartialLookupError | LookupInterrupted, extra: Sequence[str]
) -> EnrichStatusError | KeyboardInterrupt:
    """Write what was answered and what was not, where --failed names a file for it; gives the error that says so.

    Without, nothing is written: a pipeline must not take half a list for a whole one.
    """
    lost, answered = len(error.failed), len(error.result)
    text = f"{lost:,} of {lost + answered:,} tasks were not answered"
    cause = str(error.causes[0]).rstrip(".") if isinstance(error, PartialLookupError) else ""
    if options.failed:
        # first the rest: answered rows without it would pass for all
        write(error.failed, options.failed, options)
        write(_kept(options, error.result).drop_columns(extra), options.output, options)
        text += f": {cause}. " if cause else ". "
        text += f"The answered rows are in {options.output}, the others in {options.failed}"
    else:
        keep = "--failed FILE" if options.output else "-o FILE and --failed FILE"
        text += f"; nothing was written. Look them up again, or pass {keep} to keep what was answered."
        text += f" {cause}." if cause else ""
    if isinstance(error, LookupInterrupted):
        return KeyboardInterrupt(f"interrupted: {text}")
    return EnrichStatusError(text)
