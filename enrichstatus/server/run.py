"""Runs the endpoint: a socket, the log on stderr, and a stop that lets requests in flight finish (extra ``server``)."""

from __future__ import annotations

import atexit
import errno
import gc
import json
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

from enrichstatus.errors import EnrichStatusError, ValidationError
from enrichstatus.lookup.arguments import parse_number

try:
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise ImportError('The endpoint needs the extra "server": pip install "enrichstatus[server]"') from error

#: Seconds that requests in flight have to finish once a stop is requested.
LAST_REQUESTS = 30
#: Seconds that they have when the interpreter exits, where no thread can be started any more to answer them.
LAST_REQUESTS_AT_EXIT = 1

_OURS = "enrichstatus.server"
_NO_START = "The application did not start; its log says why."


def serve(app: Any, *, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve an application until SIGINT or SIGTERM; `ready` gets the base URL when it listens.

    A second SIGINT does not wait for the requests in flight. What is logged is a line of JSON on stderr each.

    Raises
    ------
    ValidationError
        The host or the port is unusable.
    EnrichStatusError
        The address cannot be listened on, or the application did not start.
    """
    listening, url = _listen(host, port)
    server = _Server(app, lambda: ready(url))
    # what has been imported stays; not looking at it again keeps the collector's pauses short
    gc.collect()
    gc.freeze()
    # the server raises the signal again that stopped it, when it has stopped
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with listening, _logging(server), suppress(KeyboardInterrupt):
            server.run(sockets=[listening])
    except SystemExit as error:  # some versions of the server end so
        raise EnrichStatusError(_NO_START) from error
    finally:
        gc.unfreeze()
    if server.failed:  # and some only return
        raise EnrichStatusError(_NO_START)


@contextmanager
def _logging(server: _Server) -> Iterator[None]:
    """Log to stderr: the application's lines, and the words of the server and of the loop under it, as lines like these."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json())
    handler.addFilter(lambda record: _is_logged(record, server))
    loggers = [logging.getLogger(name) for name in (_OURS, "uvicorn.error", "asyncio")]
    before = [(log.level, log.propagate) for log in loggers]
    for log in loggers:
        log.addHandler(handler)
        log.setLevel(logging.INFO if log.name == _OURS else logging.WARNING)
        log.propagate = False
    try:
        yield
    finally:
        for log, (level, propagate) in zip(loggers, before, strict=True):
            log.removeHandler(handler)
            log.setLevel(level)
            log.propagate = propagate


def _is_logged(record: logging.LogRecord, server: _Server) -> bool:
    """Leave out what the server says of requests that are cut off by a second Ctrl-C, and its advice to install websockets."""
    if record.name == _OURS:
        return True
    return not server.force_exit and not record.getMessage().startswith("No supported WebSocket library")


class _Json(logging.Formatter):
    """Makes a line of JSON of a record; the message of our own logger is one already."""

    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.name == _OURS:
            if not record.exc_info:
                return message
            line = json.loads(message)
        else:
            time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
            line = {"time": time, "event": "server", "level": record.levelname, "message": message.strip()}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, separators=(",", ":"))


class Background:
    """An application served by a thread of this process, on a free port of this machine: for a notebook, or a test.

    It stops with the process at the latest.

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
    >>> from enrichstatus.server import Background
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
                raise EnrichStatusError(_NO_START)
        # a thread that still ran would keep what it serves from being closed in order
        atexit.register(self._stop_at_exit)

    def _run(self, listening: socket.socket) -> None:
        with listening, suppress(SystemExit):  # of an application that does not start
            self._server.run(sockets=[listening])

    def stop(self) -> None:
        """Stop, when the requests in flight have finished."""
        self._server.should_exit = True
        self._thread.join()
        atexit.unregister(self._stop_at_exit)

    def _stop_at_exit(self) -> None:
        self._server.config.timeout_graceful_shutdown = LAST_REQUESTS_AT_EXIT
        self.stop()

    def __enter__(self) -> Background:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Background({self.url!r}{'' if self._thread.is_alive() else ', stopped'})"


class _Server(uvicorn.Server):
    def __init__(self, app: Any, ready: Callable[[], object]):
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            http=_Protocol,
            ws="none",
            lifespan="on",
            timeout_graceful_shutdown=LAST_REQUESTS,
        )
        super().__init__(config)
        self._ready = ready
        self.failed = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.failed = not self.started
        if self.started:
            self._ready()


class _Protocol(H11Protocol):
    """HTTP by h11, which bounds headers; what is not HTTP is refused in the shape of the contract too."""

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be understood, and hang up."""
        body = json.dumps({"error": {"code": ValidationError.code, "message": msg}}).encode()
        headers = [("content-type", "application/json"), ("content-length", str(len(body))), ("connection", "close")]
        head = h11.Response(status_code=400, headers=headers, reason="Bad Request")
        for event in (head, h11.Data(data=body), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event))
        self.transport.close()


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Open the socket, and give its base URL."""
    if not host.strip():
        raise ValidationError("The host is empty, which would be every address of this machine; 0.0.0.0 says so.")
    parse_number("port", port, least=0, most=65535, whole=True)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        where = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM)[0][4]
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no host can have this name"
        raise ValidationError(
            f"The host {host!r} is not an address: {reason}. 127.0.0.1 is this machine alone."
        ) from error
    try:
        listening = socket.create_server(where, family=family, backlog=1024)
    except OSError as error:
        if error.errno == errno.EADDRNOTAVAIL:
            raise ValidationError(
                f"The host {host!r} is not an address of this machine. 127.0.0.1 is this machine alone."
            ) from error
        remedy = " Choose another --port." if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise EnrichStatusError(f"{host} port {port} cannot be listened on: {reason}.{remedy}") from error
    address = f"[{host}]" if ":" in host else host
    return listening, f"http://{address}:{listening.getsockname()[1]}"
