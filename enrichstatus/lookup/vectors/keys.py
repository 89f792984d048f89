"""Keys in vectors (rule 2 of the lookup): read where ids are written as usual, told apart, found again, and written as text."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from itertools import repeat
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.lookup.contract import BATCH_SIZE
from enrichstatus.schema import ENTITY_TYPES

Numbers = npt.NDArray[np.uint64]
Codes = npt.NDArray[np.int64]
Letters = npt.NDArray[np.uint8]

#: Where the dashes of a UUID's text are, and its digits.
DASHES = [8, 13, 18, 23]
DIGITS = [place for place in range(36) if place not in DASHES]


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
        kind, ids = types * len(self.fields) + names, _decoded(tasks["entityId"])
        if ids.type == pa.uuid():
            return None if ids.null_count else _split(b"".join(_bytes(chunk.storage) for chunk in ids.chunks), kind)
        if not _is_text(ids.type) or not len(ids):
            return None
        whole = ids.combine_chunks()
        letters = letters_of(whole if isinstance(whole, pa.Array) else whole.chunk(0))
        return None if letters is None else _keys(letters, kind)


def _keys(letters: Letters, kind: Codes) -> Keys | None:
    numbers = read_uuids(letters)
    return None if numbers is None else _split(numbers, kind)


def read_uuids(letters: Letters) -> bytes | None:
    """Read UUIDs such as ``f81d4fae-7dec-11d0-a765-00a0c91e6bf6``, in either case; nothing where one is written in another way."""
    rows = letters.reshape(-1, 36)
    if (rows[:, DASHES] != ord("-")).any():
        return None
    try:
        blocks = (rows[first : first + _BLOCK].take(DIGITS, axis=1).data for first in range(0, len(rows), _BLOCK))
        return b"".join(map(binascii.unhexlify, blocks))
    except binascii.Error:
        return None


#: So many UUIDs at a time stay in the processor's cache.
_BLOCK = 65_536


def letters_of(texts: pa.Array) -> Letters | None:
    """Give the letters of texts that have 36 each; nothing where one is null, or longer or shorter."""
    if texts.null_count or not len(texts):
        return None if len(texts) else np.empty(0, np.uint8)
    _, offsets, data = texts.buffers()
    kind = np.dtype(np.int32 if pa.types.is_string(texts.type) else np.int64)
    ends = np.frombuffer(offsets, kind, len(texts) + 1, texts.offset * kind.itemsize)
    return None if (np.diff(ends) != 36).any() else np.frombuffer(data, np.uint8, 36 * len(texts), ends[0])


def _bytes(values: pa.FixedSizeBinaryArray) -> memoryview:
    return memoryview(values.buffers()[1])[16 * values.offset : 16 * (values.offset + len(values))]


def _split(numbers: bytes, kind: Codes) -> Keys:
    high, low = np.frombuffer(numbers, ">u8").reshape(-1, 2).T.astype(np.uint64)
    return Keys(high, low, kind)


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


def distinct(keys: Keys) -> tuple[Codes, Codes]:
    """Give the positions where each different key stands first, in order, and of each key which of these it is."""
    order = np.lexsort((keys.kind, keys.low, keys.high))
    new = np.ones(len(order), bool)
    new[1:] = np.any([np.diff(part[order]) != 0 for part in keys], axis=0)
    first = order[new]  # the sort keeps the order of those that are the same
    number = np.argsort(np.argsort(first))
    place = np.empty(len(order), np.int64)
    place[order] = number[np.cumsum(new) - 1]
    return np.sort(first), place


def matched(keys: Keys, found: Keys) -> tuple[Codes, Codes]:
    """Find for each key the row that has it: the positions of the keys that have one, and these rows."""
    digests = mixed(*found)
    order = np.argsort(digests)
    sought, rows = mixed(*keys), np.full(len(keys.kind), -1)
    at, left = np.searchsorted(digests[order], sought), np.arange(len(keys.kind))
    while len(left := left[at[left] < len(order)]):
        row = order[at[left]]
        left, row = left[same := digests[row] == sought[left]], row[same]
        # the whole key: another one can have the same digest
        match = (
            (found.high[row] == keys.high[left])
            & (found.low[row] == keys.low[left])
            & (found.kind[row] == keys.kind[left])
        )
        rows[left[match]] = row[match]
        left = left[~match]
        at[left] += 1
    position = np.flatnonzero(rows >= 0)
    return position, rows[position]


def uuids(high: Numbers, low: Numbers) -> Letters:
    """Write UUIDs, a row of 36 letters each."""
    digits = binascii.hexlify(np.stack([high, low], axis=1).astype(">u8").data)
    letters = np.full((len(high), 36), ord("-"), np.uint8)
    letters[:, DIGITS] = np.frombuffer(digits, np.uint8).reshape(-1, 32)
    return letters


def texts(letters: Letters) -> pa.Array:
    """Make an Arrow column of rows of so many letters each."""
    count, width = letters.shape
    ends = np.arange(0, count * width + 1, width, dtype=np.int32 if count * width < 2**31 else np.int64)
    kind = pa.StringArray if ends.dtype == np.int32 else pa.LargeStringArray
    return kind.from_buffers(count, pa.py_buffer(ends), pa.py_buffer(letters))
