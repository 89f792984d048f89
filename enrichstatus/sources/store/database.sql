-- What a store's file holds. The types enrichment_entity_type and enrichment_field stand before this runs.
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
    probe uinteger not null
);

-- A digest of entity and field, indexed, by which few tasks find their records without a scan. It only has to narrow: the lookup
-- compares the whole key. It takes both ends of a UUID, because a v1 ends and a v7 begins like its neighbours.
create macro enrichment_probe(entityId, field) as xor(
    xor(
        (entityId::uhugeint >> 96)::uinteger,
        (entityId::uhugeint & 4294967295)::uinteger
    ),
    enum_code(field::enrichment_field)::uinteger
);

-- Every load writes this one row first, so that two loads at once cannot both take an id for new.
create table enrichment_loads (loads bigint not null);
insert into enrichment_loads values (0);
