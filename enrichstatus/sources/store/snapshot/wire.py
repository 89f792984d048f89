"""Numbers as the text that all answers have: instants, and with UUIDs the wire objects of a snapshot, as ready JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from itertools import chain

import numpy as np
import numpy.typing as npt

from enrichstatus.lookup.vectors.keys import Letters, uuids
from enrichstatus.sources.store.snapshot.layout import NEVER


class Instants:
    """Writes instants as `schema.timestamps` does, of the days from one to another."""

    def __init__(self, first: int, last: int):
        day = first // _DAY - 1
        self._first = day
        self._days = _written("M8[D]", slice(10), range(day, last // _DAY + 2))
        self._seconds = _written("M8[s]", slice(10, 19), range(86_400))
        self._millis = _written("M8[ms]", slice(19, 23), range(1_000))

    def write(self, micros: npt.NDArray[np.int64]) -> Letters:
        """Write instants in microseconds, a row of 24 letters each."""
        # Arrow cuts off towards 1970
        day, milli = np.divmod(np.where(micros < 0, -(-micros // 1000), micros // 1000), 86_400_000)
        second, milli = np.divmod(milli, 1000)
        letters = np.full((len(micros), 24), ord("Z"), np.uint8)
        letters[:, :10] = self._days.take(day - self._first, axis=0)
        letters[:, 10:19] = self._seconds.take(second, axis=0)
        letters[:, 19:23] = self._millis.take(milli, axis=0)
        return letters


_DAY = 86_400_000_000


def _written(unit: str, part: slice, numbers: range) -> Letters:
    """Write a part of the instants of some numbers in a unit, a row of letters each."""
    texts = np.datetime_as_string(np.arange(numbers.start, numbers.stop).astype(unit)).astype(f"S{part.stop}")
    return np.ascontiguousarray(texts.view(np.uint8).reshape(len(numbers), -1)[:, part])


class Wire:
    """The texts that are between the numbers of an object, for the kinds of keys and the statuses that there are."""

    def __init__(self, kinds: Iterable[tuple[str, str]], statuses: Sequence[str], instants: Instants):
        self._instants = instants
        self._kinds = np.array(
            [f'","entityType":{_json(kind)},"field":{_json(field)},"status":'.encode() for kind, field in kinds]
        )
        # objects: one long word must not make all of them long
        self._statuses = np.array([(_json(word) + ",").encode() for word in statuses], object)

    def write(
        self,
        rows: npt.NDArray[np.void],
        kinds: npt.NDArray[np.int64],
        statuses: npt.NDArray[np.int64],
        tails: Iterable[bytes],
    ) -> bytes:
        """Write the objects of some rows, at least one, with the places of their kinds and statuses."""
        count = len(rows)
        unknown = rows["updated"] == NEVER
        written = self._instants.write(
            np.concatenate([rows["created"], np.where(unknown, rows["created"], rows["updated"])])
        )
        first = np.empty((count, len(_FIRST)), np.uint8)
        first[:] = _FIRST
        first[0, 0] = ord("[")
        first[:, _ID] = uuids(rows["idHigh"], rows["idLow"])
        first[:, _CREATED] = written[:count]
        updated = np.full((count, 26), ord('"'), np.uint8)
        updated[:, 1:25] = written[count:]
        updates = updated.view("S26")[:, 0]
        updates[unknown] = b"null"
        entity = np.empty((count, len(_ENTITY)), np.uint8)
        entity[:] = _ENTITY
        entity[:, -36:] = uuids(rows["high"], rows["low"])
        parts = (_strings(first), updates, _strings(entity), self._kinds[kinds], self._statuses[statuses])
        pieces = chain.from_iterable(zip(*(part.tolist() for part in parts), tails, strict=True))
        return b"".join(chain(pieces, (b"]",)))


_ENTITY = np.frombuffer(b',"entityId":"' + b" " * 36, np.uint8)
_FIRST = np.frombuffer(b',{"id":"' + b" " * 36 + b'","createdAt":"' + b" " * 24 + b'","updatedAt":', np.uint8)
_ID, _CREATED = slice(8, 44), slice(59, 83)


def _strings(letters: Letters) -> npt.NDArray[np.bytes_]:
    strings: npt.NDArray[np.bytes_] = letters.view(f"S{letters.shape[1]}")[:, 0]
    return strings


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
