"""Arrays and lists of tasks as short text, for a token."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.lookup.lazy import lazy
from enrichstatus.lookup.tasks import with_uuids
from enrichstatus.lookup.vectors.keys import texts, uuids
from enrichstatus.schema import KEY, PANDAS_TYPES

#: How many bytes a UUID has.
_BYTES = 16


class TaskList:
    """The distinct tasks of a poll: as short text, and in an order that does not depend on how the caller's list is ordered.

    Parameters
    ----------
    tasks : pandas.DataFrame
        The columns of the key, as a tracker has them.
    """

    def __init__(self, tasks: pd.DataFrame):
        self._tasks = tasks

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def _table(self) -> pa.Table:
        return pa.table({name: pa.array(self._tasks[name], pa.string()) for name in KEY})

    @lazy
    def order(self) -> npt.NDArray[np.int64]:
        """The places of the tasks, sorted by their keys."""
        places = pc.sort_indices(self._table, [(name, "ascending") for name in KEY])
        order: npt.NDArray[np.int64] = places.to_numpy().astype(np.int64)
        return order

    @lazy
    def digest(self) -> str:
        """A SHA-256 that two lists have in common only if they are of the same tasks."""
        table, order = self._table, pa.array(self.order)
        columns = [table[name].cast(pa.large_string()).take(order) for name in KEY]
        end, between = (pa.scalar(text, pa.large_string()) for text in ("\n", " "))
        lines = pc.binary_join_element_wise(*columns, end, between).combine_chunks()
        if not len(lines):
            return hashlib.sha256().hexdigest()
        _, ends, letters = lines.buffers()
        return hashlib.sha256(letters[: np.frombuffer(ends, np.int64)[len(lines)]]).hexdigest()

    def pack(self) -> dict[str, Any]:
        """Write the tasks, in the order of the list."""
        told: dict[str, Any] = {}
        table = self._table
        for name in ("entityType", "field"):
            words = table[name].combine_chunks().dictionary_encode()
            told[name] = {"words": words.dictionary.to_pylist(), "codes": pack(words.indices.to_numpy(), "<u2")}
        ids = with_uuids(table)["entityId"].combine_chunks()
        data = ids.storage.buffers()[1] if len(self) else b""
        # a list of leads and fields has each UUID several times, one after the other
        return told | {"entityId": _squeeze(memoryview(data)[: _BYTES * len(self)])}

    @staticmethod
    def unpack(told: dict[str, Any], count: int) -> pd.DataFrame:
        """Read the tasks again; what cannot be read raises `ValueError`, `TypeError` or `LookupError`."""
        columns = {}
        for name in ("entityType", "field"):
            words = pa.array(told[name]["words"], pa.string())
            columns[name] = words.take(pa.array(unpack(told[name]["codes"], "<u2", count)))
        columns["entityId"] = _texts(_stretch(told["entityId"], _BYTES * count))
        frame: pd.DataFrame = pa.table({name: columns[name] for name in KEY}).to_pandas(types_mapper=PANDAS_TYPES.get)
        return frame


def _texts(data: bytes) -> pa.Array:
    """Write UUIDs as text."""
    high, low = np.frombuffer(data, ">u8").reshape(-1, 2).T
    return texts(uuids(high, low)).cast(pa.string())


def pack(values: npt.NDArray[Any], kind: str) -> str:
    """Write an array, as numbers of a kind such as ``"<i8"``."""
    numbers = np.ascontiguousarray(values.astype(kind))
    # the bytes of the same weight side by side: most of them are the same
    return _squeeze(numbers.view(np.uint8).reshape(len(numbers), numbers.itemsize).T.tobytes())


def unpack(text: str, kind: str, count: int) -> npt.NDArray[Any]:
    """Read so many numbers again; what cannot be read raises `ValueError` or `TypeError`."""
    dtype = np.dtype(kind)
    data = np.frombuffer(_stretch(text, dtype.itemsize * count), np.uint8)
    return np.ascontiguousarray(data.reshape(dtype.itemsize, count).T).view(dtype).reshape(count)


def _squeeze(data: bytes | memoryview) -> str:
    return base64.b64encode(zlib.compress(data)).decode()


def _stretch(text: str, size: int) -> bytes:
    """Read so many bytes, and never more, however far the text would stretch."""
    reader = zlib.decompressobj()
    try:
        data = reader.decompress(base64.b64decode(text, validate=True), size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(data) != size or not reader.eof:
        raise ValueError("is of another length")
    return data
