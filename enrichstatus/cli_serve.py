"""The commands that run a service: ``enrichstatus serve`` and ``enrichstatus token``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from enrichstatus.errors import EnrichStatusError, ValidationError
from enrichstatus.options import bad_rows, fields, names, opened, refuse_stray, store_file, times

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from enrichstatus.sources.store import EnrichmentStore

#: The token of a simulated service that was given no tokens: it protects nothing.
SIMULATED = "simulated"


def serve(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Serve a store, or a simulated service, until Ctrl-C; `say` is told where."""
    _check(options)
    try:
        from enrichstatus import serving
        from enrichstatus.server import create_app
    except ImportError as error:
        raise EnrichStatusError(str(error)) from error
    with _simulated(options) if options.simulate else _stored(options) as store:
        app = create_app(store, options.tokens or {SIMULATED: store.org_id})
        what = options.store
        if options.simulate:
            _make_faulty(app, options)
            what = f"a simulated service over {options.tasks}" + ("" if options.tokens else f", token {SIMULATED}")
        serving.serve(
            app,
            host=options.host,
            port=options.port,
            ready=lambda url: say(f"serving {what} at {url} (Ctrl-C stops)"),
        )


def token(options: argparse.Namespace, say: Callable[[str], None]) -> None:
    """Make a token; `say` is told it, on the last line."""
    from enrichstatus.tokens import new_token

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
        raise ValidationError("--simulate needs --tasks: what was triggered.")
    if not options.entity_id:
        refuse_stray({"--fields": options.fields}, "--entity-id, which names the column of a lead list's ids")
    if options.fault_rate is None:
        refuse_stray({"--faults": options.faults}, "--fault-rate, which says how many there are")


def _stored(options: argparse.Namespace) -> EnrichmentStore:
    limits = times(options.max_processing_time)
    alone = not options.writable
    return opened(store_file(options.store), max_processing_time=limits, read_only=alone, preload=alone)


def _simulated(options: argparse.Namespace) -> EnrichmentStore:
    from enrichstatus.schema import FIELDS
    from enrichstatus.simulation import SimulatedStore
    from enrichstatus.tasks import tasks_from_leads

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
        raise bad_rows(error.problems, options.entity_id, len(triggered), "Mend them.") from None


def _make_faulty(app: Starlette, options: argparse.Namespace) -> None:
    """Put the faults innermost, so that they have a line in the log and an id as other answers do."""
    from starlette.middleware import Middleware

    from enrichstatus.simulation import FAULTS, Faults

    kinds = FAULTS if options.faults is None else names(options.faults)
    app.user_middleware.append(Middleware(Faults, rate=options.fault_rate or 0.0, kinds=kinds, seed=options.seed or 0))
    # now, and not at the first request: what is wrong with the faults is said before the service runs
    app.middleware_stack = app.build_middleware_stack()
