"""A snapshot: the newest record of each key of a store that nobody writes to, found by digests in a file that is mapped.

The system keeps in memory what is read of the file, and drops it when it needs the room.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any, NamedTuple, TypeAlias

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from enrichstatus.lookup.arguments import Instant
from enrichstatus.lookup.vectors.keys import Codes, Keys, Vocabulary, texts, uuids
from enrichstatus.lookup.vectors.rules import Question, Statuses, answers, words
from enrichstatus.schema import COLUMNS, ENTITY_TYPES, EXPLANATION, SCHEMA
from enrichstatus.sources.store.snapshot.layout import NEVER, bucket_bits, digests, place_bits, write
from enrichstatus.sources.store.snapshot.wire import Instants, Wire

Limits: TypeAlias = Mapping[str, timedelta]
_INSTANT = SCHEMA.field("createdAt").type


class _Found(NamedTuple):
    """Records that were found: the positions of their tasks, the places of their rows, and these."""

    position: Codes
    place: Codes
    rows: npt.NDArray[np.void]


class Snapshot:
    """The records, and the answers to tasks of them that are well-formed; any others are for the database."""

    def __init__(self, con: duckdb.DuckDBPyConnection, fields: Sequence[str]):
        self._vocabulary = Vocabulary(fields)
        self._kinds = len(self._vocabulary.kinds)
        self._files = write(con, self._kinds)
        self._statuses = Statuses(self._files.statuses)
        self._wire = Wire(self._vocabulary.kinds, self._statuses.words, Instants(*self._files.span))
        self._bits = place_bits(len(self._files.directory))
        self._after_bucket = np.uint64(64) - bucket_bits(len(self._files.directory))
        self._mask = (np.uint64(1) << self._bits) - np.uint64(1)

    def answers(
        self, tasks: pa.Table, names: Sequence[str], org_id: str | None, limits: Limits, now: Instant
    ) -> pa.Table | None:
        """Answer the keys of a frame with some columns; None where that is for the database."""
        if not _COLUMNS.issuperset(names):
            return None
        keys, question = self._vocabulary.keys_of_table(tasks), Question.of(org_id, limits, now)
        if keys is None or question is None:
            return None
        found = self._find(keys, question.org_id)
        return pa.table({"position": found.position, **self._columns(found.rows, question, names)})

    def objects(self, body: Any, org_id: str | None, limits: Limits, now: Instant) -> bytes | None:
        """Answer a request of the contract, as JSON; None where that is for the database."""
        keys, question = self._vocabulary.keys_of_body(body), Question.of(org_id, limits, now)
        if keys is None or question is None:
            return None
        found = self._find(keys, question.org_id)
        if not len(found.place):
            return b"[]"
        # a task that comes twice has one object, where it stood first
        first = np.sort(np.unique(found.place, return_index=True)[1])
        place, rows = found.place[first], found.rows.take(first)
        kinds = rows["whose"].astype(np.int64) % self._kinds
        said, field = rows["said"], kinds % len(self._vocabulary.fields)
        statuses = self._statuses.codes(said, self._statuses.timed_out(said, rows["created"], field, question))
        begins, ends = rows["tail"], self._files.rows["tail"][place + 1]
        tails = map(self._files.tails.__getitem__, map(slice, begins.tolist(), ends.tolist()))
        return self._wire.write(rows, kinds, statuses, tails)

    def _find(self, keys: Keys, org_id: str) -> _Found:
        """Find the row of each key of an organization."""
        files = self._files
        code = files.organizations.get(org_id)
        if code is None:
            keys, code = Keys(keys.high[:0], keys.low[:0], keys.kind[:0]), 0
        whose = (keys.kind + code * self._kinds).astype(np.uint32)
        wanted = digests(keys.high, keys.low, whose, files.factors)
        bucket = (wanted >> self._after_bucket).astype(np.int64)
        first = files.starts.take(bucket).astype(np.int64)
        count = files.starts.take(bucket + 1).astype(np.int64) - first
        # each task with each entry of the directory that begins like its digest: with 1 or 2, as a rule
        task = np.repeat(np.arange(len(count)), count)
        at = np.arange(len(task)) + np.repeat(first - (count.cumsum() - count), count)
        entries = files.directory.take(at)
        same = entries >> self._bits == wanted.take(task) >> self._bits
        task, place = task[same], (entries[same] & self._mask).astype(np.int64)
        rows = files.rows.take(place)
        # the whole key: another one, of whatever organization, can have the same digest
        match = rows["high"] == keys.high.take(task)
        match &= rows["low"] == keys.low.take(task)
        match &= rows["whose"] == whose.take(task)
        if match.all():
            return _Found(task, place, rows)
        return _Found(task[match], place[match], rows[match])

    def _columns(self, rows: npt.NDArray[np.void], question: Question, names: Sequence[str]) -> dict[str, pa.Array]:
        kind = rows["whose"].astype(np.int64) % self._kinds
        field = kind % len(self._vocabulary.fields)
        columns: dict[str, Callable[[], pa.Array]] = {
            "id": lambda: texts(uuids(rows["idHigh"], rows["idLow"])),
            "createdAt": lambda: pa.array(rows["created"]).cast(_INSTANT),
            "updatedAt": lambda: pa.array(rows["updated"], mask=rows["updated"] == NEVER).cast(_INSTANT),
            "entityId": lambda: texts(uuids(rows["high"], rows["low"])),
            "entityType": lambda: words(kind // len(self._vocabulary.fields), ENTITY_TYPES),
            "field": lambda: words(field, self._vocabulary.fields),
            "orgId": lambda: pa.repeat(pa.scalar(question.org_id), len(rows)),
            **answers(self._statuses, rows["said"], rows["created"], field, question),
        }
        return {name: columns[name]() for name in names}


#: The columns that a snapshot answers with; the others are text, which it keeps only as the wire has it.
_TEXTS = {"error", "createdBy", "globalEnrichmentId", "creditTransactionId"}
_COLUMNS = frozenset((*COLUMNS, *EXPLANATION.names)) - _TEXTS
