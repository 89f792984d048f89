"""The endpoint over real sockets: what it answers, what it refuses, and what harms nobody else."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import logging
import os
import random
import re
import shutil
import socket
import struct
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import chain, count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import duckdb
import pytest
import requests
from hypothesis import given, settings
from hypothesis import strategies as st

import enrichstatus as es
from enrichstatus.schema import COLUMNS, ENTITY_TYPES, FIELDS, KEY
from enrichstatus.server import app as server
from enrichstatus.server import create_app
from tests.support.bodies import BROKEN
from tests.support.cases import cases
from tests.support.factory import record, task, uid
from tests.support.serving import DOCUMENTED, MOMENT, NOBODY, ONE, PATH, TOKENS, TWO, running, write_tokens
from tests.support.waiting import until

MIB = 1 << 20
ASK = json.dumps({"tasks": [task(0)]}).encode()
RECORDS = [
    *(record(n, createdBy="of org_1") for n in range(10)),
    *(record(100 + n, entityId=uid(n), orgId="org_2", createdBy="of org_2", dataFound=False) for n in range(0, 10, 2)),
    record(200, entityId=uid(0), entityType="company", field="summary", error="Zürich ☃ \U0001f600"),
    record(201, entityId=uid(1), field="phones", status="pending", dataFound=None),  # an hour old: a timeout
    record(202, entityId=DOCUMENTED),
]


@contextmanager
def serving(store: es.EnrichmentStore, folder: Path) -> Iterator[str]:
    """Serve a store to TOKENS, its clock standing at NOW."""
    tokens = write_tokens(folder / "tokens.toml", TOKENS)
    with running(create_app(store, tokens, clock=lambda: MOMENT)) as base:
        yield base


@pytest.fixture(scope="module")
def filled() -> Iterator[es.EnrichmentStore]:
    with es.EnrichmentStore() as store:
        store.load(RECORDS)
        yield store


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The records of `filled` as ``enrichstatus serve`` has them: in a snapshot."""
    folder = tmp_path_factory.mktemp("server")
    with es.EnrichmentStore(folder / "s.duckdb") as store:
        store.load(RECORDS)
    with (
        es.EnrichmentStore(folder / "s.duckdb", read_only=True, preload=True) as store,
        serving(store, folder) as base,
    ):
        yield base


def ask(
    base: str, body: Any = ASK, token: str | None = ONE, method: str = "POST", path: str = PATH, **headers: str | bytes
) -> requests.Response:
    """Send one request on a connection of its own; a body that is not bytes is sent as JSON."""
    authorization = {} if token is None else {"Authorization": f"Bearer {token}"}
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    with requests.Session() as session:
        session.trust_env = False
        return session.request(
            method, base + path, data=data, headers=authorization | headers, timeout=20, allow_redirects=False
        )


def error_of(answer: requests.Response | Answer, status: int, code: str) -> str:
    """Check that an answer is an error of the contract's shape, and give its message."""
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (status, "application/json")
    (name, error), *others = answer.json().items()
    assert (name, others, sorted(error), error["code"]) == ("error", [], ["code", "message"], code)
    assert isinstance(error["message"], str)
    assert error["message"].strip()
    return error["message"]


class Answer:
    """An answer that was read from a raw socket, with the members of `requests.Response` that are used here."""

    def __init__(self, sock: socket.socket, method: str = "POST"):
        response = http.client.HTTPResponse(sock, method=method)
        try:
            response.begin()
            self.status_code, self.headers, self.content = response.status, response.headers, response.read()
        finally:
            response.close()

    def json(self) -> Any:
        return json.loads(self.content)


def connected(base: str) -> socket.socket:
    address = urlsplit(base)
    sock = socket.create_connection((address.hostname, address.port), timeout=20)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def raw(body: bytes = b"", token: str | None = ONE, **headers: object) -> bytes:
    """Write a request byte for byte, with a Content-Length unless `headers` say otherwise."""
    lines = {"Host": "localhost"} | ({} if token is None else {"Authorization": f"Bearer {token}"})
    lines |= {name.replace("_", "-"): str(value) for name, value in headers.items()}
    if "Transfer-Encoding" not in lines:
        lines.setdefault("Content-Length", str(len(body)))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"POST {PATH} HTTP/1.1\r\n{head}\r\n".encode() + body


class Collected(logging.Handler):
    """Keeps in order what is logged by the servers that start after it: the module's own may have a last word to say."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.deaf_to = {thread.ident for thread in threading.enumerate()}

    def emit(self, record: logging.LogRecord) -> None:
        if record.thread not in self.deaf_to:
            self.records.append(record)

    def lines(self) -> list[dict[str, Any]]:
        """Give the lines of requests, parsed."""
        return [json.loads(one.getMessage()) for one in self.records if one.levelno == logging.INFO and one.name == LOG]

    def errors(self) -> list[str]:
        """Give all that is worse than a warning, with its traceback."""
        return [self.format(one) for one in self.records if one.levelno >= logging.ERROR]


LOG = "enrichstatus.server"


@pytest.fixture
def logged() -> Iterator[Collected]:
    """Listen to what the server, uvicorn and asyncio log."""
    handler, loggers = Collected(), [logging.getLogger(name) for name in (LOG, "uvicorn.error", "asyncio")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield handler
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)


class Gated(es.EnrichmentStore):
    """A store whose lookups wait at a gate that the test opens, and are counted."""

    def __init__(self, path: Path | str = ":memory:", *, read_only: bool = False) -> None:
        self.gate, self.lookups = threading.Event(), 0
        self.gate.set()
        super().__init__(path, read_only=read_only)
        if not read_only:
            self.load(RECORDS)
        self.lookups = 0

    @contextmanager
    def _cursor(self) -> Iterator[duckdb.DuckDBPyConnection]:
        with super()._cursor() as con:
            self.lookups += 1
            assert self.gate.wait(30), "nobody opened the gate"
            yield con


class Counted:
    """An ASGI app around the server that counts the requests whose body has come."""

    def __init__(self, app: Any):
        self.app, self.come = app, 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def counted() -> Any:
            message = await receive()
            self.come += message["type"] == "http.request" and not message.get("more_body", False)
            return message

        await self.app(scope, counted if scope["type"] == "http" else receive, send)


@contextmanager
def gated(folder: Path) -> Iterator[tuple[str, Gated, Counted]]:
    """Serve a store with a gate, which the test opens, unless it fails."""
    with Gated() as store:
        tokens = write_tokens(folder / "tokens.toml", TOKENS)
        counted = Counted(create_app(store, tokens, clock=lambda: MOMENT))
        with running(counted) as base:
            try:
                yield base, store, counted
            except BaseException:
                store.gate.set()
                raise


# --- what is answered ---------------------------------------------------------------------------------------------------------


def test_the_answer_is_the_stores(base: str, filled: es.EnrichmentStore):
    """An answer is the objects that `query` gives in process, with their members in the contract's order, as JSON."""
    body = {"tasks": [task(3), task(0), task(99), task(1, "phones"), task(0, "summary") | {"entityType": "company"}]}
    answer = ask(base, body)
    assert (answer.status_code, answer.headers["Content-Type"].split(";")[0]) == (200, "application/json")
    assert answer.json() == filled.query(body, org_id="org_1", now=MOMENT)
    assert [one["status"] for one in answer.json()] == ["finished", "finished", "timeout", "finished"]
    assert answer.json()[3]["error"] == "Zürich ☃ \U0001f600"
    assert [tuple(one) for one in answer.json()] == [COLUMNS] * 4


