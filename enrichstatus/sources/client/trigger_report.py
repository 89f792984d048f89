"""What a trigger has bought, or would buy: its tasks, its cost, and what the balance says of that."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import pyarrow as pa

from enrichstatus.files.results import jsonable
from enrichstatus.presentation import credits_of, many, number
from enrichstatus.schema import KEY, NO_LEASES

#: Amounts are as exact as sums of fractions are.
_EXACT = 1e-6
#: Requests of a dry run that are shown, and the entities of each.
_SHOWN, _IDS = 3, 2


def tasks_of(purchases: pa.Table) -> pd.DataFrame:
    """Give the keys of purchases or leases as a frame."""
    frame: pd.DataFrame = purchases.select(KEY).to_pandas()
    return frame


@dataclass(frozen=True, repr=False, eq=False)
class TriggerReport:
    """What one call of `EnrichmentClient.trigger` has bought, or would buy.

    Attributes
    ----------
    bought : pandas.DataFrame
        The tasks (``entityId``, ``entityType``, ``field``) that the service has answered with a new record each.
    already : pandas.DataFrame
        Those that it has answered with a record that was there before, and has not bought again.
    left : pandas.DataFrame
        Those that were not requested: all, in a dry run.
    in_flight : pandas.DataFrame
        Those that another call has leased or bought meanwhile, those without a record in the answer, and what an earlier trigger into
        the store has requested and the service has no record of yet.
    released : pandas.DataFrame
        What an earlier trigger into the store has requested, and the service has no record of in time: planned again, it is bought.
    credits : float
        What those bought cost, by the prices of the plan; in a dry run what all would.
    charged : float or None
        By how much the balance fell meanwhile; None where that is not known.
    requests : list of dict
        The bodies that were sent; in a dry run those that would be.
    dry_run : bool
        Whether nothing was sent.
    """

    bought: pd.DataFrame
    left: pd.DataFrame
    in_flight: pd.DataFrame
    credits: float
    requests: list[dict[str, Any]]
    dry_run: bool = False
    already: pd.DataFrame = field(default_factory=lambda: tasks_of(NO_LEASES))
    released: pd.DataFrame = field(default_factory=lambda: tasks_of(NO_LEASES))
    charged: float | None = None
    #: what all may have cost that was requested and not there already
    _planned: float = 0.0
    #: how many of those already there were to be bought anew
    _kept: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Give the same as JSON has it, for programs."""
        told = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        given: dict[str, Any] = jsonable(told | {"overcharged": self.overcharged})
        return given

    @property
    def overcharged(self) -> bool:
        """Whether the balance fell by more than was planned for what was bought."""
        if self.charged is None:
            return False
        # a balance of the contract is in whole credits
        most = math.ceil(self._planned - _EXACT) if self.charged.is_integer() else self._planned
        return self.charged > most + _EXACT

    def __repr__(self) -> str:
        return str(self) if self.dry_run else f"TriggerReport({self})"

    def __str__(self) -> str:
        if not self.dry_run:
            return "; ".join([self._bought(), *self._others()])
        requests, tasks = many(len(self.requests), "request"), many(len(self.left), "task")
        head = f"Dry run: {requests} for {tasks} and {credits_of(self.credits)}; nothing was sent"
        bodies = [_shortened(body) for body in self.requests[:_SHOWN]]
        more = len(self.requests) - len(bodies)
        return "\n".join([head, *bodies, *([f"… and {more:,} more in .requests"] if more else [])])

    def _bought(self) -> str:
        flying = f", {len(self.in_flight):,} in flight" if len(self.in_flight) else ""
        differs = self.charged is not None and abs(self.charged - self.credits) >= 1 - _EXACT
        fell = f" (the balance fell by {number(self.charged)})" if differs else ""
        return f"{len(self.bought):,} bought for {credits_of(self.credits)}{fell}, {len(self.left):,} left{flying}"

    def _others(self) -> Iterator[str]:
        if there := len(self.already):
            anew = f" (of {self._kept:,} to be bought anew the service gives nothing newer than it had)"
            yield f"{there:,} already there, not bought again{anew if self._kept else ''}"
        if free := len(self.released):
            yield f"{free:,} requested earlier without a purchase, as the service has no record of them: plan again to buy them"


def _shortened(body: dict[str, Any]) -> str:
    ids = body["personIds"]
    more = f", … {len(ids) - _IDS:,} more" if len(ids) > _IDS else ""
    return f'{{"personIds": [{", ".join(map(json.dumps, ids[:_IDS]))}{more}], "field": {json.dumps(body["field"])}}}'
