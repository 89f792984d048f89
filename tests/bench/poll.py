"""Polls of simulated tasks beside the loop that waits 1, 2, 4 … 60 s and asks all again, in requests and in seconds unnoticed.

Time is faked: a run of twenty minutes takes seconds. Every way of asking meets the same tasks, which end at the same moments.
"""

from __future__ import annotations

import argparse
import functools
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.bench.lookup import _say, _table

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from enrichstatus import EnrichmentStore

BATCH = 200
#: What has not ended by then is a timeout, and known to be one.
LONGEST = 800
LOOP, BACKOFF, ADAPTIVE, TAUGHT = "exponential loop, all again", "Backoff", "Adaptive", "Adaptive, with a history"
GOALS = {(BACKOFF, "requests"): 0.40, (ADAPTIVE, "requests"): 0.25, (ADAPTIVE, "delay"): 0.65}
TICK_GOAL = 150


class Cost(NamedTuple):
    """What one poll took: requests, and the mean seconds from a task's end until it was noticed."""

    requests: float
    delay: float


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark to a parser."""
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--many", type=int, default=100_000, help="tasks of the run whose ticks are timed")


def run(arguments: argparse.Namespace) -> None:
    """Measure everything and print the tables."""
    for label, make in _SCENARIOS.items():
        costs: dict[str, list[Cost]] = {way: [] for way in (LOOP, BACKOFF, ADAPTIVE, TAUGHT)}
        for seed in range(1, arguments.seeds + 1):
            _say(f"{label}, seed {seed}")
            for way, cost in _measure(make, arguments.tasks, seed).items():
                costs[way].append(cost)
        print(f"{label}: {arguments.tasks:,} tasks, mean of {arguments.seeds} seeds (least and most)\n")
        _report(costs)
    print(
        f"Processor time of a tick, {arguments.many:,} tasks of which 90 % have ended, the source's own not counted\n"
    )
    rows = []
    for way, schedule in _schedules().items():
        ticks = _ticks(arguments.many, schedule)
        met = "met" if statistics.median(ticks) <= TICK_GOAL else "not met"
        figures = [
            f"{statistics.median(ticks):.0f} ms",
            f"{max(ticks):.0f} ms",
            str(len(ticks)),
            f"≤ {TICK_GOAL} ms",
            met,
        ]
        rows.append([way, *figures])
    _table(["schedule", "median", "most", "ticks", "to reach", ""], rows)


# ------------------------------------------------------------------------------------------------------- tasks


def _one(generator: np.random.Generator, fields: pd.Series) -> np.ndarray:
    return generator.lognormal(4.025, 0.8, len(fields))  # a median of 56 s


def _two(generator: np.random.Generator, fields: pd.Series) -> np.ndarray:
    medians = fields.map({"emails": 30, "phones": 120}).to_numpy()
    return medians * generator.lognormal(0, 0.8, len(fields))


def _bimodal(generator: np.random.Generator, fields: pd.Series) -> np.ndarray:
    medians = generator.choice([15, 240], len(fields))
    return medians * generator.lognormal(0, 0.4, len(fields))


Scenario = tuple[tuple[str, ...], Callable[..., Any]]
_SCENARIOS: dict[str, Scenario] = {
    "One field, median 56 s": (("emails",), _one),
    "Two fields, medians 30 s and 120 s": (("emails", "phones"), _two),
    "Bimodal, one half about 15 s and one about 240 s": (("emails",), _bimodal),
}


@functools.cache
def _inputs(scenario: Scenario, count: int, seed: int) -> tuple[pd.DataFrame, np.ndarray]:
    """Make distinct tasks, and when each of them ends."""
    import numpy as np
    import pandas as pd

    fields, draw = scenario
    numbers = np.arange(count) + seed * 10**9
    ids = [f"00000000-0000-4000-8000-{number:012x}" for number in numbers]
    tasks = pd.DataFrame({"entityId": ids, "field": np.resize(np.array(fields, dtype=object), count)})
    return tasks, np.minimum(draw(np.random.default_rng(seed), tasks["field"]), LONGEST)


# ------------------------------------------------------------------------------------------------------- costs


def _schedules() -> dict[str, Any]:
    import random

    import enrichstatus as es

    draw = random.Random(1).random
    return {BACKOFF: es.Backoff(random=draw), ADAPTIVE: es.Adaptive(random=draw)}


def _measure(scenario: Scenario, count: int, seed: int) -> dict[str, Cost]:
    import enrichstatus as es

    tasks, ends = _inputs(scenario, count, seed)
    costs = {LOOP: _loop(ends)}
    for way, schedule in _schedules().items():
        costs[way] = _poll(tasks, ends, schedule, None)
    with closing(es.EnrichmentStore(org_id="org_1")) as store:
        earlier = _inputs(scenario, count, 1000 + seed)
        _poll(*earlier, _schedules()[BACKOFF], store)
        costs[TAUGHT] = _poll(tasks, ends, _schedules()[ADAPTIVE], store)
    return costs


def _loop(ends: np.ndarray) -> Cost:
    """Ask all until all have ended, after 1, 2, 4 … 60, 60 s."""
    import numpy as np

    waits = np.minimum(2.0 ** np.arange(40), 60)
    moments = np.concatenate([[0], np.cumsum(waits)])
    noticed = moments[np.searchsorted(moments, ends)]
    asks = int(np.searchsorted(moments, ends.max())) + 1
    return Cost(asks * -(-len(ends) // BATCH), float((noticed - ends).mean()))


def _poll(tasks: pd.DataFrame, ends: np.ndarray, schedule: Any, store: EnrichmentStore | None) -> Cost:
    import numpy as np

    import enrichstatus as es
    from tests.support.polled import Clock, Service

    clock = Clock()
    service = Service.of(clock, tasks, ends)
    noticed = np.full(len(tasks), np.nan)
    for update in es.poll(service, tasks, into=store, schedule=schedule, clock=clock, sleep=clock.sleep):
        noticed[update.changed.index] = update.elapsed
    assert (noticed >= ends).all()
    return Cost(service.requests, float((noticed - ends).mean()))


def _ticks(count: int, schedule: Any) -> list[float]:
    """Give the milliseconds of processor time of the ticks from 90 % ended on: to choose, take in, learn and tell."""
    import enrichstatus as es
    from tests.support.polled import Clock, Service

    tasks, ends = _inputs(_SCENARIOS["One field, median 56 s"], count, 1)
    clock = Clock()
    service = _Timed(Service.of(clock, tasks, ends))
    ticks = []
    polled: Iterator[Any] = iter(es.poll(service, tasks, schedule=schedule, clock=clock, sleep=clock.sleep))
    share = 0.0
    while share < 1:
        began, service.spent = time.process_time(), 0.0
        update = next(polled)
        spent = time.process_time() - began - service.spent
        if share >= 0.9:
            ticks.append(spent * 1000)
        share = update.ended / update.total
    return ticks


class _Timed:
    """A source that counts the processor time that it takes itself."""

    def __init__(self, source: Any):
        self._source, self.spent = source, 0.0

    def lookup(self, tasks: pd.DataFrame, **options: Any) -> pd.DataFrame:
        began = time.process_time()
        answer: pd.DataFrame = self._source.lookup(tasks, **options)
        self.spent += time.process_time() - began
        return answer


def _report(costs: dict[str, list[Cost]]) -> None:
    rows = []
    loop = costs[LOOP]
    for way, each in costs.items():
        row = [way]
        for name in Cost._fields:
            value = statistics.mean(getattr(cost, name) for cost in each)
            shares = [getattr(cost, name) / getattr(plain, name) for cost, plain in zip(each, loop, strict=True)]
            share = statistics.mean(shares)
            goal = GOALS.get((way, name))
            met = "" if goal is None else f"≤ {goal:.0%}, " + ("met" if share <= goal else "not met")
            value_ = f"{value:,.0f}" if name == "requests" else f"{value:.1f} s"
            row += [value_, f"{share:.1%} ({min(shares):.1%}–{max(shares):.1%})", met]
        rows.append(row)
    _table(["way", "requests", "of the loop's", "to reach", "mean delay", "of the loop's", "to reach"], rows)
