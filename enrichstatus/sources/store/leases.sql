-- What has been requested of a service and was not answered yet: written before the request, deleted with the answer's records.
create table if not exists enrichment_leases (
    orgId varchar not null,
    entityId uuid not null,
    entityType enrichment_entity_type not null,
    field enrichment_field not null,
    since timestamptz not null,
    -- the call that sent it
    request varchar not null,
    -- when the record was created that there was before, if there was one
    seen timestamptz
);
