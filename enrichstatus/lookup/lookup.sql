-- The status of enrichment tasks: one query, every rule.
--   tasks   (position, entityId, entityType, field)  keys checked and cast, null where they were bad
--   records (the columns of a record)
--   asker   (orgId, field, pendingSince, now, maximum)
--           who asks, when, and since when a record that is still pending has timed out: its maximum is so many seconds
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
        records.creditTransactionId
    from records
    where records.orgId in (select asker.orgId from asker)
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
    -- rule 3: the newest record wins. Where records lie in files one id may come several times, as it was and as it is: of two
    -- that look alike an ended one knows more
    select
        matched.*,
        row_number() over (
            partition by matched.position
            order by
                matched.createdAt desc nulls last,
                matched.updatedAt desc nulls last,
                matched.id desc nulls last,
                matched.status <> 'pending' desc,
                matched.status desc,
                matched.dataFound desc nulls last
        ) as rank
    from matched
),

newest as (
    select ranked.*
    from ranked
    where ranked.rank = 1
)

select
    newest.position,
    newest.id,
    newest.createdAt,
    newest.updatedAt,
    newest.entityId,
    newest.entityType,
    newest.field,
    -- rule 4: pending, and older than the maximum processing time (strictly), is a timeout
    case
        when newest.status = 'pending' and newest.createdAt < asker.pendingSince then 'timeout'
        else newest.status
    end as status,
    newest.error,
    -- rule 5: nothing is known of the data while the record itself is pending
    case when newest.status <> 'pending' then newest.dataFound end as dataFound,
    newest.createdBy,
    newest.orgId,
    newest.globalEnrichmentId,
    newest.creditTransactionId,
    -- the words are those of outcomes.py
    case
        when newest.status = 'pending' and newest.createdAt < asker.pendingSince then 'timed_out_here'
        when newest.status = 'pending' then 'pending'
        when newest.status = 'timeout' then 'timed_out_there'
        when newest.status = 'failed' then 'failed'
        when newest.dataFound then 'data'
        when newest.status = 'finished' or not newest.dataFound then 'no_data'
        else 'unknown'
    end as reason,
    (epoch_us(asker.now) - epoch_us(newest.createdAt)) / 1e6 as age,
    case when newest.status = 'pending' then greatest(
        asker.maximum - (epoch_us(asker.now) - epoch_us(newest.createdAt)) / 1e6, 0
    ) end as expiresIn
from newest
inner join asker
    on asker.orgId = newest.orgId
    and asker.field = newest.field
