"""The endpoint beside one written by hand, and the client beside bare posts.

Every server lives in a process of its own and all of them stay, but only one is requested at a time, in turn, so that a slow
minute of the machine falls on all alike. What asks lives in other processes, which in the timed runs send bodies encoded
beforehand and only count the bytes that come back. Linux only: the processor time of a server is read in /proc.
"""

# ruff: noqa: N815
# No `from __future__ import annotations`: FastAPI reads the annotations of the models and functions within `_by_hand`,
# which as text it could not resolve. Nothing heavy is imported at the top, as in lookup.py.

import argparse
import asyncio
import functools
import hashlib
import itertools
import json
import os
import platform
import random
import re
import selectors
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tests.bench.lookup import ORG, Inputs, _alone, _load_ours, _make_records, _quantile, _say, _table, _worker

if TYPE_CHECKING:
    from fastapi import FastAPI

PATH = "/api/v1/operations/enrichment/batch/query"
ROOT = Path(__file__).parents[2]
OTHER = "org_2"
BATCH = 200
BODIES = 400
TASKS = 10_000
WORKERS = 8
#: Fresh processes of each side of the client's comparison, and the timed passes in each.
REPEAT, PASSES = 5, 3

OURS = "ours"
CHECKED = "ours, every answer checked"
#: Ours over a store whose answer costs nothing: what is left is what the server itself costs.
CANNED = "ours, canned store"
#: A server that costs next to nothing: what is left is what a client costs.
LOOPBACK = "canned server"
POSTS = "bare posts"
#: The endpoint by hand, whose answers pass through its response model; the faster one of each run is the rival.
RIVALS = {"FastAPI, def": "def", "FastAPI, async def": "async"}
#: For honesty: nothing checks what this one answers.
UNVALIDATED = {"FastAPI, async def, unvalidated answers": "unvalidated"}
COLUMNS = (
    *("id", "createdAt", "updatedAt", "entityId", "entityType", "field", "status", "error", "dataFound", "createdBy"),
    *("orgId", "globalEnrichmentId", "creditTransactionId"),
)
PACKAGES = ("enrichstatus", "uvicorn", "uvloop", "httptools", "starlette", "fastapi", "pydantic", "duckdb", "requests")

Task = dict[str, str]
#: A status, and the objects of a 200 or the code of an error.
Expected = tuple[int, Any]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark to a parser."""
    parser.add_argument("--records", type=int, default=10_000_000, help="records, 10%% of whose keys repeat")
    parser.add_argument("--seconds", type=float, default=10, help="of each timed run")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs of each server and number of clients")
    parser.add_argument("--soak", type=float, default=60, help="seconds in which every answer is checked")
    parser.add_argument("--clients", type=int, default=64, help="the most clients at once")
    help_ = "keeps the generated data for the next run; by default a temporary one"
    parser.add_argument("--folder", type=Path, default=None, help=help_)


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and print the tables."""
    # a benchmark that is terminated ends its servers too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="enrichstatus-bench-")))
        folder = arguments.folder or scratch
        folder.mkdir(parents=True, exist_ok=True)
        inputs = Inputs.within(folder, arguments.records, 0)
        database = folder / f"records-{arguments.records}-whole.sqlite"
        _generate(inputs, database)
        asked = _alone(_ask, inputs)

        tokens_file = scratch / "tokens.toml"
        tokens = {org: _token(org, tokens_file) for org in (ORG, OTHER)}
        digests = {hashlib.sha256(token.encode()).hexdigest(): org for org, token in tokens.items()}
        setting = {"database": str(database), "digests": digests, "tokens": str(tokens_file)}
        setting_file = scratch / "setting.json"
        setting_file.write_text(json.dumps(setting | {"full": asked.full, "objects": asked.objects}))
        store = ("--store", str(inputs.store), "--tokens", str(tokens_file))
        commands: dict[str, tuple[str, ...]] = {
            OURS: ("enrichstatus", "serve", *store, "--host", "127.0.0.1", "--port", "0")
        }
        for label, kind in (RIVALS | UNVALIDATED | {CANNED: "canned", LOOPBACK: "loopback"}).items():
            commands[label] = ("tests.bench.endpoint", kind, str(setting_file))
        servers = {label: stack.enter_context(_server(label, *command)) for label, command in commands.items()}

        timed = [_request(tokens[ORG], body) for body in asked.timed]
        mixed = [_request(tokens.get(org, "wrong"), body) for org, body in asked.mixed]
        askers = [stack.enter_context(_worker()) for _ in range(2)]
        for label in (OURS, *RIVALS, *UNVALIDATED):
            _agree(label, servers[label], askers, timed[:50] + mixed, asked.timed_answers + asked.mixed_answers)
        runs = _race({name: server for name, server in servers.items() if name != LOOPBACK}, askers, timed, arguments)
        memory = [servers[OURS].memory()]
        snapshot = _alone(_in_process, inputs, asked.timed) | servers[OURS].snapshot()
        checked = _measure(servers[OURS], askers, mixed, arguments.clients, arguments.soak, asked.mixed_answers)
        runs[CHECKED, arguments.clients] = [checked]
        memory.append(servers[OURS].memory())
        clients = _clients({label: servers[label] for label in (OURS, LOOPBACK)}, tokens[ORG], asked)
    _report(arguments, asked, runs, memory, clients, snapshot)


