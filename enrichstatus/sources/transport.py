"""Posts to the remote service: a few at once, repeated where that helps, none forever, and the token told to nobody else."""

from __future__ import annotations

import queue
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import InvalidHeader, MaxRetryError, ProtocolError

from enrichstatus.errors import EnrichStatusError, ServiceError, UnauthorizedError
from enrichstatus.sources.answers import Unreadable, error_of

T = TypeVar("T")

_REPEATED = (429, 500, 502, 503, 504)
#: No wait between two attempts is longer, unless the service asks for it.
_LONGEST_BACKOFF = 30.0
#: A token shorter than this is no secret, and taken out of a text it would spoil it.
_SECRET = 6
#: Seconds between looks at the clock while answers are waited for.
_GLANCE = 0.2


@dataclass(frozen=True)
class Settings:
    """How one service is asked; durations in seconds."""

    url: str
    connect: float
    read: float
    deadline: float
    retries: int
    backoff: float
    max_retry_after: float
    workers: int
    verify: bool | str
    loopback: bool


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


@dataclass
class Outcome(Generic[T]):
    """What became of some posts, by their place: answered, or failed for good; the others were not reached."""

    answered: dict[int, T] = field(default_factory=dict)
    failed: dict[int, Exception] = field(default_factory=dict)
    interrupted: bool = False


class Transport:
    """Sessions to one service, one for each worker, kept from one call to the next."""

    def __init__(self, settings: Settings, bearer: Bearer):
        self.settings = settings
        self._bearer = bearer
        self._idle: list[_Lane] = []
        self._lock = threading.Lock()

    def post(self, bodies: Sequence[str], read: Callable[[bytes], T], done: Callable[[int], None]) -> Outcome[T]:
        """Post every body, some at once; `read` turns an answer into a result, `done` is told the place of each that ended."""
        outcome: Outcome[T] = Outcome()
        call = _Call(time.monotonic() + self.settings.deadline)
        results: queue.SimpleQueue[tuple[int, T | Exception]] = queue.SimpleQueue()
        todo = iter(enumerate(bodies))
        with self._lanes(min(self.settings.workers, len(bodies)), call) as lanes:
            for lane in lanes:
                lane.thread = threading.Thread(
                    target=self._work, args=(lane, todo, read, results, call), daemon=True, name="enrichstatus-post"
                )
                lane.thread.start()
            try:
                for _ in bodies:
                    place, result = self._next(results, lanes, call)
                    if isinstance(result, Exception):
                        outcome.failed[place] = result
                    else:
                        outcome.answered[place] = result
                    done(place)
                    if isinstance(result, UnauthorizedError):
                        break  # the others would be refused alike
            except _OutOfTime:
                pass
            except KeyboardInterrupt:
                outcome.interrupted = True
        if not outcome.interrupted:
            late = ServiceError(
                f"{self.settings.url} did not answer within the deadline of {self.settings.deadline:g} s."
            )
            refused = next((error for error in outcome.failed.values() if isinstance(error, UnauthorizedError)), late)
            for place in range(len(bodies)):
                if place not in outcome.answered:
                    outcome.failed.setdefault(place, refused)
        return outcome

    def close(self) -> None:
        """Close the connections that are open."""
        with self._lock:
            lanes, self._idle = self._idle, []
        for lane in lanes:
            lane.session.close()

    @contextmanager
    def _lanes(self, count: int, call: _Call) -> Iterator[list[_Lane]]:
        """Lend sessions; at the end nothing is under way on any of them, whatever has happened."""
        with self._lock:
            lanes = [self._idle.pop() for _ in range(min(count, len(self._idle)))]
        lanes += [_Lane(self.settings, self._bearer) for _ in range(count - len(lanes))]
        try:
            yield lanes
        finally:
            call.stopped.set()
            for lane in lanes:
                lane.cut(older_than=0)
            patience = time.monotonic() + 1
            for lane in lanes:
                if lane.thread:
                    lane.thread.join(max(0.0, patience - time.monotonic()))
            with self._lock:
                self._idle += [lane for lane in lanes if not (lane.thread and lane.thread.is_alive())]

    def _next(
        self, results: queue.SimpleQueue[tuple[int, T | Exception]], lanes: Sequence[_Lane], call: _Call
    ) -> tuple[int, T | Exception]:
        while True:
            with suppress(queue.Empty):
                return results.get(timeout=max(0.0, min(_GLANCE, call.remaining())))
            if call.remaining() <= 0:
                raise _OutOfTime
            for lane in lanes:
                lane.cut(older_than=self.settings.read)

    def _work(
        self,
        lane: _Lane,
        todo: Iterator[tuple[int, str]],
        read: Callable[[bytes], T],
        results: queue.SimpleQueue[tuple[int, T | Exception]],
        call: _Call,
    ) -> None:
        while not call.stopped.is_set():
            with self._lock:
                place, body = next(todo, (-1, ""))
            if place < 0:
                return
            try:
                results.put((place, self._answer(lane, body, read, call)))
            except _OutOfTime:
                return
            except Exception as error:
                results.put((place, error))

    def _answer(self, lane: _Lane, body: str, read: Callable[[bytes], T], call: _Call) -> T:
        retries: Any = _Retries.of(self.settings, call)
        while True:
            lane.adapter.max_retries = retries
            try:
                # not read here: an answer that is cut off has to count among the repetitions
                response = lane.session.post(
                    self.settings.url,
                    data=body.encode(),
                    headers={"Content-Type": "application/json"},
                    timeout=(self.settings.connect, self.settings.read),
                    allow_redirects=False,
                    stream=True,
                )
            except requests.RequestException as error:
                raise self._unreachable(error) from _scrubbed(error)
            with response:
                retries = response.raw.retries
                try:
                    content = response.content
                    lane.began = None
                    if response.status_code != 200:
                        raise error_of(response, self.settings.url, self._bearer.hide)
                    return read(content)
                except (requests.RequestException, Unreadable) as error:
                    lane.began = None
                    cause = _scrubbed(error)
                    try:
                        retries = retries.increment("POST", self.settings.url, error=ProtocolError(str(error)))
                    except MaxRetryError:
                        raise self._unreachable(error) from cause
            retries.sleep()

    def _unreachable(self, error: Exception) -> ServiceError:
        """Say in a line why there is no usable answer."""
        reason: object = error
        if isinstance(error, requests.RequestException):
            inner = error.args[0] if error.args else error
            reason = getattr(inner, "reason", None) or inner
        return ServiceError(f"{self.settings.url} gave no usable answer: {self._bearer.hide(brief(reason))}")


