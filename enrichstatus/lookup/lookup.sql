-- The status of enrichment tasks: one query, every rule.
--   tasks   (position, entityId, entityType, field)  keys checked and cast, null where they were bad; a position each
--   records (the columns of a record)
--   asker   (orgId, field, pendingSince, now, maximum)
--           which one organization asks, when, and since when a record that is still pending has timed out: its maximum is so many seconds
--   $newest is the text of newest.sql, unless a store has applied it when it was loaded; $outcome that of outcome.sql, which the
--   reports of a history use too
-- One row comes out for each task that has a record.
with own as (
    -- rule 1: only the caller's organization is seen
    select
        record.id,
        record.createdAt,
        record.updatedAt,
        record.entityId,
        record.entityType,
        record.field,
        record.status,
        record.error,
        record.dataFound,
        record.createdBy,
        record.orgId,
        record.globalEnrichmentId,
        record.creditTransactionId,
        asker.pendingSince,
        asker.now,
        asker.maximum
    from records as record
    inner join asker
        on asker.orgId = record.orgId
        and asker.field = record.field
),

contending as (
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
    -- rule 3: the newest record wins
    $newest
),

stated as (
    select
        record.*,
        $outcome as reason
    from ranked as record
    where record.rank = 1
)

select
    stated.position,
    stated.id,
    stated.createdAt,
    stated.updatedAt,
    stated.entityId,
    stated.entityType,
    stated.field,
    -- rule 4: what has been pending for longer than its maximum processing time is reported as a timeout
    case when stated.reason = 'timed_out_here' then 'timeout' else stated.status end as status,
    stated.error,
    -- rule 5: nothing is known of the data while the record itself is pending
    case when stated.status <> 'pending' then stated.dataFound end as dataFound,
    stated.createdBy,
    stated.orgId,
    stated.globalEnrichmentId,
    stated.creditTransactionId,
    stated.reason,
    (epoch_us(stated.now) - epoch_us(stated.createdAt)) / 1e6 as age,
    case when stated.status = 'pending' then greatest(
        stated.maximum - (epoch_us(stated.now) - epoch_us(stated.createdAt)) / 1e6, 0
    ) end as expiresIn
from stated
