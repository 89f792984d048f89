"""What to buy: of each task whether it is to be triggered or left alone, why, and at what cost. Nothing is triggered here."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

import duckdb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus import frames
from enrichstatus.errors import EntityWarning, ValidationError
from enrichstatus.frames import Kind, ListOrPath
from enrichstatus.leads.plan import ACTIONS, Codes, Plan
from enrichstatus.leads.prices import over_budget, parse_budget, parse_costs, prices_of, priorities, unpriced_in
from enrichstatus.lookup.arguments import (
    Instant,
    check_source,
    choice,
    parse_duration,
    parse_instant,
    parse_prefix,
)
from enrichstatus.lookup.query import Source, refuse_clash
from enrichstatus.lookup.tasks import DISTINCT_SQL, check, problems, task_tables
from enrichstatus.outcomes import OUTCOMES
from enrichstatus.presentation import of_unknown_status
from enrichstatus.schema import ENTITY_TYPES, FIELDS, NO_LEASES, listed
from enrichstatus.sources.store.duckdb_source import Embedded

_HAVE, _NO_DATA, _IN_FLIGHT, _UNKNOWN, _RETRY, _TRIGGER, _OVER_BUDGET, _DUPLICATE, _INVALID = range(len(ACTIONS))
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
_LEFT_ALONE = {
    "data": _HAVE,
    "pending": _IN_FLIGHT,
    "unanswered": _IN_FLIGHT,
    "unknown": _UNKNOWN,
    "invalid": _INVALID,
}
#: What is done with a task of each outcome: bought for the first time, bought again, or left alone.
_ACTIONS = {
    word: (_RETRY if outcome.ended else _TRIGGER) if outcome.bought else _LEFT_ALONE.get(word, _NO_DATA)
    for word, outcome in OUTCOMES.items()
}
_WORDS = tuple(OUTCOMES)
_CODES = {name: code for code, name in enumerate(_WORDS)}
#: Of what timed out here the record is still pending.
_OPEN = _CODES["timed_out_here"]
_RETRIED = {"timeout": ("timed_out_here", "timed_out_there"), "failed": ("failed",)}
#: What is added to the reason.
_REMARKS = ("", ", which is stale", ", and retry= leaves that alone", ", but beyond the budget")
_STALE, _LEFT, _OVER = range(1, len(_REMARKS))
_ADDED = ("action", "reason", "cost")

Instants = npt.NDArray[np.datetime64]


def plan(
    source: Source,
    tasks: Kind | ListOrPath,
    *,
    costs: Mapping[Any, float] | None = None,
    budget: float | Literal["balance"] | None = None,
    client: Any = None,
    priority: str | None = None,
    retry: Sequence[str] | str = ("timeout", "failed"),
    stale_after: str | float | timedelta | None = None,
    now: Instant = None,
    prefix: str = "",
    new_organization: bool = False,
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
        not named costs nothing.
    budget : float or "balance", optional
        Credits that may be spent: so many, or what the service says that are left. The tasks are bought by `priority` as far as they
        can be paid; the others are ``over_budget``.
    client : EnrichmentClient, optional
        Whom ``budget="balance"`` asks for the balance; the source unless given.
    priority : str, optional
        A column of numbers: the greatest are bought first, those without one last. Unless given, the first in the list are.
    retry : sequence of str
        Which of ``timeout`` and ``failed`` are bought again; the others are as good as ``no_data``.
    stale_after : str, timedelta or seconds, optional
        What finished longer ago than this is bought again. A service may answer with the record that it has.
    now : datetime or str, optional
        The instant at which the timeout rule, and what is stale, are evaluated; the clock's unless given.
    prefix : str
        Put before the names of the added columns.
    new_organization : bool
        Plan for an organization of which a source has no record, though it has some of others; unless given this is an error, as
        its name may be misspelt.

    Returns
    -------
    Plan
        Its ``.frame`` is the tasks with ``action`` (``have``, ``no_data``, ``in_flight``, ``unknown``, ``retry``, ``trigger``,
        ``over_budget``, ``duplicate`` of a task further up, ``invalid``), ``reason`` in words, and ``cost`` in credits.

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
    check_source(source)
    moment = parse_instant(now)
    stale = None if stale_after is None else moment - parse_duration(stale_after, "stale_after")
    fields: Sequence[str] = getattr(source, "fields", FIELDS)
    prices = parse_costs(costs, fields, types=ENTITY_TYPES)
    balance = (
        _balance(source if client is None else client) if isinstance(budget, str) and budget == "balance" else None
    )
    most = balance if balance is not None or budget is None else parse_budget(budget)
    retried = _parse_retry(retry)
    frame = frames.read(tasks)
    parse_prefix(prefix)
    refuse_clash(frame, [prefix + name for name in _ADDED], "plan_")
    value = priorities(frame, priority)
    with task_tables(fields) as con:
        keys = check(con, frame, errors="coerce")
        used = {name for (name,) in con.execute("select distinct field::varchar from tasks").fetchall()}
        if most is not None and (unpriced := unpriced_in(con, prices)):
            raise ValidationError(
                f"needs the price of {listed(unpriced)}, which the costs do not have.", argument="budget"
            )
        notes = _empty(source, new_organization) if len(frame) else []
        asked = None if now is None else moment  # a service uses its own clock, unless `now` is given
        # before the records: when an answer comes, they replace the lease
        con.register("leases", leases() if callable(leases := getattr(source, "leases", None)) else NO_LEASES)
        con.execute(_LEASED_SQL)
        columns = ("reason", "status", "createdAt", "updatedAt")
        found = source.lookup(keys, columns=columns, errors="coerce", now=asked)
        reason: Codes = pc.index_in(found["reason"], pa.array(_WORDS)).to_numpy()
        _warn_of_entities(source, reason, used)
        made, ended = (found[name].to_numpy() for name in ("createdAt", "updatedAt"))
        ended = np.where(np.isnat(ended), made, ended)

        action = np.array(list(_ACTIONS.values()))[reason]
        remark = np.zeros(len(frame), dtype=np.int64)
        left = (action == _RETRY) & ~np.isin(reason, [_CODES[name] for name in retried])
        action[left], remark[left] = _NO_DATA, _LEFT
        if stale is not None:
            old = np.isin(action, (_HAVE, _NO_DATA)) & (ended < np.datetime64(stale.replace(tzinfo=None), "us")) & ~left
            action[old], remark[old] = _TRIGGER, _STALE
        con.register("wanted", pa.table({"position": np.flatnonzero(np.isin(action, (_TRIGGER, _RETRY)))}))
        twice = con.sql(_TWICE_SQL).to_arrow_table()
        action[twice["position"]] = _DUPLICATE
        con.register("twice", twice)
        leased = con.sql("from leased where position in (from wanted) and position not in (select position from twice)")
        leased = leased.to_arrow_table()
        action[leased["position"]] = _IN_FLIGHT
        mistaken = _mistaken(source, con, keys, np.flatnonzero((action == _TRIGGER) & (remark == 0)), reason, asked)
        action[mistaken["position"]] = _INVALID
        told = [twice, leased, mistaken]
        if np.any(reason == _CODES["invalid"]):
            con.register("problems", problems(con))
            told.append(con.sql(_BAD_SQL).to_arrow_table())
    told = pa.concat_tables(told).sort_by("position")
    cost = np.where(np.isin(action, (_TRIGGER, _RETRY)), prices_of(keys, prices), 0.0)
    if most is not None:
        over = over_budget(np.flatnonzero(np.isin(action, (_TRIGGER, _RETRY))), cost, most, value)
        action[over], remark[over], cost[over] = _OVER_BUDGET, _OVER, 0.0
    words = _words(reason, made, ended, remark)
    if len(told):
        mask = np.zeros(len(frame), dtype=bool)
        mask[told["position"]] = True
        words = pc.replace_with_mask(words, mask, told["words"].combine_chunks())
    added = [pa.DictionaryArray.from_arrays(action, ACTIONS).cast(pa.string()), words, pa.array(cost)]
    whole = frame.assign(pa.table(added, names=[prefix + name for name in _ADDED]))
    strange = Counter(found["status"].filter(pa.array(action == _UNKNOWN)).to_pylist())
    notes += [of_unknown_status(strange)] if strange else []
    seen = pa.table({"createdAt": found["createdAt"], "updatedAt": found["updatedAt"], "pending": reason == _OPEN})
    whose = getattr(source, "org_id", None)
    return Plan(whole, keys, action, cost, fields, prices=prices, seen=seen, balance=balance, org_id=whose, notes=notes)


def _balance(client: Any) -> float:
    if not callable(getattr(client, "balance", None)):
        raise ValidationError(
            '"balance" is what the service says: name it with client=EnrichmentClient(…).', argument="budget"
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


def _warn_of_entities(source: Source, reason: Codes, fields: Collection[str]) -> None:
    """Warn where nearly no task has a record, though there are some of their fields: another column may have been meant."""
    tasks, missing = (int(np.sum(which)) for which in (reason != _CODES["invalid"], reason == _CODES["no_record"]))
    if isinstance(source, Embedded) and tasks >= _MANY and missing > _NEARLY_ALL * tasks and source.holds([*fields]):
        warnings.warn(
            f"{missing:,} of {tasks:,} tasks have no record, though there are some of such fields. Unless the list is new, another "
            "column may be the entity: see entityId, entity_id= or --entity-id.",
            EntityWarning,
            stacklevel=3,
        )


def _parse_retry(retry: Sequence[str] | str) -> list[str]:
    names = [retry] if isinstance(retry, str) else list(retry)
    for name in names:
        choice("retry", name, tuple(_RETRIED))
    return [reason for name in names for reason in _RETRIED[name]]


def _mistaken(
    source: Source, con: duckdb.DuckDBPyConnection, keys: pa.Table, unknown: Codes, reason: Codes, now: Instant
) -> pa.Table:
    """Find tasks without a record whose entity has one as the other type; of an entity all tasks or none."""
    person, company = ENTITY_TYPES
    others = keys.take(unknown)
    swapped = pc.if_else(pc.equal(others["entityType"].cast(pa.string()), person), company, person)
    others = others.set_column(others.column_names.index("entityType"), "entityType", swapped)
    # only of records at hand: of a service, or a cluster, this would double the requests
    if not isinstance(source, Embedded) or not len(others):
        return _TOLD.empty_table()
    known = source.lookup(others, columns="reason", how="inner", now=now)
    con.register("known", known.select(["position"]))
    con.register("bought", pa.table({"position": np.flatnonzero(reason != _CODES["no_record"])}))
    return con.sql(_MISTAKEN_SQL).to_arrow_table()


def _words(reason: Codes, made: Instants, ended: Instants, remark: Codes) -> pa.Array:
    """Write the reasons: few are different, and each of these is written once."""
    days = [np.where(np.isnat(when), 0, when.astype("datetime64[D]").astype(np.int64)) for when in (made, ended)]
    uses = np.array(["{made}" in _WHY[name] for name in _WORDS])[reason]
    day = np.where(uses, *days)
    codes, few = pd.factorize((day * len(_WORDS) + reason) * len(_REMARKS) + remark)
    day, reason, remark = few // len(_REMARKS) // len(_WORDS), few // len(_REMARKS) % len(_WORDS), few % len(_REMARKS)
    dates = day.astype("datetime64[D]").astype(str)
    texts = [
        _WHY[_WORDS[code]].format(made=date, ended=date) + _REMARKS[more]
        for code, date, more in zip(reason, dates, remark, strict=True)  # a few combinations, not tasks
    ]
    return pa.DictionaryArray.from_arrays(codes, pa.array(texts, pa.string())).cast(pa.string())


_TOLD = pa.schema([("position", pa.int64()), ("words", pa.string())])

# of all but the first row of a task
_TWICE_SQL = f"""
select tasks.position, 'the same task as in row ' || task.first as words
from tasks
inner join ({DISTINCT_SQL}) as task using (entityId, entityType, field)
where tasks.position > task.first
"""  # noqa: S608  of a constant

# of tasks that a trigger has requested, and whose outcome is not known
_LEASED_SQL = """
create temp table leased as
select tasks.position, strftime(leases.since, 'requested on %Y-%m-%d, and not answered yet') as words
from tasks
inner join leases
    on leases.entityId = tasks.entityId::varchar
    and leases.entityType = tasks.entityType::varchar
    and leases.field = tasks.field::varchar
"""

_BAD_SQL = """
select problems.row as position, string_agg(problems.column || ' ' || problems.reason, ', ') as words
from problems
group by problems.row
"""

# an entity that is known as both was not mistaken
_MISTAKEN_SQL = """
with entities as (
    select distinct tasks.entityId, tasks.entityType
    from tasks
    inner join known using (position)
)

select
    tasks.position,
    'known as a ' || if(tasks.entityType = 'person', 'company', 'person') || ': is the entity type right?' as words
from tasks
inner join entities using (entityId, entityType)
where tasks.position not in (select position from bought)
    and not exists (
        select 1
        from tasks as others
        inner join bought using (position)
        where others.entityId = tasks.entityId and others.entityType = tasks.entityType
    )
"""
