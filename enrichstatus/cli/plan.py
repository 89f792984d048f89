"""The command ``enrichstatus plan``: what to buy of a list, and at what cost."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from enrichstatus.cli.options import (
    add_command,
    add_now,
    add_output,
    add_prefix,
    add_source,
    add_tasks,
    check_outputs,
    check_source,
    instant,
    names,
    numbers,
    open_source,
    read_tasks,
    write,
)


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "plan",
        plan,
        help="show for each task whether to buy it, and at what cost",
        description="Show for each task whether to buy it, why, and at what cost. Nothing is triggered.",
    )
    add_tasks(command)
    add_source(command)
    command.add_argument(
        "--costs", action="append", metavar="FIELD=CREDITS,…", help="credits for one task, e.g. emails=1,phones=10"
    )
    command.add_argument("--budget", type=float, metavar="CREDITS", help="buy no more than these credits can pay")
    command.add_argument(
        "--priority", metavar="COLUMN", help="a column of numbers; the greatest are bought first (default: in order)"
    )
    command.add_argument(
        "--retry", metavar="STATUS,…", help="what is bought again: timeout,failed (default), one of them, or none"
    )
    command.add_argument("--stale-after", metavar="TIME", help="what finished longer ago is bought again, e.g. 90d")
    command.add_argument(
        "--new-organization",
        action="store_true",
        help="plan for an organization of which there is no record, though there are some of others",
    )
    add_now(command)
    add_prefix(command, "action, reason and cost, the columns that are added")
    add_output(command)
    command.add_argument(
        "--requests", metavar="FILE", help="write the bodies for the trigger endpoint, one a line (.ndjson)"
    )


def plan(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Plan what to buy; `say` gets how much that is and the first rows."""
    import json
    import shutil

    from enrichstatus.cli import summary
    from enrichstatus.files import write as writing
    from enrichstatus.leads import planning
    from enrichstatus.presentation import many

    check_source(options)
    check_outputs(options, output=writing.ENDINGS, requests=[".ndjson"])
    retry = ("timeout", "failed") if options.retry is None else names(options.retry)
    with open_source(options) as source, read_tasks(options, source.fields) as tasks:
        planned = planning.plan(
            source,
            tasks,
            costs=numbers(options.costs, "--costs") or None,
            budget=options.budget,
            priority=options.priority,
            retry=() if retry == ("none",) else retry,
            stale_after=options.stale_after,
            now=instant(options),
            prefix=options.prefix,
            new_organization=options.new_organization,
        )
    if options.output:
        write(planned.frame, options.output, options)
    bodies = planned.to_trigger() if options.requests else []
    if options.requests:
        writing.write_text("".join(json.dumps(body) + "\n" for body in bodies), options.requests)
    say(f"{planned}\n")
    added = [options.prefix + name for name in ("action", "reason", "cost")]
    width = shutil.get_terminal_size((100, 24)).columns
    head, count = summary.head(planned.frame), len(planned)
    say(summary.rows(head, added=added, prefix=options.prefix, width=width, total=count) if count else "0 rows")
    written = [f"{many(len(planned), 'row')} written to {options.output}"] if options.output else []
    written += [f"{many(len(bodies), 'request')} to {options.requests}"] if options.requests else []
    if written:
        say(f"\n{', '.join(written)}")