# ------------------------------------------------------------------------------------------------------- data


@dataclass(frozen=True)
class Asked:
    """What is requested, drawn by seed, and what a store answers in process."""

    #: for the timed runs: 200 distinct tasks each, 5% of them another organization's and 5% nobody's
    timed: list[Any]
    #: for the checked run: who requests (with a wrong token: nobody) for any number of tasks, some of them broken
    mixed: list[tuple[str, Any]]
    #: for the client
    tasks: list[Task]
    #: of the first 50 timed ones, of the mixed ones, of 200 tasks that all have a record, and of the client's tasks
    timed_answers: list[Expected]
    mixed_answers: list[Expected]
    full: list[dict[str, Any]]
    objects: list[dict[str, Any]]
    #: ms of a query in process, and of the processor
    wall: float
    cpu: float


def _generate(inputs: Inputs, database: Path) -> None:
    """Make the files that an earlier run has not left, and the store anew where this version cannot use it."""
    for path, make in ((inputs.typed, _make_records), (database, _make_database)):
        if not path.exists():
            _say(f"making {path.name}")
            # an interrupted run leaves no half a file under the name
            unfinished = path.with_name(path.name + ".part")
            unfinished.unlink(missing_ok=True)
            _alone(make, inputs, unfinished)
            unfinished.rename(path)
    if not _alone(_usable, inputs):
        _say(f"making {inputs.store.name}")
        for old in (inputs.store, inputs.store.with_name(inputs.store.name + ".wal")):
            old.unlink(missing_ok=True)
        _alone(_load_ours, inputs.typed, inputs.store)


def _usable(inputs: Inputs) -> bool:
    import enrichstatus

    try:
        with enrichstatus.EnrichmentStore(inputs.store, read_only=True) as store:
            return int(store._counts()["records"].sum()) == inputs.records
    except enrichstatus.StoreError:
        return False


def _make_database(inputs: Inputs, path: Path) -> None:
    """Make the table of the endpoint by hand: whole records in the order of their key, instants as the wire has them."""
    import duckdb

    with duckdb.connect() as con:
        con.execute("set TimeZone = 'UTC'")
        rows = con.execute(
            """
            select
                orgId, entityId::varchar as entityId, entityType, field,
                strftime(createdAt, '%Y-%m-%dT%H:%M:%S.%gZ') as createdAt,
                strftime(updatedAt, '%Y-%m-%dT%H:%M:%S.%gZ') as updatedAt,
                id::varchar as id,
                status, error, dataFound::integer, createdBy, globalEnrichmentId, creditTransactionId
            from read_parquet($path)
            order by orgId, entityId, entityType, field, createdAt desc, updatedAt desc, id desc
            """,
            {"path": str(inputs.typed)},
        )
        lite = sqlite3.connect(path)
        lite.executescript("pragma journal_mode = off; pragma synchronous = off;")
        lite.execute(
            """
            create table records (
                orgId text not null, entityId text not null, entityType text not null, field text not null,
                createdAt text not null, updatedAt text, id text not null,
                status text not null, error text, dataFound integer, createdBy text,
                globalEnrichmentId text, creditTransactionId text,
                primary key (orgId, entityId, entityType, field, createdAt desc, updatedAt desc, id desc)
            ) without rowid
            """
        )
        while some := rows.fetchmany(100_000):
            lite.executemany(f"insert into records values ({', '.join('?' * len(COLUMNS))})", some)  # noqa: S608
        lite.commit()
        lite.close()


