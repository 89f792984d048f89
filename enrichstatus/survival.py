"""How long enrichments take, learned from those that ended and those that have not yet, and what to expect of the pending ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.files.scratch import scratch

#: Kaplan and Meier's estimate, over the relation ``evidence``.
SURVIVAL_SQL = Path(__file__).with_name("survival.sql").read_text(encoding="utf-8")

Numbers: TypeAlias = npt.NDArray[np.float64]

#: With fewer ends than this nothing is learned of a field.
ENOUGH = 20
#: Where fewer than this are at risk, the estimate is not believed.
_FEW = 10
#: The last part of a curve, whose slope is assumed to go on.
_RECENT = 0.4
#: Times and ages are rounded to this share of the longest: nobody waits by the thousandth.
_GRAIN = 1 / 2000
#: How far ahead an estimate looks, as a multiple of the age of the oldest, and of what is known.
_FAR = 50


class Curve:
    """The share still pending by age: estimated where there is evidence, and prolonged by its recent slope where there is none.

    Attributes
    ----------
    end : float
        The age in seconds up to which there is evidence.
    """

    def __init__(self, ages: Numbers, pending: Numbers, at_risk: npt.NDArray[np.int64], longest: float):
        sure = at_risk >= _FEW
        # where many end last of all, at the same time, the share left is assumed to be half of one task, not none
        ages, hazard = ages[sure], -np.log(np.maximum(pending[sure], 0.5 / at_risk.max(initial=1)))
        last = hazard[-1] if len(hazard) else 0.0
        known = float(ages[-1]) if len(ages) else 0.0
        # where all have ended nothing is known of later; where some are pending, that none has ended since is known too
        self.end = max(longest if len(sure) == 0 or sure[-1] else known, known, 1e-6)
        self._ages = np.r_[0.0, ages, self.end]
        self._hazard = np.r_[0.0, hazard, last]
        recent = (1 - _RECENT) * self.end
        self._slope = (last - np.interp(recent, self._ages, self._hazard)) / (self.end - recent)
        still = np.exp(-self._hazard)
        self._lived = np.r_[0.0, np.cumsum((still[1:] + still[:-1]) / 2 * np.diff(self._ages))]

    def pending(self, age: Numbers) -> Numbers:
        """Give the share that is still pending at an age (seconds)."""
        late = np.maximum(age - self.end, 0)
        return np.exp(-np.minimum(np.interp(age, self._ages, self._hazard) + late * self._slope, 500))

    def lived(self, age: Numbers) -> Numbers:
        """Give the mean seconds that one is pending before that age."""
        late = np.maximum(age - self.end, 0)
        beyond = late if self._slope <= 0 else -np.expm1(-late * self._slope) / self._slope
        lived: Numbers = np.interp(age, self._ages, self._lived) + beyond * np.exp(-self._hazard[-1])
        return lived


def learn(evidence: pa.Table) -> dict[str, Curve]:
    """Estimate a curve for each field of which enough ends were observed; `evidence` is that of ``survival.sql``."""
    if (pc.sum(evidence["observed"]).as_py() or 0) < ENOUGH:
        return {}
    seconds = evidence["seconds"].to_numpy()
    grain = float(seconds.max()) * _GRAIN or 1.0
    rounded = np.ceil(seconds / grain) * grain
    with scratch() as con:
        con.register("evidence", evidence.set_column(1, "seconds", pa.array(rounded)))
        table = con.sql(SURVIVAL_SQL).to_arrow_table()
        longest = dict(con.sql("select field, max(seconds) from evidence group by field").fetchall())
    fields = table["field"].to_numpy(zero_copy_only=False)
    columns = {name: table[name].to_numpy() for name in ("seconds", "pending", "atRisk", "ends")}
    curves = {}
    for name, whole in longest.items():  # a few fields, not tasks
        here = fields == name
        if columns["ends"][here].sum() >= ENOUGH:
            curves[name] = Curve(columns["seconds"][here], columns["pending"][here], columns["atRisk"][here], whole)
    return curves


@dataclass(frozen=True)
class Prospect:
    """The unfinished tasks of one field, in groups that were last requested at the same time and at the same age.

    Attributes
    ----------
    tasks : array of int
        How many a group has.
    age : array of float
        Their age when they were last requested, in seconds.
    since : array of float
        Seconds since then.
    curve : Curve or None
        How long the field takes; None while too few have ended.
    """

    tasks: npt.NDArray[np.int64]
    age: Numbers
    since: Numbers
    curve: Curve | None

    @property
    def count(self) -> int:
        """Number of unfinished tasks."""
        return int(self.tasks.sum())

    def ended(self, seconds: Numbers) -> Numbers:
        """Expect so many to have ended by then, of which some may have already."""
        assert self.curve is not None
        later = (self.age + self.since)[:, None] + seconds
        return self.tasks.astype(float) @ (1 - self.curve.pending(later) / self.curve.pending(self.age)[:, None])

    def waiting(self, seconds: Numbers) -> Numbers:
        """Expect those that will have ended by then to have waited unseen for so long, in task-seconds."""
        assert self.curve is not None
        lived = self.curve.lived((self.age + self.since)[:, None] + seconds) - self.curve.lived(self.age)[:, None]
        spent = self.since[:, None] + seconds
        return self.tasks.astype(float) @ np.maximum(spent - lived / self.curve.pending(self.age)[:, None], 0)


@dataclass(frozen=True)
class Outlook:
    """What can be expected of all unfinished tasks, by field."""

    fields: Mapping[str, Prospect]

    def _ahead(self) -> tuple[Numbers, Numbers]:
        """Seconds from now, and the share of the unfinished that is expected to have ended by then."""
        ages = [float((one.age + one.since).max()) for one in self.fields.values()]
        ages += [one.curve.end for one in self.fields.values() if one.curve]
        seconds = np.r_[0.0, np.geomspace(0.1, max([*ages, 1.0]) * _FAR, 240)]
        count = sum(one.count for one in self.fields.values())
        ended = sum((one.ended(seconds) for one in self.fields.values() if one.curve), np.zeros(len(seconds)))
        return seconds, ended / max(count, 1)

    def until(self, share: float) -> float | None:
        """Expect this share of the unfinished to have ended in so many seconds; None where too little is known."""
        seconds, ended = self._ahead()
        reached = np.flatnonzero(ended >= share)
        return float(seconds[reached[0]]) if len(reached) else None

    def ahead(self, seconds: Numbers) -> Numbers:
        """Expect this share of the unfinished to have ended by then."""
        return np.interp(seconds, *self._ahead())
