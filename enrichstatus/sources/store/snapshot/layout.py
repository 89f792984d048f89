"""How a snapshot lies in its files, and how it is written there."""

from __future__ import annotations

import mmap
import secrets
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, NamedTuple

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from enrichstatus.errors import StoreError
from enrichstatus.lookup.vectors.keys import Numbers
from enrichstatus.lookup.vectors.rules import FOUND

#: A row, of 64 bytes: the key, the other numbers of a record, and where its tail begins, which is ready JSON.
ROW = np.dtype(
    [
        ("high", np.uint64),
        ("low", np.uint64),
        ("idHigh", np.uint64),
        ("idLow", np.uint64),
        ("created", np.int64),
        ("updated", np.int64),
        # the organization, the entity type and the field
        ("whose", np.uint32),
        # the status as it was recorded, and whether data was found
        ("said", np.uint32),
        ("tail", np.int64),
    ]
)
#: What stands in `updated` where nothing is known.
NEVER = np.iinfo(np.int64).min


class Files(NamedTuple):
    """What was written."""

    #: the rows, with one more at the end, which says where the tails end
    rows: npt.NDArray[np.void]
    tails: mmap.mmap
    #: the first and the last of all instants, in microseconds
    span: tuple[int, int]
    #: sorted: the upper bits are those of a key's digest, the lower ones the place of its row
    directory: Numbers
    #: where the digests of each value of their first bits begin in the directory, and where the last ones end
    starts: npt.NDArray[np.uint32]
    organizations: dict[str, int]
    statuses: list[str]
    #: what the digests are made with, in secret: nobody can make keys that meet
    factors: Numbers


def digests(high: Numbers, low: Numbers, whose: npt.NDArray[np.uint32], factors: Numbers) -> Numbers:
    """Give a digest of each key; they can be the same for two keys, which the whole keys then distinguish."""
    mixed = high * factors[0] + low * factors[1] + whose.astype(np.uint64) * factors[2]
    found: Numbers = (mixed ^ (mixed >> np.uint64(29))) * factors[3]
    return found


def place_bits(count: int) -> np.uint64:
    """Say how many bits of an entry of the directory are the place of a row."""
    return np.uint64(max(count - 1, 1).bit_length())


def bucket_bits(count: int) -> np.uint64:
    """Say of how many first bits of a digest `Files.starts` has the values: about one digest for each."""
    return np.uint64(max(count.bit_length() - 1, 1))


def write(con: duckdb.DuckDBPyConnection, kinds: int) -> Files:
    """Write the newest record of each key to the temporary folder, to files without a name; there are so many kinds of a key."""
    organizations = {org: code for code, (org,) in enumerate(con.execute(_ORGANIZATIONS_SQL).fetchall())}
    if len(organizations) * kinds > np.iinfo(np.uint32).max:
        raise StoreError(f"{len(organizations):,} organizations are too many for preload=True; open it without.")
    statuses = [status for (status,) in con.execute(_STATUSES_SQL).fetchall()]
    con.register("organizations", _coded("orgId", list(organizations)))
    con.register("statuses", _coded("status", statuses))
    factors = np.array([secrets.randbits(64) | 1 for _ in range(4)], np.uint64)
    with (
        tempfile.TemporaryFile(prefix="enrichstatus-") as file,
        tempfile.TemporaryFile(prefix="enrichstatus-") as tails,
    ):
        found, end = [np.empty(0, np.uint64)], 0
        for batch in con.sql(_ROWS_SQL).to_arrow_reader(1 << 16):
            rows, text = _rows(batch, kinds, end)
            file.write(rows.data)
            tails.write(text)
            end += len(text)
            found.append(digests(rows["high"], rows["low"], rows["whose"], factors))
        last = np.zeros(1, ROW)
        last["tail"] = end
        file.write(last.data)
        index = np.concatenate(found)
        del found
        places = np.arange(len(index), dtype=np.uint64)
        bits = place_bits(len(index))
        index >>= bits
        index <<= bits
        index |= places
        index.sort()
        file.write(index.data)
        buckets = bucket_bits(len(index))
        index >>= np.uint64(64) - buckets
        counts = np.bincount(index.view(np.int64), minlength=1 << int(buckets))
        file.write(np.concatenate([[0], counts.cumsum()]).astype(np.uint32).data)
        count = len(index)
        del index, counts
        tails.write(b"\n")  # nothing cannot be mapped
        mapped = _mapped(file)
        return Files(
            rows=np.frombuffer(mapped, ROW, count + 1),
            tails=_mapped(tails),
            directory=np.frombuffer(mapped, np.uint64, count, (count + 1) * ROW.itemsize),
            starts=np.frombuffer(mapped, np.uint32, -1, (count + 1) * ROW.itemsize + count * 8),
            organizations=organizations,
            statuses=statuses,
            span=con.execute(_SPAN_SQL).fetchall()[0],
            factors=factors,
        )


def _rows(batch: pa.RecordBatch, kinds: int, begin: int) -> tuple[npt.NDArray[np.void], memoryview]:
    """Lay out some records, whose tails begin so far into theirs; gives the tails too."""
    rows = np.empty(batch.num_rows, ROW)
    for name in ("high", "low", "idHigh", "idLow", "created"):
        rows[name] = batch[name].to_numpy()
    rows["updated"] = batch["updated"].fill_null(NEVER).to_numpy()
    rows["whose"] = batch["organization"].to_numpy() * kinds + batch["kind"].to_numpy()
    rows["said"] = batch["status"].to_numpy() * len(FOUND) + batch["found"].to_numpy()
    tails = batch["tail"]
    _, offsets, data = tails.buffers()
    starts = np.frombuffer(offsets, np.int32, len(tails) + 1, tails.offset * 4)
    rows["tail"] = starts[:-1] + (begin - int(starts[0]))
    return rows, memoryview(data)[starts[0] : starts[-1]]


def _mapped(file: IO[bytes]) -> mmap.mmap:
    file.flush()
    return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def _coded(name: str, words: Sequence[str]) -> pa.Table:
    return pa.table({name: pa.array(words, pa.string()), "code": np.arange(len(words))})


_ROWS_SQL = Path(__file__).with_name("rows.sql").read_text(encoding="utf-8")
_ORGANIZATIONS_SQL = "select distinct orgId from enrichments"
_SPAN_SQL = """
select
    coalesce(epoch_us(least(min(createdAt), min(updatedAt))), 0),
    coalesce(epoch_us(greatest(max(createdAt), max(updatedAt))), 0)
from enrichments
"""
_STATUSES_SQL = "select distinct status from enrichments"
