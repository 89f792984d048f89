"""A session with the service: what is repeated and when, and a connection that can be cut."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPException
from typing import Any, Protocol

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, InvalidHeader, ProtocolError, ReadTimeoutError

from enrichstatus.errors import ServiceError
from enrichstatus.presentation import plain
from enrichstatus.sources.client.config import Bearer, Settings

_REPEATED = (429, 500, 502, 503, 504)
#: No wait between two attempts is longer, unless the service asks for it.
_LONGEST_BACKOFF = 30.0
#: Bytes of an answer that is not needed that are read, so that its connection can be used again.
_DRAINED = 65536


class Call(Protocol):
    """The bounds of the call that a request is part of."""

    def remaining(self) -> float:
        """Seconds until its deadline."""

    def sleep(self, seconds: float) -> None:
        """Wait, unless the call ends meanwhile."""


class Retries(urllib3.Retry):
    """Which failures are repeated, and after how long."""

    RETRY_AFTER_STATUS_CODES = frozenset()  # none beyond those listed
    settings: Settings
    call: Call
    line: Line

    @classmethod
    def of(cls, settings: Settings, call: Call, line: Line) -> Retries:
        """Begin to count the attempts of one post."""
        retries = cls(
            total=settings.retries,
            redirect=0,
            allowed_methods=None,  # the post only reads: to repeat it is safe
            status_forcelist=_REPEATED,
            backoff_factor=settings.backoff,
            raise_on_status=False,  # the last answer tells more than that there were too many
            raise_on_redirect=False,
        )
        retries.settings, retries.call, retries.line = settings, call, line
        return retries

    def new(self, **changes: Any) -> Retries:
        """Copy the count, with ours beside urllib3's own."""
        retries = super().new(**changes)
        retries.settings, retries.call, retries.line = self.settings, self.call, self.line
        return retries

    def increment(self, *arguments: Any, **others: Any) -> Retries:
        """Count a failure; raises when there were too many."""
        error, response = others.get("error"), others.get("response")
        if isinstance(error, urllib3.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise error  # it will not verify the next time either
        if error is not None:
            others["error"] = self._ours(error)
        retries = super().increment(*arguments, **others)
        if response is not None:  # which is still under way, and waited for no longer than any other
            _drain(response)
        self.line.rest()
        return retries

    def _ours(self, error: Exception) -> Exception:
        """Say so where it was us who waited no longer; what is seen then looks like the other side's fault."""
        if self.line.late or (isinstance(error, ReadTimeoutError) and self.line.began is not None):
            return ProtocolError(f"no whole answer within {self.settings.read:g} s")
        if isinstance(error, ReadTimeoutError):
            return ProtocolError(f"no TLS handshake within {self.settings.connect:g} s")
        return error

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """Read ``Retry-After`` as seconds, up to the longest that is obeyed."""
        seconds = self.asked_for(response)
        return None if seconds is None else min(seconds, self.settings.max_retry_after)

    def asked_for(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """Read ``Retry-After`` as seconds; nonsense is none."""
        try:
            return super().get_retry_after(response)
        except (InvalidHeader, ValueError, OverflowError):
            return None

    def get_backoff_time(self) -> float:
        """Seconds to wait where the service asked for none."""
        # urllib3's own repeats the first time at once, which helps no service that is down
        longest = min(self.backoff_factor * 2.0 ** (len(self.history) - 1), _LONGEST_BACKOFF)
        return longest * random.uniform(0.5, 1)

    def sleep(self, response: urllib3.BaseHTTPResponse | None = None) -> None:
        """Wait before the next attempt, if the deadline leaves time for one."""
        asked = self.get_retry_after(response) if response else None
        pause = self.get_backoff_time() if asked is None else asked
        if pause > self.call.remaining():
            last = self.history[-1]
            what = f"it answered {last.status}" if last.status else brief(last.error)
            raise ServiceError(
                f"The deadline leaves no time for another attempt after the last: {what}",
                last.status,
                self.asked_for(response) if response else None,
            )
        self.call.sleep(pause)


class Line:
    """What is known of a lane's connection from outside, and how it is cut.

    The connection holds nothing else of ours: urllib3 keeps it until the pool is collected, which would never be if it led there.
    """

    def __init__(self) -> None:
        self.socket: socket.socket | None = None
        #: since when an answer is waited for, and whether it was cut off for that
        self.began: float | None = None
        self.late = False
        #: whether any answer has begun to come, whatever it was; who asks sets it back
        self.heard = False

    def rest(self) -> None:
        """Wait for nothing."""
        self.began, self.late = None, False

    def cut(self, *, older_than: float | None = None) -> None:
        """Break off what is under way; or only an answer waited for longer than so many seconds, however steadily it trickles."""
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

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        """Begin to work on it, in a thread that does not keep the program from ending."""
        self.free = False
        self.thread = threading.Thread(target=work, args=arguments, daemon=True, name="enrichstatus-post")
        self.thread.start()

    def is_busy(self) -> bool:
        """Tell whether it is still worked on."""
        return self.thread.is_alive()

    def close(self) -> None:
        """Close its connection."""
        self.session.close()


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> None:
        """Follow nothing, and read no target, which may be anything."""


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
    """Make pools whose connections tell the line their socket, when they begin to wait, and that an answer comes."""

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


def _drain(response: urllib3.BaseHTTPResponse) -> None:
    """Read what is left of a short answer; close the connection of any other, and of one that fails."""
    with suppress(HTTPError, OSError, HTTPException):
        if len(response.read(_DRAINED, decode_content=False)) < _DRAINED:
            return
    response.close()


def brief(reason: object) -> str:
    """Cut an error of the libraries below to what a person can use."""
    arguments: Sequence[object] = getattr(reason, "args", ())
    if len(arguments) == 2 and isinstance(arguments[1], Exception):
        reason = f"{str(arguments[0]).rstrip('.')}: {arguments[1]}"
    text = re.sub(r"<[^<>]*>: |HTTPS?Connection(Pool)?\([^()]*\): ", "", plain(str(reason)))
    return text[:300]


def scrubbed(error: Exception) -> Exception:
    """Take the token off an error of the libraries below: off the request that it carries, and the frames that it came through."""
    request = getattr(error, "request", None)
    if request is not None:
        request.headers.pop("Authorization", None)
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)  # tools that show the variables of frames would show the header
        link = link.__cause__ or link.__context__
    return error
