"""The command ``enrichstatus poll``: look up in a service until all tasks have ended."""

from __future__ import annotations

import argparse
import signal
import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from enrichstatus.cli.options import (
    OUTPUT,
    SERVICE,
    TASKS,
    add_options,
    check_outputs,
    names,
    opened,
    read_tasks,
    refuse_stray,
    service,
    store_file,
    write,
)
from enrichstatus.cli.parser import add_command
from enrichstatus.errors import PollDeadline, ValidationError

if TYPE_CHECKING:
    from enrichstatus.cli.output import Output
    from enrichstatus.polling.update import Update

#: The client repeats a request only so often: the poll goes on anyway, and an outage is to be seen soon.
_RETRIES = 2
#: Seconds that one round may take at least and at most, where the deadline is shorter or longer.
_SHORTEST, _LONGEST = 10.0, 600.0


class Terminated(KeyboardInterrupt):
    """The command got SIGTERM; it ends as at Ctrl-C."""


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "poll",
        poll,
        help="poll a service until all tasks have ended",
        description="Look up in a service until all tasks have ended: only those that have not, and ever less often. At a terminal "
        "a bar shows how far it is, in a log a line for each round.",
        examples={
            "wait, and go on after a crash": "enrichstatus poll leads.csv --url https://… --store memory.duckdb --org org_acme -o o.xlsx",
            "in a nightly job": "enrichstatus poll tasks.parquet --url https://… --deadline 2h --json > result.json",
        },
        epilog="Exit codes: 0 all have ended; 3 the deadline came, what has not ended is pending and the output is written all "
        "the same; 130 Ctrl-C and 143 SIGTERM, the store keeps what was answered; 2 bad input; 1 failed otherwise.",
    )
    add_options(command, *TASKS, note="TASKS")
    add_options(command, "--url", required=True)
    add_options(command, *SERVICE, "--statuses")
    command.add_argument(
        "--store",
        dest="into",
        metavar="FILE",
        help="remember each answer there, and do not look up again what has ended; made where there is none",
    )
    command.add_argument(
        "--org", dest="org_id", metavar="ORG", help="with --store: the organization whose records the answers are"
    )
    command.add_argument(
        "--deadline", metavar="TIME", help="stop waiting after so long, e.g. 90s, 30min or 2h (default: never)"
    )
    command.add_argument(
        "--missing-after",
        default="60s",
        metavar="TIME",
        help="wait so long for a task without a record; then it counts as having none (default: 60s)",
    )
    command.add_argument(
        "--schedule",
        choices=["backoff", "adaptive"],
        default="backoff",
        help="look up after 1, 2, 4 … 60 s (default), or when enough are expected to have ended, learned from those before",
    )
    add_options(command, "--errors")
    add_options(command, "--columns")
    add_options(command, "--prefix", note="the columns that are added")
    add_options(command, *OUTPUT)


def poll(options: argparse.Namespace, say: Output) -> None:
    """Poll until all have ended; `say` gets what came out, stderr how far it is.

    Raises
    ------
    PollDeadline
        Some have not ended; what is known has been written and said all the same.
    KeyboardInterrupt
        Ctrl-C, or `Terminated`; nothing was written but the store.
    """
    _check(options)
    last: deque[Update] = deque(maxlen=1)
    with terminable() as terminated:
        try:
            for _ in _updates(options, last, say):
                pass
        except PollDeadline as late:
            _report(options, late.update, say)
            raise PollDeadline(_late(options, late.update), late.update) from None
        except KeyboardInterrupt as interrupt:
            kind = Terminated if terminated else KeyboardInterrupt
            known = getattr(interrupt, "update", None) or (last[0] if last else None)
            raise kind(_interrupted(options, known)) from None
        _report(options, last[0], say)  # there is one at least


def _check(options: argparse.Namespace) -> None:
    """Refuse, before any work, what cannot be written or would not be heeded."""
    from enrichstatus.files.reading import read as files
    from enrichstatus.files.writing import write as writing
    from enrichstatus.lookup.arguments import parse_duration

    if options.into is None:
        refuse_stray(options, ["org_id"], "--store; a service knows the organization from the token")
    elif options.org_id is None:
        raise ValidationError("--store needs --org: the organization whose records the answers are.")
    if options.deadline is not None:
        parse_duration(options.deadline, "deadline")
    parse_duration(options.missing_after, "missing_after")
    _columns(options)
    files.expand(options.tasks)  # before a store is made for nothing
    check_outputs(options, output=writing.ENDINGS)


def _columns(options: argparse.Namespace) -> tuple[str, ...]:
    """Read --columns."""
    from enrichstatus.lookup.arguments import parse_columns

    return parse_columns(options.columns if options.columns == "all" else names(options.columns))


