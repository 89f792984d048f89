"""What to buy: of each task whether it is to be triggered or left alone, why, and at what cost. Nothing is triggered here."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from inspect import iscoroutinefunction
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import EntityWarning, ValidationError, suggested
from enrichstatus.files.reading.read import PathLike
from enrichstatus.files.results import recorded
from enrichstatus.frames import frames
from enrichstatus.frames.frames import Kind, ListOrPath
from enrichstatus.leads import remarks
from enrichstatus.leads.plan import ACTIONS, BOUGHT, Codes, Plan
from enrichstatus.leads.prices import (
    free_of,
    over_budget,
    parse_budget,
    parse_costs,
    prices_of,
    priorities,
    unpriced_in,
)
from enrichstatus.leads.reasons import LEFT, OVER, STALE, WORDS, words_of
from enrichstatus.lookup.arguments import Instant, check_source, choices, parse_duration, parse_instant, parse_prefix
from enrichstatus.lookup.query import Source, refuse_clash
from enrichstatus.lookup.tasks import check_keys, keys_of, task_tables, with_uuids
from enrichstatus.outcomes import OUTCOMES
from enrichstatus.presentation import of_unknown_status
from enrichstatus.schema import ENTITY_TYPES, FIELDS, NO_LEASES, SCHEMA, listed
from enrichstatus.sources.store.answering.duckdb_source import Embedded

_HAVE, _NO_DATA, _IN_FLIGHT, _UNKNOWN, _RETRY, _TRIGGER, _OVER_BUDGET, _DUPLICATE, _INVALID = range(len(ACTIONS))
_LEFT_ALONE = {"data": _HAVE, "unknown": _UNKNOWN, "invalid": _INVALID, "pending": _IN_FLIGHT, "unanswered": _IN_FLIGHT}
#: What is done with a task of each outcome: bought for the first time, bought again, or left alone.
_ACTIONS = {
    word: (_RETRY if outcome.ended else _TRIGGER) if outcome.bought else _LEFT_ALONE.get(word, _NO_DATA)
    for word, outcome in OUTCOMES.items()
}


def _among(names: Sequence[str], some: Collection[str]) -> npt.NDArray[np.bool_]:
    """Say of each code whether it is that of one of some names."""
    return np.array([name in some for name in names])


_ACTION: Codes = np.array([_ACTIONS[word] for word in WORDS])
_BUYING, _FINISHED = _among(ACTIONS, BOUGHT), _among(WORDS, ("data", "no_data"))
_CODES = {name: code for code, name in enumerate(WORDS)}
#: Of what timed out here the record is still pending.
_OPEN = _CODES["timed_out_here"]
_RETRIED = {"timeout": ("timed_out_here", "timed_out_there"), "failed": ("failed",)}
_ADDED, _EXPIRES = ("action", "reason", "cost"), "expiresOn"
#: What a plan looks up.
_COLUMNS = ("reason", "status", "createdAt", "updatedAt")
_INSTANT = SCHEMA.field("createdAt").type

Time = str | float | timedelta


def plan(
    source: Source,
    tasks: Kind | ListOrPath,
    *,
    costs: Mapping[Any, float] | None = None,
    budget: float | Literal["balance"] | None = None,
    client: Any = None,
    priority: str | None = None,
    retry: Sequence[str] | str = ("timeout", "failed"),
    stale_after: Time | Mapping[str, Time] | None = None,
    into: Any = None,
    now: Instant = None,
    prefix: str = "",
    new_organization: bool = False,
    results: PathLike | None = None,
) -> Plan[Kind]:
    """Decide for each task whether to buy it, why, and at what cost; the source is only read, and nothing is triggered.

    Parameters
    ----------
    source : Source
        Who answers: an `EnrichmentStore`, an `EnrichmentClient` or any other. In a store, what has no record is also looked up under
        the other entity type.
    tasks : DataFrame, Arrow table, DuckDB relation, list of dicts or path
        As for ``lookup``; bad ones are not raised but planned as ``invalid``.
    costs : mapping of str to float, optional
        Credits for one task of a field, ``{"emails": 1, ("phones", "company"): 10}``, with a type of entity or for both; what is
        not named costs nothing, as the plan then says.
    budget : float or "balance", optional
        Credits that may be spent: so many, or what the service says that are left. The tasks are bought by `priority` as far as they
        can be paid; the others are ``over_budget``.
    client : EnrichmentClient, optional
        The service whose balance ``budget="balance"`` means; the source unless given.
    priority : str, optional
        A column of numbers, or of text that is numbers, as CSV has it: the greatest are bought first, to the last digit, those without
        one last. Unless given, the first in the list are.
    retry : sequence of str
        Which of ``timeout`` and ``failed`` are bought again; the others are as good as ``no_data``.
    stale_after : str, timedelta or seconds, or a mapping of these, optional
        What finished longer ago than this is bought again, in all fields or in those of a mapping, ``{"phones": "30 days"}``; adds the
        column ``expiresOn``. A service may answer with the record that it has.
    into : EnrichmentStore, optional
        The store that is triggered into, where the source is another one: what is leased there is ``in_flight``.
    now : datetime or str, optional
        The instant at which the timeout rule, and what is stale, are evaluated; the clock's unless given.
    prefix : str
        Put before the names of the added columns.
    new_organization : bool
        Plan for an organization of which a source has no record, though it has some of others; unless given this is an error, as
        its name may be misspelt.
    results : path, optional
        A file (``.json``) that is left for programs: what came of it, ``Plan.to_dict()`` or the error (`enrichstatus.files.results`).

    Returns
    -------
    Plan
        Its ``.frame`` is the tasks with ``action`` (``have``, ``no_data``, ``in_flight``, ``unknown``, ``retry``, ``trigger``,
        ``over_budget``, ``duplicate`` of a task further up, ``invalid``), ``reason`` in words, and ``cost`` in credits; with
        `stale_after` also ``expiresOn``, when what has finished is bought again, null where it never is.

    Raises
    ------
    ValidationError
        An argument is unusable, the tasks have a column of one of the added names, or there are records, but none of the
        organization.
    EnrichStatusError
        The source did not answer.

    Warns
    -----
    EntityWarning
        Nearly none of 100 or more tasks has a record, though a store has records of their fields.

    Examples
    --------
    >>> import enrichstatus as es
    >>> store = es.EnrichmentStore(org_id="org_1")
    >>> plan = es.plan(store, [{"entityId": "f81d4fae-7dec-11d0-a765-00a0c91e6bf6", "field": "phones"}], costs={"phones": 10})
    >>> plan.frame[["field", "action", "reason", "cost"]]
        field   action        reason  cost
    0  phones  trigger  never bought  10.0
    >>> plan.to_trigger()
    [{'personIds': ['f81d4fae-7dec-11d0-a765-00a0c91e6bf6'], 'field': 'phones'}]
    """
    with recorded(results, "plan", tasks) as run:
        check_source(source)
        moment = parse_instant(now)
        fields: Sequence[str] = getattr(source, "fields", FIELDS)
        fresh = _parse_fresh(stale_after, fields, moment)
        prices = parse_costs(costs, fields, types=ENTITY_TYPES)
        of_balance = isinstance(budget, str) and budget == "balance"
        balance = _balance(source if client is None else client) if of_balance else None
        most = balance if of_balance or budget is None else parse_budget(budget)
        retried = [word for name in choices("retry", retry, tuple(_RETRIED)) for word in _RETRIED[name]]
        leases = _leases(source if into is None else into, "source" if into is None else "into")
        frame = frames.read(tasks)
        names = [parse_prefix(prefix) + name for name in (_ADDED if stale_after is None else (*_ADDED, _EXPIRES))]
        refuse_clash(frame, names, "plan_")
        rank = priorities(frame, priority)
        keys = keys_of(frame)
        cast = with_uuids(keys)
        with task_tables(fields) as con:

            @cache  # of most plans it is not needed
            def tabled() -> duckdb.DuckDBPyConnection:
                check_keys(con, cast, errors="coerce")
                return con

            if most is not None and (unpriced := unpriced_in(tabled(), prices)):
                raise ValidationError(
                    f"needs the price of {listed(unpriced)}, which the costs do not have.", argument="budget"
                )
            notes = _empty(source, new_organization) if len(frame) else []
            instant = None if now is None else moment  # a service uses its own clock, unless `now` is given
            # before the records: when an answer comes, they replace the lease
            leased = remarks.leased(tabled, leases)
            # only a source of our own need know that Arrow has UUIDs
            given = cast if isinstance(source, Embedded) else keys
            found = source.lookup(given, columns=_COLUMNS, errors="coerce", now=instant)
            reason: Codes = pc.index_in(found["reason"], pa.array(WORDS)).to_numpy()
            _warn_of_entities(source, reason, tabled)
            made, ended = (found[name].to_numpy() for name in ("createdAt", "updatedAt"))
            ended = np.where(np.isnat(ended), made, ended)

            action = _ACTION[reason]
            remark = np.zeros(len(frame), dtype=np.int64)
            left = (action == _RETRY) & ~_among(WORDS, retried)[reason]
            action[left], remark[left] = _NO_DATA, LEFT
            finished = np.where(_FINISHED[reason], ended, np.datetime64("NaT"))
            expires = finished + _lasting(keys, fresh) if fresh else ended[:0]
            old = np.flatnonzero(expires < np.datetime64(moment.replace(tzinfo=None), "us"))
            action[old], remark[old] = _TRIGGER, STALE
            twice = remarks.twice(tabled, cast, fields)
            action[twice["position"]] = _DUPLICATE
            leased = leased.filter(pa.array(_BUYING[action[leased["position"]]]))
            action[leased["position"]] = _IN_FLIGHT
            unknown = np.flatnonzero((action == _TRIGGER) & (remark == 0))
            had = np.flatnonzero(reason != _CODES["no_record"])
            mistaken = remarks.mistaken(source, tabled, cast, unknown, had, instant)
            action[mistaken["position"]] = _INVALID
            remarked = [twice, leased, mistaken]
            if np.any(reason == _CODES["invalid"]):
                remarked.append(remarks.bad(tabled))
        cost = np.where(_BUYING[action], prices_of(keys, prices), 0.0)
        if most is not None:
            over = over_budget(np.flatnonzero(_BUYING[action]), cost, most, rank)
            action[over], remark[over], cost[over] = _OVER_BUDGET, OVER, 0.0
        words = words_of(reason, made, ended, remark)
        if len(own := pa.concat_tables(remarked).sort_by("position")):
            mask = np.zeros(len(frame), dtype=bool)
            mask[own["position"]] = True
            words = pc.replace_with_mask(words, mask, own["words"].combine_chunks())
        added = [pa.DictionaryArray.from_arrays(action, ACTIONS).cast(pa.string()), words, pa.array(cost)]
        if stale_after is not None:
            added.append(pa.array(expires if fresh else np.full(len(frame), np.datetime64("NaT", "us"))).cast(_INSTANT))
        whole = frame.assign(pa.table(added, names=names))
        strange = Counter(found["status"].filter(pa.array(action == _UNKNOWN)).to_pylist())
        notes += [of_unknown_status(strange)] if strange else []
        free = np.flatnonzero(_BUYING[action] & (cost == 0)) if prices else action[:0]
        notes += free_of(keys.take(free), prices)
        seen = pa.table({"createdAt": found["createdAt"], "updatedAt": found["updatedAt"], "pending": reason == _OPEN})
        whose = getattr(source, "org_id", None)
        known: dict[str, Any] = {"org_id": whose, "notes": notes, "new_organization": new_organization}
        run.result = planned = Plan(
            whole, keys, action, cost, fields, prices=prices, seen=seen, balance=balance, **known
        )
    return planned


def _parse_fresh(value: object, fields: Sequence[str], moment: datetime) -> dict[str, timedelta]:
    """Read for how long what has finished is fresh, by field: one time for all, or a mapping for some; without the others."""
    if not isinstance(value, Mapping):
        value = {} if value is None else dict.fromkeys(fields, value)
    if unknown := [name for name in value if name not in fields]:
        raise ValidationError(
            f"names the field {listed(unknown)}; the fields are {listed(fields)}.{suggested(unknown[0], fields)}",
            argument="stale_after",
        )
    fresh = {name: parse_duration(time, "stale_after") for name, time in value.items()}
    # what is fresh since before the first year is always so
    return {name: time for name, time in fresh.items() if time < moment - datetime.min.replace(tzinfo=UTC)}


def _lasting(keys: pa.Table, fresh: Mapping[str, timedelta]) -> npt.NDArray[np.timedelta64]:
    """Give for how long the answer to each task is fresh; not a time where it always is."""
    places = pc.index_in(keys["field"].cast(pa.string()), pa.array(fresh, pa.string())).fill_null(len(fresh))
    times: npt.NDArray[np.timedelta64] = np.array([*fresh.values(), "NaT"], "timedelta64[us]")[places.to_numpy()]
    return times


def _leases(holder: object, argument: str) -> pa.Table:
    """Give what a trigger has requested and nobody has answered yet, of a source or of the store that is triggered into."""
    leases = getattr(holder, "leases", None)
    if callable(leases):
        found: pa.Table = leases()
        return found
    if argument == "into":
        raise ValidationError(f"takes an EnrichmentStore, not {type(holder).__name__}.", argument=argument)
    return NO_LEASES


def _balance(client: Any) -> float:
    if not callable(getattr(client, "balance", None)):
        raise ValidationError(
            '"balance" is what the service says: name it with client=EnrichmentClient(…).', argument="budget"
        )
    if iscoroutinefunction(client.balance):
        raise ValidationError(
            f"is {type(client).__name__}, whose calls are awaited: give its .blocking.", argument="client"
        )
    found: float = client.balance()
    return max(found, 0.0)


def _empty(source: Source, new_organization: bool) -> list[str]:
    """Say that a source is empty; refuse one that holds records, but none of the organization."""
    check_organization = getattr(source, "check_organization", None)
    if check_organization is None or check_organization(new=new_organization):
        return []
    return ["the store is empty: nothing is known of what was bought before"]


#: From so many tasks on it is odd that more than such a share has no record.
_MANY, _NEARLY_ALL = 100, 0.95


def _warn_of_entities(source: Source, reason: Codes, tabled: remarks.Tabled) -> None:
    """Warn where nearly no task has a record, though there are some of their fields: another column may have been meant."""
    tasks, missing = (int(np.sum(which)) for which in (reason != _CODES["invalid"], reason == _CODES["no_record"]))
    if not isinstance(source, Embedded) or tasks < _MANY or missing <= _NEARLY_ALL * tasks:
        return
    fields = [name for (name,) in tabled().execute("select distinct field::varchar from tasks").fetchall()]
    if source.holds(fields):
        warnings.warn(
            f"{missing:,} of {tasks:,} tasks have no record, though there are some of such fields. Unless the list is new, another "
            "column may be the entity: see entityId, entity_id= or --entity-id.",
            EntityWarning,
            stacklevel=3,
        )