def test_nothing_found_is_an_empty_array(base: str):
    """Tasks without a record are left out; where none has one, the answer is 200 and []."""
    answer = ask(base, {"tasks": [task(99), task(98)]})
    assert (answer.status_code, answer.json()) == (200, [])


@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl on this machine")
def test_the_documentations_call_works_as_written(base: str, filled: es.EnrichmentStore):
    """The documented curl call, run by curl in a shell, gets the record."""
    call = """curl -X POST "$BASE/api/v1/operations/enrichment/batch/query" -H "Authorization: Bearer $TOKEN" \
-H "Content-Type: application/json" \
-d '{"tasks":[{"entityId":"f81d4fae-7dec-11d0-a765-00a0c91e6bf6","field":"emails","entityType":"person"}]}'"""
    env = os.environ | {"BASE": base, "TOKEN": ONE, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run(["sh", "-c", call], env=env, capture_output=True, check=True, timeout=20)
    asked = {"entityId": DOCUMENTED, "field": "emails", "entityType": "person"}
    assert json.loads(done.stdout) == filled.query({"tasks": [asked]}, org_id="org_1", now=MOMENT)
    assert [one["entityId"] for one in json.loads(done.stdout)] == [DOCUMENTED]


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
def test_the_scheme_is_caseless(base: str, scheme: str):
    """The name of the scheme is understood in any case (RFC 9110), and the token decides whose records are seen."""
    for token, org in ((ONE, "org_1"), (TWO, "org_2")):
        answer = ask(base, token=None, Authorization=f"{scheme} {token}")
        assert (answer.status_code, [one["orgId"] for one in answer.json()]) == (200, [org])


@pytest.mark.parametrize("kind", [None, "application/json; charset=utf-8", "text/plain", "application/xml", "nonsense"])
def test_the_requests_content_type_is_not_judged(base: str, kind: str | None):
    """JSON is read as JSON, whatever the header calls it, or where there is none."""
    answer = ask(base, **({} if kind is None else {"Content-Type": kind}))
    assert (answer.status_code, len(answer.json())) == (200, 1)


@pytest.mark.parametrize(
    "body",
    [
        {"tasks": [task(0)], "limit": 5, "": None, "more": {"tasks": [None]}},
        {"tasks": [task(0) | {"note": ["x", {"field": 1}], "entityID": 7, "id": None}]},
    ],
    ids=["of the body", "of a task"],
)
def test_unknown_members_are_ignored(base: str, body: Any):
    """Members that the contract does not know, of the body or of a task, change nothing."""
    assert ask(base, body).json() == ask(base).json()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"tasks": [], "tasks": %s}', 200),
        (b'{"tasks": 5, "tasks": %s}', 200),
        (b'{"tasks": [{"entityId": 1}], "tasks": %s}', 200),
        (b'{"tasks": %s, "tasks": []}', 400),
        (b'{"tasks": %s, "tasks": null}', 400),
        (b'{"tasks": [{"entityId": "x", "entityId": "%i", "field": null, "field": "emails"}]}', 200),
        (b'{"tasks": [{"entityId": "%i", "entityId": "x", "field": "emails"}]}', 400),
        (b'{"tasks": [{"entityId": "%i", "field": "emails", "entityType": null, "entityType": "person"}]}', 200),
        (b'{"tasks": [{"entityId": "%i", "field": "emails", "entityType": "person", "entityType": null}]}', 400),
    ],
    ids=lambda value: value.decode() if isinstance(value, bytes) else "",
)
def test_of_duplicate_keys_the_last_speaks(base: str, body: bytes, status: int):
    """Of members of the same name the last one counts, and the ones before are not evaluated."""
    tasks = json.dumps([task(0)]).encode()
    answer = ask(base, body.replace(b"%s", tasks).replace(b"%i", uid(0).encode()))
    if status == 400:
        error_of(answer, 400, "VALIDATION_ERROR")
    else:
        assert (answer.status_code, answer.json()) == (200, ask(base).json())


def test_200_tasks_and_a_body_of_precisely_one_mib_are_answered(base: str):
    """The greatest batch and the greatest body are still allowed, with a Content-Length and in chunks."""
    body = json.dumps({"tasks": [task(n % 10) for n in range(200)]}).encode().ljust(MIB)
    assert len(ask(base, body).json()) == 10
    with connected(base) as sock:
        sock.sendall(raw(Transfer_Encoding="chunked"))
        for start in range(0, MIB, 1 << 16):
            sock.sendall(b"10000\r\n" + body[start : start + (1 << 16)] + b"\r\n")
        sock.sendall(b"0\r\n\r\n")
        answer = Answer(sock)
    assert (answer.status_code, len(answer.json())) == (200, 10)