@contextmanager
def terminable() -> Iterator[list[int]]:
    """Let SIGTERM end the poll as Ctrl-C does; gives a list that has the signal in it when it has come."""
    came: list[int] = []

    def stop(number: int, _: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def _updates(options: argparse.Namespace, last: deque[Update], say: Output) -> Iterator[Update]:
    """Poll as the options say, and show each update on stderr when it has been put in `last`."""
    from enrichstatus.polling import bar as bars
    from enrichstatus.polling import poll as polling
    from enrichstatus.polling.schedules import Adaptive

    with ExitStack() as stack:
        # where the service wants no request for longer than a round may take, the poll waits, and shows it
        limits = {"deadline": _patience(options), "max_retry_after": _LONGEST}
        source = stack.enter_context(service(options, retries=_RETRIES, **limits))
        stack.callback(lambda: say.tell(requests=source.requests))
        with read_tasks(options, source.fields, say) as tasks:
            updates: Any = polling.poll(
                source,
                tasks,
                into=options.into and stack.enter_context(opened(store_file(options.into), org_id=options.org_id)),
                schedule=Adaptive() if options.schedule == "adaptive" else None,
                deadline=options.deadline,
                missing_after=options.missing_after,
                errors=options.errors,
                prefix=options.prefix,
                # the summary needs these two, named in --columns or not
                columns=tuple(dict.fromkeys((*_columns(options), "status", "dataFound"))),
            )
        # whatever happens, both are closed, the bar first
        stack.enter_context(closing(updates))
        noted = _noted(updates, last)
        seen = bars.follow(noted, shown=True) if sys.stderr.isatty() else _logged(noted)
        followed: Any = noted if options.quiet else seen
        yield from stack.enter_context(closing(followed))


def _patience(options: argparse.Namespace) -> float:
    """Seconds that one round may take: a service that hangs must not hold up the deadline for long."""
    from enrichstatus.lookup.arguments import parse_duration

    if options.deadline is None:
        return _LONGEST
    return min(max(parse_duration(options.deadline, "deadline").total_seconds(), _SHORTEST), _LONGEST)


def _noted(updates: Iterable[Update], last: deque[Update]) -> Iterator[Update]:
    """Keep each update before it is shown, as Ctrl-C may come meanwhile."""
    for update in updates:
        last.append(update)
        yield update


def _logged(updates: Iterable[Update]) -> Iterator[Update]:
    """Write a line to the log for each update, and give them on."""
    for update in updates:
        sys.stderr.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {update}\n")
        sys.stderr.flush()
        yield update


def _report(options: argparse.Namespace, update: Update, say: Output) -> None:
    """Write the rows, then say what came out."""
    from enrichstatus.cli import summary
    from enrichstatus.polling.update import cost
    from enrichstatus.presentation import duration, many, of_unknown_status

    frame = update.frame
    kept = frame.drop_columns([options.prefix + name for name in {"status", "dataFound"} - set(_columns(options))])
    if options.output:
        write(kept, options.output, options)
    say(
        f"{update.settled:,} of {update.total:,} tasks are settled, {_answered(update)} by {options.base_url} "
        f"with {cost(update)} in {duration(update.elapsed)}\n"
    )
    added = [options.prefix + name for name in _columns(options)]
    counts = summary.tally(frame, prefix=options.prefix, bad=say.bad)
    say(summary.report(counts, summary.head(kept), added=added, prefix=options.prefix))
    say.tell(**summary.figures(counts), settled=update.settled, unknown=update.unknown)
    say.wrote(options.output)
    if update.unknown:
        say(f"\n{of_unknown_status(update.unknown)}")
    if options.output:
        say(f"\n{many(update.total, 'row')} written to {options.output}")


def _answered(update: Update) -> str:
    unanswered = int(update.counts["unanswered"].sum())
    if not unanswered:
        return "answered"
    return "none answered" if unanswered == update.counts["tasks"].sum() else f"all but {unanswered:,} answered"


def _late(options: argparse.Namespace, update: Update) -> str:
    left = update.total - update.settled
    text = (
        f"{left:,} of {update.total:,} tasks have not ended within {options.deadline}: they are {update.unfinished}, not failed. "
        "Run the same command again to "
    )
    return text + ("go on where it was" if options.into else "start anew; with --store FILE it goes on where it was")


def _interrupted(options: argparse.Namespace, update: Update | None) -> str:
    how = f"{update.settled:,} of {update.total:,} tasks were settled" if update else "not all had been looked up once"
    if options.into:
        return f"interrupted: {how}. What was answered is in {options.into}: run the same command again to go on"
    return f"interrupted: {how}. Nothing remembers them; with --store FILE the same command goes on where it was"
