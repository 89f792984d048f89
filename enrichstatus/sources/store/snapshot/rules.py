"""Rules 2 and 4 of the lookup in vectors, and what explains an answer: ``lookup.sql`` once more, which the tests hold it against."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.lookup.arguments import Instant, parse_instant, parse_org
from enrichstatus.lookup.contract import BATCH_SIZE
from enrichstatus.schema import ENTITY_TYPES, FIRST_MICROSECOND
from enrichstatus.sources.store.snapshot.layout import FOUND, Numbers
from enrichstatus.sources.store.snapshot.wire import DASHES, DIGITS

Flags = npt.NDArray[np.bool_]
Codes = npt.NDArray[np.int64]
Said = npt.NDArray[np.int64] | npt.NDArray[np.uint32]

#: The words of outcomes.py.
REASONS = ("timed_out_here", "pending", "timed_out_there", "failed", "data", "no_data", "unknown")
_MICROSECOND = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Keys(NamedTuple):
    """Keys that compare (rule 2): the UUID's value, and the entity type and the field as one number."""

    high: Numbers
    low: Numbers
    kind: Codes


def mixed(high: Numbers, low: Numbers, kind: Codes) -> Numbers:
    """Give a digest of each key; two keys can have the same."""
    digest: Numbers = high ^ (low * np.uint64(0x9E3779B97F4A7C15)) ^ (kind.astype(np.uint64) << np.uint64(40))
    return digest


class Vocabulary:
    """Reads the tasks of a store with these fields, as long as they are well-formed and their ids are written as usual.

    What is bad, or written in another way, gives None: that is for ``keys.sql`` to read, or to refuse.
    """

    def __init__(self, fields: Sequence[str]):
        self.fields = tuple(fields)
        self.kinds = [(kind, field) for kind in ENTITY_TYPES for field in self.fields]
        self._codes = {kind: code for code, kind in enumerate(self.kinds)}

    def keys_of_body(self, body: Any) -> Keys | None:
        """Read a request of the contract, as JSON is decoded."""
        tasks = body.get("tasks") if type(body) is dict else None
        if type(tasks) is not list or not 1 <= len(tasks) <= BATCH_SIZE or set(map(type, tasks)) != {dict}:
            return None
        try:
            ids: list[str] = list(map(itemgetter("entityId"), tasks))
            types = map(dict.get, tasks, repeat("entityType"), repeat(ENTITY_TYPES[0]))
            kinds = map(self._codes.__getitem__, zip(types, map(itemgetter("field"), tasks), strict=True))
            kind = np.fromiter(kinds, np.int64, len(tasks))
            if set(map(len, ids)) != {36}:
                return None
            letters = np.frombuffer("".join(ids).encode("ascii"), np.uint8)
        except (KeyError, TypeError, UnicodeError):
            return None
        return _keys(letters, kind)

    def keys_of_table(self, tasks: pa.Table) -> Keys | None:
        """Read the keys of a frame."""
        types, names = _codes(tasks["entityType"], ENTITY_TYPES), _codes(tasks["field"], self.fields)
        if types is None or names is None:
            return None
        kind = types * len(self.fields) + names
        if tasks["entityId"].type == pa.uuid():
            return _keys_of_uuids(tasks["entityId"], kind)
        letters = _letters(tasks["entityId"])
        return None if letters is None else _keys(letters, kind)


def _keys(letters: npt.NDArray[np.uint8], kind: Codes) -> Keys | None:
    """Read UUIDs, of 36 letters each."""
    rows = letters.reshape(-1, 36)
    if (rows[:, DASHES] != ord("-")).any():
        return None
    try:
        numbers = binascii.unhexlify(rows.take(DIGITS, axis=1).data)
    except binascii.Error:
        return None
    return _split(numbers, kind)


def _keys_of_uuids(ids: pa.ChunkedArray, kind: Codes) -> Keys | None:
    if ids.null_count:
        return None
    return _split(b"".join(_bytes(chunk.storage) for chunk in ids.chunks), kind)


def _bytes(values: pa.FixedSizeBinaryArray) -> memoryview:
    return memoryview(values.buffers()[1])[16 * values.offset : 16 * (values.offset + len(values))]


def _split(numbers: bytes, kind: Codes) -> Keys:
    high, low = np.frombuffer(numbers, ">u8").reshape(-1, 2).T.astype(np.uint64)
    return Keys(high, low, kind)


