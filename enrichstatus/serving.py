"""Runs the endpoint: a socket, the log on stderr, and a stop that lets requests in flight finish (extra ``server``)."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import socket
import sys
import threading
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
    listening, url = _listen(host, port)
    log = logging.getLogger("enrichstatus.server")
    log.addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.INFO)
    log.propagate = False
    # what has been imported stays; not looking at it again keeps the collector's pauses short
    gc.collect()
    gc.freeze()
    # the server raises the signal again that stopped it, when it has stopped
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with listening, contextlib.suppress(KeyboardInterrupt):
            _Server(app, lambda: ready(url)).run(sockets=[listening])
    finally:
        gc.unfreeze()


class Background:
    """An application served by a thread of this process, on a free port of this machine: for a notebook, or a test.

    Parameters
    ----------
    app : ASGI application
        What `enrichstatus.server.create_app` gives, say.

    Attributes
    ----------
    url : str
        The base URL.

    Examples
    --------
    >>> import enrichstatus as es
    >>> from enrichstatus.server import create_app
    >>> from enrichstatus.serving import Background
    >>> with Background(create_app(es.EnrichmentStore(), {"secret-token": "org_1"})) as service:
    ...     client = es.EnrichmentClient(service.url, token="secret-token")
    ...     client.query({"tasks": [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "emails"}]})
    ...     client.close()
    []
    """

    def __init__(self, app: Any):
        listening, self.url = _listen("127.0.0.1", 0)
        started = threading.Event()
        self._server = _Server(app, started.set)
        self._thread = threading.Thread(target=self._run, args=(listening,), daemon=True, name="enrichstatus-server")
        self._thread.start()
        while not started.wait(0.05):
            if not self._thread.is_alive():
                raise EnrichStatusError("The application did not start; its log says why.")

    def _run(self, listening: socket.socket) -> None:
        with listening:
            self._server.run(sockets=[listening])

    def stop(self) -> None:
        """Stop, when the requests in flight have finished."""
        self._server.should_exit = True
        self._thread.join()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Background({self.url!r}{'' if self._thread.is_alive() else ', stopped'})"


class _Server(uvicorn.Server):
    def __init__(self, app: Any, ready: Callable[[], object]):
        config = uvicorn.Config(
            app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=LAST_REQUESTS
        )
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Open the socket, and tell its base URL."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=1024)
    except (OSError, OverflowError) as error:
        raise EnrichStatusError(f"{host} port {port} cannot be listened on: {error}. Choose another --port.") from error
    address = f"[{host}]" if ":" in host else host
    return listening, f"http://{address}:{listening.getsockname()[1]}"
