-- The status of enrichment tasks: one query, every rule.
--   tasks   (position, entityId, entityType, field)  keys checked and cast, null where they were bad
--   records (the columns of a record)
--   asker   (orgId, field, pendingSince)             who asks, and since when a record that is still pending has timed out
-- One row comes out for each task that has a record.
with own as (
    -- rule 1: only the caller's organization is seen
    select
        records.id,
        records.createdAt,
        records.updatedAt,
        records.entityId,
        records.entityType,
        records.field,
        records.status,
        records.error,
        records.dataFound,
        records.createdBy,
        records.orgId,
        records.globalEnrichmentId,
        records.creditTransactionId,
        asker.pendingSince
    from records
    inner join asker
        on asker.orgId = records.orgId
        and asker.field = records.field
),

matched as (
    -- rule 2: keys match on the UUID's value, the entity type and the field
    select
        tasks.position,
        own.*
    from tasks
    inner join own
        on own.entityId = tasks.entityId
        and own.entityType = tasks.entityType
        and own.field = tasks.field
),

ranked as (
    select
        matched.*,
        row_number() over (
            partition by matched.position
            order by matched.createdAt desc nulls last, matched.updatedAt desc nulls last, matched.id desc nulls last
        ) as rank
    from matched
)

select
    ranked.position,
    ranked.id,
    ranked.createdAt,
    ranked.updatedAt,
    ranked.entityId,
    ranked.entityType,
    ranked.field,
    -- rule 4: pending, and older than the maximum processing time (strictly), is a timeout
    case
        when ranked.status = 'pending' and ranked.createdAt < ranked.pendingSince then 'timeout'
        else ranked.status
    end as status,
    ranked.error,
    -- rule 5: nothing is known of the data while the record itself is pending
    case when ranked.status <> 'pending' then ranked.dataFound end as dataFound,
    ranked.createdBy,
    ranked.orgId,
    ranked.globalEnrichmentId,
    ranked.creditTransactionId
from ranked
-- rule 3: the newest record speaks
where ranked.rank = 1