def _ask(inputs: Inputs) -> Asked:
    """Draw what is requested and answer it in process; this takes a process of its own."""
    import duckdb

    import enrichstatus

    sql = """
        select distinct entityId::varchar, field from read_parquet($path) where orgId = $org
        order by md5(entityId::varchar || field) limit 200_000
    """
    with duckdb.connect() as con:
        own, foreign = (con.execute(sql, {"path": str(inputs.typed), "org": org}).fetchall() for org in (ORG, OTHER))
    draw = random.Random(1)

    def tasks(count: int, share: float = 0.05) -> list[Task]:
        others = int(count * share)
        strangers = [(str(uuid.UUID(int=draw.getrandbits(128))), draw.choice(own)[1]) for _ in range(others)]
        keys = draw.sample(own, count - 2 * others) + draw.sample(foreign, others) + strangers
        return [{"entityId": entity, "field": name} for entity, name in draw.sample(keys, len(keys))]

    def several(count: int) -> Any:
        """Tasks of two organizations, some of them again in another spelling, some of another type."""
        given = tasks(count, 0.4)
        again = [task | {"entityId": task["entityId"].upper()} for task in draw.sample(given, count // 10)]
        typed = [task | {"entityType": draw.choice(["person", "company"])} for task in draw.sample(given, count // 10)]
        return {"tasks": (given + again + typed)[:BATCH]}

    timed = [{"tasks": tasks(BATCH)} for _ in range(BODIES)]
    sizes = [draw.choice([1, draw.randrange(1, BATCH), BATCH]) for _ in range(BODIES // 2)]
    mixed = [(draw.choice([ORG, OTHER]), several(size)) for size in sizes]
    some = tasks(3, 0)
    broken: list[Any] = [
        [],
        tasks(BATCH + 1),
        [*some, "x"],
        [*some, some[0] | {"field": "fax"}],
        [some[0] | {"entityId": "x"}],
    ]
    mixed += [(ORG, {"tasks": tasks}) for tasks in broken] + [(ORG, {}), ("nobody", {"tasks": some})]
    draw.shuffle(mixed)
    leads = tasks(TASKS)

    with enrichstatus.EnrichmentStore(inputs.store, read_only=True) as store:

        def answer(org: str, body: Any) -> Expected:
            if org == "nobody":
                return 401, "UNAUTHORIZED"
            try:
                return 200, store.query(body, org_id=org)
            except enrichstatus.ValidationError as error:
                return error.http_status, error.code

        def query() -> list[Expected]:
            return [answer(ORG, body) for body in timed]

        timed_answers = query()[:50]
        cpu, wall = time.process_time(), time.perf_counter()
        query()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        parts = [{"tasks": leads[start : start + BATCH]} for start in range(0, TASKS, BATCH)]
        return Asked(
            timed,
            mixed,
            leads,
            timed_answers=timed_answers,
            mixed_answers=[answer(*one) for one in mixed],
            full=store.query({"tasks": tasks(BATCH, 0)}, org_id=ORG),
            objects=[one for part in parts for one in store.query(part, org_id=ORG)],
            wall=wall / BODIES * 1e3,
            cpu=cpu / BODIES * 1e3,
        )


def _in_process(inputs: Inputs, bodies: list[Any]) -> dict[str, float]:
    """Time single questions of 200 tasks to a store with a snapshot, in ms; this takes a process of its own."""
    import pandas as pd

    import enrichstatus

    frames = [pd.DataFrame(body["tasks"]) for body in bodies]
    with enrichstatus.EnrichmentStore(inputs.store, org_id=ORG, read_only=True, preload=True) as store:

        def taken(call: Any, questions: list[Any]) -> float:
            seconds = []
            for question in questions:
                start = time.perf_counter()
                call(question)
                seconds.append(time.perf_counter() - start)
            return statistics.median(seconds) * 1e3

        for _ in range(2):  # the second time each has been met
            found = {"query": taken(store.query, bodies), "lookup": taken(store.lookup, frames)}
        return found


# --------------------------------------------------------------------------------------------------- by hand

_BY_HAND_SQL = """
with tasks (position, entityId, entityType, field) as (values $values)

select
    r.id, r.createdAt, r.updatedAt, r.entityId, r.entityType, r.field,
    case when r.status = 'pending' and r.createdAt < ?2 then 'timeout' else r.status end as status,
    r.error,
    case when r.status <> 'pending' then r.dataFound end as dataFound,
    r.createdBy, r.orgId, r.globalEnrichmentId, r.creditTransactionId
from tasks t
cross join records r
    on r.orgId = ?1 and r.entityId = t.entityId and r.entityType = t.entityType and r.field = t.field
    and (r.createdAt, r.updatedAt, r.id) = (
        select n.createdAt, n.updatedAt, n.id
        from records n
        where n.orgId = ?1 and n.entityId = t.entityId and n.entityType = t.entityType and n.field = t.field
        order by n.createdAt desc, n.updatedAt desc, n.id desc
        limit 1
    )
order by t.position
"""


@functools.cache
def _by_hand_sql(tasks: int) -> str:
    # one text for each number of tasks, so that the connection keeps the statement prepared
    values = (f"({one}, ?{3 * one + 3}, ?{3 * one + 4}, ?{3 * one + 5})" for one in range(tasks))
    return _BY_HAND_SQL.replace("$values", ", ".join(values))


def _by_hand(setting: dict[str, Any], variant: str) -> "FastAPI":
    """Write the endpoint as one would with FastAPI, pydantic and SQLite.

    Of several ways the fastest was taken: instants are kept as the wire has them, the tasks are a list of values
    (``json_each`` takes 20% longer, a select for each task twice as long), and a model is made of dicts by pydantic.
    """
    from fastapi import Depends, FastAPI, Header, HTTPException
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse, Response
    from pydantic import BaseModel, Field
    from pydantic_core import to_json

    class Task(BaseModel):
        entityId: uuid.UUID
        field: Literal["emails", "phones", "summary"]
        entityType: Literal["person", "company"] = "person"

    class Batch(BaseModel):
        tasks: Annotated[list[Task], Field(min_length=1, max_length=BATCH)]

    class Enrichment(BaseModel):
        id: str
        createdAt: str
        updatedAt: str | None
        entityId: str
        entityType: str
        field: str
        status: str
        error: str | None
        dataFound: bool | None
        createdBy: str | None
        orgId: str
        globalEnrichmentId: str | None
        creditTransactionId: str | None

    digests: dict[str, str] = setting["digests"]
    mine = threading.local()

    def connection() -> sqlite3.Connection:
        if not hasattr(mine, "con"):
            mine.con = sqlite3.connect(f"file:{setting['database']}?mode=ro", uri=True, cached_statements=256)
            mine.con.executescript(
                "pragma query_only = on; pragma mmap_size = 8000000000; pragma cache_size = -65536;"
                "pragma temp_store = memory;"
            )
        con: sqlite3.Connection = mine.con
        return con

    async def organization(authorization: Annotated[str | None, Header()] = None) -> str:
        scheme, _, token = (authorization or "").partition(" ")
        org = digests.get(hashlib.sha256(token.encode()).hexdigest())
        if scheme.lower() != "bearer" or org is None:
            raise HTTPException(401, "The token is missing or wrong.")
        return org

    def found(batch: Batch, org: str) -> list[dict[str, Any]]:
        keys = dict.fromkeys((str(task.entityId), task.entityType, task.field) for task in batch.tasks)
        since = (datetime.now(UTC) - timedelta(seconds=800)).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
        given = [org, since, *itertools.chain.from_iterable(keys)]
        rows = connection().execute(_by_hand_sql(len(keys)), given).fetchall()
        return [dict(zip(COLUMNS, row, strict=True)) for row in rows]

    def threaded(batch: Batch, org: Annotated[str, Depends(organization)]) -> Any:
        return found(batch, org)

    async def direct(batch: Batch, org: Annotated[str, Depends(organization)]) -> Any:
        return found(batch, org)

    async def unvalidated(batch: Batch, org: Annotated[str, Depends(organization)]) -> Response:
        objects = found(batch, org)
        for one in objects:
            one["dataFound"] = None if one["dataFound"] is None else bool(one["dataFound"])
        return Response(to_json(objects), media_type="application/json")

    app = FastAPI()
    if variant == "unvalidated":
        app.post(PATH)(unvalidated)
    else:
        app.post(PATH, response_model=list[Enrichment])(threaded if variant == "def" else direct)

    @app.exception_handler(HTTPException)
    async def refused(_: Any, error: HTTPException) -> Response:
        return JSONResponse({"error": {"code": "UNAUTHORIZED", "message": error.detail}}, error.status_code)

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Any, error: RequestValidationError) -> Response:
        return JSONResponse({"error": {"code": "VALIDATION_ERROR", "message": str(error)}}, 400)

    return app


# --------------------------------------------------------------------------------------------------- servers


@dataclass(frozen=True)
class Server:
    """A server's process, and where it listens."""

    pid: int
    port: int
    #: seconds until it listened
    started: float

    def cpu(self) -> float:
        """Tell the seconds of processor time so far, of all threads."""
        times = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return sum(map(int, times)) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> float:
        """Tell the resident memory in MB."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def snapshot(self) -> dict[str, float]:
        """Tell the seconds until it listened, and in GB its mapped files without a name and the memory that is no file's."""
        maps = [line.split() for line in Path(f"/proc/{self.pid}/maps").read_text().splitlines()]
        spans = [line[0].split("-") for line in maps if line[-1] == "(deleted)"]
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"RssAnon:\s*(\d+) kB", status)
        return {
            "started": self.started,
            "file": sum(int(end, 16) - int(begin, 16) for begin, end in spans) / 1e9,
            "memory": int(found[1]) * 1024 / 1e9 if found else 0,
        }


@contextmanager
def _server(label: str, *command: str) -> Iterator[Server]:
    """Start ``python -m …`` and wait until it says where it listens; uvicorn does in its log."""
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, start_new_session=True
        )
        try:
            started = time.monotonic()
            while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", said := Path(log.name).read_text())):
                if process.poll() is not None or time.monotonic() - started > 300:
                    raise RuntimeError(f"{label} does not listen:\n{said[-2000:]}")
                time.sleep(0.05)
            yield Server(process.pid, int(found[1]), time.monotonic() - started)
            if process.poll() is not None:
                _say(f"{label} has ended by itself:\n{Path(log.name).read_text()[-2000:]}")
        finally:
            process.terminate()
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                _say(f"{label} does not stop when it is told to")
                process.kill()
                process.wait()


def _token(org: str, tokens: Path) -> str:
    command = [sys.executable, "-m", "enrichstatus", "token", "new", "--org", org, "--tokens", str(tokens)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT).stdout.split()[-1]


def _serve(kind: str, path: str) -> None:
    """Be one of the servers that are not our command: ``python -m tests.bench.endpoint`` with its kind."""
    import uvicorn

    setting = json.loads(Path(path).read_text())
    if kind == "loopback":
        asyncio.run(_loopback(setting["objects"]))
    elif kind == "canned":
        from enrichstatus.server.run import serve

        serve(_canned(setting), host="127.0.0.1", port=0, ready=functools.partial(print, flush=True))
    else:
        # as uvicorn has it unless told otherwise: it writes a line for each request, as ours does
        uvicorn.run(_by_hand(setting, kind), host="127.0.0.1", port=0)


def _canned(setting: dict[str, Any]) -> Any:
    from enrichstatus.server import create_app

    full = json.dumps(setting["full"], ensure_ascii=False, separators=(",", ":")).encode()

    class Canned:
        """What the application asks of a store, with an answer made beforehand."""

        path = "canned"
        fields = ("emails", "phones", "summary")

        def query_at_once(self, body: Any, *, org_id: str | None = None, now: Any = None) -> bytes:
            return full

        def replaced(self) -> bool:
            return False

    store: Any = Canned()
    return create_app(store, setting["tokens"])


async def _loopback(objects: list[dict[str, Any]]) -> None:
    encoded = {(one["entityId"], one["field"]): json.dumps(one).encode() for one in objects}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                tasks = json.loads(await reader.readexactly(_length(head)))["tasks"]
                keys = ((task["entityId"], task["field"]) for task in tasks)
                content = b"[%s]" % b",".join(encoded[key] for key in keys if key in encoded)
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
                writer.write(head + content)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


# -------------------------------------------------------------------------------------------- what asks them


@dataclass
class Run:
    """What some clients saw in one run."""

    seconds: float = 0
    taken: list[float] = field(default_factory=list)
    errors: int = 0
    wrong: int = 0
    #: seconds of processor time: of the clients, of the server, and of what else was running on the machine
    own: float = 0
    cpu: float = 0
    others: float = 0

    @property
    def rate(self) -> float:
        """Tell the requests a second that were answered as they should be."""
        return (len(self.taken) - self.errors - self.wrong) / self.seconds


@dataclass
class Client:
    """A connection with one request under way; `left` bytes of its answer are to come, unknown while below 0."""

    socket: socket.socket
    asked: int = 0
    start: float = 0
    left: int = 0
    answer: bytearray = field(default_factory=bytearray)


def _request(token: str, body: Any) -> bytes:
    content = json.dumps(body)  # of ASCII only
    head = f"POST {PATH} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {token}\r\n"
    return f"{head}Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n{content}".encode()


def _drive(
    port: int,
    requests: list[bytes],
    clients: int,
    seconds: float,
    expected: list[Expected] | None = None,
    least: int = 0,
    first: int = 0,
) -> Run:
    """Ask in turn over some connections, each the next as soon as the last is answered, for a time and at least so often.

    Without `expected` the bytes of an answer are counted and not read.
    """
    run = Run()
    turns = itertools.count()
    scratch = bytearray(1 << 18)
    own, begin = time.process_time(), time.perf_counter()
    with selectors.DefaultSelector() as waiting:

        def ask(client: Client) -> None:
            turn = next(turns)
            if turn >= least and time.perf_counter() - begin >= seconds:
                waiting.unregister(client.socket)
                client.socket.close()
                return
            client.asked = (first + turn) % len(requests)
            client.left, client.start = -1, time.perf_counter()
            client.answer.clear()
            client.socket.sendall(requests[client.asked])

        def connect() -> None:
            client = Client(socket.create_connection(("127.0.0.1", port), timeout=30))
            waiting.register(client.socket, selectors.EVENT_READ, client)
            ask(client)

        def read(client: Client) -> bool:
            """Take what has come, and tell whether the answer is complete."""
            count = client.socket.recv_into(scratch)
            if not count:
                raise ConnectionError("closed before the end of an answer")
            if client.left < 0 or expected:
                client.answer += memoryview(scratch)[:count]
            if client.left >= 0:
                client.left -= count
            elif (end := client.answer.find(b"\r\n\r\n")) >= 0:
                client.left = end + 4 + _length(client.answer[:end]) - len(client.answer)
            return client.left == 0

        def judge(client: Client) -> None:
            run.taken.append(time.perf_counter() - client.start)
            head, _, content = client.answer.partition(b"\r\n\r\n")
            wanted = expected[client.asked] if expected else (200, None)
            if int(head.split(None, 2)[1]) != wanted[0]:
                run.errors += 1
            elif expected:
                answer = json.loads(content)
                run.wrong += (answer if wanted[0] == 200 else answer["error"]["code"]) != wanted[1]

        for _ in range(clients):
            connect()
        while waiting.get_map():
            if not (ready := waiting.select(30)):
                run.errors += len(waiting.get_map())  # nobody is answered any more
                break
            for key, _ in ready:
                try:
                    if read(key.data):
                        judge(key.data)
                        ask(key.data)
                except OSError:
                    run.errors += 1
                    waiting.unregister(key.fileobj)
                    connect()
    run.own, run.seconds = time.process_time() - own, time.perf_counter() - begin
    return run


def _length(head: bytes | bytearray) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if not found:
        raise RuntimeError(f"no length is told: {head!r}")
    return int(found[1])


def _look_up(side: str, port: int, token: str, tasks: list[Task], objects: list[dict[str, Any]]) -> list[float]:
    """Time one side of the client's comparison and check its answers; the first time is what a fresh process pays."""
    import pandas as pd
    import requests

    mine = threading.local()

    def begin() -> None:
        mine.session = requests.Session()
        mine.session.headers["Authorization"] = f"Bearer {token}"

    def post(body: Any) -> Any:
        return mine.session.post(f"http://127.0.0.1:{port}{PATH}", json=body).json()

    def statuses(found: Any) -> list[str | None]:
        status = {(one["entityId"], one["field"]): one["status"] for one in found}
        return [status.get((task["entityId"], task["field"])) for task in tasks]

    with ThreadPoolExecutor(WORKERS, initializer=begin) as threads:
        bodies = [{"tasks": tasks[start : start + BATCH]} for start in range(0, len(tasks), BATCH)]
        if side == OURS:
            from enrichstatus.sources.client.client import EnrichmentClient

            frame = pd.DataFrame(tasks)
            client = EnrichmentClient(f"http://127.0.0.1:{port}", token=token, workers=WORKERS, progress=False)
        seconds = []
        for _ in range(1 + PASSES):
            start = time.perf_counter()
            answer: Any = client.lookup(frame) if side == OURS else list(threads.map(post, bodies))
            seconds.append(time.perf_counter() - start)
            if side == OURS:
                found = answer["status"].astype(object).where(answer["status"].notna(), None).tolist()
            else:
                found = statuses(itertools.chain.from_iterable(answer))
            if found != statuses(objects):
                raise RuntimeError(f"client: {side} has other answers than the store")
    return seconds


# ----------------------------------------------------------------------------------------------- measurements


def _measure(
    server: Server,
    askers: list[ProcessPoolExecutor],
    requests: list[bytes],
    clients: int,
    seconds: float,
    expected: list[Expected] | None = None,
    least: int = 0,
) -> Run:
    """Have the askers drive a server, the clients and the requests shared among them."""
    cpu, busy = server.cpu(), _busy()
    shares = [len(range(place, clients, len(askers))) for place in range(len(askers))]
    firsts = [len(requests) * place // len(askers) for place in range(len(askers))]
    least = -(-least // len(askers))
    started = [
        asker.submit(_drive, server.port, requests, share, seconds, expected, least, first)
        for asker, share, first in zip(askers, shares, firsts, strict=True)
    ]
    runs = [one.result() for one in started]
    cpu, busy, own = server.cpu() - cpu, _busy() - busy, sum(one.own for one in runs)
    return Run(
        seconds=max(one.seconds for one in runs),
        taken=[taken for one in runs for taken in one.taken],
        errors=sum(one.errors for one in runs),
        wrong=sum(one.wrong for one in runs),
        own=own,
        cpu=cpu,
        others=max(0.0, busy - cpu - own),
    )


def _busy() -> float:
    """Tell the seconds for which the machine's processors have worked, or were withheld from it."""
    user, nice, system, _idle, _wait, *rest = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    return (user + nice + system + sum(rest)) / os.sysconf("SC_CLK_TCK")


def _agree(
    label: str, server: Server, askers: list[ProcessPoolExecutor], requests: list[bytes], expected: list[Expected]
) -> None:
    """See that a server answers as the store does in process."""
    run = _measure(server, askers, requests, len(askers), 0, expected, least=len(requests))
    if run.errors or run.wrong:
        raise RuntimeError(f"{label}: {run.wrong} wrong answers and {run.errors} errors, of {len(run.taken)} requests")


def _race(
    servers: dict[str, Server],
    askers: list[ProcessPoolExecutor],
    requests: list[bytes],
    arguments: argparse.Namespace,
) -> dict[tuple[str, int], list[Run]]:
    """Time all servers in turn, asked by one process: it is cheap, and leaves one of two cores to the server."""
    counts = sorted({1, 8, arguments.clients})
    runs: dict[tuple[str, int], list[Run]] = {(label, count): [] for count in counts for label in servers}
    for server in servers.values():  # each has met every body when the clock starts
        _measure(server, askers[:1], requests, 8, 0, least=len(requests))
    for turn in range(arguments.rounds):
        for label, count in runs:
            run = _measure(servers[label], askers[:1], requests, count, arguments.seconds)
            runs[label, count].append(run)
            _say(f"{label}, {count} clients, {turn + 1}: {run.rate:.0f} requests/s")
    return runs


def _clients(servers: dict[str, Server], token: str, asked: Asked) -> dict[tuple[str, str], list[list[float]]]:
    seconds: dict[tuple[str, str], list[list[float]]] = {}
    for turn in range(REPEAT):
        for (label, server), side in itertools.product(servers.items(), (OURS, POSTS)):
            taken = _alone(_look_up, side, server.port, token, asked.tasks, asked.objects)
            seconds.setdefault((side, label), []).append(taken)
            _say(f"client {side}, server {label}, {turn + 1}: {statistics.median(taken[1:]):.2f} s")
    return seconds


# ----------------------------------------------------------------------------------------------------- report


def _report(
    arguments: argparse.Namespace,
    asked: Asked,
    runs: dict[tuple[str, int], list[Run]],
    memory: list[float],
    clients: dict[tuple[str, str], list[list[float]]],
    snapshot: dict[str, float],
) -> None:
    rates = {key: statistics.median(run.rate for run in some) for key, some in runs.items()}
    costs = {key: statistics.median(run.cpu / len(run.taken) * 1e3 for run in some) for key, some in runs.items()}
    median = {key: statistics.median(second for one in some for second in one[1:]) for key, some in clients.items()}
    figures: list[tuple[str, str, str, str]] = []

    def figure(name: str, measured: float, goal: float, note: str, *, least: bool = False, form: str = ".2f") -> None:
        met = measured >= goal if least else measured <= goal
        figures.append((name, f"{measured:{form}} {note}", f"{'≥' if least else '≤'} {goal:g}", "yes" if met else "no"))

    for count in sorted({1, 8, arguments.clients}):
        ours, rival = rates[OURS, count], max(RIVALS, key=lambda label: rates[label, count])
        note = f"({ours:.0f} ÷ {rates[rival, count]:.0f}, {rival})"
        figure(f"requests/s ÷ by hand, {count} clients", ours / rates[rival, count], 2.5, note, least=True)
    figure("200 tasks to a frame, preload=True, p50, ms", snapshot["lookup"], 2, "")
    figure("store.query of 200 tasks, preload=True, p50, ms", snapshot["query"], 1.5, "")
    figure("until our server listens, s", snapshot["started"], 12, "", form=".1f")
    figure("its snapshot, GB", snapshot["file"], 2.5, "")
    figure("its memory that is no file's, before any request is checked, GB", snapshot["memory"], 0.3, "")
    canned = max(cost for (label, _), cost in costs.items() if label == CANNED)
    note = f"(store.query without a snapshot: {asked.cpu:.2f} ms CPU in {asked.wall:.2f} ms)"
    figure("server CPU a request beyond the lookup, ms", canned, 0.6, note)
    [checked] = runs[CHECKED, arguments.clients]
    note = f"of {len(checked.taken):,} requests, {arguments.clients} clients, {arguments.soak:g} s"
    figure("errors", checked.errors, 0, note, form="d")
    figure("wrong answers", checked.wrong, 0, note, form="d")
    ratios = {label: median[OURS, label] / median[POSTS, label] for label in (OURS, LOOPBACK)}
    figure(f"client ÷ bare posts, {TASKS:,} tasks", ratios[OURS], 1.2, f"({LOOPBACK}: {ratios[LOOPBACK]:.2f})")

    print(
        f"\n{arguments.records:,} records, {BATCH} tasks a request, medians of {arguments.rounds} runs. Each server is one process,"
    )
    print("asked alone, in turn. By hand is FastAPI, pydantic and SQLite, the faster of def and async def.\n")
    _table(["figure", "measured", "to reach", "met?"], figures)
    rows = []
    for (label, count), some in runs.items():
        taken = [one for run in some for one in run.taken]
        spent = ([run.own / run.seconds for run in some], [run.others / run.seconds for run in some])
        shares = [f"{statistics.median(each):.0%}" for each in spent]
        numbers = [f"{rates[label, count]:.0f}", *(f"{_quantile(taken, part) * 1e3:.1f}" for part in (0.5, 0.99))]
        errors = sum(run.errors for run in some)
        rows.append([label, str(count), *numbers, f"{costs[label, count]:.2f}", *shares, str(errors)])
    headings = ["requests/s", "p50, ms", "p99, ms", "CPU ms a request", "clients' CPU", "others' CPU", "errors"]
    _table(["server", "clients", *headings], rows)
    before, after = memory
    print(f"Our server's memory before and after every answer was checked: {before:.0f} and {after:.0f} MB\n")
    rows = []
    for (side, label), times in clients.items():
        first = statistics.median(one[0] for one in times)
        each = " ".join(f"{second:.3f}" for one in times for second in one[1:])
        rows.append([side, label, f"{median[side, label]:.3f}", f"{first:.3f}", each])
    _table([f"client, {WORKERS} workers, s", "server", "median", "first in a process", "each"], rows)
    machine = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    parts = [("SQLite", sqlite3.sqlite_version), ("Python", platform.python_version()), ("machine", machine)]
    _table(["part", "version"], [*((name, _version(name)) for name in PACKAGES), *parts])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "none"


if __name__ == "__main__":
    _serve(*sys.argv[1:])
