-- The status of enrichment tasks: one query, every rule.
--   tasks   (position, entityId, entityType, field)  keys checked and cast, null where they were bad; a position each
--   records (the columns of a record)
--   asker   (orgId, field, pendingSince, now, maximum)
--           which one organization asks, when, and since when a record that is still pending has timed out: its maximum is so many seconds
--   rule 3 is the text of newest.sql, unless a store has applied it when it was loaded; rule 4 that of timed_out.sql, which the
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
        asker.now,
        asker.maximum,
        $timed_out as timedOut
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
)

select
    ranked.position,
    ranked.id,
    ranked.createdAt,
    ranked.updatedAt,
    ranked.entityId,
    ranked.entityType,
    ranked.field,
    case when ranked.timedOut then 'timeout' else ranked.status end as status,
    ranked.error,
    -- rule 5: nothing is known of the data while the record itself is pending
    case when ranked.status <> 'pending' then ranked.dataFound end as dataFound,
    ranked.createdBy,
    ranked.orgId,
    ranked.globalEnrichmentId,
    ranked.creditTransactionId,
    -- the words are those of outcomes.py
    case
        when ranked.timedOut then 'timed_out_here'
        when ranked.status = 'pending' then 'pending'
        when ranked.status = 'timeout' then 'timed_out_there'
        when ranked.status = 'failed' then 'failed'
        when ranked.dataFound then 'data'
        when ranked.status = 'finished' or not ranked.dataFound then 'no_data'
        else 'unknown'
    end as reason,
    (epoch_us(ranked.now) - epoch_us(ranked.createdAt)) / 1e6 as age,
    case when ranked.status = 'pending' then greatest(
        ranked.maximum - (epoch_us(ranked.now) - epoch_us(ranked.createdAt)) / 1e6, 0
    ) end as expiresIn
from ranked
where ranked.rank = 1
