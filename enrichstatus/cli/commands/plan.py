"""The commands ``enrichstatus plan`` and ``trigger``: what to buy of a list and at what cost, and the buying itself."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from enrichstatus.cli.options import (
    NOW,
    OUTPUT,
    SERVICE,
    TASKS,
    add_options,
    add_source,
    check_outputs,
    check_source,
    instant,
    limits,
    names,
    numbers,
    open_source,
    opened,
    read_tasks,
    service,
    store_file,
    times,
    write,
)
from enrichstatus.cli.output import Output
from enrichstatus.cli.parser import add_command
from enrichstatus.errors import ValidationError

#: The exit code where something that was to be bought is neither bought nor there already, or cost more than planned.
_SHORT = 1


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "plan",
        plan,
        help="show for each task whether to buy it, and at what cost",
        description="Show for each task whether to buy it, why, and at what cost. Nothing is triggered. With --url it cannot know what "
        "enrichstatus trigger has requested and not been answered yet: only the store that was bought into knows that (--store).",
        examples={
            "what to buy, and for how much": "enrichstatus plan leads.csv --store leads.duckdb --org org_acme --costs emails=1,phones=10",
            "for 500 credits": "enrichstatus plan leads.csv --store leads.duckdb --org org_acme --budget 500 --costs emails=1",
        },
    )
    add_options(command, *TASKS, note="TASKS")
    add_source(command)
    _add_choice(command)
    add_options(command, *NOW, note="; with --url it needs --now")
    add_options(command, "--prefix", note="action, reason and cost, the columns that are added")
    add_options(command, *OUTPUT)
    command.add_argument(
        "--requests", metavar="FILE", help="write the bodies for the trigger endpoint, one a line (.ndjson)"
    )
    command.add_argument(
        "--quote",
        metavar="FILE",
        help="write what is to be bought, at what prices, to be signed off (.json); trigger --quote takes it",
    )
    buying = add_command(
        commands,
        "trigger",
        trigger,
        help="buy what a plan says, within a limit: the only command that spends credits",
        description="Plan over a store what to buy of a list, and buy it from a service. What is requested is noted in the store "
        "before, so that nothing is bought twice, whatever happens; the records of the answers are loaded into it.",
        examples={
            "see what would be sent": "enrichstatus trigger leads.csv --store leads.duckdb --org org_acme --url https://… --costs emails=1 "
            "--max-credits 500 --dry-run",
            "what was signed off, and nothing else": "enrichstatus trigger leads.csv --store leads.duckdb --org org_acme --url https://… "
            "--costs emails=1 --max-credits 500 --quote quote.json",
        },
    )
    add_options(buying, *TASKS, note="TASKS")
    buying.add_argument(
        "--store",
        dest="into",
        required=True,
        metavar="FILE",
        help="the store that is planned with, and gets the records",
    )
    buying.add_argument("--org", dest="org_id", required=True, metavar="ORG", help="the organization that buys")
    add_options(buying, "--url", required=True)
    add_options(buying, *SERVICE, "--statuses", "--max-processing-time")
    _add_choice(buying)
    buying.add_argument(
        "--max-credits", type=float, required=True, metavar="CREDITS", help="a plan that costs more is refused"
    )
    buying.add_argument(
        "--quote",
        metavar="FILE",
        help="what plan --quote wrote: where tasks, prices or records have changed since, refuse",
    )
    buying.add_argument("--dry-run", action="store_true", help="show the requests, and send nothing")
    buying.add_argument(
        "--missing-after",
        default="10min",
        metavar="TIME",
        help="how long after its request a task without a record counts as not bought (default: 10min)",
    )


def _add_choice(command: Any) -> None:
    """Declare what decides which tasks are bought."""
    command.add_argument(
        "--costs",
        action="append",
        metavar="FIELD=CREDITS,…",
        help="credits for one task, e.g. emails=1,phones=10, or of a type of entity: phones/company=12",
    )
    command.add_argument(
        "--budget",
        type=_budget,
        metavar="CREDITS",
        help="buy no more than these credits can pay; balance: than the service says are left",
    )
    command.add_argument(
        "--priority", metavar="COLUMN", help="a column of numbers; the greatest are bought first (default: in order)"
    )
    command.add_argument(
        "--retry", metavar="STATUS,…", help="what is bought again: timeout,failed (default), one of them, or none"
    )
    command.add_argument(
        "--stale-after",
        action="append",
        metavar="[FIELD=]TIME,…",
        help="what finished longer ago is bought again, e.g. 90d, or phones=30d,emails=90d",
    )
    command.add_argument(
        "--new-organization",
        action="store_true",
        help="plan for an organization that has no record, though others have some",
    )


def _budget(text: str) -> Any:
    return text if text == "balance" else float(text)


def _choice(options: argparse.Namespace) -> dict[str, Any]:
    """Give what decides which tasks are bought as the arguments of a plan."""
    retry = ("timeout", "failed") if options.retry is None else names(options.retry)
    return {
        "costs": numbers(options.costs, "--costs") or None,
        "budget": options.budget,
        "priority": options.priority,
        "retry": () if retry == ("none",) else retry,
        "stale_after": times(options.stale_after, "--stale-after"),
        "new_organization": options.new_organization,
    }


def plan(options: argparse.Namespace, say: Output) -> None:
    """Plan what to buy; `say` gets how much that is and the first rows."""
    import json

    from enrichstatus.cli import summary
    from enrichstatus.files.writing import write as writing
    from enrichstatus.leads import planning
    from enrichstatus.presentation import many

    check_source(options)
    check_outputs(options, output=writing.ENDINGS, requests=[".ndjson"], quote=[".json"])
    if options.budget == "balance" and options.base_url is None:
        raise ValidationError(
            "--budget balance is what a service says: it goes with --url, or with the command trigger."
        )
    with open_source(options) as source, read_tasks(options, source.fields, say) as tasks:
        planned = planning.plan(source, tasks, **_choice(options), now=instant(options), prefix=options.prefix)
    if options.output:
        write(planned.frame, options.output, options)
    bodies = planned.to_trigger() if options.requests else []
    if options.requests:
        writing.write_text("".join(json.dumps(body) + "\n" for body in bodies), options.requests)
    if options.quote:
        writing.write_text(json.dumps(planned.quote, indent=2) + "\n", options.quote)
    say(f"{planned}\n")
    if options.base_url and options.requests:
        say(
            "What was requested and is not answered yet, a service does not say: plan with the --store that it was bought into.\n"
        )
    say.tell(**planned.to_dict(), notes=list(planned.notes), bodies=len(bodies) if options.requests else None)
    say.tell(requests=getattr(source, "requests", None))
    say.wrote(options.output, options.requests, options.quote)
    added = [options.prefix + name for name in ("action", "reason", "cost")]
    head, count = summary.head(planned.frame), len(planned)
    say(summary.rows(head, added=added, prefix=options.prefix, total=count) if count else "0 rows")
    written = [f"{many(len(planned), 'row')} written to {options.output}"] if options.output else []
    written += [f"{many(len(bodies), 'request')} to {options.requests}"] if options.requests else []
    written += [f"the quote to {options.quote}"] if options.quote else []
    if written:
        say(f"\n{', '.join(written)}")


def trigger(options: argparse.Namespace, say: Output) -> int:
    """Plan what to buy, and buy it; `say` gets the plan and what came of it. Exit code 1 where not all is there, or it cost more."""
    from enrichstatus.leads import planning

    quote = None if options.quote is None else _read_quote(options.quote)
    with (
        opened(store_file(options.into), org_id=options.org_id, max_processing_time=limits(options)) as store,
        service(options) as client,
    ):
        with read_tasks(options, store.fields, say, guess=False) as tasks:
            planned = planning.plan(store, tasks, **_choice(options), client=client)
        say(f"{planned}\n")
        say.tell(plan=planned.to_dict())
        report = client.trigger(
            planned,
            into=store,
            max_credits=options.max_credits,
            quote=quote,
            dry_run=options.dry_run,
            missing_after=options.missing_after,
        )
        say(str(report))
        counts = {name: len(getattr(report, name)) for name in ("bought", "already", "left", "in_flight", "released")}
        say.tell(counts=counts, credits=report.credits, charged=report.charged, dryRun=options.dry_run)
        say.tell(requests=client.requests, store=options.into)
        if len(report.in_flight):
            again = "the same command again" + (" without --quote, or with that of a new plan" if quote else "")
            say(f"some are in flight without an answer: run {again}, which looks them up first")
        short = not options.dry_run and (len(report.left) or len(report.in_flight) or len(report.released))
        return _SHORT if short or report.overcharged else 0


def _read_quote(path: str) -> Any:
    """Read what was signed off."""
    import json

    try:
        quote = json.loads(Path(path).expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValidationError(
            f"--quote: {path!r} cannot be read: {error}. It takes what plan --quote wrote."
        ) from error
    if not isinstance(quote, dict):  # null would mean that nothing is compared
        raise ValidationError(f"--quote: {path!r} holds no quote. It takes what plan --quote wrote.")
    return quote
