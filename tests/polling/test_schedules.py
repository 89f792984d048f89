"""When to poll again: the schedules, and how long enrichments take, which one of them learns."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from itertools import islice
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import CensoredData, ecdf

import enrichstatus as es
from enrichstatus.survival import ENOUGH, SURVIVAL_SQL, Curve, Outlook, Prospect, learn
from tests.support.cases import cases
from tests.support.polled import Clock, Service, numbered, polled

# --- the backoff --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "waits"),
    [
        (es.Backoff(jitter=0), [1, 2, 4, 8, 16, 32, 60, 60]),
        (es.Backoff(5, 3, 100, jitter=0), [5, 15, 45, 100, 100]),
        (es.Backoff(0.5, 1, jitter=0), [0.5] * 5),
        (es.Backoff(60, jitter=0), [60, 60, 60]),
        (es.Backoff(initial=2, factor=1.5, maximum=4, jitter=0), [2, 3, 4, 4]),
    ],
    ids=repr,
)
def test_waits_grow_up_to_the_longest(schedule: es.Backoff, waits: list[float]):
    """Each wait is `factor` times the one before, and none is longer than `maximum`."""
    assert list(islice(schedule, len(waits))) == waits


@pytest.mark.parametrize(("drawn", "share"), [(0.0, 0.75), (0.5, 1.0), (1.0, 1.25)])
def test_the_jitter_is_a_share_of_each_wait(drawn: float, share: float):
    """From the least number drawn to the greatest, a wait is so much shorter or longer; the next one does not grow by it."""
    schedule = es.Backoff(jitter=0.25, random=lambda: drawn)
    assert [next(schedule) for _ in range(7)] == [share * wait for wait in (1, 2, 4, 8, 16, 32, 60)]


def test_without_a_given_random_waits_differ():
    """Two schedules of the same numbers ask at different times, each within a tenth."""
    first, second = ([next(schedule) for _ in range(7)] for schedule in (es.Backoff(), es.Backoff()))
    assert first != second
    for waits in (first, second):
        assert all(
            0.9 * plain <= wait <= 1.1 * plain for plain, wait in zip((1, 2, 4, 8, 16, 32, 60), waits, strict=True)
        )


@given(
    initial=st.floats(0.001, 1e6),
    factor=st.floats(1, 1e6),
    longer=st.floats(1, 1e6),
    jitter=st.floats(0, 0.99),
    seed=st.integers(0, 9),
)
@settings(max_examples=cases(20, 60), deadline=None)
def test_every_wait_is_within_its_bounds(initial: float, factor: float, longer: float, jitter: float, seed: int):
    """Whatever the numbers, no wait is shorter than the first or longer than the longest, but for the jitter."""
    maximum = initial * longer
    schedule = es.Backoff(initial, factor, maximum, jitter=jitter, random=random.Random(seed).random)
    for wait in islice(schedule, 30):
        assert initial * (1 - jitter) * 0.999999 <= wait <= maximum * (1 + jitter) * 1.000001


@pytest.mark.parametrize("make", [es.Backoff, es.Adaptive])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial": 0}, r"initial= takes a number from 0\.001 up, not 0\."),
        ({"initial": -1}, "initial= takes a number"),
        ({"initial": "1s"}, "not '1s'"),
        ({"initial": None}, "not None"),
        ({"initial": True}, "not True"),
        ({"initial": math.nan}, "initial= takes a number"),
        ({"initial": math.inf}, "initial= takes a number"),
        ({"factor": 0.9}, "factor= takes a number from 1 up"),
        ({"factor": math.inf}, "factor= takes a number"),
        ({"maximum": 0.5}, "maximum= takes a number from 1 up"),
        ({"initial": 30, "maximum": 20}, "maximum= takes a number from 30 up, not 20"),
        ({"maximum": math.inf}, "maximum= takes a number"),
        ({"maximum": math.nan}, "maximum= takes a number"),
        ({"jitter": 1}, r"jitter= takes a number from 0 to 0\.99, not 1"),
        ({"jitter": -0.1}, "jitter= takes a number"),
    ],
    ids=str,
)
def test_a_number_out_of_range_is_refused(make: Callable[..., Any], arguments: dict[str, Any], message: str):
    """Each message names the argument, what it may be and what it was."""
    with pytest.raises(es.ValidationError, match=message):
        make(**arguments)


@pytest.mark.parametrize("patience", [0, -1, math.nan, math.inf, "much"])
def test_a_patience_that_is_none_is_refused(patience: Any):
    """What a request is worth is a number above zero."""
    with pytest.raises(es.ValidationError, match="patience= takes a number"):
        es.Adaptive(patience)


def test_numbers_of_numpy_are_numbers():
    """What a computation gave is as good as what was typed."""
    schedule = es.Backoff(np.int64(2), np.float32(2), np.float64(8), jitter=0)
    assert [next(schedule) for _ in range(4)] == [2, 4, 8, 8]


@pytest.mark.parametrize("make", [es.Backoff, es.Adaptive])
def test_to_iterate_is_to_begin_anew(make: Callable[..., Any]):
    """A schedule that has been used begins at its first wait, as often as it is taken; two that are taken do not meet."""
    schedule = make(jitter=0)
    seconds: Callable[[Any], float] = lambda step: getattr(step, "after", step)  # noqa: E731
    assert [seconds(next(schedule)) for _ in range(3)] == [1, 2, 4]
    one, other = iter(schedule), iter(schedule)
    assert [seconds(next(one)) for _ in range(3)] == [1, 2, 4]
    assert seconds(next(other)) == 1
    assert seconds(next(schedule)) == 8


@pytest.mark.parametrize("make", [es.Backoff, es.Adaptive])
def test_one_schedule_serves_two_polls(make: Callable[..., Any]):
    """A second poll with the same schedule, also while the first goes on, asks at the same times after its start."""
    schedule = make(jitter=0)
    clock = Clock()
    services = [Service(clock, {0: 40}) for _ in range(2)]
    for service in services:
        service.start = clock()
        polled(service, numbered(0), clock, schedule=schedule)
    assert services[0].times() == services[1].times() == [0, 1, 3, 7, 15, 31, 63]
    both = [Clock(), Clock()]
    pair = [Service(each, {0: 40}) for each in both]
    runs = [
        es.poll(service, numbered(0), schedule=schedule, clock=each, sleep=each.sleep)
        for service, each in zip(pair, both, strict=True)
    ]
    for _ in range(6):
        for one in runs:
            next(one)
    assert pair[0].times() == pair[1].times() == [0, 1, 3, 7, 15, 31]


def test_a_schedule_says_what_it_is():
    """Its text has the numbers it was made with."""
    assert repr(es.Backoff(2, 3, 40, jitter=0)) == "Backoff(2, 3, 40, jitter=0)"
    assert repr(es.Adaptive(500, maximum=30)) == "Adaptive(500, maximum=30, jitter=0.1)"


# --- how long they take -------------------------------------------------------------------------------------------------------


def evidence(seconds: Any, ended: Any, field: Any = "emails") -> pa.Table:
    fields = [field] * len(seconds) if isinstance(field, str) else field
    return pa.table(
        {
            "field": pa.array(fields, pa.string()),
            "seconds": np.asarray(seconds, float),
            "observed": np.asarray(ended, bool),
        }
    )


def survival(table: pa.Table) -> dict[tuple[str, float], tuple[float, int]]:
    with duckdb.connect() as con:
        con.register("evidence", table)
        rows = con.sql(SURVIVAL_SQL).fetchall()
    return {(field, seconds): (pending, at_risk) for field, seconds, _, at_risk, pending in rows}


def curve_of(seconds: Any, ended: Any) -> Curve:
    return learn(evidence(seconds, ended))["emails"]


def drawn(count: int, seed: int = 1, median: float = 50, until: float = math.inf) -> tuple[np.ndarray, np.ndarray]:
    """Draw lognormal times, each seen for some time up to `until`."""
    rng = np.random.default_rng(seed)
    took, seen = rng.lognormal(math.log(median), 0.8, count), rng.uniform(0, until if until < math.inf else 1e9, count)
    return np.minimum(took, seen), took <= seen


@pytest.mark.parametrize("until", [math.inf, 200, 60, 10])
@pytest.mark.parametrize("count", [1, 30, 3000])
def test_the_estimate_is_kaplan_and_meiers(count: int, until: float):
    """The share still pending after each end is what another library makes of the same times, the pending ones censored."""
    seconds, ended = drawn(count, seed=count, until=until)
    seconds = np.round(seconds, 1)  # with ties, of ends and of ends with pending ones
    found = survival(evidence(seconds, ended))
    theirs = ecdf(CensoredData(uncensored=seconds[ended], right=seconds[~ended])).sf
    expected = dict(zip(theirs.quantiles, theirs.probabilities, strict=True))
    assert {second for _, second in found} == set(seconds[ended])
    for (_, second), (pending, _) in found.items():
        assert pending == pytest.approx(expected[second], rel=1e-9, abs=1e-12)


@given(
    st.lists(
        st.tuples(st.sampled_from(["emails", "phones"]), st.integers(0, 12), st.booleans()), min_size=1, max_size=40
    )
)
@settings(max_examples=cases(20, 60), deadline=None)
def test_the_estimate_is_the_product_of_those_who_stayed(rows: list[tuple[str, int, bool]]):
    """Of each field on its own: at each end, the share of those at risk that did not end, times the shares before."""
    fields, seconds, ended = zip(*rows, strict=True)
    found = survival(evidence(seconds, ended, fields))
    expected = {}
    for name in set(fields):
        share = 1.0
        for moment in sorted({second for field, second, end in rows if end and field == name}):
            at_risk = sum(field == name and second >= moment for field, second, _ in rows)
            share *= 1 - sum(field == name and second == moment and end for field, second, end in rows) / at_risk
            expected[name, float(moment)] = (share, at_risk)
    assert found == {key: (pytest.approx(share, abs=1e-12), at_risk) for key, (share, at_risk) in expected.items()}


def test_the_pending_count_with_the_time_they_have_waited():
    """Where half has ended by 10 s and half is pending at 100 s, half takes longer than 100 s; without the pending all would be quick."""
    rng = np.random.default_rng(1)
    quick = rng.uniform(1, 10, 500)
    whole = curve_of(np.r_[quick, np.full(500, 100.0)], np.r_[np.ones(500), np.zeros(500)])
    assert whole.pending(np.array([10.0, 50.0, 100.0])) == pytest.approx([0.5, 0.5, 0.5], abs=0.01)
    assert whole.end == pytest.approx(100)
    without = curve_of(quick, np.ones(500))
    assert without.pending(np.array([50.0, 100.0])) == pytest.approx([0, 0], abs=0.01)


def test_a_curve_is_that_of_the_times_it_was_learned_from():
    """Learned of three thousand, of which some are still pending, it is within 4 % of the true share up to where there is evidence."""
    seconds, ended = drawn(3000, until=150)
    curve = curve_of(seconds, ended)
    ages = np.linspace(0, 120, 25)
    true = np.array([0.5 * math.erfc(math.log(age / 50) / 0.8 / math.sqrt(2)) if age else 1.0 for age in ages])
    assert np.abs(curve.pending(ages) - true).max() < 0.04
    later = curve.pending(np.linspace(0, 2000, 2001))
    assert later[0] == 1
    assert (np.diff(later) <= 0).all()
    assert (later >= 0).all()


@given(count=st.integers(ENOUGH, 200), seed=st.integers(0, 99), until=st.sampled_from([30.0, 100.0, math.inf]))
@settings(max_examples=cases(15, 40), deadline=None)
def test_any_curve_falls_from_one_and_is_finite(count: int, seed: int, until: float):
    """Whatever it was learned from, the share pending falls from 1, and the mean time pending grows no faster than time."""
    seconds, ended = drawn(count, seed, until=until)
    if ended.sum() < ENOUGH:
        return
    curve = curve_of(seconds, ended)
    ages = np.linspace(0, curve.end * 5, 500)
    pending, lived = curve.pending(ages), curve.lived(ages)
    assert pending[0] == pytest.approx(1)
    assert (np.diff(pending) <= 1e-12).all()
    assert (pending >= 0).all()
    assert (np.diff(lived) >= -1e-9).all()
    assert (np.diff(lived) <= np.diff(ages) * (1 + 1e-9)).all()


def test_of_too_few_ends_nothing_is_learned():
    """One end short of enough there is no curve, however many are pending."""
    table = evidence([5.0] * ENOUGH + [9.0] * 500, [True] * (ENOUGH - 1) + [False] * 501)
    assert learn(table) == {}
    assert learn(table.slice(0, 0)) == {}
    assert set(learn(evidence([5.0] * ENOUGH + [9.0] * 500, [True] * ENOUGH + [False] * 500))) == {"emails"}


@pytest.mark.parametrize("seconds", [0.01, 12.0, 799.0])
def test_where_all_take_the_same_time_that_is_learned(seconds: float):
    """Of a service that takes as good as the same time for each, half its age nothing is due, and at twice its age all is."""
    curve = curve_of(np.full(500, seconds), np.ones(500))
    assert curve.pending(np.array([2 * seconds])) == pytest.approx([0], abs=0.01)
    assert np.isfinite(curve.lived(np.array([seconds, 3 * seconds]))).all()
    prospect = Prospect(np.array([500]), np.array([0.0]), np.array([0.0]), curve)
    assert Outlook({"emails": prospect}).until(0.9) <= max(2 * seconds, 0.1)


# --- what to expect -----------------------------------------------------------------------------------------------------------


def prospect_of(tasks: list[int], age: list[float], since: list[float], curve: Curve | None) -> Prospect:
    return Prospect(np.array(tasks), np.array(age, float), np.array(since, float), curve)


@pytest.mark.parametrize(
    ("tasks", "age", "since"),
    [
        ([100], [0], [0]),
        ([100], [20], [5]),
        ([7, 30, 200], [0, 40, 90], [30, 3, 0]),
        ([50], [120], [20]),  # beyond all evidence
        ([50, 1], [1000, 1], [60, 500]),
    ],
)
def test_what_is_expected_is_the_integral_of_the_curve(tasks: list[int], age: list[float], since: list[float]):
    """How many will have ended, and how long they will have waited for the next ask, are what numeric integration gives."""
    curve = curve_of(*drawn(5000, until=150))
    prospect = prospect_of(tasks, age, since, curve)
    ahead = np.array([0.0, 1.0, 10.0, 60.0, 600.0])
    ended, waited = prospect.ended(ahead), prospect.waiting(ahead)
    for place, seconds in enumerate(ahead):
        count = total = 0.0
        for size, begun, gone in zip(tasks, age, since, strict=True):
            ages = np.linspace(begun, begun + gone + seconds, 20_001)
            still = curve.pending(ages) / curve.pending(np.array([begun]))
            count += size * (1 - still[-1])
            total += size * np.trapezoid(1 - still, ages)
        assert ended[place] == pytest.approx(count, rel=1e-3, abs=1e-6)
        assert waited[place] == pytest.approx(total, rel=0.01, abs=0.05)


def test_an_expectation_comes_true():
    """Of tasks that are really of the learned kind, as many end, and as long ago, as was expected."""
    curve = curve_of(*drawn(20_000))
    took = np.random.default_rng(9).lognormal(math.log(50), 0.8, 100_000)
    took = took[took > 30]  # pending when they were requested at the age of 30
    prospect = prospect_of([len(took)], [30], [0], curve)
    for seconds in (5.0, 30.0, 100.0):
        done = took <= 30 + seconds
        assert prospect.ended(np.array([seconds]))[0] == pytest.approx(done.sum(), rel=0.06)
        assert prospect.waiting(np.array([seconds]))[0] == pytest.approx((30 + seconds - took[done]).sum(), rel=0.1)
    outlook = Outlook({"emails": prospect})
    assert outlook.until(0.5) == pytest.approx(np.quantile(took, 0.5) - 30, rel=0.06)
    assert outlook.until(0.9) == pytest.approx(np.quantile(took, 0.9) - 30, rel=0.1)
    assert outlook.ahead(np.array([outlook.until(0.5)]))[0] == pytest.approx(0.5, abs=0.02)


def test_what_is_not_known_is_not_told():
    """Of nothing, and of fields of which too little is known, no estimate is made; a part that is known counts as that part."""
    assert Outlook({}).until(0.5) is None
    unknown = prospect_of([100], [5], [0], None)
    assert Outlook({"emails": unknown}).until(0.5) is None
    known = prospect_of([300], [5], [0], curve_of(*drawn(3000)))
    both = Outlook({"emails": unknown, "phones": known})
    assert both.until(0.5) > Outlook({"phones": known}).until(0.5)
    assert both.until(0.9) is None


# --- the schedule that learns -------------------------------------------------------------------------------------------------


def step(schedule: Any, **prospects: Prospect) -> es.Ask:
    schedule.learn(Outlook(prospects))
    return next(schedule)


def test_with_nothing_learned_it_is_the_backoff():
    """Of a short list of which nothing is known it asks all, after the backoff's waits."""
    schedule = iter(es.Adaptive(jitter=0))
    unknown = prospect_of([100], [0], [0], None)
    asks = [step(schedule, emails=unknown) for _ in range(8)]
    assert [ask.after for ask in asks] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert {(ask.fields, len(ask.samples)) for ask in asks} == {(("emails",), 0)}
    assert [next(iter(es.Adaptive(3, jitter=0, initial=2, factor=3, maximum=5))).after for _ in range(2)] == [2, 2]
    assert [ask.after for ask in islice(es.Adaptive(jitter=0, initial=2, factor=3, maximum=5), 3)] == [2, 5, 5]


