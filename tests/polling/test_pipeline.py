"""The nightly job of notebook 04, killed wherever it may be."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest

import enrichstatus as es
from tests.support.cases import cases
from tests.support.factory import ORG, record
from tests.support.notebooks import cell
from tests.support.processes import processes

#: What the notebook's cell runs after the definition is not of the job.
JOB = [cell("04-etl.ipynb", id_).rpartition("\n\n\n")[0] for id_ in ("etl-18", "nightly")]
#: The lines before which it is killed, counted as they are run: ten of them, by default where it matters most, around the file.
PLACES = [14, 16, 17, 18, 4, 7, 10, 12, 15, 20][: cases(4, 10)]


def _nightly(store: es.EnrichmentStore, folder: Path) -> Path | None:
    names: dict[str, Any] = {"es": es, "pl": pl, "pq": pq, "Path": Path}
    for text in JOB:
        exec(compile(text, "<job>", "exec"), names)
    shipped: Path | None = names["nightly"](store, folder)
    return shipped


def _killed(path: Path, folder: Path, at: int) -> None:
    """Run the job in this process, which is killed before the line of so many."""
    lines = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal lines
        if frame.f_code.co_filename != "<job>":
            return None
        if event == "line":
            lines += 1
            if lines == at:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    with es.EnrichmentStore(path, org_id=ORG) as store:
        sys.settrace(trace)
        _nightly(store, folder)
        sys.settrace(None)


@pytest.mark.slow
def test_killed_at_ten_places_it_ships_nothing_twice_and_leaves_nothing_out(tmp_path: Path):
    """Each night records come and end, then the job is killed, or ends. Together the files have what came; none changes once it is there."""
    path, folder = tmp_path / "store.duckdb", tmp_path / "out"
    folder.mkdir()
    seen: dict[str, bytes] = {}
    nights = 0

    def night(at: int | None) -> bool:
        """Load, and run the job; says whether it was killed."""
        nonlocal nights
        nights += 1
        with es.EnrichmentStore(path, org_id=ORG) as store:
            store.load(
                [
                    record(nights, status="pending", dataFound=None, updatedAt="2026-11-16T08:00:30.000Z"),
                    record(nights - 1),
                ]
            )
            if at is None:
                _nightly(store, folder)
        if at is not None:
            child = processes().Process(target=_killed, args=(path, folder, at))
            child.start()
            child.join()
            assert child.exitcode in (0, -signal.SIGKILL)
        for file in folder.glob("*.parquet"):
            assert seen.setdefault(file.name, file.read_bytes()) == file.read_bytes()
        return at is not None and child.exitcode != 0

    for place in PLACES:
        # where the night before was killed there is other work first
        assert night(place) or night(place), f"it ends before line {place}"
    night(None)
    shipped = pd.concat([pq.read_table(folder / name).to_pandas() for name in seen])
    assert not shipped.duplicated(["id", "updatedAt"]).any()
    with es.EnrichmentStore(path, org_id=ORG, read_only=True) as store:
        now = store.records().to_pandas()
        assert not len(store.changes((folder / "cursor.txt").read_text()))
    last = shipped.sort_values("updatedAt").drop_duplicates("id", keep="last").sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(
        last[["id", "status"]], now.sort_values("id", ignore_index=True)[["id", "status"]], check_dtype=False
    )
    # what was pending when it was shipped is shipped again when it has ended, and says what it was
    ended = shipped[shipped["status"] == "finished"]
    was = set(shipped[shipped["status"] == "pending"]["id"])
    assert set(ended[ended["previousStatus"] == "pending"]["id"]) == set(ended["id"]) & was


def test_the_gate_keeps_the_cursor(tmp_path: Path):
    """Where too much has failed nothing is shipped and the cursor stays: the next run, whose gate passes, ships all of it."""
    with es.EnrichmentStore(org_id=ORG) as store:
        store.load([record(0, status="failed")])
        try:
            _nightly(store, tmp_path)
        except es.RequirementError:
            assert list(tmp_path.iterdir()) == []
        store.load([record(1), record(2)])
        shipped = _nightly(store, tmp_path)
        assert shipped is not None
        assert pq.read_metadata(shipped).num_rows == 3
