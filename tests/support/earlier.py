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
            rows = con.sql("select * exclude (probe, superseded, load) from enrichments order by id").to_arrow_table()
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


def file_of_version_2(path: Path, records: Any) -> Path:
    """Make a file of version 2 with some records, which knows of none with which load it came."""
    with es.EnrichmentStore(path) as store:
        store.load(records)
    with duckdb.connect(str(path)) as con:
        con.execute("drop table enrichment_log; drop table enrichment_versions")
        con.execute("drop view enrichment_winners; drop index enrichment_probes; alter table enrichments drop load")
        con.execute("create index enrichment_probes on enrichments (probe)")
        con.execute(
            "create view enrichment_winners as select * exclude superseded from enrichments where not superseded"
        )
        con.execute("update enrichment_version set version = 2")
    return path