def test_of_a_long_list_of_which_nothing_is_known_a_sample_is_asked():
    """From a thousand tasks on, 200 are requested at the backoff's waits; but all when they have waited for as long as the longest."""
    schedule = iter(es.Adaptive(jitter=0))
    assert step(schedule, emails=prospect_of([800], [0], [0], None)) == es.Ask(1, ("emails",))
    schedule = iter(es.Adaptive(jitter=0))
    waited, asks = 0.0, []
    for _ in range(6):
        unknown = prospect_of([200, 9800], [waited, 0], [0, waited], None)
        asks.append(step(schedule, emails=unknown))
        waited += asks[-1].after
    assert [ask.after for ask in asks[:5]] == [1, 2, 4, 8, 16]
    assert {(ask.fields, ask.samples["emails"]) for ask in asks[:5]} == {((), 200)}
    assert asks[5].after == pytest.approx(29, abs=4)
    assert asks[5].fields == ("emails",)


def test_a_faster_field_is_asked_sooner():
    """Of two fields, known from as many ends, the one that takes a fifth of the time is requested first, and alone; together sooner than either."""
    quick, slow = (curve_of(*drawn(2000, median=median)) for median in (20, 100))
    short, long = (
        step(iter(es.Adaptive(jitter=0)), emails=prospect_of([500], [5], [0], curve)) for curve in (quick, slow)
    )
    assert short.after < 0.7 * long.after
    both = step(
        iter(es.Adaptive(jitter=0)),
        emails=prospect_of([500], [5], [0], quick),
        phones=prospect_of([500], [5], [0], slow),
    )
    assert (both.after, both.fields) == (short.after, ("emails",))


