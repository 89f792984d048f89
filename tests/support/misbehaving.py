"""A real HTTP server on the loopback that misbehaves as it is told to: plain sockets, and a thread for each connection."""

from __future__ import annotations

import gzip
import importlib.util
import json
import os
import shutil
import socket
import ssl
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, TypeAlias

import pytest

from tests.support.factory import record

#: No socket of the server waits longer than this, whatever a test forgets.
PATIENCE = 30.0
_TEMPLATE = record()


@dataclass
class Request:
    """What was requested of the server; `number` counts the server's requests from 0, `connection` its connections."""

    number: int
    connection: int
    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    #: when the last byte of it had come, by the monotonic clock and by the wall's
    when: float = field(default_factory=time.monotonic)
    wall: float = field(default_factory=time.time)
    #: when the first byte of its answer was about to be sent, and when the last had been; None while there is none
    begun: float | None = None
    answered: float | None = None

    @property
    def tasks(self) -> list[dict[str, str]]:
        """The tasks that its body asks for."""
        tasks: list[dict[str, str]] = json.loads(self.body)["tasks"]
        return tasks


class Gone(Exception):
    """The server is being stopped while an answer waits."""


class Wire:
    """The server's end of a connection, as an answer sees it."""

    def __init__(self, connection: socket.socket, server: Misbehaving):
        self.connection = connection
        self._server = server
        self._request: Request | None = None

    def begin(self, request: Request) -> None:
        self._request = request

    def send(self, data: bytes) -> None:
        """Send bytes; with the first of them the request is no longer in flight."""
        if self._request:
            self._request.begun = time.monotonic()
            self._request = None
            self._server.landed()
        self.connection.sendall(data)

    def pause(self, seconds: float) -> None:
        """Wait, but not for longer than the server lives."""
        if self._server.stopping.wait(seconds):
            raise Gone

    def until_closed(self) -> None:
        """Wait until the client closes the connection (or the server stops)."""
        while self.connection.recv(65536):
            pass


#: Sends an answer to a request, or whatever it sends instead; gives whether the connection can be used again.
Answer: TypeAlias = Callable[[Wire, Request], bool]
Choose: TypeAlias = Callable[[Request], Answer]


