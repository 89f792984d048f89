-- What was charged beside what is recorded: a row for each record that carries a transaction, and for each charge that has none.
--   bill   (line, creditTransactionId, credits, createdAt, field)  the lines of the bill, checked and cast
--   states (what states.sql gives, with entityId, entityType, createdBy and creditTransactionId)
--   period (since, until)  null where the period is open
with charges as (
    select
        creditTransactionId,
        -- what names no transaction stands alone
        case when creditTransactionId is null then line end as line,
        sum(credits) as credits,
        coalesce(sum(-credits) filter (where credits < 0), 0) as refunded,
        coalesce(max(credits), 0) as dearest,
        coalesce(min(createdAt) filter (where credits >= 0), min(createdAt)) as createdAt,
        min(field) as field
    from bill
    group by all
),

recorded as (
    select
        states.*,
        count(*) over (partition by states.creditTransactionId) as sharing
    from states
    where states.creditTransactionId is not null
),

joined as (
    select
        coalesce(recorded.creditTransactionId, charges.creditTransactionId) as creditTransactionId,
        recorded.entityId,
        recorded.entityType,
        coalesce(recorded.field, charges.field) as field,
        recorded.createdBy,
        recorded.status,
        coalesce(charges.createdAt, recorded.createdAt) as createdAt,
        recorded.sharing is not null as isRecorded,
        charges.credits is not null as isCharged,
        recorded.nothing,
        charges.refunded > 0 and charges.credits <= 0 as isRefunded,
        -- what is charged beyond one charge for each record; several records may share a transaction
        greatest(charges.credits - charges.dearest * coalesce(recorded.sharing, 1), 0) as excess,
        -- of a transaction each record bears its part
        charges.credits / coalesce(recorded.sharing, 1) as credits,
        charges.refunded / coalesce(recorded.sharing, 1) as refunded,
        excess / coalesce(recorded.sharing, 1) as excessive
    from charges
    full join recorded using (creditTransactionId)
)

select
    creditTransactionId,
    entityId,
    entityType,
    field,
    createdBy,
    createdAt,
    status,
    case
        when not isCharged then 'no charge'
        when isRefunded then 'refunded'
        when not isRecorded then 'no record'
        when excess > 0 then 'charged twice'
        when nothing then 'no data'
        else 'charged'
    end as finding,
    coalesce(credits, 0)::double as credits,
    coalesce(refunded, 0)::double as refunded,
    case finding when 'no record' then credits when 'charged twice' then excessive else 0 end::double as "in question"
from joined
cross join period
where (period.since is null or createdAt is null or createdAt >= period.since)
    and (period.until is null or createdAt is null or createdAt < period.until)
order by createdAt nulls last, creditTransactionId nulls last, entityId nulls last, entityType, field, credits
