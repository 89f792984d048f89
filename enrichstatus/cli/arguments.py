"""The arguments of the command line."""

from __future__ import annotations

import argparse
from importlib.metadata import version
from typing import Any


def parser() -> argparse.ArgumentParser:
    """Make the parser; what it gives has the ``command`` (of ``token``: ``token_command``) and its options."""
    whole = argparse.ArgumentParser(
        prog="enrichstatus",
        description="The status of lead enrichment, for a whole list at once.",
        epilog="Exit codes: 0 done; 1 failed; 2 bad input; 3 the deadline of poll, at which some are pending; "
        "4 a list does not reach what lookup requires of it; 130 Ctrl-C; "
        "143 poll was told to stop (SIGTERM).",
    )
    whole.add_argument("--version", action="version", version=f"enrichstatus {version('enrichstatus')}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND", dest="command")
    _load(commands)
    _lookup(commands)
    _plan(commands)
    _report(commands)
    _poll(commands)
    _serve(commands)
    _token(commands)
    return whole


def _load(commands: Any) -> None:
    load = commands.add_parser("load", help="load enrichment records into a store")
    load.add_argument(
        "records",
        nargs="+",
        metavar="RECORDS",
        help="files or globs: .csv .tsv .json .ndjson .parquet, .gz or .zst behind",
    )
    load.add_argument("--store", required=True, metavar="FILE", help="the store's file; made where there is none")
    load.add_argument("--org", metavar="ORG", help="the organization of records that carry none")
    load.add_argument(
        "--errors",
        choices=["raise", "reject"],
        default="raise",
        help="on bad records load nothing (default), or load the others",
    )
    load.add_argument("--rejects", metavar="FILE", help="where to write what is wrong with rejected records")
    load.add_argument(
        "--column",
        action="append",
        default=[],
        metavar="THEIRS=OURS",
        help="a column under another name; can be repeated",
    )


def _lookup(commands: Any) -> None:
    lookup = commands.add_parser("lookup", help="look up the status of tasks, or of a lead list")
    lookup.add_argument("tasks", metavar="TASKS", help="tasks (entityId, field), or a lead list with --entity-id")
    _source(lookup)
    _leads(lookup)
    lookup.add_argument(
        "--columns",
        default="status,dataFound",
        metavar="COLUMN,…",
        help='a record\'s columns to add, or "all"',
    )
    lookup.add_argument("--prefix", default="", help="put before the names of the added columns")
    lookup.add_argument(
        "--how",
        choices=["left", "inner"],
        default="left",
        help="keep tasks without a record (default), or not",
    )
    _bad_tasks(lookup)
    _when(lookup)
    _output(lookup)
    lookup.add_argument(
        "--memory-limit",
        metavar="SIZE",
        help="with -o, which goes from file to file: how much memory the engine may take, e.g. 6GB; the rest waits on disk",
    )
    lookup.add_argument(
        "--require",
        action="append",
        metavar="ended=SHARE",
        help="of all tasks so many have to have ended, e.g. ended=0.98, or failed=0.02 at most; else nothing is written (exit code 4)",
    )
    lookup.add_argument(
        "--failed",
        metavar="FILE",
        help="with --url and -o: where a service answers only some tasks, write those to -o and the others here (exit code 1)",
    )


def _plan(commands: Any) -> None:
    plan = commands.add_parser(
        "plan",
        help="say of each task whether to buy it, and at what cost",
        description="Say of each task whether to buy it, why, and at what cost. Nothing is triggered.",
    )
    plan.add_argument("tasks", metavar="TASKS", help="tasks (entityId, field), or a lead list with --entity-id")
    _source(plan)
    _leads(plan)
    plan.add_argument(
        "--costs", action="append", metavar="FIELD=CREDITS,…", help="credits for one task, e.g. emails=1,phones=10"
    )
    plan.add_argument("--budget", type=float, metavar="CREDITS", help="buy no more than can be paid with so many")
    plan.add_argument("--priority", metavar="COLUMN", help="numbers; the greatest are bought first (default: in order)")
    plan.add_argument(
        "--retry", metavar="STATUS,…", help="what is bought again: timeout,failed (default), one of them, or none"
    )
    plan.add_argument("--stale-after", metavar="TIME", help="what finished longer ago is bought again, e.g. 90d")
    _when(plan)
    plan.add_argument("--prefix", default="", help="put before action, reason and cost, the columns that are added")
    _output(plan)
    plan.add_argument(
        "--requests", metavar="FILE", help="write the bodies for the trigger endpoint, one a line (.ndjson)"
    )