class Misbehaving:
    """The server, as a context manager: `choose` says for each request which answer it gets.

    With `tls` it uses TLS, and is `hesitant` for so many seconds before it shakes hands.
    """

    host = "127.0.0.1"

    def __init__(self, choose: Choose, *, tls: ssl.SSLContext | None = None, hesitant: float = 0):
        self.choose = choose
        self.tls = tls
        self.hesitant = hesitant
        #: every request, in the order in which they came
        self.requests: list[Request] = []
        #: how many connections were made, and the most requests that were in flight at once
        self.connections = 0
        self.most_in_flight = 0
        self.stopping = threading.Event()
        self._in_flight = 0
        self._changed = threading.Condition()
        self._open: dict[int, socket.socket] = {}
        self._threads: list[threading.Thread] = []

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://{self.host}:{self.port}"

    @property
    def sizes(self) -> list[int]:
        """The number of tasks of each request, the largest first."""
        return sorted((len(request.tasks) for request in self.requests), reverse=True)

    def wait_for(self, condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
        """Wait until something is so, that changes when a request comes or is answered."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.stopping.is_set() or condition(), timeout), (
                f"not so after {timeout} s"
            )
        if self.stopping.is_set():
            raise Gone

    def settle(self, connections: int = 0) -> None:
        """Wait until so many connections are open and no more."""
        self.wait_for(lambda: len(self._open) == connections, 5)

    def __enter__(self) -> Misbehaving:
        self._listener = socket.create_server((self.host, 0), backlog=64)
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stopping.set()
        with suppress(OSError):  # wakes the thread that accepts
            socket.create_connection((self.host, self.port), 5).close()
        self._threads[0].join(PATIENCE)
        self._listener.close()
        with self._changed:
            self._changed.notify_all()
            for connection in self._open.values():
                with suppress(OSError):  # the plain one, that leaves the TLS of a thread that reads alone
                    socket.socket.shutdown(connection, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads), "the server did not stop"

    def landed(self) -> None:
        with self._changed:
            self._in_flight -= 1

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, name="misbehaving", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if self.stopping.is_set():
                connection.close()
                return
            connection.settimeout(PATIENCE)
            self.connections += 1
            with self._changed:
                self._open[self.connections] = connection
            self._start(self._converse, connection, self.connections)

    def _converse(self, connection: socket.socket, number: int) -> None:
        try:
            if self.tls:
                connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
                with self._changed:
                    self._open[number] = connection
                self.stopping.wait(self.hesitant)
                connection.do_handshake()
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            wire = Wire(connection, self)
            with connection.makefile("rb") as reader:
                while request := self._read(reader, number):
                    wire.begin(request)
                    usable = self.choose(request)(wire, request)
                    with self._changed:
                        request.answered = time.monotonic()
                        self._changed.notify_all()
                    if not usable:
                        break
        except (OSError, Gone):  # the client has gone away, or the server goes
            pass
        finally:
            connection.close()
            with self._changed:
                del self._open[number]
                self._changed.notify_all()

    def _read(self, reader: Any, connection: int) -> Request | None:
        line = reader.readline().decode("latin-1").split()
        # a TLS handshake is full of random bytes, three words and a line's end among them now and then
        if len(line) != 3 or not line[2].startswith("HTTP/"):
            return None
        headers: dict[str, str] = {}
        while (header := reader.readline().decode("latin-1").strip()) != "":
            name, _, value = header.partition(":")
            headers[name.lower()] = value.strip()
        body = reader.read(int(headers.get("content-length", 0)))
        with self._changed:
            request = Request(len(self.requests), connection, line[0], line[1], headers, body)
            self.requests.append(request)
            self._in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self._in_flight)
            self._changed.notify_all()
        return request


def in_turn(*answers: Answer, then: Answer | None = None) -> Choose:
    """Give the first request the first answer, and so on; `then` (well, unless told) is the answer to all that follow."""
    return lambda request: answers[request.number] if request.number < len(answers) else then or well


# What a service that behaves answers


def found(entity: str) -> bool:
    """Say whether the well-behaved service has found data of an entity: of about every other."""
    return int(uuid.UUID(entity)) % 2 == 0


def finished(task: Mapping[str, str]) -> dict[str, Any]:
    """Make the well-behaved service's record for a task; what is in it depends on the task and nothing else."""
    entity = str(uuid.UUID(task["entityId"]))
    key = {"entityId": entity, "entityType": task.get("entityType", "person"), "field": task["field"]}
    number = str(uuid.uuid5(uuid.NAMESPACE_OID, "/".join(key.values())))
    return _TEMPLATE | key | {"id": number, "dataFound": found(entity)}


def message(status: int = 200, body: bytes = b"", headers: Mapping[str, str] | None = None) -> bytes:
    """Make a whole HTTP response, with the right Content-Length."""
    reason = HTTPStatus(status).phrase if status in iter(HTTPStatus) else "Odd"
    given = {"Content-Type": "application/json", "Content-Length": str(len(body))} | dict(headers or {})
    lines = [f"HTTP/1.1 {status} {reason}", *(f"{name}: {value}" for name, value in given.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


def encoded(payload: Any) -> bytes:
    """Make a body: bytes are one, text is encoded, anything else is JSON."""
    if isinstance(payload, bytes):
        return payload
    return (payload if isinstance(payload, str) else json.dumps(payload)).encode()


def well(wire: Wire, request: Request) -> bool:
    """Answer per the contract: a finished record for each task."""
    wire.send(message(body=encoded([finished(task) for task in request.tasks])))
    return True


def reply(status: int, payload: Any = b"", headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with a status, a body and headers, well-formed as HTTP."""

    def answer(wire: Wire, request: Request) -> bool:
        wire.send(message(status, encoded(payload), headers))
        return True

    return answer


def failure(status: int, code: str, text: str = "It went wrong.", headers: Mapping[str, str] | None = None) -> Answer:
    """Answer with an error as the contract has it."""
    return reply(status, {"error": {"code": code, "message": text}}, headers)


def altered(alter: Callable[[list[dict[str, Any]]], Any]) -> Answer:
    """Answer with what is made of the records of an answer per the contract."""

    def answer(wire: Wire, request: Request) -> bool:
        wire.send(message(body=encoded(alter([finished(task) for task in request.tasks]))))
        return True

    return answer


def zipped(wire: Wire, request: Request) -> bool:
    """Answer per the contract, in gzip."""
    body = gzip.compress(encoded([finished(task) for task in request.tasks]))
    wire.send(message(body=body, headers={"Content-Encoding": "gzip"}))
    return True


def bomb(status: int = 200, megabytes: int = 512) -> Answer:
    """Answer with half a megabyte of gzip that is `megabytes` when unpacked."""
    return reply(status, gzip.compress(b"[" * 2**20) * megabytes, {"Content-Encoding": "gzip"})


def in_chunks(wire: Wire, request: Request) -> bool:
    """Answer per the contract, in chunks."""
    body = encoded([finished(task) for task in request.tasks])
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    for start in range(0, len(body), 100):
        chunk = body[start : start + 100]
        wire.send(b"%x\r\n%s\r\n" % (len(chunk), chunk))
    wire.send(b"0\r\n\r\n")
    return True


def until_the_end(wire: Wire, request: Request) -> bool:
    """Answer per the contract, without a length: the body ends where the connection does."""
    wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + encoded([finished(task) for task in request.tasks]))
    return False


def well_then_gone(wire: Wire, request: Request) -> bool:
    """Answer per the contract, then close the connection without having said so."""
    well(wire, request)
    return False


def in_pieces(wire: Wire, request: Request) -> bool:
    """Answer per the contract, slowly but surely: ten pieces in about a quarter of a second."""
    whole = message(body=encoded([finished(task) for task in request.tasks]))
    size = len(whole) // 9
    for start in range(0, len(whole), size):
        wire.send(whole[start : start + size])
        wire.pause(0.025)
    return True


# What a service that does not behave does instead


def close(wire: Wire, request: Request) -> bool:
    """Close the connection instead of an answer."""
    return False


def reset(wire: Wire, request: Request) -> bool:
    """Reset the connection instead of an answer."""
    wire.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    return False


def half_the_headers(wire: Wire, request: Request) -> bool:
    """Close the connection in the middle of a header."""
    wire.send(b"HTTP/1.1 200 OK\r\nContent-Type: applicat")
    return False


def half_the_body(wire: Wire, request: Request) -> bool:
    """Close the connection in the middle of a body whose length was reported."""
    whole = message(body=encoded([finished(task) for task in request.tasks]))
    wire.send(whole[: len(whole) - 150])
    return False


def no_last_chunk(wire: Wire, request: Request) -> bool:
    """Send a whole body as one chunk, and close the connection before the chunk that says it was all."""
    body = encoded([finished(task) for task in request.tasks])
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body))
    return False


def half_a_chunk(wire: Wire, request: Request) -> bool:
    """Close the connection in the middle of a chunk."""
    body = encoded([finished(task) for task in request.tasks])
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s" % (len(body), body[:-50]))
    return False


def truncated(wire: Wire, request: Request) -> bool:
    """Send half of the JSON, with the length of the half."""
    wire.send(message(body=encoded([finished(task) for task in request.tasks])[:-40]))
    return True


def never(wire: Wire, request: Request) -> bool:
    """Never answer."""
    wire.until_closed()
    return False


def _trickle(wire: Wire, data: bytes) -> bool:
    for place in range(len(data)):
        wire.send(data[place : place + 1])
        wire.pause(0.2)
    return False


def trickling_status(wire: Wire, request: Request) -> bool:
    """Send a byte now and then, from the first on: the status line takes seconds."""
    return _trickle(wire, message(body=encoded([finished(task) for task in request.tasks])))


def trickling_headers(wire: Wire, request: Request) -> bool:
    """Send a byte now and then, after the status line."""
    whole = message(body=encoded([finished(task) for task in request.tasks]))
    start = whole.index(b"\r\n") + 2
    wire.send(whole[:start])
    return _trickle(wire, whole[start:])


def trickling_body(wire: Wire, request: Request) -> bool:
    """Send a byte now and then, after the headers."""
    whole = message(body=encoded([finished(task) for task in request.tasks]))
    start = whole.index(b"\r\n\r\n") + 4
    wire.send(whole[:start])
    return _trickle(wire, whole[start:])


def trickling_chunks(wire: Wire, request: Request) -> bool:
    """Send a chunk of one byte now and then."""
    wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for byte in encoded([finished(task) for task in request.tasks]):
        wire.send(b"1\r\n%c\r\n" % byte)
        wire.pause(0.2)
    return False


def endless(wire: Wire, request: Request) -> bool:
    """Send a body that has no end, and never pauses for long."""
    wire.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[")
    while True:
        wire.send(b" " * 4096)
        wire.pause(0.01)


def flooding(status: int) -> Answer:
    """Send a status and a body that has no end, as fast as it goes."""

    def answer(wire: Wire, request: Request) -> bool:
        wire.send(b"HTTP/1.1 %d Odd\r\nConnection: close\r\n\r\n[" % status)
        while True:
            wire.send(b" " * 2**20)

    return answer


def endless_headers(wire: Wire, request: Request) -> bool:
    """Say over and over that the answer is yet to come: 100 Continue, which HTTP lets a server repeat."""
    while True:
        wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        wire.pause(0.05)


def raw(data: bytes) -> Answer:
    """Send bytes, HTTP or not, and close the connection."""

    def answer(wire: Wire, request: Request) -> bool:
        wire.send(data)
        return False

    return answer


# What stands in for a network that does not behave


class Refusing:
    """A port where nobody listens, and nobody can begin to as long as it is held."""

    def __enter__(self) -> str:
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __exit__(self, *error: object) -> None:
        self._socket.close()


class Silent:
    """A port where connections are made and nothing is ever said, not even what TLS begins with."""

    def __enter__(self) -> Silent:
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=16)]
        self._sockets[0].settimeout(PATIENCE)
        self.address = f"127.0.0.1:{self._sockets[0].getsockname()[1]}"
        return self

    def __exit__(self, *error: object) -> None:
        for one in self._sockets:
            one.close()

    def wait_for(self, connections: int) -> None:
        """Wait until so many connections have been made."""
        self._sockets += [self._sockets[0].accept()[0] for _ in range(connections)]


class Full:
    """A port where no connection is ever made: the queue of those to be accepted is full, and stays so."""

    def __enter__(self) -> str:
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=0)]
        address = self._sockets[0].getsockname()
        for _ in range(16):
            waiting = socket.socket()
            self._sockets.append(waiting)
            waiting.settimeout(0.2)
            try:
                waiting.connect(address)
            except TimeoutError:
                return f"http://127.0.0.1:{address[1]}"
        self.__exit__()
        pytest.skip("this system accepts connections beyond the queue")

    def __exit__(self, *error: object) -> None:
        for one in self._sockets:
            one.close()


# TLS


def certified(folder: Path, names: Sequence[str] = ("127.0.0.1", "localhost")) -> tuple[ssl.SSLContext, Path]:
    """Make a TLS context for a server of these names, and the file of the authority that nobody but us trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority = folder / "authority.pem"
    if importlib.util.find_spec("trustme"):
        import trustme

        ca = trustme.CA()
        ca.issue_cert(*names).configure_cert(context)
        ca.cert_pem.write_to_path(os.fspath(authority))
        return context, authority
    if not (openssl := shutil.which("openssl")):
        pytest.skip("neither trustme nor the command openssl is here to make a certificate")
    key = folder / "key.pem"
    alternatives = ",".join(f"{'IP' if name[0].isdigit() else 'DNS'}:{name}" for name in names)
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=misbehaving"]
    command += ["-addext", f"subjectAltName={alternatives}", "-keyout", os.fspath(key), "-out", os.fspath(authority)]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    context.load_cert_chain(authority, key)
    return context, authority
