"""The command ``enrichstatus load``: records into a store."""

from __future__ import annotations

import argparse
from typing import Any

from enrichstatus.cli.options import (
    READING,
    add_options,
    check_outputs,
    opened,
    pair,
    reading,
    refuse_stray,
    statuses,
    store_file,
)
from enrichstatus.cli.output import Output
from enrichstatus.cli.parser import add_command


def add(commands: Any) -> None:
    """Declare the command and its options."""
    command = add_command(
        commands,
        "load",
        load,
        help="load enrichment records into a store",
        examples={
            "a folder of exports": "enrichstatus load 'exports/*.json' --store leads.duckdb",
            "what is bad goes elsewhere": "enrichstatus load dump.csv --store leads.duckdb --errors reject --rejects bad.csv",
        },
    )
    command.add_argument(
        "records",
        nargs="+",
        metavar="RECORDS",
        help="files or globs, here or at an address (s3://…): .csv .tsv .json .ndjson .parquet, compressed where .gz or .zst follows, "
        ".xlsx .xls, or the folder of a Delta table",
    )
    command.add_argument("--store", required=True, metavar="FILE", help="the store's file; made where there is none")
    command.add_argument("--org", dest="org_id", metavar="ORG", help="the organization of records that carry none")
    command.add_argument(
        "--errors",
        choices=["raise", "reject"],
        default="raise",
        help="where records are bad, load nothing (default), or load the others",
    )
    command.add_argument(
        "--rejects",
        metavar="FILE",
        help="with --errors reject: where to write what is wrong with them; rows are counted from 0, a header not counted",
    )
    command.add_argument(
        "--column",
        dest="columns",
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="a column that has another name; can be repeated",
    )
    add_options(command, "--epoch", "--statuses")
    add_options(command, *READING, note="CSV files and sheets")


def load(options: argparse.Namespace, say: Output) -> None:
    """Load records; `say` gets how many of them were new, and where the rejected ones are described."""
    import pyarrow as pa

    from enrichstatus.files.reading import read as files
    from enrichstatus.files.writing import write as writing

    columns = dict(pair(text, "--column") for text in options.columns)
    if options.errors != "reject":
        refuse_stray(options, ["rejects"], "--errors reject")
    check_outputs(options, rejects=writing.ENDINGS)
    files.expand(options.records)  # before a store is made for nothing
    with opened(store_file(options.store)) as store:
        report = store.load(
            options.records,
            org_id=options.org_id,
            errors=options.errors,
            columns=columns,
            epoch=options.epoch,
            statuses=statuses(options),
            **reading(options),
        )
    say(str(report))
    counts = {name: getattr(report, name) for name in ("read", "inserted", "updated", "unchanged", "rejected")}
    say.tell(counts=counts, unknown=report.unknown, store=options.store, problems=report.rejects)
    if options.rejects:
        writing.write(pa.Table.from_pandas(report.rejects, preserve_index=False), options.rejects)
        say.wrote(options.rejects)
        say(f"what is wrong with them: {options.rejects}")