def _report(commands: Any) -> None:
    report = commands.add_parser(
        "report",
        help="write a page with tables and pictures of what came of a list",
        description="Write one page that opens anywhere, offline too: what became of the tasks, where there is data and where not, "
        "and, of a store or of record files, how long it took and what the money bought.",
    )
    report.add_argument("tasks", metavar="TASKS", help="tasks (entityId, field), or a lead list with --entity-id")
    _source(report)
    _leads(report)
    report.add_argument("--by", metavar="COLUMN,…", help="columns of the list to tell apart, each for itself")
    report.add_argument("--costs", action="append", metavar="FIELD=CREDITS,…", help="credits for one task (default: 1)")
    report.add_argument("--title", default="Enrichment of a lead list", help="the page's title")
    _when(report)
    report.add_argument("-o", "--output", required=True, metavar="FILE", help="the page: .html")


def _poll(commands: Any) -> None:
    poll = commands.add_parser(
        "poll",
        help="ask a service until all tasks have ended",
        description="Ask a service until all tasks have ended, only for those that have not, and ever less often. At a terminal a "
        "bar shows how far it is, in a log a line for each time that it asked.",
        epilog="Exit codes: 0 all have ended; 3 the deadline has come, what has not ended is pending and the output is written all "
        "the same; 130 Ctrl-C and 143 SIGTERM, of which the store has kept what was answered; 2 bad input; 1 failed otherwise.",
    )
    poll.add_argument("tasks", metavar="TASKS", help="tasks (entityId, field), or a lead list with --entity-id")
    poll.add_argument(
        "--url",
        required=True,
        metavar="URL",
        help="the service to ask; its token is ENRICHSTATUS_TOKEN in the environment",
    )
    poll.add_argument(
        "--allow-http", action="store_true", help="send the token over plain http to another machine than this one"
    )
    poll.add_argument(
        "--store",
        metavar="FILE",
        help="remember each answer there, and do not ask again what has ended; made where there is none",
    )
    poll.add_argument("--org", metavar="ORG", help="with --store: the organization whose records the answers are")
    _leads(poll)
    poll.add_argument(
        "--deadline", metavar="TIME", help="stop waiting after so long, e.g. 90s, 30min or 2h (default: never)"
    )
    poll.add_argument(
        "--missing-after",
        default="60s",
        metavar="TIME",
        help="a task without a record is waited for so long, then it counts as having none (default: 60s)",
    )
    poll.add_argument(
        "--schedule",
        choices=["backoff", "adaptive"],
        default="backoff",
        help="ask after 1, 2, 4 … 60 s (default), or when enough are expected to have ended, learned from those before",
    )
    _bad_tasks(poll)
    poll.add_argument("--prefix", default="", help="put before status and dataFound, the columns that are added")
    _output(poll)


def _source(command: Any) -> None:
    source = command.add_mutually_exclusive_group(required=True)
    source.add_argument("--store", metavar="FILE", help="a store to look in; it is only read")
    source.add_argument(
        "--url", metavar="URL", help="the service to ask; its token is ENRICHSTATUS_TOKEN in the environment"
    )
    source.add_argument("--records", nargs="+", metavar="PATH", help="record files to look in, without a store")
    command.add_argument(
        "--org", metavar="ORG", help="the organization whose records to look in (with --url the token tells)"
    )
    command.add_argument(
        "--allow-http",
        action="store_true",
        default=None,
        help="with --url: send the token over plain http to another machine",
    )


