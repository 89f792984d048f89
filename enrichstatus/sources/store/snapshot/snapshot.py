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
from enrichstatus.schema import COLUMNS, ENTITY_TYPES, EXPLANATION, SCHEMA
from enrichstatus.sources.store.snapshot.layout import FOUND, NEVER, digests, place_bits, write
from enrichstatus.sources.store.snapshot.rules import REASONS, Codes, Flags, Keys, Question, Statuses, Vocabulary
from enrichstatus.sources.store.snapshot.wire import Instants, Wire, texts, uuids

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
        self._mask = (np.uint64(1) << self._bits) - np.uint64(1)

    def __len__(self) -> int:
        return len(self._files.directory)

    def answers(
        self, tasks: pa.Table, names: Sequence[str], org_id: str | None, limits: Limits, now: Instant
    ) -> pa.Table | None:
        """Answer the keys of a frame with some columns; None where that is for the database."""
        if not _COLUMNS.issuperset(names):
            return None
        keys, asked = self._vocabulary.keys_of_table(tasks), Question.of(org_id, limits, now)
        if keys is None or asked is None:
            return None
        found = self._find(keys, asked.org_id)
        return pa.table({"position": found.position, **self._columns(found.rows, asked, names)})

    def objects(self, body: Any, org_id: str | None, limits: Limits, now: Instant) -> bytes | None:
        """Answer a request of the contract, as JSON; None where that is for the database."""
        keys, asked = self._vocabulary.keys_of_body(body), Question.of(org_id, limits, now)
        if keys is None or asked is None:
            return None
        found = self._find(keys, asked.org_id)
        if not len(found.place):
            return b"[]"
        # a task that comes twice has one object, where it stood first
        first = np.sort(np.unique(found.place, return_index=True)[1])
        place, rows = found.place[first], found.rows.take(first)
        kinds = rows["whose"].astype(np.int64) % self._kinds
        statuses = self._statuses.codes(rows["said"], self._timed_out(rows, kinds, asked))
        begins, ends = rows["tail"], self._files.rows["tail"][place + 1]
        tails = map(self._files.tails.__getitem__, map(slice, begins.tolist(), ends.tolist()))
        return self._wire.write(rows, kinds, statuses, tails)

    def _find(self, keys: Keys, org_id: str) -> _Found:
        """Find the row of each key of an organization."""
        code, index, rows = self._files.organizations.get(org_id), self._files.directory, self._files.rows
        place = np.full(len(keys.high), -1)
        found = np.empty(len(place) if code is not None else 0, rows.dtype)
        if code is not None and len(index):
            whose = (keys.kind + code * self._kinds).astype(np.uint32)
            wanted = digests(keys.high, keys.low, whose, self._files.factors) >> self._bits
            at = np.searchsorted(index, wanted << self._bits)
            left = np.arange(len(at))
            while True:
                entries = index[np.minimum(at[left], len(index) - 1)]
                same = (entries >> self._bits == wanted[left]) & (at[left] < len(index))
                left, candidates = left[same], (entries[same] & self._mask).astype(np.int64)
                if not len(left):
                    break
                there = rows.take(candidates)
                # the whole key: another one, of whatever organization, can have the same digest
                match = there["high"] == keys.high[left]
                match &= there["low"] == keys.low[left]
                match &= there["whose"] == whose[left]
                place[left[match]] = candidates[match]
                found[left[match]] = there[match]
                left = left[~match]
                at[left] += 1
        position = np.flatnonzero(place >= 0)
        return _Found(position, place[position], found.take(position))

    def _timed_out(self, rows: npt.NDArray[np.void], kind: Codes, asked: Question) -> Flags:
        return self._statuses.timed_out(rows["said"], rows["created"], kind % len(self._vocabulary.fields), asked)

    def _columns(self, rows: npt.NDArray[np.void], asked: Question, names: Sequence[str]) -> dict[str, pa.Array]:
        kind = rows["whose"].astype(np.int64) % self._kinds
        field, said = kind % len(self._vocabulary.fields), rows["said"]
        timed_out = self._timed_out(rows, kind, asked)
        # as DuckDB divides
        age = (asked.now - rows["created"]) / 1e6
        columns: dict[str, Callable[[], pa.Array]] = {
            "id": lambda: texts(uuids(rows["idHigh"], rows["idLow"])),
            "createdAt": lambda: _instants(rows)[0],
            "updatedAt": lambda: _instants(rows)[1],
            "entityId": lambda: texts(uuids(rows["high"], rows["low"])),
            "entityType": lambda: _words(kind // len(self._vocabulary.fields), ENTITY_TYPES),
            "field": lambda: _words(field, self._vocabulary.fields),
            "status": lambda: _words(self._statuses.codes(said, timed_out), self._statuses.words),
            "dataFound": lambda: pa.array(FOUND).take(pa.array(said % len(FOUND))),
            "orgId": lambda: pa.repeat(pa.scalar(asked.org_id), len(rows)),
            "reason": lambda: _words(self._statuses.reasons(said, timed_out), REASONS),
            "age": lambda: pa.array(age),
            "expiresIn": lambda: pa.array(
                np.maximum(asked.maximum[field] - age, 0), mask=~self._statuses.pending(said)
            ),
        }
        return {name: columns[name]() for name in names}


#: The columns that a snapshot answers with; the others are text, which it keeps only as the wire has it.
_COLUMNS = frozenset((*COLUMNS, *EXPLANATION.names)) - {
    "error",
    "createdBy",
    "globalEnrichmentId",
    "creditTransactionId",
}


def _words(codes: Codes, words: Sequence[str]) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(words, pa.string()))


def _instants(rows: npt.NDArray[np.void]) -> tuple[pa.Array, pa.Array]:
    updated = rows["updated"]
    return (
        pa.array(rows["created"]).cast(_INSTANT),
        pa.array(updated, mask=updated == NEVER).cast(_INSTANT),
    )
