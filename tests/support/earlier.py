"""A store's file as earlier versions of enrichstatus made it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb

import enrichstatus as es
from enrichstatus.lookup.tasks import create_vocabularies
from enrichstatus.schema import FIELDS

_TABLES_SQL = """
create table enrichments (
    id uuid not null, createdAt timestamptz not null, updatedAt timestamptz, entityId uuid not null,
    entityType enrichment_entity_type not null, field enrichment_field not null, status varchar not null, error varchar,
    dataFound boolean, createdBy varchar, orgId varchar not null, globalEnrichmentId varchar, creditTransactionId varchar,
    probe uinteger not null
);
create macro enrichment_probe(entityId, field) as xor(
    xor(
        ('0x' || left(entityId::varchar, 8))::uinteger,
        ('0x' || right(entityId::varchar, 8))::uinteger
    ),
    enum_code(field::enrichment_field)::uinteger
);
create table enrichment_loads (loads bigint not null);
insert into enrichment_loads values (3);
"""


def file_of_version_1(path: Path, records: Any, *, fields: Sequence[str] = FIELDS, index: bool = True) -> Path:
    """Make a file of version 1 with some records, which has decided nothing of which is the newest."""
    with es.EnrichmentStore(fields=fields) as store:
        store.load(records)
        with store._cursor() as con:
            rows = con.sql("select * exclude (probe, superseded) from enrichments order by id").to_arrow_table()
    with duckdb.connect(str(path)) as con:
        con.execute("set TimeZone = 'UTC'")
        create_vocabularies(con, fields)
        con.execute(_TABLES_SQL)
        con.register("rows", rows)
        con.execute(
            "insert into enrichments by name select *, enrichment_probe(entityId::uuid, field) as probe from rows"
        )
        if index:
            con.execute("create index enrichment_probes on enrichments (probe)")
    return path