def test_requests_in_one_packet_are_answered_in_turn(base: str):
    """Pipelined requests on one connection get their own answers, in their order; a bad one among them ends nothing."""
    bodies = [{"tasks": [task(n)]} for n in range(3)]
    bodies[1] = {"tasks": []}
    with connected(base) as sock:
        sock.sendall(b"".join(raw(json.dumps(body).encode()) for body in bodies) + raw(ASK, Connection="close"))
        answers = read_all(sock)
    assert [status for status, _ in answers] == [200, 400, 200, 200]
    found = [[one["entityId"] for one in body] for status, body in answers if status == 200]
    assert found == [[uid(0)], [uid(2)], [uid(0)]]


def read_all(sock: socket.socket) -> list[tuple[int, Any]]:
    """Read every answer until the server closes the connection."""
    answers, rest = [], sock.makefile("rb").read()
    while rest:
        head, _, rest = rest.partition(b"\r\n\r\n")
        length = int(re.search(rb"(?i)content-length: *(\d+)", head)[1])  # type: ignore[index]
        answers.append((int(head.split()[1]), json.loads(rest[:length])))
        rest = rest[length:]
    return answers


def test_the_clock_judges_the_timeout_rule(tmp_path: Path):
    """A pending record is a timeout by `clock`; without one by the real time."""
    tokens, now = write_tokens(tmp_path / "tokens.toml", TOKENS), datetime.now(UTC)
    body = {"tasks": [task(0), task(1)]}
    with es.EnrichmentStore() as store:
        made = [(now - timedelta(seconds=ago)).isoformat() for ago in (900, 60)]
        store.load([record(n, status="pending", createdAt=at, updatedAt=at) for n, at in enumerate(made)])
        for clock, expected in (
            (None, ["timeout", "pending"]),
            (lambda: now - timedelta(seconds=600), ["pending", "pending"]),
            (lambda: now + timedelta(seconds=900), ["timeout", "timeout"]),
        ):
            app = create_app(store, tokens) if clock is None else create_app(store, tokens, clock=clock)
            with running(app) as base:
                assert [one["status"] for one in ask(base, body).json()] == expected


# --- what is refused ----------------------------------------------------------------------------------------------------------

