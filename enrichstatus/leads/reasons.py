"""Why a task is bought or not, in words."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from enrichstatus.leads.plan import Codes
from enrichstatus.outcomes import OUTCOMES

WORDS = tuple(OUTCOMES)
#: For each outcome why a task is bought or not, with the day of the record's making or of its end.
_WHY = {
    "data": "data found on {ended}",
    "no_data": "finished without data on {ended}",
    "failed": "failed on {ended}",
    "timed_out_here": "bought on {made}, still pending after its time",
    "timed_out_there": "bought on {made}, timed out",
    "unknown": "ended on {ended} with a status that is unknown",
    "pending": "bought on {made}, still pending",
    "unanswered": "not answered",
    "no_record": "never bought",
    "invalid": "no task",
}
#: What is added to the reason.
_REMARKS = ("", ", which is stale", ", and retry= leaves that alone", ", but beyond the budget")
STALE, LEFT, OVER = range(1, len(_REMARKS))
Instants = npt.NDArray[np.datetime64]


def words_of(reason: Codes, made: Instants, ended: Instants, remark: Codes) -> pa.Array:
    """Write the reasons: few are different, and each of these is written once."""
    days = [np.where(np.isnat(when), 0, when.astype("datetime64[D]").astype(np.int64)) for when in (made, ended)]
    uses = np.array(["{made}" in _WHY[name] for name in WORDS])[reason]
    day = np.where(uses, *days)
    codes, few = pd.factorize((day * len(WORDS) + reason) * len(_REMARKS) + remark)
    day, reason, remark = few // len(_REMARKS) // len(WORDS), few // len(_REMARKS) % len(WORDS), few % len(_REMARKS)
    dates = day.astype("datetime64[D]").astype(str)
    texts = [
        _WHY[WORDS[code]].format(made=date, ended=date) + _REMARKS[more]
        for code, date, more in zip(reason, dates, remark, strict=True)  # a few combinations, not tasks
    ]
    return pa.DictionaryArray.from_arrays(codes, pa.array(texts, pa.string())).cast(pa.string())
