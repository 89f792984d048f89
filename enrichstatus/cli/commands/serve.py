"""The commands that run a service: ``enrichstatus serve`` and ``enrichstatus token``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from enrichstatus.cli.options import READING, add_options, limits, names, opened, read_tasks, refuse_stray, store_file
from enrichstatus.cli.parser import add_command
from enrichstatus.errors import EnrichStatusError, ValidationError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from enrichstatus.cli.output import Output
    from enrichstatus.simulation import SimulatedStore

#: The token of a simulated service that was given no tokens: it protects nothing.
SIMULATED = "simulated"


def add(commands: Any) -> None:
    """Declare the two commands and their options."""
    command = add_command(
        commands,
        "serve",
        serve,
        help="serve the contract's endpoint over a store, or a simulated service",
        examples={
            "a store": "enrichstatus serve --store leads.duckdb --tokens tokens.toml",
            "to try things out": "enrichstatus serve --simulate --speed 60",
        },
    )
    what = command.add_mutually_exclusive_group(required=True)
    what.add_argument("--store", metavar="FILE", help="the store to serve; a file put in its place is served instead")
    what.add_argument(
        "--simulate",
        action="store_true",
        help="serve records that start pending and end over time, of --tasks or of what is triggered at it",
    )
    command.add_argument(
        "--tokens", metavar="FILE", help="who may look up: see token new (simulated: the token is simulated)"
    )
    command.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: this machine alone)")
    command.add_argument("--port", type=int, default=8000, help="the port; 0 is any that is free (default: 8000)")
    command.add_argument(
        "--writable",
        action="store_true",
        default=None,
        help="with --store: open it to be written, which keeps others out",
    )
    add_options(command, "--max-processing-time", note="; with --store")
    simulated = command.add_argument_group("simulated service")
    simulated.add_argument(
        "--tasks", metavar="TASKS", help="what was triggered before it starts: tasks, or a lead list (default: nothing)"
    )
    simulated.add_argument(
        "--entity-id",
        metavar="COLUMN",
        help="the column of a lead list that holds the ids (default: the only one that holds UUIDs)",
    )
    simulated.add_argument("--fields", metavar="FIELD,…", help="of a lead list: the fields triggered (default: all)")
    add_options(simulated, *READING, note="TASKS")
    simulated.add_argument(
        "--seed", type=int, metavar="N", help="another seed is another course of events (default: 0)"
    )
    simulated.add_argument(
        "--speed", type=float, metavar="TIMES", help="how many times faster than life, 0.001 to 1,000,000 (default: 1)"
    )
    simulated.add_argument(
        "--fault-rate", type=float, metavar="SHARE", help="the share of queries that meet a fault, 0 to 1 (default: 0)"
    )
    simulated.add_argument("--faults", metavar="FAULT,…", help="with --fault-rate: which (default: 429,500,slow,cut)")

    tokens = commands.add_parser("token", help="make a token for the endpoint").add_subparsers(
        required=True, metavar="COMMAND"
    )
    new = add_command(
        tokens,
        "new",
        token,
        help="make a token, add its digest to the tokens file, and print it once, on the last line",
        examples={"for one organization": "enrichstatus token new --org org_acme --tokens tokens.toml"},
    )
    new.add_argument(
        "--org", dest="org_id", required=True, metavar="ORG", help="the organization whose records it may see"
    )
    new.add_argument("--tokens", required=True, metavar="FILE", help="the tokens file; made where there is none")


def serve(options: argparse.Namespace, say: Output) -> None:
    """Serve a store, or a simulated service, until Ctrl-C; `say` gets the address."""
    _check(options)
    try:
        from enrichstatus.server import app as server
        from enrichstatus.server import run as serving
    except ImportError as error:
        raise EnrichStatusError(str(error)) from error

    def ready(what: str) -> Callable[[str], None]:
        def begun(url: str) -> None:
            say(f"serving {what} at {url} (Ctrl-C stops)")
            say.tell(url=url)
            say.finish(0)  # whoever reads it waits for the address

        return begun

    if options.simulate:
        with _simulated(options, say) as simulated:
            app, what = _simulated_app(simulated, options), _what(options, simulated)
            serving.serve(app, host=options.host, port=options.port, ready=ready(what))
    else:
        maximum, alone = limits(options), not options.writable
        path = store_file(options.store)
        with opened(path, max_processing_time=maximum, read_only=alone, preload=alone) as store:
            app = server.create_app(store, options.tokens)
            serving.serve(app, host=options.host, port=options.port, ready=ready(options.store))


def token(options: argparse.Namespace, say: Output) -> None:
    """Make a token; `say` gets it, on the last line."""
    from enrichstatus.server.tokens import new_token

    made = new_token(options.tokens, options.org_id)
    say(f"the token of {options.org_id} is shown only here; {options.tokens} keeps its digest:")
    say.print_plainly(made)
    say.tell(token=made, organization=options.org_id, file=options.tokens)


def _check(options: argparse.Namespace) -> None:
    """Refuse options that would not be heeded."""
    read, list_of = ["encoding", "skip", "multiline", "sheet"], ["entity_id", "fields"]
    if not options.simulate:
        refuse_stray(options, ["tasks", *list_of, *read, "seed", "speed", "fault_rate", "faults"], "--simulate")
        if not options.tokens:
            raise ValidationError("--store needs --tokens: who may look up. Make one with: enrichstatus token new")
        return
    refuse_stray(
        options,
        ["max_processing_time", "writable"],
        "--store; a simulated service has the time of --speed, and no file",
    )
    if not options.tasks:
        refuse_stray(options, read, "--tasks, which is what is read")
        refuse_stray(options, list_of, "--tasks, which names the lead list that was triggered")
    if options.fault_rate is None:
        refuse_stray(options, ["faults"], "--fault-rate, which says how many there are")


def _simulated(options: argparse.Namespace, say: Output) -> SimulatedStore:
    from enrichstatus.schema import FIELDS
    from enrichstatus.simulation import SimulatedStore

    given = {name: value for name in ("seed", "speed") if (value := getattr(options, name)) is not None}
    if not options.tasks:
        return SimulatedStore(**given)
    with read_tasks(options, FIELDS, say) as tasks:
        return SimulatedStore(tasks, **given)


def _simulated_app(store: SimulatedStore, options: argparse.Namespace) -> Starlette:
    from enrichstatus.simulation import FAULTS, create_simulated_app

    return create_simulated_app(
        store,
        options.tokens or {SIMULATED: store.org_id},
        fault_rate=options.fault_rate or 0.0,
        faults=FAULTS if options.faults is None else names(options.faults),
        seed=options.seed or 0,
    )


def _what(options: argparse.Namespace, simulated: SimulatedStore) -> str:
    """Say what is simulated, and the token where no tokens file was given."""
    what = f"over {options.tasks}" if options.tasks else "that waits to be triggered"
    return f"a simulated service {what}" + ("" if options.tokens else f", token {SIMULATED} of {simulated.org_id},")
