-- What a copy of one organization's records holds beside the table `parts.enrichment_records` (a record's columns, `superseded`) and the table
-- `parts.enrichment_limits` (orgId, field, maximum: for how many seconds a record may be pending). They and the ENUM types stand before this
-- runs. What lies in the schema `parts` is not listed where tables are shown.
--   $columns, $keys, $query  the columns of a record; the texts of lookup/keys.sql and of lookup/lookup.sql over decided records
--   $position                a name that no column of the tasks has
create view enrichments as select $columns from parts.enrichment_records;

-- Evaluated at the connection's variable `enrichment_now`, or at the clock's instant.
create view parts.enrichment_asker as
with moment as (select coalesce(getvariable('enrichment_now')::timestamptz, now()) as instant)

select
    enrichment_limits.orgId,
    enrichment_limits.field,
    moment.instant - to_microseconds((enrichment_limits.maximum * 1e6)::bigint) as pendingSince,
    moment.instant as now,
    enrichment_limits.maximum
from parts.enrichment_limits as enrichment_limits, moment;

-- The rows stay in the order of what is given. `asked` is the name of a frame, a table, a view or a CTE with the columns entityId, field and, unless all are persons, entityType.
create macro enrichment_status(asked) as table
with numbered as materialized (
    from (select *, row_number() over () as "$position" from query_table(asked))
    union all by name
    select null::varchar as entityType where false
),

given as (
    select
        numbered."$position" as position,
        numbered.entityId::varchar as entityId,
        coalesce(numbered.entityType::varchar, 'person') as entityType,
        numbered.field::varchar as field
    from numbered
),

keyed as ($keys),

tasks as materialized (
    select keyed.position, keyed.castEntityId as entityId, keyed.castEntityType as entityType, keyed.castField as field
    from keyed
    where keyed.castEntityId is not null and keyed.castEntityType is not null and keyed.castField is not null
),

records as (select found.* from parts.enrichment_records as found where not found.superseded),

asker as (from parts.enrichment_asker),

answers as ($query),

found as (select answers.position as place, answers.status, answers.dataFound, answers.reason, answers.id as enrichmentId from answers)

-- the names stand alone: where what is given has a column of one of them too, DuckDB refuses to choose
select
    numbered.* exclude ("$position"),
    status,
    dataFound,
    coalesce(reason, case when tasks.position is null then 'invalid' else 'no_record' end) as reason,
    enrichmentId
from numbered
left join tasks on tasks.position = numbered."$position"
left join found on found.place = numbered."$position"
order by numbered."$position";
