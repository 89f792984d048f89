"""The asynchronous client beside the one that blocks, and a thousand polls in one event loop.

The service is another process, which answers after a while, with records that end at times that are known.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import accumulate
from statistics import median, quantiles

from tests.bench.lookup import _say, _table

#: Seconds that the service takes to answer.
_LATENCY = 0.05
#: The waits of a poll, without jitter, so that what one alone detects is known.
_WAITS = [1, 2, 4, 8, 16, 32, 60]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark to a parser."""
    parser.add_argument("--tasks", type=int, default=100_000)
    parser.add_argument("--polls", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)


def run(arguments: argparse.Namespace) -> None:
    """Measure both and print the table."""
    what = f"{arguments.polls:,} polls"
    _say(what)
    begin = time.time()
    with _service(begin) as url:
        delay, alone, memory, threads = asyncio.run(_polls(url, arguments.polls, begin))
    rows = [
        [f"{what}: 95 % of the delays ÷ of one alone ({delay:.1f} s, {alone:.1f} s)", f"{delay / alone:.2f}", "≤ 1.2"],
        [f"{what}: memory", f"{memory:.0f} MB", "≤ 200 MB"],
        [f"{what}: most threads", str(threads), ""],
    ]
    _say(f"{arguments.tasks:,} tasks")
    with _service(begin) as url:
        ratio = _lookups(url, arguments.tasks, arguments.rounds)
    rows.append([f"{arguments.tasks:,} tasks, awaited ÷ blocking", f"{ratio:.2f}", "≤ 1.1"])
    _table(["", "measured", "to reach"], rows)


@contextmanager
def _service(begin: float) -> Iterator[str]:
    """Serve from another process."""
    code = f"from tests.bench.awaited import serve; serve({begin!r})"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def serve(begin: float) -> None:
    """Answer batches for as long as the process lives; tasks end so many seconds after `begin`, as `_end` says."""
    made = datetime.fromtimestamp(begin, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

    def answer(task: dict[str, str]) -> dict[str, object]:
        ended = time.time() - begin >= _end(task["entityId"])
        status, found = ("finished", True) if ended else ("pending", None)
        times = {"createdAt": made, "updatedAt": made}
        return {"id": task["entityId"], **times, **task, "status": status, "dataFound": found, "orgId": "org_1"}

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head, re.I)
                body = json.loads(await reader.readexactly(int(length[1]) if length else 0))
                await asyncio.sleep(_LATENCY)
                content = json.dumps([answer(task) for task in body["tasks"]]).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
                await writer.drain()

    async def forever() -> None:
        server = await asyncio.start_server(converse, "127.0.0.1", 0, backlog=1000)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    asyncio.run(forever())


def _end(entity: str) -> float:
    """Say after how many seconds a task ends: between 5 and 60."""
    return 5 + 55 * int(entity[:4], 16) / 0xFFFF


def _lookups(url: str, count: int, rounds: int) -> float:
    import pandas as pd

    import enrichstatus as es
    from tests.support.factory import task

    tasks = pd.DataFrame([task(n) for n in range(count)])
    client = es.AsyncEnrichmentClient(url, token="token", progress=False)
    took: dict[bool, list[float]] = {True: [], False: []}
    for awaited in [True, False] * (rounds + 1):
        start = time.perf_counter()
        if awaited:
            asyncio.run(client.lookup(tasks))
        else:
            client.blocking.lookup(tasks)
        took[awaited].append(time.perf_counter() - start)
    return median(took[True][1:]) / median(took[False][1:])


async def _polls(url: str, count: int, begin: float) -> tuple[float, float, float, int]:
    """Poll so many lists of one task; gives the delays that 95 % stay below, those of one alone, MB, and threads."""
    import enrichstatus as es
    from tests.support.factory import task

    ends = {n: _end(task(n)["entityId"]) for n in range(count)}
    delays, most, over = [], 0, asyncio.Event()

    async def poll(client: es.AsyncEnrichmentClient, number: int) -> None:
        async for update in es.apoll(client, [task(number)], schedule=_WAITS):
            if update.done:
                delays.append(time.time() - begin - ends[number])  # noqa: PERF401

    async def watch() -> None:
        nonlocal most
        while not over.is_set():
            most = max(most, threading.active_count())
            await asyncio.sleep(0.05)

    async with es.AsyncEnrichmentClient(url, token="token") as client:
        began, watching = time.time() - begin, asyncio.create_task(watch())
        await asyncio.gather(*(poll(client, n) for n in range(count)))
        over.set()
        await watching
    alone = [
        next(at for at in accumulate(_WAITS, initial=began) if at >= end) - end + _LATENCY for end in ends.values()
    ]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return quantiles(delays, n=20)[-1], quantiles(alone, n=20)[-1], peak, most
