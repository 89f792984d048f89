"""A session with the service: the token on every request, what is repeated and when, and a connection that can be cut."""

from __future__ import annotations

import random
import re
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import InvalidHeader

from enrichstatus.errors import ServiceError
from enrichstatus.sources.settings import Settings

_REPEATED = (429, 500, 502, 503, 504)
#: No wait between two attempts is longer, unless the service asks for it.
_LONGEST_BACKOFF = 30.0
#: A token shorter than this is no secret, and taken out of a text it would spoil it.
_SECRET = 6


class Bearer(AuthBase):
    """Puts the token on a request, in a way that neither ``.netrc`` nor a redirect changes."""

    def __init__(self, token: str):
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Authorize one request."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request

    def __repr__(self) -> str:
        return "Bearer(…)"

    def hide(self, text: str) -> str:
        """Take the token out of a text that came from elsewhere."""
        return text.replace(self._token, "…") if len(self._token) >= _SECRET else text


class Call(Protocol):
    """The bounds of the call that a request is part of."""

    def remaining(self) -> float:
        """Seconds until its deadline."""

    def sleep(self, seconds: float) -> None:
        """Wait, unless the call ends meanwhile."""


class Retries(urllib3.Retry):
    """Which failures are repeated, and after how long."""

    RETRY_AFTER_STATUS_CODES = frozenset()  # none beyond those listed
    call: Call
    longest: float

    @classmethod
    def of(cls, settings: Settings, call: Call) -> Retries:
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
        retries.call, retries.longest = call, settings.max_retry_after
        return retries

    def new(self, **changes: Any) -> Retries:
        """Copy the count, with ours beside urllib3's own."""
        retries = super().new(**changes)
        retries.call, retries.longest = self.call, self.longest
        return retries

    def increment(self, *arguments: Any, **others: Any) -> Retries:
        """Count a failure; raises when there were too many."""
        error = others.get("error")
        if isinstance(error, urllib3.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise error  # it will not verify the next time either
        return super().increment(*arguments, **others)

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        """Read ``Retry-After`` as seconds, up to the longest that is obeyed; nonsense is none."""
        try:
            seconds = super().get_retry_after(response)
        except (InvalidHeader, ValueError, OverflowError):
            return None
        return None if seconds is None else min(seconds, self.longest)

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
            raise ServiceError(f"The deadline leaves no time for another attempt after the last: {what}", last.status)
        self.call.sleep(pause)


class Lane:
    """A session that one worker uses at a time, and whose connection can be cut from outside."""

    def __init__(self, settings: Settings, bearer: Bearer):
        self.session = _Session()
        self.session.auth = bearer
        self.session.verify = settings.verify
        if settings.loopback:
            self.session.trust_env = False  # no proxy stands between this machine and itself
        self.adapter = _Adapter(self)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, self.adapter)
        self.thread = threading.Thread()
        #: the connection's socket, and since when an answer is waited for on it
        self.socket: socket.socket | None = None
        self.began: float | None = None

    def start(self, work: Callable[..., None], *arguments: Any) -> None:
        """Begin to work on it, in a thread that does not keep the program from ending."""
        self.thread = threading.Thread(target=work, args=arguments, daemon=True, name="enrichstatus-post")
        self.thread.start()

    def is_busy(self) -> bool:
        """Tell whether it is still worked on."""
        return self.thread.is_alive()

    def cut(self, *, older_than: float | None = None) -> None:
        """Break off what is under way; or only an answer waited for longer than so many seconds, however steadily it trickles."""
        began, connected = self.began, self.socket
        if connected is None:
            return
        if older_than is None or (began is not None and time.monotonic() - began > older_than):
            self.began = None
            with suppress(OSError):
                # of the plain socket: TLS would wait for the other side to say goodbye
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _Session(requests.Session):
    def get_redirect_target(self, response: requests.Response) -> None:
        """Follow nothing, and read no target, which may be anything."""


class _Adapter(HTTPAdapter):
    def __init__(self, lane: Lane):
        self._lane = lane
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _pool(urllib3.HTTPConnectionPool, HTTPConnection, self._lane),
            "https": _pool(urllib3.HTTPSConnectionPool, HTTPSConnection, self._lane),
        }


def _pool(pool: type, connection: type, lane: Lane) -> type:
    """Make pools whose connections tell the lane their socket, and when they begin to wait."""

    def _new_conn(self: Any) -> socket.socket:
        # TLS takes the socket for its own: until it has shaken hands, a second handle is what it can be cut with
        plain: socket.socket = connection._new_conn(self)  # type: ignore[attr-defined]
        lane.socket = plain.dup()
        return plain

    def connect(self: Any) -> None:
        try:
            connection.connect(self)  # type: ignore[attr-defined]
        finally:
            if lane.socket is not None:
                lane.socket.close()
            lane.socket = self.sock

    def request(self: Any, *arguments: Any, **options: Any) -> Any:
        lane.began = time.monotonic()
        return connection.request(self, *arguments, **options)  # type: ignore[attr-defined]

    watched = type(connection.__name__, (connection,), {"_new_conn": _new_conn, "connect": connect, "request": request})
    return type(pool.__name__, (pool,), {"ConnectionCls": watched})


def brief(reason: object) -> str:
    """Cut an error of the libraries below to what a person can use."""
    text = re.sub(r"<[^<>]*>: |HTTPS?Connection(Pool)?\([^()]*\): ", "", " ".join(str(reason).split()))
    return text[:300]


def scrubbed(error: Exception) -> Exception:
    """Take the token off the request that an error of requests carries."""
    request = getattr(error, "request", None)
    if request is not None:
        request.headers.pop("Authorization", None)
    return error
