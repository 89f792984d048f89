-- What a store's file holds. The types enrichment_entity_type and enrichment_field stand before this runs.
--   $history  the text of history.sql
create table enrichments (
    id uuid not null,
    createdAt timestamptz not null,
    updatedAt timestamptz,
    entityId uuid not null,
    entityType enrichment_entity_type not null,
    field enrichment_field not null,
    status varchar not null,
    error varchar,
    dataFound boolean,
    createdBy varchar,
    orgId varchar not null,
    globalEnrichmentId varchar,
    creditTransactionId varchar,
    probe uinteger not null,
    -- whether another record of its key is newer (rule 3 of the lookup): merge.sql decides it
    superseded boolean not null,
    -- the load that it came with
    load bigint not null
);

create table enrichment_version (version integer not null);
insert into enrichment_version values (3);

-- A digest of entity and field, indexed, by which few tasks find their records without a scan. It only has to narrow: the lookup
-- compares the whole key. It takes both ends of a UUID, because a v1 ends and a v7 begins like its neighbours.
create or replace macro enrichment_probe(entityId, field) as xor(
    xor(
        (entityId::uhugeint >> 96)::uinteger,
        (entityId::uhugeint & 4294967295)::uinteger
    ),
    enum_code(field::enrichment_field)::uinteger
);

-- Every load writes this one row first, so that two loads at once cannot both take an id for new.
create table if not exists enrichment_loads (loads bigint not null);
insert into enrichment_loads select 0 where not exists (from enrichment_loads);

$history
