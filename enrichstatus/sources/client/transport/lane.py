"""A session with the service whose connection can be cut from outside."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, ReadTimeoutError

from enrichstatus.errors import ServiceError
from enrichstatus.lookup.calls.clocks import ServiceClock
from enrichstatus.sources.client.config import Bearer, Request, Settings
from enrichstatus.sources.client.responses import Unreadable, brief, error_of, scrubbed
from enrichstatus.sources.client.transport.retry import REPEATED, Passing, read_retry_after

T = TypeVar("T")

#: No answer to a batch is longer (in MiB, unpacked): it has 200 records of less than a KiB.
_LONGEST = 16
#: Bytes that are read at a time, and of the page of an error.
_PIECE, _PAGE = 16_384, 65_536


class Line:
    """A lane's connection as other threads see it, and how they cut it.

    It refers to nothing else of ours: urllib3 keeps it until its pool is collected, and a reference back would keep the pool.
    """

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        #: since when an answer is waited for, and whether it was cut off for that
        self.began: float | None = None
        self.late = False
        #: whether any answer has begun to arrive since the post began
        self.heard = False

    def rest(self) -> None:
        """Note that no answer is waited for."""
        self.began, self.late = None, False

    def cut(self, *, older_than: float | None = None) -> None:
        """Break the connection off; with `older_than` only if the answer has taken longer, even if bytes still trickle in."""
        began, connected = self.began, self.socket
        if connected is None:
            return
        if older_than is not None:
            if began is None or time.monotonic() - began <= older_than:
                return
            self.late = True
        with suppress(OSError):
            # of the plain socket: TLS would wait for the other side to say goodbye
            socket.socket.shutdown(connected, socket.SHUT_RDWR)


class Lane:
    """A session that one worker uses at a time, and whose connection can be cut from outside."""

    def __init__(self, settings: Settings, bearer: Bearer):
        self._settings, self._bearer, self._url = settings, bearer, settings.url
        self.session = _Session()
        self.session.auth = bearer
        if settings.loopback:
            self.session.trust_env = False  # no proxy stands between this machine and itself
        self.line = Line()
        self.adapter = _Adapter(self.line)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, self.adapter)
        self.thread = threading.Thread()
        #: whether its worker has done with it; kept by who lends it
        self.free = True

    def send(self, call: Request, body: str | None, read: Callable[[bytes], T], clock: ServiceClock) -> T:
        """Post a body, or get where there is none, once; raises `Passing` where another attempt may help."""
        self._url = self._settings.address + call.path
        sent = time.monotonic()
        try:
            response = self.session.request(
                "GET" if body is None else "POST",
                self._url,
                data=None if body is None else body.encode(),
                headers={} if body is None else {"Content-Type": "application/json"},
                timeout=(self._settings.connect, self._settings.read),
                verify=self._settings.verify,  # given here, because the environment's bundle would override the session's
                allow_redirects=False,
                stream=True,
            )
        except (OSError, HTTPError) as error:
            failure = self._unreachable(error)
            self.line.rest()
            if "CERTIFICATE_VERIFY_FAILED" in str(error):
                raise failure from scrubbed(error)  # it will not verify the next time either
            raise Passing(failure) from scrubbed(error)
        status = response.status_code
        with response:
            clock.learn(response.headers.get("Date"), sent, time.monotonic())
            try:
                content = self._content(response)
                if status in call.accepted:
                    return read(content)
            except (requests.RequestException, HTTPError, Unreadable) as error:
                raise Passing(self._unreachable(error, status), status) from scrubbed(error)
            finally:
                self.line.rest()
            failed = error_of(response, content, self._url, self._bearer.hide)
        retry_after = read_retry_after(response.headers, status, clock.now())
        if isinstance(failed, ServiceError):
            failed.retry_after = retry_after
        if status in REPEATED:
            raise Passing(failed, status, retry_after)
        raise failed

    def _content(self, response: requests.Response) -> bytes:
        """Read an answer up to a limit: a small one can unpack to any length."""
        content = bytearray()
        for piece in response.iter_content(_PIECE):
            content += piece
            if response.status_code != 200 and len(content) > _PAGE:
                break  # the status says it all
            if len(content) > _LONGEST << 20:
                raise ServiceError(
                    f"{self._url} answered with more than {_LONGEST} MiB, which no answer to a batch is; what came "
                    "was not read to its end. Is that the service?",
                    response.status_code,
                )
        return bytes(content)

    def _unreachable(self, error: Exception, status: int | None = None) -> ServiceError:
        """Say in a line why there is no usable answer."""
        inner = error.args[0] if isinstance(error, requests.RequestException) and error.args else error
        reason = getattr(inner, "reason", None) or inner
        timed_out = isinstance(reason, ReadTimeoutError)
        # where we cut the connection, the error looks like a fault of the other side
        if self.line.late or (timed_out and self.line.began is not None):
            reason = f"no whole answer within {self._settings.read:g} s"
        elif timed_out:
            reason = f"no TLS handshake within {self._settings.connect:g} s"
        answered = f"answered {status}, but it is of no use" if status else "gave no usable answer"
        return ServiceError(f"{self._url} {answered}: {self._bearer.hide(brief(reason))}", status)


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> None:
        """Follow no redirect, and do not parse its target, which may be malformed."""


class _Adapter(HTTPAdapter):
    def __init__(self, line: Line):
        self._pools = {
            "http": _pool(urllib3.HTTPConnectionPool, HTTPConnection, line),
            "https": _pool(urllib3.HTTPSConnectionPool, HTTPSConnection, line),
        }
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):  # which has pools of its own
            manager.pool_classes_by_scheme = self._pools
        return manager


def _pool(pool: type, connection: type, line: Line) -> type:
    """Make a pool whose connections note in the line their socket, when they begin to wait, and when an answer begins."""

    def _new_conn(self: Any) -> socket.socket:
        # TLS takes the socket for its own: until it has shaken hands, a second handle is what it can be cut with
        plain: socket.socket = connection._new_conn(self)  # type: ignore[attr-defined]
        line.socket = plain.dup()
        return plain

    def connect(self: Any) -> None:
        try:
            connection.connect(self)  # type: ignore[attr-defined]
        finally:
            if line.socket is not None:
                line.socket.close()
            line.socket = self.sock
        if line.began is not None:
            line.began = time.monotonic()  # plain http connects when it is to send: that is not the answer's time

    def request(self: Any, *arguments: Any, **options: Any) -> Any:
        line.began, line.late = time.monotonic(), False
        return connection.request(self, *arguments, **options)  # type: ignore[attr-defined]

    def getresponse(self: Any) -> Any:
        response = connection.getresponse(self)  # type: ignore[attr-defined]
        line.heard = True
        return response

    methods = {"_new_conn": _new_conn, "connect": connect, "request": request, "getresponse": getresponse}
    return type(pool.__name__, (pool,), {"ConnectionCls": type(connection.__name__, (connection,), methods)})
