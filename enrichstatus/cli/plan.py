"""The commands about a whole list: ``enrichstatus plan``, what to buy of it, and ``enrichstatus report``, what came of it."""

from __future__ import annotations

import argparse
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any

from enrichstatus.cli.options import asked_source, asked_tasks, check_leads, names, numbers, refuse_stray, write
from enrichstatus.errors import EnrichStatusError, ValidationError

if TYPE_CHECKING:
    import pandas as pd

    from enrichstatus.cli.page import Section


def plan(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Plan what to buy; `say` is told how much that is and the first rows."""
    from enrichstatus import presentation as display
    from enrichstatus.files import write as writing
    from enrichstatus.leads import planning
    from enrichstatus.schema import listed

    if options.output:
        writing.writable(options.output)
    if options.requests:
        writing.writable(options.requests, (".ndjson",))
    _check(options, [options.output, options.requests])
    retry = ("timeout", "failed") if options.retry is None else names(options.retry)
    with _asked(options) as (source, tasks, now):
        planned = planning.plan(
            source,
            tasks,
            costs=numbers(options.costs, "--costs") or None,
            budget=options.budget,
            priority=options.priority,
            retry=() if retry == ("none",) else retry,
            stale_after=options.stale_after,
            now=now,
            prefix=options.prefix,
        )
    if options.output:
        write(planned.frame, options.output)
    bodies = planned.to_trigger() if options.requests else []
    if options.requests:
        writing.write_text("".join(json.dumps(body) + "\n" for body in bodies), options.requests)
    say(f"{planned}\n")
    added = [options.prefix + name for name in ("action", "reason", "cost")]
    width = shutil.get_terminal_size((100, 24)).columns
    say(display.rows(planned.frame, added=added, prefix=options.prefix, width=width) if len(planned) else "0 rows")
    written = [f"{len(planned):,} rows are in {options.output}"] if options.output else []
    written += [f"{len(bodies):,} requests in {options.requests}"] if options.requests else []
    if written:
        say(f"\n{listed(written)}")


def report(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Write a page about a list."""
    from enrichstatus.cli.page import page
    from enrichstatus.files import write as writing

    writing.writable(options.output, (".html",))
    _check(options, [options.output])
    costs = numbers(options.costs, "--costs") or None
    try:
        with _asked(options) as (source, tasks, now):
            status = source.lookup(tasks, errors="coerce", now=now)
            sections = [*_of_list(options, status), *_of_history(source, costs, now)]
            moment = now or datetime.now().astimezone()
            whose = f"answered by {options.url}" if options.url else f"of {options.org}"
            text = f"{len(status):,} tasks {whose}, as of {moment:%Y-%m-%d %H:%M %Z}"
            html = page(options.title, text, sections)
    except ImportError as error:  # matplotlib is an extra
        raise EnrichStatusError(str(error)) from error
    writing.write_text(html, options.output)
    say("\n\n".join(f"{section.heading}\n{section.report}" for section in sections))
    say(f"\n{len(html) / 1e6:.1f} MB written to {options.output}: open it in a browser")


def _check(options: argparse.Namespace, targets: list[str | None]) -> None:
    """Refuse, before any work, files that cannot be written and options that would not be heeded."""
    if options.url is None:
        refuse_stray({"--allow-http": options.allow_http}, "--url")
    else:
        refuse_stray({"--org": options.org}, "--store or --records; of a service the token tells the organization")
    check_leads(options)
    taken = [os.path.realpath(path) for path in (options.tasks, options.store) if path]
    for path in filter(None, targets):
        if os.path.realpath(path) in taken:
            raise ValidationError(f"{path!r} is the file of the tasks or of the store, or written twice.")
        taken.append(os.path.realpath(path))


@contextmanager
def _asked(options: argparse.Namespace) -> Iterator[tuple[Any, Any, Any]]:
    """Give whom to ask, for what, and at what instant; a service judges by its own clock, unless told otherwise."""
    from enrichstatus.lookup.arguments import parse_instant

    now = None if options.url and not options.now else parse_instant(options.now)
    with asked_source(options) as source, asked_tasks(options, source.fields) as tasks:
        yield source, tasks, now


def _of_list(options: argparse.Namespace, status: pd.DataFrame) -> list[Section]:
    from enrichstatus.cli.page import Section
    from enrichstatus.reports.coverage import coverage

    text = (
        "Of the tasks that have ended, the share that brought data. The lines are the range in which the true share lies, "
        "95 times of 100."
    )
    drawn = ({"kind": "status"}, {"kind": "share"})
    columns = names(options.by) if options.by else ()
    others = [Section(f"By {name}", text, coverage(status, [name, "field"]), drawn) for name in columns]
    return [Section("By field", text, coverage(status, "field"), drawn), *others]


def _of_history(source: Any, costs: dict[str, float] | None, now: Any) -> list[Section]:
    """Say what all records tell, where they can be had: of a service only what is asked of it is known."""
    from enrichstatus.cli.page import Section
    from enrichstatus.reports.timing import timing, waste

    if not hasattr(source, "records"):
        return []
    took = "Of all records of the organization, from purchase to end. Pending ones count with the time that they have been so."
    bought = "Of all records of the organization: credits that brought nothing, and what was bought more than once."
    return [
        Section("How long it takes", took, timing(source, now=now)),
        Section("What the money bought", bought, waste(source, costs=costs, now=now)),
    ]
