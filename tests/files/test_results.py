"""What programs are told: reports as dicts of JSON's own values, and the record that a run leaves."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import enrichstatus as es
from enrichstatus.files.results import SCHEMA, jsonable
from tests.support.factory import NOW, record, task
from tests.support.polled import NEVER, Clock, Service, numbered

MEMBERS = ["schema", "command", "status", "startedAt", "finishedAt", "elapsed", "result", "error"]


def test_every_report_is_a_dict_of_jsons_own_values(store: es.EnrichmentStore):
    """Also with instants, nulls, infinities and other types in them; what it holds is what the report says."""
    loaded = store.load([record(0), record(1, status="pending", dataFound=None), {"id": "bad"}], errors="reject")
    tasks = [task(n) for n in range(3)]
    status = store.lookup(tasks, columns="all", prefix="r_", now=NOW).rename(
        columns=lambda name: name.removeprefix("r_")
    )
    plan = es.plan(store, tasks, costs={"emails": 2.5}, now=NOW)
    reports: list[Any] = [
        loaded,
        plan,
        es.coverage(status),
        es.timing(store),
        es.waste(store, costs={"emails": 1}),
        store.describe(now=NOW),
        list(es.poll(store, tasks, missing_after=0.001, clock=(clock := Clock()), sleep=clock.sleep))[-1],
    ]
    told = [report.to_dict() for report in reports]
    for one in told:
        assert json.loads(json.dumps(one, allow_nan=False)) == one
    assert told[0]["rejected"] == 1
    assert told[0]["rejects"][0]["column"]
    assert told[1] == {"tasks": 3, "balance": None, "cost": 5.0} | {
        name: told[1][name] for name in ("counts", "credits")
    }
    assert told[1]["counts"]["emails"]["trigger"] == 1
    assert told[2]["rows"][0]["tasks"] == 3
    assert told[6]["counts"]["emails"]["finished"] == 1
    odd = {1: (float("nan"), float("inf"), pd.NaT, pd.NA, pd.Timestamp(NOW), pd.Timedelta("90s"), Path("x"))}
    assert jsonable(odd) == {"1": [None, None, None, None, "2026-11-16T09:00:00.000Z", 90.0, "x"]}


async def awaited(tasks: pd.DataFrame, path: Path) -> None:
    """Cancel a poll in its wait."""
    clock, waits = Clock(), asyncio.Event()

    async def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock() > clock.start + 10:
            waits.set()
            await asyncio.Event().wait()

    service = Service(clock, {0: 1, 1: NEVER})
    poll = asyncio.create_task(
        es.await_completed(service, tasks, results=path, clock=clock, sleep=sleep, progress=False)
    )
    await waits.wait()
    poll.cancel()
    with pytest.raises(asyncio.CancelledError):
        await poll


def test_a_run_leaves_its_record_whatever_comes_of_it(tmp_path: Path, store: es.EnrichmentStore):
    """Of `wait`, `await_completed`, `plan` and `lookup_to`: done, failed, too late, not good enough, interrupted; nothing where none is named."""
    path = tmp_path / "run_results.json"
    store.load([record(0)])
    tasks = numbered(0, 1)
    tasks.to_csv(tmp_path / "tasks.csv", index=False)

    def left() -> dict[str, Any]:
        told: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        assert list(told) == MEMBERS
        assert (told["schema"], told["startedAt"] <= told["finishedAt"]) == (SCHEMA, True)
        return told

    es.plan(store, tasks, results=path)
    told = left()
    assert [told[name] for name in ("command", "status", "error")] == ["plan", "done", None]
    output, files = tmp_path / "status.parquet", tmp_path / "tasks.csv"
    report = store.lookup_to(files, output, results=path, now=NOW)
    assert left()["result"] == report.to_dict()
    with pytest.raises(es.RequirementError):
        store.lookup_to(files, output, overwrite=True, require={"ended": 1.0}, results=path, now=NOW)
    told = left()
    assert (told["status"], told["error"]["type"], told["result"]) == ("unmet", "RequirementError", None)
    clock = Clock()
    with pytest.raises(es.PollDeadline):
        es.wait(Service(clock, {0: 1, 1: NEVER}), tasks, deadline="30s", results=path, clock=clock, sleep=clock.sleep)
    told = left()
    assert (told["command"], told["status"], told["result"]["settled"]) == ("wait", "deadline", 1)
    with pytest.raises(KeyboardInterrupt):
        es.wait(Service(clock, {}, troubles=[KeyboardInterrupt()]), tasks, results=path, clock=clock, sleep=clock.sleep)
    assert left()["status"] == "interrupted"
    asyncio.run(awaited(tasks, path))
    told = left()
    assert (told["command"], told["status"], told["result"]["settled"]) == ("await_completed", "interrupted", 1)
    with pytest.raises(es.ValidationError):
        es.wait(store, [{"entityId": "x", "field": "emails"}], results=path)
    assert left()["error"]["message"].startswith("1 bad task")
    listed, written = tmp_path / "tasks.json", tmp_path / "status.json"
    listed.write_text(tasks.to_json(orient="records"))
    for taken, call in (
        (listed, lambda: es.plan(store, listed, results=listed)),
        (listed, lambda: es.wait(store, [str(tmp_path / "*.json")], results=listed)),
        (written, lambda: store.lookup_to(listed, written, results=written)),
    ):
        with pytest.raises(es.ValidationError, match=rf"^results= would replace '.*{taken.name}'"):
            call()
    assert json.loads(listed.read_text()) == tasks.to_dict("records")
    listed.unlink()
    with pytest.raises(es.ValidationError, match=r"^results= takes the path of a file"):
        es.plan(store, tasks, results=7)  # type: ignore[arg-type]
    for wrong in ("run_results.txt", "nowhere/run.json"):
        with pytest.raises(es.ValidationError, match=r"written|ending"):
            es.plan(store, tasks, results=tmp_path / wrong)
    assert {file.name for file in tmp_path.iterdir()} == {"tasks.csv", "status.parquet"}
