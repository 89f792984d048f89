"""Prices by field, and what can be bought within a budget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from decimal import Decimal

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from enrichstatus.errors import ValidationError, quoted, suggested
from enrichstatus.frames.frames import Frame, Rows
from enrichstatus.lookup.arguments import parse_number
from enrichstatus.presentation import many
from enrichstatus.schema import listed

Numbers = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


def parse_costs(costs: object, fields: Sequence[str], types: Sequence[str] = ()) -> dict[str, float]:
    """Check prices by field, or by ``(field, type)`` of some types: none below zero, and none of a field that there is not.

    Gives them by field, or ``field/type``, as which they can be given too.
    """
    if costs is None:
        return {}
    if not isinstance(costs, Mapping):
        raise ValidationError(
            f'takes credits by field, such as {{"emails": 1}}, not {type(costs).__name__}.', argument="costs"
        )
    named = ["/".join(name) if _is_pair(name) else name for name in costs]
    if twice := [name for name, count in Counter(named).items() if count > 1]:
        raise ValidationError(f"has two prices for {listed(twice)}; give it one.", argument="costs")
    costs = dict(zip(named, costs.values(), strict=True))
    known = {*fields, *(f"{field}/{kind}" for field in fields for kind in types)}
    if unknown := [name for name in costs if name not in known]:
        raise ValidationError(
            f"has a price for {listed(unknown)}; the fields are {listed(fields)}.{suggested(unknown[0], fields)}",
            argument="costs",
        )
    given = {name: float(price) if isinstance(price, Decimal) else price for name, price in costs.items()}
    what = "number of credits for {}".format
    return {name: parse_number("costs", price, least=0, what=what(name)) for name, price in given.items()}


def free_of(keys: pa.Table, prices: Mapping[str, float]) -> list[str]:
    """Say which of some tasks have no price, in a line or none."""
    pairs = keys.select(["field", "entityType"]).group_by(["field", "entityType"]).aggregate([([], "count_all")])
    found: Counter[str] = Counter()
    for pair in pairs.to_pylist():  # a handful
        if pair["field"] not in prices and f"{pair['field']}/{pair['entityType']}" not in prices:
            found[str(pair["field"])] += pair["count_all"]
    free = f"{many(found.total(), 'task')} without a price ({listed(sorted(found))}), counted as free"
    return [free] if found else []


def _is_pair(name: object) -> bool:
    return isinstance(name, tuple) and len(name) == 2 and all(isinstance(part, str) for part in name)


def parse_budget(budget: object) -> float:
    """Check an amount of credits."""
    if isinstance(budget, str):
        raise ValidationError(f'takes a number of credits, or "balance", not {quoted(budget)}.', argument="budget")
    return parse_number("budget", budget, least=0, what="number of credits")


def unpriced_in(con: duckdb.DuckDBPyConnection, prices: Mapping[str, float]) -> list[str]:
    """Name the fields of the table ``tasks`` that have no price, for a type of entity that there is."""
    used = con.execute("select distinct field::varchar, entityType::varchar from tasks").fetchall()
    return sorted({field for field, kind in used if field not in prices and f"{field}/{kind}" not in prices})


def priorities(frame: Frame, name: str | None) -> Codes | None:
    """Read the column of a priority, as the rank of each row: 1 for the greatest, equal where they are; what has none comes last."""
    if name is None:
        return None
    if sum(isinstance(column, type(name)) and column == name for column in frame.columns) != 1:
        raise ValidationError(
            f"names a column of the tasks, which are {listed(frame.columns)}; not {quoted(name)}.{suggested(name, frame.columns)}",
            argument="priority",
        )
    numbers = _numbers(frame.arrow([name]).column(0), name)
    if pa.types.is_floating(numbers.type):
        numbers = pc.if_else(pc.is_nan(numbers), None, numbers)
    ranks: Codes = pc.rank(numbers, "descending", tiebreaker="min").to_numpy().astype(np.int64)
    return ranks


def _numbers(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """Make numbers of a column that can be ranked with every digit."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return _numbers(column.cast(kind.value_type), name)
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return column.cast(pa.int8())
    if pa.types.is_floating(kind):
        return column.cast(pa.float64())
    if pa.types.is_integer(kind) or pa.types.is_decimal(kind):
        return column
    example = f"is {kind}"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        column = pc.utf8_trim_whitespace(column)
        strange = column.filter(pc.invert(pc.match_substring_regex(column, _NUMBER)))
        example = f"holds {quoted(strange[0].as_py())}" if len(strange) else "holds numbers of too many digits"
        # every digit, as far as 76 of them go; beyond, as a double has them
        for exact in (pa.decimal256(76, 0), pa.decimal256(76, 38), pa.float64()) if not len(strange) else ():
            with suppress(pa.ArrowException):
                return column.cast(exact)
    raise ValidationError(
        f"takes a column of numbers, or of text that is numbers; {name!r} {example}.", argument="priority"
    )


_NUMBER = r"^[+-]?([0-9]+[.]?[0-9]*|[.][0-9]+)([eE][+-]?[0-9]+)?$"


def prices_of(keys: pa.Table, prices: Mapping[str, float]) -> Numbers:
    """Give the price of each row's field and type, or of its field; what has none costs nothing."""
    names, known = keys["field"].cast(pa.string()), pa.array(prices, pa.string())
    places = pc.index_in(names, known)
    if any("/" in name for name in prices):
        pairs = pc.binary_join_element_wise(names, keys["entityType"].cast(pa.string()), "/")
        places = pc.coalesce(pc.index_in(pairs, known), places)
    places = places.fill_null(len(prices))
    found: Numbers = np.array([*prices.values(), 0.0])[places.to_numpy()]
    return found


def over_budget(wanted: Rows, cost: Numbers, budget: float, rank: Codes | None) -> Rows:
    """Give the wanted rows that cannot be paid: they are bought by rank, and what costs more than is left is passed over."""
    queue = wanted if rank is None else wanted[np.argsort(rank[wanted], kind="stable")]
    over = []
    left = budget * (1 + 1e-12)  # as exact as sums of fractions are
    while len(queue):  # once for each price at most: with one that is passed over, all as dear are
        spent = np.cumsum(cost[queue])
        paid = int(np.searchsorted(spent, left, side="right"))
        left -= spent[paid - 1] if paid else 0.0
        queue = queue[paid:]
        dear = cost[queue] > left
        over.append(queue[dear])
        queue = queue[~dear]
    return np.concatenate([*over, queue])