class _OutOfTime(EnrichStatusError):
    """The call is over: its time is up, or it was interrupted."""


class _Call:
    """The bounds of one call, which all its workers keep."""

    def __init__(self, until: float):
        self._until = until
        self.stopped = threading.Event()

    def remaining(self) -> float:
        return self._until - time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait, unless the call ends meanwhile."""
        if self.stopped.wait(seconds):
            raise _OutOfTime


class _Retries(urllib3.Retry):
    """Which failures are repeated, and after how long."""

    call: _Call
    longest: float

    @classmethod
    def of(cls, settings: Settings, call: _Call) -> _Retries:
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

    def new(self, **changes: Any) -> _Retries:
        retries = super().new(**changes)
        retries.call, retries.longest = self.call, self.longest
        return retries

    def increment(self, *arguments: Any, **others: Any) -> _Retries:
        error = others.get("error")
        if isinstance(error, urllib3.exceptions.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise error  # it will not verify the next time either
        return super().increment(*arguments, **others)

    def get_retry_after(self, response: urllib3.BaseHTTPResponse) -> float | None:
        try:
            seconds = super().get_retry_after(response)
        except InvalidHeader:
            return None
        return None if seconds is None else min(seconds, self.longest)

    def get_backoff_time(self) -> float:
        # urllib3's own repeats the first time at once, which helps no service that is down
        longest = min(self.backoff_factor * 2.0 ** (len(self.history) - 1), _LONGEST_BACKOFF)
        return longest * random.uniform(0.5, 1)

    def sleep(self, response: urllib3.BaseHTTPResponse | None = None) -> None:
        asked = self.get_retry_after(response) if response else None
        pause = self.get_backoff_time() if asked is None else asked
        if pause > self.call.remaining():
            last = self.history[-1]
            what = f"it answered {last.status}" if last.status else brief(last.error)
            raise ServiceError(f"The deadline leaves no time for another attempt after the last: {what}", last.status)
        self.call.sleep(pause)


class _Lane:
    """A session that one worker uses at a time, and whose connection can be cut from outside."""

    def __init__(self, settings: Settings, bearer: Bearer):
        self.session = requests.Session()
        self.session.auth = bearer
        self.session.verify = settings.verify
        if settings.loopback:
            self.session.trust_env = False  # no proxy stands between this machine and itself
        self.adapter = _Adapter(self)
        for scheme in ("http://", "https://"):
            self.session.mount(scheme, self.adapter)
        self.thread: threading.Thread | None = None
        #: the connection's socket, and since when an answer is waited for on it
        self.socket: socket.socket | None = None
        self.began: float | None = None

    def cut(self, *, older_than: float) -> None:
        """Break off an answer that has been waited for longer than so many seconds, however steadily it trickles."""
        began, connected = self.began, self.socket
        if began is not None and connected is not None and time.monotonic() - began > older_than:
            self.began = None
            with suppress(OSError):
                # of the plain socket: TLS would wait for the other side to say goodbye
                socket.socket.shutdown(connected, socket.SHUT_RDWR)


class _Adapter(HTTPAdapter):
    def __init__(self, lane: _Lane):
        self._lane = lane
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = {
            "http": _pool(urllib3.HTTPConnectionPool, HTTPConnection, self._lane),
            "https": _pool(urllib3.HTTPSConnectionPool, HTTPSConnection, self._lane),
        }


def _pool(pool: type, connection: type, lane: _Lane) -> type:
    """Make pools whose connections tell the lane their socket, and when they begin to wait."""

    def connect(self: Any) -> None:
        connection.connect(self)  # type: ignore[attr-defined]
        lane.socket = self.sock

    def request(self: Any, *arguments: Any, **options: Any) -> Any:
        lane.began = time.monotonic()
        return connection.request(self, *arguments, **options)  # type: ignore[attr-defined]

    watched = type(connection.__name__, (connection,), {"connect": connect, "request": request})
    return type(pool.__name__, (pool,), {"ConnectionCls": watched})


def brief(reason: object) -> str:
    """Cut an error of the libraries below to what a person can use."""
    text = re.sub(r"<[^<>]*>: |HTTPS?Connection(Pool)?\([^()]*\): ", "", " ".join(str(reason).split()))
    return text[:300]


def _scrubbed(error: Exception) -> Exception:
    """Take the token off the request that an error of requests carries."""
    request = getattr(error, "request", None)
    if request is not None:
        request.headers.pop("Authorization", None)
    return error