def test_an_ask_is_due_when_the_unseen_have_waited_long_enough():
    """At the wait that it gives, those that are expected to have ended have waited `patience` task-seconds a request."""
    curve = curve_of(*drawn(5000))
    for count, patience in ((200, 650), (900, 650), (900, 200), (900, 2000)):
        prospect = prospect_of([count], [10], [0], curve)
        ask = step(iter(es.Adaptive(patience, jitter=0)), emails=prospect)
        requests = math.ceil(count / 200)
        assert prospect.waiting(np.array([ask.after]))[0] == pytest.approx(patience * requests, rel=0.1)


@given(
    groups=st.lists(st.tuples(st.integers(1, 50_000), st.floats(0, 5000), st.floats(0, 300)), min_size=1, max_size=4),
    known=st.lists(st.sampled_from([None, 2.0, 50.0, 500.0]), min_size=2, max_size=2),
    patience=st.floats(0.01, 1e6),
    maximum=st.floats(1, 600),
)
@settings(max_examples=cases(25, 80), deadline=None)
def test_no_wait_is_beyond_its_bounds(
    groups: list[tuple[int, float, float]], known: list[float | None], patience: float, maximum: float
):
    """Whatever is expected, it asks something, no sooner than `initial` and no later than `maximum`, of fields that are there."""
    tasks, age, since = map(list, zip(*groups, strict=True))
    prospects = {
        name: prospect_of(tasks, age, since, None if median is None else _CURVES[median])
        for name, median in zip(("emails", "phones"), known, strict=True)
    }
    schedule = iter(es.Adaptive(patience, maximum=maximum, jitter=0))
    for _ in range(5):
        ask = step(schedule, **prospects)
        assert 1 <= ask.after <= maximum * (1 + 1e-9)
        assert ask.fields or ask.samples
        assert set(ask.fields or ()) | set(ask.samples) <= set(prospects)
        assert not set(ask.fields or ()) & set(ask.samples)


_CURVES = {median: curve_of(*drawn(500, median=median)) for median in (2.0, 50.0, 500.0)}


def test_the_jitter_is_that_of_the_random_given():
    """The waits of one that learns have their jitter too."""
    for share, number in ((0.9, 0.0), (1.1, 1.0)):
        schedule = iter(es.Adaptive(random=lambda number=number: number))
        assert next(schedule).after == pytest.approx(share)
        known = prospect_of([500], [5], [0], _CURVES[50.0])
        plain = step(iter(es.Adaptive(jitter=0)), emails=known)
        assert step(schedule, emails=known).after == pytest.approx(share * plain.after)
