"""The command ``enrichstatus changes``: what came or changed in a store since the last time."""

from __future__ import annotations

import argparse
import os
import warnings
from pathlib import Path
from typing import Any

from enrichstatus.cli.options import add_options, check_outputs, opened, store_file
from enrichstatus.cli.output import Output
from enrichstatus.cli.parser import add_command
from enrichstatus.errors import OrganizationWarning, ValidationError


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "changes",
        changes,
        help="write the records that came or changed since the last time",
        description="Write the records of an organization that came or changed since the cursor, each with what its status was then, and "
        "move the cursor when the output stands. What a command that failed did not write, the next one writes; what one that was killed "
        "had ready, the next one puts in its place, and then goes on from there. What is written is not written again: give each run an "
        "output of its own, or take it away before the next run. On s3:// and the like a command that is killed between the two writes "
        "the same changes again.",
        examples={
            "a nightly job": "enrichstatus changes --store leads.duckdb --org org_acme --since cursor.txt -o new-$EPOCHSECONDS.parquet"
        },
    )
    command.add_argument("--store", required=True, metavar="FILE", help="the store's file; it is only read")
    command.add_argument("--org", dest="org_id", required=True, metavar="ORG", help="the organization whose records")
    command.add_argument(
        "--since",
        required=True,
        metavar="FILE",
        help="the file that keeps the cursor of this organization; where there is none, it is made, and everything is new",
    )
    command.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="where to write them; a file that is not there"
    )
    command.add_argument(
        "--overwrite", action="store_true", help="replace the file of -o: what is in it has been taken"
    )
    add_options(command, "--excel-csv")


def changes(options: argparse.Namespace, say: Output) -> None:
    """Write what has changed, and then move the cursor; `say` gets how much it was."""
    from enrichstatus.cli.delivery import check_taken, holding
    from enrichstatus.files.writing import write as writing
    from enrichstatus.presentation import many

    if say.data and not options.json:
        raise ValidationError("-o names a file: the cursor moves when it stands, and nobody can tell that of a pipe.")
    check_outputs(options, output=writing.ENDINGS)
    if writing.replaced(options.output, [options.since]):
        raise ValidationError("-o and --since name one file.")
    with holding(options.since) as deliveries:
        done = deliveries.finish()
        if done is not None:
            say(f"{done.output} was left by a command that was killed; it stands now, and the cursor with it.")
        if done is None or not writing.replaced(options.output, filter(os.path.exists, [done.output])):
            check_taken(options.output, overwrite=options.overwrite)
            with opened(store_file(options.store), read_only=True) as store:
                found = store.changes(_read(options.since), org_id=options.org_id)
                if message := store.lacks(options.org_id):
                    warnings.warn(message, OrganizationWarning, stacklevel=2)
            done = deliveries.deliver(found.table, options.output, found.cursor, bom=bool(options.bom))
    count = done.inserted + done.updated
    say(f"{many(count, 'record')} written to {options.output}: {done.inserted:,} inserted, {done.updated:,} updated")
    say.wrote(options.output)
    say.tell(counts={"inserted": done.inserted, "updated": done.updated}, cursor=done.cursor, store=options.store)


def _read(path: str) -> str | None:
    """Read the cursor of a file, if there is one."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise ValidationError(f"--since: {path!r} cannot be read: {error}.") from error