def _letters(texts: pa.ChunkedArray) -> npt.NDArray[np.uint8] | None:
    """Give the letters of texts that have 36 each."""
    texts = _decoded(texts)
    if not _is_text(texts.type) or texts.null_count or not len(texts):
        return None
    whole = texts.combine_chunks()
    whole = whole if isinstance(whole, pa.Array) else whole.chunk(0)
    _, offsets, data = whole.buffers()
    kind = np.dtype(np.int32 if pa.types.is_string(whole.type) else np.int64)
    ends = np.frombuffer(offsets, kind, len(whole) + 1, whole.offset * kind.itemsize)
    if (np.diff(ends) != 36).any():
        return None
    return np.frombuffer(data, np.uint8, 36 * len(whole), ends[0])


def _codes(words: pa.ChunkedArray, vocabulary: Sequence[str]) -> Codes | None:
    """Give the places of words in a vocabulary; None where one is not in it."""
    words = _decoded(words)
    if not _is_text(words.type):
        return None
    places = pc.index_in(words, pa.array(vocabulary, words.type))
    return None if places.null_count else places.to_numpy().astype(np.int64)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _decoded(words: pa.ChunkedArray) -> pa.ChunkedArray:
    return words.cast(words.type.value_type) if pa.types.is_dictionary(words.type) else words


class Question(NamedTuple):
    """Who asks, when, and by field since when a record that is still pending has timed out, all in microseconds."""

    org_id: str
    now: int
    since: npt.NDArray[np.int64]
    #: seconds
    maximum: npt.NDArray[np.float64]

    @classmethod
    def of(cls, org_id: str | None, limits: Mapping[str, timedelta], now: Instant) -> Question | None:
        """Read who asks and when; None for what `lookup.query.asker` refuses."""
        org_id = parse_org(org_id)
        moment = (parse_instant(now) - _EPOCH) // _MICROSECOND
        since = np.array([moment - limit // _MICROSECOND for limit in limits.values()], np.int64)
        if not org_id or since.min() < FIRST_MICROSECOND:
            return None
        return cls(org_id, moment, since, np.array([limit.total_seconds() for limit in limits.values()]))


class Statuses:
    """What the numbers say that stand for a status and whether data was found (`layout.ROW`)."""

    def __init__(self, recorded: Sequence[str]):
        self.words = [*recorded, "timeout"]
        said = [(word, found) for word in recorded for found in FOUND]
        self._pending = np.array([word == "pending" for word, _ in said], np.bool_)
        self._reasons = np.array([REASONS.index(_reason(word, found)) for word, found in said], np.int64)

    def pending(self, said: Said) -> Flags:
        """Say which are still pending as they were recorded."""
        flags: Flags = self._pending[said]
        return flags

    def timed_out(self, said: Said, created: npt.NDArray[np.int64], field: Codes, question: Question) -> Flags:
        """Rule 4: a record that is pending, and older than the maximum processing time (strictly), has timed out."""
        flags: Flags = self._pending[said] & (created < question.since[field])
        return flags

    def codes(self, said: Said, timed_out: Flags) -> Codes:
        """Give the places of the statuses in `words`."""
        return np.where(timed_out, len(self.words) - 1, said.astype(np.int64) // len(FOUND))

    def reasons(self, said: Said, timed_out: Flags) -> Codes:
        """Give the places of the reasons in `REASONS`."""
        return np.where(timed_out, REASONS.index("timed_out_here"), self._reasons[said])


def answers(
    statuses: Statuses, said: Said, created: npt.NDArray[np.int64], field: Codes, question: Question
) -> dict[str, Callable[[], pa.Array]]:
    """Give what makes the columns of an answer that the rules have a say in, of records as they were said and created."""
    timed_out = statuses.timed_out(said, created, field, question)
    # as DuckDB divides
    age = (question.now - created) / 1e6
    return {
        "status": lambda: words(statuses.codes(said, timed_out), statuses.words),
        # rule 5 was heeded by what is said
        "dataFound": lambda: pa.array(FOUND).take(pa.array(said % len(FOUND))),
        "reason": lambda: words(statuses.reasons(said, timed_out), REASONS),
        "age": lambda: pa.array(age),
        "expiresIn": lambda: pa.array(np.maximum(question.maximum[field] - age, 0), mask=~statuses.pending(said)),
    }


def _reason(status: str, found: bool | None) -> str:
    if status in ("pending", "failed"):
        return status
    if status == "timeout":
        return "timed_out_there"
    if found:
        return "data"
    return "no_data" if status == "finished" or found is False else "unknown"


def words(codes: Codes, vocabulary: Sequence[str]) -> pa.Array:
    """Give the words of a vocabulary that stand in these places."""
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(vocabulary, pa.string()))
