"""Runs the endpoint: a socket, the log on stderr, and a stop that lets requests in flight finish (extra ``server``)."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import socket
import sys
from collections.abc import Callable
from typing import Any

from enrichstatus.errors import EnrichStatusError

try:
    import uvicorn
except ImportError as error:
    raise ImportError('The endpoint needs the extra "server": pip install "enrichstatus[server]"') from error

#: Seconds that requests in flight have to finish once a stop is asked for.
LAST_REQUESTS = 30


def serve(app: Any, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve an application until SIGINT or SIGTERM; `ready` is told the base URL when it listens.

    Raises
    ------
    EnrichStatusError
        The address cannot be listened on.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise EnrichStatusError(f"{host} port {port} cannot be listened on: {error}. Choose another --port.") from error
    address = f"[{host}]" if ":" in host else host
    url = f"http://{address}:{listening.getsockname()[1]}"

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(url)

    log = logging.getLogger("enrichstatus.server")
    log.addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.INFO)
    log.propagate = False
    # what has been imported stays; not looking at it again keeps the collector's pauses short
    gc.collect()
    gc.freeze()
    config = uvicorn.Config(
        app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=LAST_REQUESTS
    )
    # the server raises the signal again that stopped it, when it has stopped
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with listening, contextlib.suppress(KeyboardInterrupt):
            Server(config).run(sockets=[listening])
    finally:
        gc.unfreeze()
