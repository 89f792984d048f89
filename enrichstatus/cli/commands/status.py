"""The command ``enrichstatus status``: what a store holds."""

from __future__ import annotations

import argparse
from typing import Any

from enrichstatus.cli.options import NOW, add_options, instant, limits, opened, store_file
from enrichstatus.cli.output import Output
from enrichstatus.cli.parser import add_command


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "status",
        status,
        help="describe a store: fields, what became of them, the oldest that is pending, the file",
        description="Describe a store, which is only read: how many records of how many organizations, by field what became of the keys, "
        "when the oldest pending one was bought, and how large the file is. No organization is named that you do not name.",
        examples={
            "a store": "enrichstatus status leads.duckdb",
            "one organization, for a monitor": "enrichstatus status leads.duckdb --org org_acme --json",
        },
    )
    command.add_argument("store", metavar="STORE", help="the store's file")
    command.add_argument("--org", dest="org_id", metavar="ORG", help="describe the records of this organization alone")
    add_options(command, *NOW)
    command.set_defaults(base_url=None)


def status(options: argparse.Namespace, say: Output) -> None:
    """Describe a store."""
    from enrichstatus.cli import summary
    from enrichstatus.outcomes import OUTCOMES
    from enrichstatus.presentation import duration, many

    now: Any = instant(options)
    path = store_file(options.store)
    with opened(path, max_processing_time=limits(options), read_only=True) as store:
        found = store.describe(org_id=options.org_id, now=now)
        fields = store.fields
    whose = f"of {options.org_id}" if options.org_id else f"of {many(found.organizations, 'organization')}"
    size = found.size or 0
    say(f"{many(found.records, 'record')} {whose} in {options.store} ({size / 1e6:,.1f} MB)\n")
    counts = found.counts.rename(columns={"keys": "tasks"})
    counts["label"] = [OUTCOMES[word].label for word in counts["outcome"]]
    say(summary.outcomes(counts) if len(counts) else "no fields")
    say("")
    oldest = found.oldest_pending
    if oldest is not None:
        age = (now - oldest).total_seconds()
        ago = f", {duration(age)} ago" if age >= 0 else ""  # --now may be an earlier instant
        say(f"The oldest pending one is of {oldest:%Y-%m-%d %H:%M:%S} UTC{ago}.")
    if found.newest is not None:
        say(f"The last change is of {found.newest:%Y-%m-%d %H:%M:%S} UTC.")
    say.tell(**summary.figures(counts), records=found.records, organizations=found.organizations)
    say.tell(organization=options.org_id, fields=list(fields), bytes=found.size, store=options.store)
    say.tell(oldestPending=_wire(oldest), lastChange=_wire(found.newest))


def _wire(instant: Any) -> str | None:
    return None if instant is None else f"{instant:%Y-%m-%dT%H:%M:%S}.{instant.microsecond // 1000:03d}Z"
