"""THE query in the words of other databases, for those whose records live in a warehouse (extra ``sql``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from enrichstatus.errors import EnrichStatusError
from enrichstatus.lookup.arguments import choice
from enrichstatus.lookup.query import LOOKUP_SQL

Dialect: TypeAlias = Literal["duckdb", "spark", "bigquery", "snowflake", "postgres"]


def lookup_sql(dialect: Dialect = "duckdb") -> str:
    r"""Give the query of every lookup as text, to be run where the records are: in dbt, say.

    It reads three relations, which you supply under these names, as tables, views or CTEs around it:

    - ``tasks (position, entityId, entityType, field)``: what is looked up. ``position`` identifies your rows and comes back; it is
      unique: one lead with two fields is two tasks, and of two with one position only one is answered.
    - ``records``: the thirteen columns of a record. ``createdAt`` is never null.
    - ``asker (orgId, field, pendingSince, now, maximum)``: a row for each field, of one organization: of several a task would have
      the newest record of any. A record that is pending and was created before
      ``pendingSince``, which is ``now`` less ``maximum`` seconds, has timed out. The head of the text spells it out for its dialect.

    What is compared is of one type and spelled alike on both sides: ``lower(trim(entityId))``, or a cast to UUID where the
    database has that type. Instants have a time zone (``timestamptz``, in BigQuery ``TIMESTAMP``), or all are of UTC. One row comes out for
    each task that has a record: join it to yours by ``position``.

    Nothing is quoted, so that your unquoted tables are met: PostgreSQL calls the columns ``createdat``, Snowflake ``CREATEDAT``.

    Parameters
    ----------
    dialect : {"duckdb", "spark", "bigquery", "snowflake", "postgres"}
        Whose SQL. That of DuckDB is what a store runs, word for word. The others are transpiled from it by sqlglot: Spark's and
        PostgreSQL's are run in the tests, on Spark 4 and PostgreSQL 15, where they answer as the store does; BigQuery's and Snowflake's
        are only parsed back, and were **not run**.

    Returns
    -------
    str
        One ``select``, without a semicolon; a ``with`` of your own may go around it.

    Raises
    ------
    ValidationError
        There is no such dialect.
    EnrichStatusError
        The extra ``sql`` is not installed, and the dialect is not DuckDB's.

    Examples
    --------
    >>> import duckdb
    >>> import enrichstatus as es
    >>> text = f'''
    ...     with records as (select * from 'data/enrichments.json'),
    ...     tasks as (select lead_id as position, lead_id as entityId, 'person' as entityType, 'phones' as field from 'data/leads.csv'),
    ...     asker as (
    ...         select
    ...             'org_acme' as orgId, 'phones' as field, now - interval '800 seconds' as pendingSince, now, 800 as maximum
    ...         from (select timestamp '2026-11-16 09:00:00' as now)
    ...     ),
    ...     status as ({es.lookup_sql()})
    ...     select status, count(*) as leads from tasks left join status using (position) group by status order by leads desc
    ... '''
    >>> duckdb.sql(text).fetchall()
    [('finished', 1090), (None, 843), ('timeout', 37), ('failed', 20), ('pending', 10)]
    """
    choice("dialect", dialect, get_args(Dialect))
    return LOOKUP_SQL if dialect == "duckdb" else _transpiled(dialect)


@dataclass(frozen=True)
class _Engine:
    """What differs by database: `micros` of an instant ``?``, and what the head of the text says."""

    tested: str
    micros: str
    asker: str
    names: str = "createdAt is found however its case is written"


_ENGINES = {
    "spark": _Engine(
        tested="run on Spark 4",
        micros="unix_micros(?)",
        asker="""
select 'org_1' as orgId, field, now() - interval 800 seconds as pendingSince, now() as now, cast(800 as double) as maximum
from values ('emails'), ('phones'), ('summary') as fields (field)""",
    ),
    "bigquery": _Engine(
        tested="parsed back, not run",
        micros="unix_micros(?)",
        asker="""
select
    'org_1' as orgId, field, timestamp_sub(current_timestamp(), interval 800 second) as pendingSince,
    current_timestamp() as now, cast(800 as float64) as maximum
from unnest(['emails', 'phones', 'summary']) as field""",
    ),
    "snowflake": _Engine(
        tested="parsed back, not run",
        # an integer there is a decimal, whose quotients are decimals too
        micros="cast(date_part(epoch_microsecond, ?) as double)",
        asker="""
select
    'org_1' as orgId, column1 as field, dateadd(second, -800, current_timestamp()) as pendingSince,
    current_timestamp() as now, cast(800 as double) as maximum
from values ('emails'), ('phones'), ('summary')""",
        names="createdAt is CREATEDAT",
    ),
    "postgres": _Engine(
        tested="run on PostgreSQL 15",
        # the cast makes whole microseconds of the seconds, which are a double before PostgreSQL 14
        micros="cast(extract(epoch from ?) * 1000000 as bigint)",
        asker="""
select
    'org_1' as orgId, field, now() - interval '800 seconds' as pendingSince, now() as now, cast(800 as double precision) as maximum
from (values ('emails'), ('phones'), ('summary')) as fields (field)""",
        names="createdAt is createdat",
    ),
}


def _transpiled(dialect: str) -> str:
    """Have sqlglot write the query for a database, and say at its head what it wants there."""
    try:
        from sqlglot import ErrorLevel, exp, parse_one
    except ImportError as error:
        raise EnrichStatusError(
            f'The query in the dialect {dialect!r} needs the extra "sql": pip install "enrichstatus[sql]"'
        ) from error
    engine = _ENGINES[dialect]
    start = LOOKUP_SQL.index("with ")
    query = parse_one(LOOKUP_SQL[start:], read="duckdb")
    micros = parse_one(engine.micros, read=dialect)
    for call in list(query.find_all(exp.Anonymous)):  # epoch_us, which sqlglot would leave as it is
        call.replace(exp.replace_placeholders(micros.copy(), call.expressions[0]))
    text = query.sql(dialect, pretty=True, unsupported_level=ErrorLevel.RAISE)
    notes = [
        f"For {dialect}: transpiled, {engine.tested}. Names are not quoted: {engine.names}.",
        "What is compared is of one type and spelled alike on both sides, lower(trim(entityId)) say; instants have a time zone.",
        "asker, for one organization and 800 seconds:",
        *(f"    {line}" for line in engine.asker.strip().splitlines()),
    ]
    return LOOKUP_SQL[:start] + "".join(f"-- {note}\n" for note in notes) + text + "\n"