GOOD = json.dumps(task(0)).encode()
MALFORMED: dict[str, bytes] = {name: json.dumps(body).encode() for name, (body, _) in BROKEN.items()} | {
    "no body": b"",
    "white space": b" \r\n\t",
    "no json": b"tasks",
    "a form": b"tasks=1",
    "cut off": ASK[:-1],
    "two documents": ASK + ASK,
    "garbage behind": ASK + b"x",
    "a trailing comma": b'{"tasks": [%s,]}' % GOOD,
    "a comment": b"/* */" + ASK,
    "single quotes": ASK.replace(b'"', b"'"),
    "a key without quotes": b"{tasks: [%s]}" % GOOD,
    "a raw line break in text": b'{"x": "\n", "tasks": [%s]}' % GOOD,
    "an unknown escape": b'{"x": "\\x", "tasks": [%s]}' % GOOD,
    "a leading zero": b'{"x": 01, "tasks": [%s]}' % GOOD,
    "utf-16": ASK.decode().encode("utf-16"),
    "utf-16 without a mark": ASK.decode().encode("utf-16-le"),
    "latin-1": ASK.replace(b"emails", b"\xe9mails"),
    "invalid utf-8 in an ignored member": b'{"x": "\xff", "tasks": [%s]}' % GOOD,
    "invalid utf-8 in an ignored key": b'{"\xc3": 1, "tasks": [%s]}' % GOOD,
    "an encoded surrogate": b'{"x": "\xed\xa0\x80", "tasks": [%s]}' % GOOD,
    "a lone surrogate as field": ASK.replace(b"emails", b"\\ud800"),
    "a lone surrogate as id": b'{"tasks": [{"entityId": "\\udfff", "field": "emails"}]}',
    "nested without end": b'{"tasks": ' + b"[" * 100_000,
    "nested deeply": b'{"tasks": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects nested deeply": b'{"tasks": [' + b'{"entityId": ' * 50_000 + b"1" + b"}" * 50_000 + b"]}",
    "an ignored member nested without end": b'{"x": ' + b"[" * 1_000_000,
    "a huge number": b'{"tasks": [{"entityId": 1e999, "field": "emails"}]}',
    "a long number": b'{"tasks": [{"entityId": ' + b"9" * 100_000 + b', "field": "emails"}]}',
    "tasks a huge number": b'{"tasks": ' + b"9" * 5_000 + b"}",
    "tasks a boolean": b'{"tasks": true}',
    "NaN": b'{"tasks": [{"entityId": NaN, "field": "emails"}]}',
    "Infinity": b'{"tasks": Infinity}',
    "NaN in an ignored member": b'{"x": NaN, "tasks": [%s]}' % GOOD,
    "-Infinity in an ignored member": b'{"x": -Infinity, "tasks": [%s]}' % GOOD,
    "an id of a megabyte": json.dumps({"tasks": [{"entityId": "a" * 1_000_000, "field": "emails"}]}).encode(),
    "a field of a megabyte": json.dumps({"tasks": [task(0, "\u00e9" * 100_000)]}).encode(),
    "a nul in an id": json.dumps({"tasks": [{"entityId": uid(0) + "\0", "field": "emails"}]}).encode(),
    "a boolean id": json.dumps({"tasks": [{"entityId": True, "field": "emails"}]}).encode(),
    "an empty type": json.dumps({"tasks": [task(0) | {"entityType": ""}]}).encode(),
    "a type in capitals": json.dumps({"tasks": [task(0) | {"entityType": "PERSON"}]}).encode(),
    "a field in capitals": json.dumps({"tasks": [task(0, "EMAILS")]}).encode(),
    "other spellings of the members": json.dumps({"tasks": [{"entity_id": uid(0), "field": "emails"}]}).encode(),
    "the last of 200 bad": json.dumps({"tasks": [task(n) for n in range(199)] + [task(0, "fax")]}).encode(),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_body_is_a_validation_error(base: str, name: str):
    """Whatever is wrong with a body, the answer is 400 VALIDATION_ERROR in the contract's shape, and says what was wrong."""
    error_of(ask(base, MALFORMED[name]), 400, "VALIDATION_ERROR")


WRONG = {
    "nothing": None,
    "empty": "",
    "no token": "Bearer",
    "no scheme": ONE,
    "an unknown token": "Bearer nonsense",
    "another scheme": f"Basic {ONE}",
    "a token in capitals": f"Bearer {ONE.upper()}",
    "a part of a token": f"Bearer {ONE[:-1]}",
    "a longer token": f"Bearer {ONE}x",
    "two tokens": f"Bearer {ONE} {TWO}",
    "in quotes": f'Bearer "{ONE}"',
    "not ascii": "Bearer tökén",
    "an endless token": "Bearer " + "x" * 10_000,
    "the hash that is stored": "Bearer " + hashlib.sha256(ONE.encode()).hexdigest(),
}


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("body", [ASK, b"{"], ids=["good body", "bad body"])
def test_without_the_right_token_the_answer_is_401(base: str, name: str, body: bytes):
    """No token, or a wrong one, is 401 UNAUTHORIZED with the scheme to use, whatever the body."""
    header = {} if WRONG[name] is None else {"Authorization": WRONG[name].encode()}  # type: ignore[union-attr]
    answer = ask(base, body, token=None, **header)  # type: ignore[arg-type]
    error_of(answer, 401, "UNAUTHORIZED")
    assert answer.headers["WWW-Authenticate"].split()[0] == "Bearer"


@pytest.mark.parametrize("body", [ASK, b"", b"{", b'{"tasks": []}'])
def test_a_token_without_organization_is_told_so(base: str, body: bytes):
    """A known token without an organization gets the contract's message, before the body is evaluated."""
    assert error_of(ask(base, body, token=NOBODY), 400, "VALIDATION_ERROR") == "Organization ID is missing"


@pytest.mark.parametrize("expecting", [{}, {"Expect": "100-continue"}], ids=["", "100-continue"])
def test_a_body_over_one_mib_is_refused_before_it_is_read(base: str, expecting: dict[str, str]):
    """A Content-Length over 1 MiB is refused at once, without a byte of the body; a client that announces it gets the answer not to send."""
    for length in (MIB + 1, 5 * 10**9):
        for token, status, code in (
            (ONE, 400, "VALIDATION_ERROR"),
            (NOBODY, 400, "VALIDATION_ERROR"),
            ("wrong", 401, "UNAUTHORIZED"),
        ):
            with connected(base) as sock:
                sock.sendall(raw(token=token, Content_Length=length, **expecting))
                first = sock.recv(12, socket.MSG_PEEK | socket.MSG_WAITALL)
                message = error_of(Answer(sock), status, code)
            assert first == f"HTTP/1.1 {status}".encode()  # and no 100 before it
            assert (message == "Organization ID is missing") == (token == NOBODY)


def test_a_chunked_body_is_refused_as_soon_as_it_is_over_one_mib(base: str):
    """A body of unknown length is refused when more than 1 MiB has come, though its end has not."""
    with connected(base) as sock:
        sock.sendall(raw(Transfer_Encoding="chunked"))
        for _ in range(16):
            sock.sendall(b"10000\r\n" + b" " * (1 << 16) + b"\r\n")
        sock.sendall(b"1\r\n \r\n")
        error_of(Answer(sock), 400, "VALIDATION_ERROR")
    assert ask(base).status_code == 200


@pytest.mark.parametrize(
    "path", ["/", "/api", PATH + "/", PATH + "/x", PATH.upper(), "/api/v2/operations/enrichment/batch/query", "/%00%0a"]
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_an_unknown_path_is_404(base: str, method: str, path: str):
    """Paths other than the three are 404 NOT_FOUND; none leads elsewhere."""
    error_of(ask(base, method=method, path=path), 404, "NOT_FOUND")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *((method, PATH) for method in ("GET", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")),
        *(("POST", path) for path in ("/healthz", "/openapi.json")),
    ],
)
def test_another_method_is_405(base: str, method: str, path: str):
    """A known path with another method is 405 METHOD_NOT_ALLOWED, and Allow names the right one."""
    answer = ask(base, None, method=method, path=path)
    error_of(answer, 405, "METHOD_NOT_ALLOWED")
    assert ("POST" if path == PATH else "GET") in answer.headers["Allow"].split(", ")
    assert method not in answer.headers["Allow"].split(", ")


def test_a_head_request_is_405_without_a_body(base: str):
    """HEAD of the endpoint is 405 too, and the connection goes on in step."""
    with connected(base) as sock:
        sock.sendall(raw().replace(b"POST", b"HEAD", 1))
        assert Answer(sock, "HEAD").status_code == 405
        sock.sendall(raw(ASK))
        assert Answer(sock).status_code == 200


@pytest.mark.parametrize("kind", ["the engine", "a mistake in the program"])
def test_a_failing_store_tells_nothing_of_the_inside(
    tmp_path: Path, logged: Collected, kind: str, monkeypatch: pytest.MonkeyPatch
):
    """When a query fails: 500 with an id, the same in the header, the line and the log beside the traceback; nothing of why."""
    with es.EnrichmentStore(tmp_path / "secret.duckdb") as store:
        if kind == "the engine":
            with store._cursor() as con:
                con.execute("drop table enrichments")
        else:

            def failing() -> Any:
                raise RuntimeError(f"secret: no enrichments in {tmp_path}")

            monkeypatch.setattr(store, "_cursor", failing)
        with serving(store, tmp_path) as base:
            ids = set()
            for _ in range(3):
                answer = ask(base)
                message = error_of(answer, 500, "INTERNAL_ERROR")
                ids.add(name := answer.headers["X-Request-ID"])
                assert name in message
                inside = ["secret", str(tmp_path), "enrichments", "Catalog", "duckdb", "select", "Error:", "Traceback"]
                assert [word for word in inside if word.lower() in answer.text.lower()] == []
                (entry,) = [one for one in logged.errors() if name in one]
                assert "Traceback" in entry
                assert "enrichments" in entry
                until(lambda name=name: name in [line["request"] for line in logged.lines()])
            assert error_of(ask(base, b"{"), 400, "VALIDATION_ERROR")
    assert len(ids) == 3
    assert [line["status"] for line in logged.lines()] == [500, 500, 500, 400]


def test_a_closed_store_is_500_and_not_healthy(tmp_path: Path):
    """Health is 200 while the store can be read, needs no token, and is 503 UNAVAILABLE when it was closed; a query is 500 then."""
    store = es.EnrichmentStore()
    with serving(store, tmp_path) as base:
        answer = ask(base, None, None, "GET", "/healthz")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        store.close()
        error_of(ask(base, None, None, "GET", "/healthz"), 503, "UNAVAILABLE")
        error_of(ask(base), 500, "INTERNAL_ERROR")


# --- many at once -------------------------------------------------------------------------------------------------------------


def test_a_bad_request_never_harms_those_it_waits_with(tmp_path: Path):
    """Of requests that wait together, each gets its own: the bad their 400, the good their objects, of their organization."""
    with gated(tmp_path) as (base, store, counted):
        store.gate.clear()
        bad = [{"tasks": [task(0), {"entityId": "x", "field": "emails"}]}, {"tasks": [task(1, "fax")]}]
        plan = [(ONE, {"tasks": [task(0)]})] + [
            (token, bad[n % 2] if n % 3 == 0 else {"tasks": [task(n), task(n + 1), task(n)]})
            for n in range(9)
            for token in (ONE, TWO)
        ]
        with ThreadPoolExecutor(len(plan)) as pool:
            answers = [pool.submit(ask, base, body, token) for token, body in plan]
            until(lambda: counted.come == len(plan) and store.lookups)
            store.gate.set()
        for (token, body), answer in zip(plan, answers, strict=True):
            if body in bad:
                error_of(answer.result(), 400, "VALIDATION_ERROR")
            else:
                expected = store.query(body, org_id=TOKENS[token], now=MOMENT)
                assert (answer.result().status_code, answer.result().json()) == (200, expected)


@pytest.mark.slow
def test_16_threads_get_their_own_answers(base: str, filled: es.EnrichmentStore):
    """Sixteen clients of two organizations at once, good and bad requests mixed: every answer is the right one."""
    bodies: list[Any] = [{"tasks": [task(n), task(n + 3), task(n + 40)]} for n in range(8)]
    bodies += [{"tasks": []}, {"tasks": [{"entityId": "x", "field": "emails"}]}, {"tasks": [task(0, "fax")]}]
    right = {
        (token, n): filled.query(body, org_id=TOKENS[token], now=MOMENT) if n < 8 else None
        for token in (ONE, TWO)
        for n, body in enumerate(bodies)
    }

    def client(seed: int) -> Counter[int]:
        order, statuses = random.Random(seed), Counter[int]()
        with requests.Session() as session:
            session.trust_env = False
            for _ in range(25):
                token, n = order.choice(sorted(right))
                answer = session.post(
                    base + PATH, json=bodies[n], headers={"Authorization": f"Bearer {token}"}, timeout=20
                )
                if right[token, n] is None:
                    error_of(answer, 400, "VALIDATION_ERROR")
                else:
                    assert (answer.status_code, answer.json()) == (200, right[token, n])
                statuses[answer.status_code] += 1
        return statuses

    with ThreadPoolExecutor(16) as pool:
        total = sum(pool.map(client, range(16)), Counter[int]())
    assert (total.total(), set(total)) == (400, {200, 400})


def test_slow_senders_are_answered_and_hold_nobody_up(base: str):
    """A request that comes byte by byte is answered when it is complete, and others meanwhile."""
    request, slow = raw(ASK), [connected(base) for _ in range(3)]
    with contextlib.ExitStack() as stack:
        for sock in slow:
            stack.enter_context(sock)
        for n in range(len(request)):
            for sock in slow:
                sock.sendall(request[n : n + 1])
            if n % 100 == 0:
                assert ask(base).status_code == 200
        assert [Answer(sock).status_code for sock in slow] == [200, 200, 200]


def test_a_body_that_takes_too_long_is_cut_off(base: str, monkeypatch: pytest.MonkeyPatch):
    """Who is still sending when the time for a body is over gets 408 REQUEST_TIMEOUT, and the connection is closed under him."""
    monkeypatch.setattr(server, "SLOWEST_BODY", 0.3)
    with connected(base) as sock:
        sock.sendall(raw(Content_Length=1000) + b"{")
        error_of(Answer(sock), 408, "REQUEST_TIMEOUT")
        sock.setblocking(False)

        def closed() -> bool:
            try:
                sock.sendall(b" ")
                return sock.recv(1) == b""
            except BlockingIOError:
                return False
            except ConnectionError:
                return True

        until(closed, 3)


def test_clients_that_hang_up_harm_nothing(tmp_path: Path, logged: Collected):
    """Clients that leave in the middle of the head, of the body or of their waiting cost nobody an answer, and are no error."""
    request = raw(ASK)
    with gated(tmp_path) as (base, store, counted):
        store.gate.clear()
        with ThreadPoolExecutor(4) as pool:
            first = pool.submit(ask, base)
            until(lambda: store.lookups)
            for n, length in enumerate([1, 40, len(request) - len(ASK), len(request) - 1, *[len(request)] * 4]):
                with connected(base) as sock:
                    come = counted.come
                    sock.sendall(request[:length])
                    if length == len(request):
                        until(lambda come=come: counted.come > come)
                    if n % 2:  # a reset in place of an orderly end
                        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            others = [pool.submit(ask, base, token=token) for token in (ONE, TWO, ONE)]
            until(lambda: counted.come == 8)
            store.gate.set()
        for answer, org in zip([first, *others], ["org_1", "org_1", "org_2", "org_1"], strict=True):
            assert [one["orgId"] for one in answer.result().json()] == [org]
        assert ask(base).status_code == 200
    assert logged.errors() == []


def test_a_stop_waits_for_requests_in_flight(tmp_path: Path):
    """When the server is told to stop it takes no new connections, and answers the requests that it has."""
    with ThreadPoolExecutor(6) as pool:
        with gated(tmp_path) as (base, store, counted):
            store.gate.clear()
            answers = [pool.submit(ask, base) for _ in range(3)]
            until(lambda: counted.come == 3 and store.lookups)

            def stopped() -> bool:
                try:
                    connected(base).close()
                except ConnectionRefusedError:
                    return True
                return False

            def open_gate() -> None:
                try:
                    until(stopped)
                finally:
                    store.gate.set()

            late = pool.submit(open_gate)
            assert not any(answer.done() for answer in answers)
        late.result()
        assert [(one.result().status_code, len(one.result().json())) for one in answers] == [(200, 1)] * 3


# --- random bodies ------------------------------------------------------------------------------------------------------------

spelled = (
    st.integers(0, 12)
    .map(uid)
    .flatmap(
        lambda text: st.sampled_from([text, text.upper(), "{" + text + "}", text.replace("-", ""), f" {text}\u2003"])
    )
)
json_values = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5)
)
random_tasks = st.fixed_dictionaries(
    {"entityId": spelled, "field": st.sampled_from(FIELDS)},
    optional={"entityType": st.sampled_from(ENTITY_TYPES), "note": json_values | st.lists(json_values, max_size=2)},
)


@pytest.mark.slow
@settings(max_examples=cases(20, 150), deadline=None)
@given(tasks=st.lists(random_tasks, min_size=1, max_size=30), token=st.sampled_from([ONE, TWO]), plain=st.booleans())
def test_random_bodies_are_answered_as_in_process(
    base: str, filled: es.EnrichmentStore, tasks: list[dict[str, Any]], token: str, plain: bool
):
    """For any body the endpoint's answer is what `query` gives in process."""
    answer = ask(base, json.dumps({"tasks": tasks}, ensure_ascii=plain).encode(), token)
    assert (answer.status_code, answer.json()) == (
        200,
        filled.query({"tasks": tasks}, org_id=TOKENS[token], now=MOMENT),
    )


ORGS = ("org_1", "org_2", "org_3")
owned = st.tuples(
    st.sampled_from(ORGS),
    st.integers(0, 3),
    st.sampled_from(["emails", "phones"]),
    st.sampled_from(ENTITY_TYPES),
    st.sampled_from(["finished", "pending", "failed"]),
)


@pytest.mark.slow
def test_no_token_sees_another_organizations_records(tmp_path: Path):
    """Over few keys that all organizations share, each token gets precisely its own organization's records."""
    examples, tokens = count(), {f"token {org}".replace(" ", "-"): org for org in ORGS}
    with es.EnrichmentStore() as store:
        app = create_app(store, write_tokens(tmp_path / "tokens.toml", tokens), clock=lambda: MOMENT)
        with running(app) as base, ThreadPoolExecutor(6) as pool:

            @settings(max_examples=cases(10, 60), deadline=None)
            @given(loaded=st.lists(owned, max_size=20))
            def never_seen(loaded: list[tuple[str, int, str, str, str]]) -> None:
                # entities that no example before has met, so that one store and one server serve them all
                start = 10_000 * next(examples)
                made = [
                    record(
                        start + n,
                        entityId=uid(start + entity),
                        field=field,
                        entityType=kind,
                        status=status,
                        orgId=org,
                        error=f"of {org}",
                    )
                    for n, (org, entity, field, kind, status) in enumerate(loaded)
                ]
                store.load(made)
                asked = [
                    {"entityId": uid(start + entity), "field": field, "entityType": kind}
                    for entity in range(4)
                    for field in ("emails", "phones")
                    for kind in ENTITY_TYPES
                ]
                answers = list(pool.map(lambda token: ask(base, {"tasks": asked}, token), [*tokens] * 2))
                for org, answer in zip([*tokens.values()] * 2, answers, strict=True):
                    assert answer.status_code == 200
                    found = [(one["entityId"], one["field"], one["entityType"]) for one in answer.json()]
                    assert len(found) == len(set(found))
                    assert set(found) == {
                        (one["entityId"], one["field"], one["entityType"]) for one in made if one["orgId"] == org
                    }
                    assert {one["orgId"] for one in answer.json()} <= {org}
                    assert not re.search(f"of (?!{org})", answer.text)

            never_seen()


ODDITIES = [b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"[]", b"{}", b'""', b"\\", b'"', b"\xff", b"\0"]
ODDITIES += [b'"\\ud800"', b'"\\u0000"', b"[" * 2000, b"9" * 400, b"\xed\xa0\x80", b"\xe2\x98\x83", b'"tasks":', b"\n"]
VALUES = [None, True, 0, -1.5, 10**30, "", "x", "\ud800", "☃", [], {}, [[]], "person", "emails", uid(3), {"tasks": []}]


def mutated(rng: random.Random) -> bytes:
    """Make a body: a valid one, of which members were changed, or bytes, or neither."""
    body: Any = {"tasks": [task(rng.randrange(12), rng.choice(FIELDS)) for _ in range(rng.choice([1, 1, 2, 5]))]}
    if rng.random() < 0.3:
        body["tasks"][0]["entityType"] = rng.choice(ENTITY_TYPES)
    if rng.random() < 0.5:
        place = rng.choice([body, body["tasks"], *body["tasks"]])
        keys = list(range(len(place))) if isinstance(place, list) else [*place, "entityType", "x"]
        if isinstance(place, dict) and rng.random() < 0.2:
            place.pop(rng.choice(keys), None)
        else:
            place[rng.choice(keys)] = rng.choice(VALUES)
    data = bytearray(json.dumps(body, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass"))
    for _ in range(rng.choice([0, 0, 1, 1, 2, 4])):
        at, end = sorted(rng.choices(range(len(data) + 1), k=2))
        end = min(end, at + rng.choice([0, 1, 4, 40]))
        data[at:end] = rng.choice([b"", data[at:end] * 2, bytes([rng.randrange(256)]), rng.choice(ODDITIES)])
    return bytes(data)


Key = tuple[str, str, str]


def keys_of(data: bytes) -> list[Key] | None:
    """Read a body by Python's json and the contract's words: the keys of its tasks, or None where it is malformed."""

    def refuse(word: str) -> Any:
        raise ValueError(word)

    try:
        body = json.loads(data.decode(), parse_constant=refuse)
        tasks = body.get("tasks") if isinstance(body, dict) else None
        if not isinstance(tasks, list) or not 1 <= len(tasks) <= 200 or {*map(type, tasks)} != {dict}:
            return None
        keys = [(one.get("entityId"), one.get("entityType", "person"), one.get("field")) for one in tasks]
        "".join(chain.from_iterable(keys)).encode()
    except (ValueError, RecursionError, TypeError):
        return None
    return keys


def looked_up(store: es.EnrichmentStore, keys: list[Key]) -> dict[Key, list[dict[str, Any]] | None]:
    """Ask the store in process: the objects of each key, None for those that it refuses."""
    known: dict[Key, list[dict[str, Any]] | None] = dict.fromkeys(keys)
    who: Any = {"org_id": "org_1", "now": MOMENT}
    for start in range(0, len(keys), 200):
        asked = [dict(zip(KEY, key, strict=True)) for key in keys[start : start + 200]]
        try:
            store.query({"tasks": asked}, **who)
        except es.ValidationError as error:
            bad = set(error.problems["row"])  # type: ignore[index]
            asked = [one for n, one in enumerate(asked) if n not in bad]
        objects = {one["id"]: one for one in store.query({"tasks": asked}, **who)}
        for one, found in zip(asked, store.lookup(asked, columns=["id"], **who)["id"], strict=True):
            known[tuple(one.values())] = [objects[found]] if found in objects else []  # type: ignore[index]
    return known


@pytest.mark.slow
def test_thousands_of_random_bodies_are_200_or_400(base: str, filled: es.EnrichmentStore):
    """A thousand bodies (ten with all cases), valid, nearly so, or neither: each is answered as json and `query` say, and no connection breaks."""
    bodies = [mutated(random.Random(n)) for n in range(cases(1_000, 10_000))]
    keys = [keys_of(data) for data in bodies]
    known = looked_up(filled, sorted({key for asked in keys for key in asked or ()}))

    def client(part: int) -> Counter[int]:
        statuses = Counter[int]()
        with connected(base) as sock:
            for data, asked in zip(bodies[part::32], keys[part::32], strict=True):
                sock.sendall(raw(data))
                answer = Answer(sock)
                found = [known[key] for key in asked or ()]
                right = {400 if not found or None in found else 200}
                # in members that are ignored, half a surrogate and a number beyond a double may be refused or ignored
                if re.search(rb"\\ud[89a-f]|1e999|\d{300}", data):
                    right |= {400}
                assert answer.status_code in right, data
                if answer.status_code == 400:
                    error_of(answer, 400, "VALIDATION_ERROR")
                else:  # an object for each record, where its task first stood
                    assert answer.json() == list({one["id"]: one for one in chain(*found)}.values()), data  # type: ignore[arg-type]
                statuses[answer.status_code] += 1
        return statuses

    with ThreadPoolExecutor(32) as pool:
        total = sum(pool.map(client, range(32)), Counter[int]())
    assert total.total() == len(bodies)
    assert min(total[200], total[400]) > len(bodies) / 10  # both kinds were met


# --- the log ------------------------------------------------------------------------------------------------------------------


def test_one_line_is_logged_for_each_request(tmp_path: Path, logged: Collected):
    """Each request is one line of JSON that says who asked for how much, how long it took, and nothing that is confidential."""
    secret = "very-secret-word"
    with es.EnrichmentStore() as store, serving(store, tmp_path) as base:
        store.load(RECORDS)
        for number, asked in enumerate(
            [
                ({"tasks": [task(0), task(1)], "x": secret},),
                ({"tasks": [{"entityId": secret, "field": "emails"}]}, TWO),
                (ASK, secret),
                (ASK, NOBODY),
                (None, None, "GET", "/healthz"),
                (None, None, "GET", "/nowhere%0Aelse"),
                (None, None, "DELETE", PATH),
            ]
        ):
            ask(base, *asked)
            until(lambda number=number: len(logged.lines()) > number)
    lines = logged.lines()
    assert [(line["method"], line["path"], line["status"], line["org"]) for line in lines] == [
        ("POST", PATH, 200, "org_1"),
        ("POST", PATH, 400, "org_2"),
        ("POST", PATH, 401, None),
        ("POST", PATH, 400, None),
        ("GET", "/healthz", 200, None),
        ("GET", "/nowhere\nelse", 404, None),
        ("DELETE", PATH, 405, None),
    ]
    assert lines[0]["tasks"] == 2
    assert {"request", "method", "path", "status", "ms", "org", "tasks"} <= set.intersection(*map(set, lines))
    assert len({line["request"] for line in lines}) == 7
    assert all(isinstance(line["ms"], (int, float)) and 0 <= line["ms"] < 20_000 for line in lines)
    texts = [logged.format(one) for one in logged.records if one.name == LOG]
    assert [text for text in texts if "\n" in text] == []
    for word in [secret, ONE, TWO, NOBODY, uid(0), uid(1), *(uid(1_000_000 + n) for n in range(2))]:
        assert word not in "".join(texts)


# --- files that change --------------------------------------------------------------------------------------------------------


def replace(path: Path, version: str) -> None:
    """Put a store whose record carries a version in the place of another, as a nightly job does."""
    beside = path.with_name(f"{version}.duckdb")
    with es.EnrichmentStore(beside) as store:
        store.load([record(0, createdBy=version)])
    beside.replace(path)


def version(base: str) -> str:
    answer = ask(base)
    assert answer.status_code == 200, answer.text
    (one,) = answer.json()
    return str(one["createdBy"])


def test_a_replaced_store_is_served_without_a_gap(tmp_path: Path):
    """A new file over the store's is served soon; every request meanwhile is answered, from the old or the new, never back again."""
    replace(path := tmp_path / "leads.duckdb", "v0")
    stop, patience = threading.Event(), 5.0  # about a second is promised; the rest is for a busy machine
    begun = threading.Barrier(4)
    with es.EnrichmentStore(path, read_only=True) as store, serving(store, tmp_path) as base:

        def client() -> list[str]:
            seen = [version(base)]
            begun.wait(patience)
            while not stop.is_set():
                seen.append(version(base))
            return [*seen, version(base)]

        with ThreadPoolExecutor(3) as pool:
            clients = [pool.submit(client) for _ in range(3)]
            try:
                begun.wait(patience)
                for new in ("v1", "v2", "v3"):
                    replace(path, new)
                    until(lambda new=new: version(base) == new, patience)
            finally:
                stop.set()
        assert ask(base, None, None, "GET", "/healthz").status_code == 200
    for seen in (one.result() for one in clients):
        assert seen == sorted(seen)
        assert {"v0", "v3"} <= set(seen)


def test_a_replaced_store_that_others_in_the_process_read_is_never_kept_silently(tmp_path: Path, logged: Collected):
    """While the old file is open elsewhere in the process, the new one is served or the log says why not; after that it is served."""
    replace(path := tmp_path / "leads.duckdb", "v0")
    with es.EnrichmentStore(path, read_only=True) as store, serving(store, tmp_path) as base:
        with es.EnrichmentStore(path, read_only=True):
            replace(path, "v1")
            until(lambda: version(base) == "v1" or logged.errors(), 5)
        until(lambda: version(base) == "v1", 5)


def test_a_store_replaced_in_the_middle_of_a_lookup_is_served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A lookup under way when the file is replaced ends well, and does not keep the new file from being served after it."""
    monkeypatch.setattr(server, "WATCH", 0.002)
    replace(path := tmp_path / "leads.duckdb", "v0")
    with Gated(path, read_only=True) as store, serving(store, tmp_path) as base, ThreadPoolExecutor(1) as pool:
        try:
            store.gate.clear()
            answer = pool.submit(version, base)
            until(lambda: store.lookups)
            look, looks = store.replaced, []
            monkeypatch.setattr(store, "replaced", lambda: looks.append(1) or look())
            replace(path, "v1")
            before = len(looks)
            until(lambda: len(looks) > before)  # the server looks at the new file
        finally:
            store.gate.set()
        assert answer.result() in ("v0", "v1")
        until(lambda: version(base) == "v1", 5)


def test_files_that_come_and_go_do_not_end_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Good and broken files that take turns, at whatever moment of being taken up, fail no request, and the last good one is served."""
    monkeypatch.setattr(server, "WATCH", 0.002)
    replace(path := tmp_path / "leads.duckdb", "v0")
    good = path.read_bytes()
    with es.EnrichmentStore(path, read_only=True) as store, serving(store, tmp_path) as base:
        for turn in range(300):
            beside = tmp_path / f"turn{turn % 2}"
            beside.write_bytes(good if turn % 2 else b"no store at all\n" * 50)
            beside.replace(path)
            time.sleep(0.002)  # so that the turns fall on different moments
            if turn % 30 == 0:
                assert version(base) == "v0"
        replace(path, "v1")
        until(lambda: version(base) == "v1", 5)


@pytest.mark.parametrize("kind", ["text", "nothing", "a foreign database"])
def test_a_new_store_that_is_none_is_logged_and_the_old_goes_on(tmp_path: Path, logged: Collected, kind: str):
    """What cannot be read as a store is an error in the log; the records of before are served on, until a good file comes."""
    replace(path := tmp_path / "leads.duckdb", "v0")
    broken = tmp_path / "broken"
    if kind == "a foreign database":
        with duckdb.connect(str(broken)) as con:
            con.execute("create table enrichments (x int)")
    else:
        broken.write_bytes(b"no store at all\n" * 1000 if kind == "text" else b"")
    with es.EnrichmentStore(path, read_only=True) as store, serving(store, tmp_path) as base:
        assert version(base) == "v0"
        broken.replace(path)
        until(lambda: version(base) == "v0" and logged.errors(), 5)
        assert version(base) == "v0"
        replace(path, "v1")
        until(lambda: version(base) == "v1", 5)


@pytest.mark.slow
def test_changed_tokens_hold_soon_and_broken_ones_do_not(tmp_path: Path, logged: Collected, filled: es.EnrichmentStore):
    """New tokens are let in and old ones no more soon after the file changed; a file that cannot be read changes nothing but the log."""
    path = tmp_path / "tokens.toml"

    def put(tokens: dict[str, str | None] | str) -> None:
        beside = tmp_path / "new.toml"
        beside.write_text(tokens) if isinstance(tokens, str) else write_tokens(beside, tokens)
        beside.replace(path)

    with serving(filled, tmp_path) as base:
        assert [ask(base, token=token).status_code for token in (ONE, "new")] == [200, 401]
        put({"new": "org_1", TWO: "org_1"})
        until(lambda: [ask(base, token=token).status_code for token in (ONE, "new")] == [401, 200], 5)
        assert [one["orgId"] for one in ask(base, token=TWO).json()] == ["org_1"]  # it was org_2's
        assert logged.errors() == []
        put("[[token]\nno toml")
        until(lambda: ask(base, token="new").status_code == 200 and logged.errors(), 5)
        assert [ask(base, token=token).status_code for token in (ONE, "new")] == [401, 200]
        put(TOKENS)
        until(lambda: [ask(base, token=token).status_code for token in (ONE, "new")] == [200, 401], 5)


def test_a_file_that_was_refused_is_not_read_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, logged: Collected
):
    """To read a large file only to refuse it is work: the same one is tried once, until it changes or a minute has passed."""
    monkeypatch.setattr(server, "WATCH", 0.002)
    tried = []
    replace(path := tmp_path / "leads.duckdb", "v0")
    good = path.read_bytes()
    with es.EnrichmentStore(path, read_only=True) as store, serving(store, tmp_path) as base:
        look, refresh = store.replaced, store.refresh
        looks = []
        monkeypatch.setattr(store, "replaced", lambda: looks.append(1) or look())
        monkeypatch.setattr(store, "refresh", lambda: tried.append(1) or refresh())
        (tmp_path / "broken").write_bytes(good[: len(good) // 2])
        (tmp_path / "broken").replace(path)
        until(lambda: logged.errors())
        after = len(looks)
        until(lambda: len(looks) > after + 20)
        assert len(tried) == 1
        assert version(base) == "v0"
        replace(path, "v1")
        until(lambda: version(base) == "v1")
        assert len(tried) == 2
