"""The command ``enrichstatus changes``: what came or changed in a store since the last time."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enrichstatus.cli.options import add_options, check_outputs, opened, store_file, write
from enrichstatus.cli.parser import add_command
from enrichstatus.errors import OrganizationWarning, ValidationError

if TYPE_CHECKING:
    from enrichstatus.cli.output import Output


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "changes",
        changes,
        help="write the records that came or changed since the last time",
        description="Write the records of an organization that came or changed since the cursor, each with what its status was then, and "
        "move the cursor when the output stands: what a command that failed or was killed did not write, the next one writes. What is "
        "written is not written again: give each run an output of its own, or take it away before the next run.",
        examples={
            "a nightly job": "enrichstatus changes --store leads.duckdb --org org_acme --since cursor.txt -o new-$EPOCHSECONDS.parquet",
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
    command.add_argument("-o", "--output", required=True, metavar="FILE", help="where to write them; replaces a file")
    add_options(command, "--excel-csv")


def changes(options: argparse.Namespace, say: Output) -> None:
    """Write what has changed, and then move the cursor; `say` gets how much it was."""
    from enrichstatus.files.writing import write as writing
    from enrichstatus.presentation import many

    if say.data and not options.json:
        raise ValidationError("-o names a file: the cursor moves when it stands, and nobody can tell that of a pipe.")
    check_outputs(options, output=writing.ENDINGS)
    if writing.replaced(options.output, [options.since]):
        raise ValidationError("-o and --since name one file.")
    with opened(store_file(options.store), read_only=True) as store:
        found = store.changes(_read(options.since), org_id=options.org_id)
        if message := store.lacks(options.org_id):
            warnings.warn(message, OrganizationWarning, stacklevel=2)
    write(found.table, options.output, options)
    writing.write_text(found.cursor + "\n", options.since)
    new = found.table["previousStatus"].null_count
    say(f"{many(len(found), 'record')} written to {options.output}: {new:,} inserted, {len(found) - new:,} updated")
    say.wrote(options.output)
    say.tell(counts={"inserted": new, "updated": len(found) - new}, cursor=found.cursor, store=options.store)


def _read(path: str) -> str | None:
    """Read the cursor of a file, if there is one."""
    try:
        return Path(path).expanduser().read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeError) as error:
        raise ValidationError(f"--since: {path!r} cannot be read: {error}.") from error