def _when(command: Any) -> None:
    command.add_argument(
        "--now", metavar="INSTANT", help="judge the timeout rule at this instant (default: the clock's)"
    )
    command.add_argument(
        "--max-processing-time",
        action="append",
        metavar="[FIELD=]TIME",
        help="pending for longer is a timeout, e.g. 800s (default) or phones=30min; can be repeated (with --url: and --now)",
    )


def _leads(command: Any) -> None:
    command.add_argument("--entity-id", metavar="COLUMN", help="the column of a lead list that holds the entity's UUID")
    command.add_argument("--fields", metavar="FIELD,…", help="with --entity-id: the fields to ask for (default: all)")
    command.add_argument("--entity-type", metavar="TYPE", help="with --entity-id: person (default) or company")


def _bad_tasks(command: Any) -> None:
    command.add_argument(
        "--errors",
        choices=["raise", "coerce"],
        default="raise",
        help="on bad tasks stop (default), or give them no status",
    )


def _output(command: Any) -> None:
    command.add_argument("-o", "--output", metavar="FILE", help="write the rows: .csv .tsv .parquet .json .ndjson")


def _serve(commands: Any) -> None:
    serve = commands.add_parser("serve", help="serve the contract's endpoint over a store, or a simulated service")
    what = serve.add_mutually_exclusive_group(required=True)
    what.add_argument("--store", metavar="FILE", help="the store to serve; a file put in its place is taken up")
    what.add_argument(
        "--simulate",
        action="store_true",
        help="serve records that start pending and end over time, of --tasks or of what is triggered at it",
    )
    serve.add_argument(
        "--tokens", metavar="FILE", help="who may ask: see token new (simulated: the token is simulated)"
    )
    serve.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine alone)")
    serve.add_argument("--port", type=_port, default=8000, help="the port; 0 is any that is free (default: 8000)")
    serve.add_argument(
        "--writable",
        action="store_true",
        default=None,
        help="with --store: open it to be written, which keeps others out",
    )
    serve.add_argument(
        "--max-processing-time",
        action="append",
        metavar="[FIELD=]TIME",
        help="with --store: pending for longer is a timeout, e.g. 800s (default) or phones=30min; can be repeated",
    )
    simulated = serve.add_argument_group("simulated service")
    simulated.add_argument(
        "--tasks",
        metavar="TASKS",
        help="what was triggered before it starts: tasks, or a lead list with --entity-id (default: nothing)",
    )
    simulated.add_argument(
        "--entity-id", metavar="COLUMN", help="the column of a lead list that holds the entity's UUID"
    )
    simulated.add_argument("--fields", metavar="FIELD,…", help="with --entity-id: the fields triggered (default: all)")
    simulated.add_argument("--seed", type=int, help="another seed is another course of events (default: 0)")
    simulated.add_argument(
        "--speed", type=float, help="so many times faster than life, 0.001 to 1,000,000 (default: 1)"
    )
    simulated.add_argument(
        "--fault-rate", type=float, help="the share of queries that meet a fault, 0 to 1 (default: 0)"
    )
    simulated.add_argument("--faults", metavar="FAULT,…", help="with --fault-rate: which (default: 429,500,slow,cut)")


def _token(commands: Any) -> None:
    token = commands.add_parser("token", help="make a token for the endpoint")
    new = token.add_subparsers(required=True, metavar="COMMAND", dest="token_command").add_parser(
        "new", help="make a token, add its digest to the tokens file, and print it once, on the last line"
    )
    new.add_argument("--org", required=True, metavar="ORG", help="the organization whose records it may see")
    new.add_argument("--tokens", required=True, metavar="FILE", help="the tokens file; made where there is none")


def _port(text: str) -> int:
    try:
        port = int(text)
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise argparse.ArgumentTypeError(f"a port is a whole number from 0 to 65535, not {text!r}")
    return port
