"""The commands that run a service: ``enrichstatus serve`` and ``enrichstatus token``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from enrichstatus.cli.options import fields, names, opened, refuse_stray, store_file, times
from enrichstatus.errors import EnrichStatusError, ValidationError

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from enrichstatus.simulation import SimulatedStore
    from enrichstatus.sources.store.store import EnrichmentStore

#: The token of a simulated service that was given no tokens: it protects nothing.
SIMULATED = "simulated"


def serve(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Serve a store, or a simulated service, until Ctrl-C; `say` is told where."""
    _check(options)
    try:
        from enrichstatus.server import app as server
        from enrichstatus.server import run as serving
    except ImportError as error:
        raise EnrichStatusError(str(error)) from error

    def ready(url: str) -> None:
        say(f"serving {_what(options)} at {url} (Ctrl-C stops)")

    if options.simulate:
        with _simulated(options) as simulated:
            serving.serve(_simulated_app(simulated, options), host=options.host, port=options.port, ready=ready)
    else:
        with _stored(options) as store:
            app = server.create_app(store, options.tokens)
            serving.serve(app, host=options.host, port=options.port, ready=ready)


def token(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Make a token; `say` is told it, on the last line."""
    from enrichstatus.server.tokens import new_token

    made = new_token(options.tokens, options.org)
    say(f"a token of {options.org}; its digest is in {options.tokens}, itself it is shown only here:\n{made}")


def _check(options: argparse.Namespace) -> None:
    """Refuse options that the service asked for would not heed."""
    if not options.simulate:
        simulated = ("tasks", "entity_id", "fields", "seed", "speed", "fault_rate", "faults")
        refuse_stray({f"--{name.replace('_', '-')}": getattr(options, name) for name in simulated}, "--simulate")
        if not options.tokens:
            raise ValidationError("--store needs --tokens: who may ask. Make one with: enrichstatus token new")
        return
    refuse_stray(
        {"--max-processing-time": options.max_processing_time, "--writable": options.writable},
        "--store; a simulated service has the time of --speed, and no file",
    )
    if not options.tasks:
        refuse_stray({"--entity-id": options.entity_id}, "--tasks, which names the lead list that was triggered")
    if not options.entity_id:
        refuse_stray({"--fields": options.fields}, "--entity-id, which names the column of a lead list's ids")
    if options.fault_rate is None:
        refuse_stray({"--faults": options.faults}, "--fault-rate, which says how many there are")


def _stored(options: argparse.Namespace) -> EnrichmentStore:
    limits = times(options.max_processing_time)
    alone = not options.writable
    return opened(store_file(options.store), max_processing_time=limits, read_only=alone, preload=alone)


def _simulated(options: argparse.Namespace) -> SimulatedStore:
    from enrichstatus.lookup.tasks import tasks_from_leads
    from enrichstatus.schema import FIELDS
    from enrichstatus.simulation import SimulatedStore

    triggered = fields(options, FIELDS)
    tasks = options.tasks
    if triggered:
        tasks = tasks_from_leads(tasks, entity_id=options.entity_id, fields=triggered)
    given = {name: value for name in ("seed", "speed") if (value := getattr(options, name)) is not None}
    try:
        return SimulatedStore(tasks, **given)
    except ValidationError as error:
        if error.problems is None:
            raise
        from enrichstatus.lookup.tasks import bad_rows

        raise bad_rows(error.problems, options.entity_id, len(triggered), "Mend them.") from None


def _simulated_app(store: SimulatedStore, options: argparse.Namespace) -> Starlette:
    from enrichstatus.simulation import FAULTS, create_simulated_app

    return create_simulated_app(
        store,
        options.tokens or {SIMULATED: store.org_id},
        fault_rate=options.fault_rate or 0.0,
        faults=FAULTS if options.faults is None else names(options.faults),
        seed=options.seed or 0,
    )


def _what(options: argparse.Namespace) -> str:
    """Say what is served, and who may ask where no tokens were given."""
    if not options.simulate:
        return str(options.store)
    what = f"over {options.tasks}" if options.tasks else "that waits to be triggered"
    return f"a simulated service {what}" + ("" if options.tokens else f", token {SIMULATED}")
