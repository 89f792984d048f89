"""What a poll knows of its tasks, as JSON has it, and read again into a poll that goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from enrichstatus.lookup.arguments import is_text
from enrichstatus.polling.resuming.packed import pack, unpack
from enrichstatus.polling.tracker import TIMES, UNANSWERED, Tracker
from enrichstatus.schema import SCHEMA
from enrichstatus.survival import Numbers

#: Of the tasks that have not ended these are written, so many to the second. When a record was made is rounded down, so that no record
#: looks older than it was.
_UNITS = {"made": 1, "first": 1000, "answered": 1000, "sent": 1000, "gone": 1000}
#: How long the tasks of a field took is written as so many numbers at the most; read again, they stand for so many tasks at the most.
_STEPS, _HISTORY = 50, 2000
#: Stands for no time.
_NONE = np.iinfo(np.int64).min


def write(known: Tracker) -> dict[str, Any]:
    """Write what is known of each task: its status and columns, and of those that have not ended the times too."""
    order = known.listed.order
    rows = order[known.unfinished[order]]
    return {
        "words": known.vocabulary,
        "status": pack(known.status[order], "<u2"),
        "found": pack(known.found[order], "i1"),
        "recorded": pack(known.recorded[order], "u1"),
        "times": {name: pack(_counted(_times(known, name)[rows] * units), "<i8") for name, units in _UNITS.items()},
        "columns": {name: _texts(name, known.others[name][order]) for name in known.columns},
        "took": {name: _steps(_durations(known, name)) for name in known.fields},
    }


def restore(tracker: Tracker, told: dict[str, Any]) -> Tracker:
    """Let a new tracker of the same tasks know what was written; what a store says to have ended meanwhile stays ended.

    Gives what was known when it was written, to compare with. What cannot be read raises `ValueError`, `TypeError` or `LookupError`,
    and the tracker is of no use then.
    """
    order, count = tracker.listed.order, len(tracker.status)
    codes = np.array(_codes(tracker, told["words"]), dtype=np.int16)[unpack(told["status"], "<u2", count)]
    pending = codes <= UNANSWERED
    # those that a store has let end meanwhile keep what it says
    kept = ~pending | (tracker.status[order] <= UNANSWERED)
    places = order[kept]
    tracker.status[places] = codes[kept]
    tracker.found[places] = unpack(told["found"], "i1", count)[kept]
    tracker.recorded[places] = unpack(told["recorded"], "u1", count).astype(bool)[kept]
    for name in tracker.columns:
        tracker.others[name][places] = _objects(name, told["columns"][name], count)[kept]
    waiting = kept[pending]
    for name, units in _UNITS.items():
        numbers = unpack(told["times"][name], "<i8", len(waiting))
        seconds = np.where(numbers == _NONE, np.nan, numbers / units)[waiting]
        times, rows = _times(tracker, name), order[pending][waiting]
        times[rows] = np.fmax(times[rows], seconds) if name == "made" else seconds
    tracker.remember({name: _spread(one) for name, one in told["took"].items() if name in tracker.fields})
    before = tracker.copy()
    before.status[order] = codes
    return before


def _codes(tracker: Tracker, words: list[str]) -> list[int]:
    """Give the codes of the words of a vocabulary, of which the first are no status of an ended record."""
    fixed = UNANSWERED + 2
    if words[:fixed] != tracker.vocabulary[:fixed] or not all(map(is_text, words)):
        raise ValueError("has other words")
    return [*range(fixed), *tracker.codes_of(words[fixed:])]


def _times(known: Tracker, name: str) -> Numbers:
    times: Numbers = known.times[TIMES.index(name)]
    return times


def _counted(values: Numbers) -> npt.NDArray[np.int64]:
    """Round down to whole numbers."""
    nothing = np.isnan(values)
    return np.where(nothing, _NONE, np.floor(np.where(nothing, 0, values)).astype(np.int64))


def _type(name: str) -> pa.DataType:
    return pa.string() if name == "reason" else SCHEMA.field(name).type


def _texts(name: str, values: npt.NDArray[np.object_]) -> dict[str, Any]:
    """Write a column as the different texts in it, and which of them each task has."""
    words = pa.array(values, _type(name), from_pandas=True).dictionary_encode()
    codes = words.indices.fill_null(len(words.dictionary)).to_numpy(zero_copy_only=False)
    return {"words": words.dictionary.cast(pa.string()).to_pylist(), "codes": pack(codes, "<u4")}


def _objects(name: str, told: dict[str, Any], count: int) -> npt.NDArray[np.object_]:
    words = pa.array([*told["words"], None], pa.string()).cast(_type(name)).to_pylist()
    objects = np.empty(len(words), dtype=object)
    objects[:] = words
    taken: npt.NDArray[np.object_] = objects[unpack(told["codes"], "<u4", count)]
    return taken


def _durations(known: Tracker, name: str) -> Numbers:
    """Give how long tasks of a field took, as far as is known."""
    took = _times(known, "took")[known.field == known.fields.index(name)]
    return np.concatenate([took[~np.isnan(took)], known.earlier.get(name, np.empty(0))])


def _steps(seconds: Numbers) -> dict[str, Any]:
    """Say by a few numbers, in milliseconds, how long tasks took; each stands for as many of them."""
    steps = min(len(seconds), _STEPS)
    chosen = np.quantile(seconds, (np.arange(steps) + 0.5) / steps) if steps else np.empty(0)
    return {"tasks": len(seconds), "milliseconds": np.rint(chosen * 1000).astype(np.int64).tolist()}


def _spread(told: dict[str, Any]) -> Numbers:
    chosen, tasks = np.array(told["milliseconds"], dtype=np.float64) / 1000, min(int(told["tasks"]), _HISTORY)
    return chosen[np.arange(tasks) * len(chosen) // max(tasks, 1)]
