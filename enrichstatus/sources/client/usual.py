"""Tasks and answers whose ids are written as usual, without DuckDB: packed and put together in vectors.

For a few hundred tasks DuckDB takes ten times as long to plan these steps as they take. `batches` does them for all others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.frames.frames import Rows
from enrichstatus.lookup.contract import BATCH_SIZE
from enrichstatus.lookup.vectors.keys import Keys, Vocabulary, distinct, matched, texts, uuids
from enrichstatus.lookup.vectors.rules import FOUND, Question, Statuses, answers, words
from enrichstatus.schema import ENTITY_TYPES, EXPLANATION, SCHEMA

#: What is answered where no task has a record.
NOTHING = pa.schema([("position", pa.int64()), *SCHEMA, *EXPLANATION]).empty_table()
_EARLIEST = np.iinfo(np.int64).min


class Packed:
    """The distinct ones of some tasks, in batches, in the order of first appearance.

    Parameters
    ----------
    vocabulary : Vocabulary
        What the keys were read with.
    keys : Keys
        A key for each task.
    """

    def __init__(self, vocabulary: Vocabulary, keys: Keys):
        first, self._place = distinct(keys)
        self._vocabulary, self._keys = vocabulary, Keys(keys.high[first], keys.low[first], keys.kind[first])

    def __len__(self) -> int:
        return len(self._keys.kind)

    def bodies(self) -> list[str]:
        """Write a request's body for each batch."""
        ends = [
            f'","field":{json.dumps(field, ensure_ascii=False)},"entityType":{json.dumps(kind)}}}'
            for kind, field in self._vocabulary.kinds
        ]
        tasks = pc.binary_join_element_wise(
            '{"entityId":"', self._ids(), pa.array(ends, pa.string()).take(pa.array(self._keys.kind)), ""
        )
        starts = np.append(np.arange(0, len(self), BATCH_SIZE), len(self)).astype(np.int32)
        batches = pc.binary_join(pa.ListArray.from_arrays(starts, tasks), ",")
        written: list[str] = pc.binary_join_element_wise('{"tasks":[', batches, "]}", "").to_pylist()
        return written

    def lost(self, answered: Mapping[int, pa.Table]) -> Rows:
        """Give the positions of the tasks whose batch was not answered."""
        return np.flatnonzero(~np.isin(self._place // BATCH_SIZE, list(answered)))

    def answer(self, answered: Mapping[int, pa.Table], limits: pa.Table, names: Sequence[str]) -> pa.Table | None:
        """Put together what was answered to each batch, as `lookup.query.look_up` wants it.

        `limits` says since when a record that is pending has timed out (`lookup.query.timing_out`). It gives None where an id is
        written in another way, an answer is to a task that its batch did not name, or a task has several: that is for the query.
        """
        records = pa.concat_tables(list(answered.values()))
        if not len(records):
            return NOTHING.select(["position", *names])
        found = self._vocabulary.keys_of_table(records)
        if found is None:
            return None
        place, row = matched(self._keys, found)
        batch = np.repeat(list(answered), [len(table) for table in answered.values()])
        if len(row) < len(records) or (batch[row] != place // BATCH_SIZE).any():
            return None
        of = np.full(len(self), -1)
        of[place] = row
        position = np.flatnonzero(of[self._place] >= 0)
        place = self._place[position]
        records, kind = records.take(pa.array(of[place])), self._keys.kind[place]
        codes = records["status"].combine_chunks().dictionary_encode()
        if isinstance(codes, pa.ChunkedArray):
            codes = codes.combine_chunks()
        recorded, statuses = codes.dictionary.to_pylist(), codes.indices.to_numpy().astype(np.int64)
        data = pc.if_else(pc.equal(records["status"], "pending"), None, records["dataFound"])
        data = pc.fill_null(pc.add(data.cast(pa.int64()), 1), 0).to_numpy()
        columns = answers(
            Statuses(recorded),
            statuses * len(FOUND) + data,
            records["createdAt"].cast(pa.int64()).to_numpy(),
            kind % len(self._vocabulary.fields),
            _question(limits),
        ) | {
            "entityId": lambda: self._ids().take(pa.array(place)),
            "entityType": lambda: words(kind // len(self._vocabulary.fields), ENTITY_TYPES),
            "field": lambda: words(kind % len(self._vocabulary.fields), self._vocabulary.fields),
            "orgId": lambda: pc.if_else(pc.equal(records["orgId"], ""), None, records["orgId"]),
        }
        made = {name: columns[name]() if name in columns else records[name] for name in names}
        return pa.table({"position": position, **made})

    def _ids(self) -> pa.Array:
        return texts(uuids(self._keys.high, self._keys.low))


def _question(limits: pa.Table) -> Question:
    since, now = (limits[name].cast(pa.int64()) for name in ("pendingSince", "now"))
    return Question("", now[0].as_py(), pc.fill_null(since, _EARLIEST).to_numpy(), limits["maximum"].to_numpy())
