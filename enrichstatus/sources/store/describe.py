"""What a store holds, in a few numbers: of all organizations together, or of one."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import pyarrow as pa

from enrichstatus.files.results import jsonable
from enrichstatus.lookup.query import with_outcome
from enrichstatus.lookup.tasks import to_pandas

_COUNTS_SQL = with_outcome(Path(__file__).with_name("describe.sql"))
_RECORDS_SQL = """
select count(*), count(distinct orgId), max(coalesce(updatedAt, createdAt))
from enrichments
where orgId = coalesce($org_id, orgId)
"""


@dataclass(frozen=True)
class StoreDescription:
    """What a store holds.

    Attributes
    ----------
    records : int
        All records, those that a newer one of their key has superseded too.
    organizations : int
        How many organizations they are of; their names are not said.
    counts : pandas.DataFrame
        By ``field`` and ``outcome`` (the newest record of a key decides) the number of ``keys``, and when the ``oldest`` was created.
    newest : Timestamp or None
        When a record has changed last.
    size : int or None
        Bytes of the file; None in memory.
    """

    records: int
    organizations: int
    counts: pd.DataFrame
    newest: pd.Timestamp | None
    size: int | None

    def to_dict(self) -> dict[str, Any]:
        """Give the same as JSON has it, for programs."""
        told: dict[str, Any] = jsonable(vars(self) | {"oldest_pending": self.oldest_pending})
        return told

    @property
    def oldest_pending(self) -> pd.Timestamp | None:
        """When the oldest record was created that is pending, and has not timed out."""
        pending = self.counts.loc[self.counts["outcome"] == "pending", "oldest"]
        return None if pending.empty else pending.min()


def describe(
    con: duckdb.DuckDBPyConnection, question: pa.Table, org_id: str | None, path: str | None
) -> StoreDescription:
    """Describe the records of an organization, or of all; `question` says by field since when a pending one has timed out."""
    con.register("asker", question)
    counts = to_pandas(con.sql(_COUNTS_SQL, params={"org_id": org_id}))
    found = con.sql(_RECORDS_SQL, params={"org_id": org_id}).to_arrow_table().to_pydict()
    records, organizations, newest = (column[0] for column in found.values())
    size = None if path is None else os.path.getsize(path)
    return StoreDescription(records, organizations, counts, None if newest is None else pd.Timestamp(newest), size)
