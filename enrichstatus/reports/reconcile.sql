-- What was charged beside what is recorded: for each record that carries a transaction, and for what is charged without one, a row
-- for each day on which something was charged or given back; of what is recorded, for each $unit.
--   bill   (line, transaction, creditTransactionId, credits, createdAt, ends, field, ofField, ofEntity)  the lines of the bill, checked
--          and cast; transaction is the id by value, ofField and ofEntity are what the line says that it is for, where it does
--   states (what states.sql gives, with entityId, entityType, createdBy, transaction and creditTransactionId)
--   period (since, until)  null where the period is open
--   $unit  day, week or month, or millennium where none is told apart
with named as (
    select
        bill.* exclude (ofField, ofEntity),
        -- what names no transaction stands alone
        coalesce(transaction, '') as code,
        case when transaction is null then line else -1 end as alone,
        -- the field and the entity tell the charges of a transaction apart where each of its lines names them
        case when bool_and(ofField is not null) over (partition by transaction) then ofField else '' end as ofField,
        case when bool_and(ofEntity is not null) over (partition by transaction) then ofEntity else '' end as ofEntity
    from bill
),

charges as (
    select named.* exclude (code, alone, ofField, ofEntity), row(code, alone, ofField, ofEntity) as account
    from named
),

recorded as (
    select
        states.*,
        row_number() over () as purchase,
        row(
            states.transaction,
            -1::bigint,
            case when names.field then states.field else '' end,
            case when names.entity then states.entityId else '' end
        ) as account
    from states
    left join (
        select code, bool_or(ofField <> '') as field, bool_or(ofEntity <> '') as entity from named group by code
    ) as names on states.transaction = names.code
    where states.transaction is not null
),

ranked as (
    select
        charges.*,
        coalesce(bought.records, 0) as records,
        -- a count with a filter takes time that grows with the square of the lines of a transaction
        sum((credits > 0)::bigint) over (partition by account) as count,
        row_number() over (partition by account, credits order by createdAt nulls last, line) as repetition
    from charges
    left join (select account, count(*) as records from recorded group by account) as bought using (account)
),

placed as (
    select
        ranked.*,
        row_number() over (
            partition by account, credits > 0 order by repetition, createdAt nulls last, credits desc, line
        ) as place
    from ranked
),

-- A line for each record, or one line for all of them, is right. What repeats the amount of another line when there are fewer lines than
-- records, and what comes when each record has its line, is a second charge; of equal lines the earliest is right. All lines decide it,
-- whatever the period.
decided as (
    select
        placed.*,
        credits > 0 and case
            when count > records then place > records
            when count < records then repetition > 1
            else false
        end as beyond,
        coalesce(sum(-credits) filter (where credits < 0) over (partition by account), 0) as back
    from placed
),

-- what is given back settles what was charged too much, the earliest first
settled as (
    select
        decided.*,
        case
            when beyond then greatest(least(credits, (sum(credits) filter (where beyond) over running) - back), 0)
            else 0
        end as excess
    from decided
    window running as (
        partition by account order by createdAt nulls last, line rows between unbounded preceding and current row
    )
),

accounts as (
    select
        account,
        -min(line) - 1 as purchase,
        coalesce(sum(credits) filter (where credits > 0), 0) as gross,
        max(back) > 0 and max(back) >= gross as isRefunded
    from settled
    group by account
),

entries as (
    select
        account,
        any_value(creditTransactionId) as creditTransactionId,
        min(field) as field,
        min(createdAt) as createdAt,
        sum(credits) as credits,
        coalesce(sum(-credits) filter (where credits < 0), 0) as refunded,
        sum(excess) as excess
    from settled
    cross join period
    where createdAt is null
        or ((period.since is null or ends > period.since) and (period.until is null or createdAt < period.until))
    group by account, date_trunc(case when records > 0 then $unit else 'day' end, createdAt)
),

-- what several records share is borne by each in equal parts
joined as (
    select
        coalesce(recorded.purchase, accounts.purchase) as purchase,
        coalesce(recorded.creditTransactionId, entries.creditTransactionId) as creditTransactionId,
        recorded.entityId,
        recorded.entityType,
        coalesce(recorded.field, entries.field) as field,
        recorded.createdBy,
        recorded.status,
        recorded.outcome,
        recorded.nothing,
        recorded.purchase is not null as isRecorded,
        accounts.account is not null as isCharged,
        accounts.isRefunded,
        accounts.gross,
        coalesce(entries.createdAt, recorded.createdAt) as createdAt,
        count(recorded.purchase) over (partition by accounts.account, entries.createdAt) as sharing,
        entries.credits / greatest(sharing, 1) as credits,
        entries.refunded / greatest(sharing, 1) as refunded,
        entries.excess / greatest(sharing, 1) as excess,
        entries.account is not null as isWithin
    from recorded
    full join accounts on recorded.account = accounts.account
    left join entries on accounts.account = entries.account
)

select
    purchase,
    creditTransactionId,
    entityId,
    entityType,
    field,
    createdBy,
    createdAt,
    status,
    case
        when not isCharged then 'no charge'
        -- nobody knows what that gives back
        when not isRecorded and gross = 0 then 'no record'
        when isRefunded then 'refunded'
        when not isRecorded then 'no record'
        when outcome = 'unknown' then 'unknown status'
        when nothing then 'no data'
        else 'charged'
    end as finding,
    coalesce(credits, 0)::double as credits,
    coalesce(refunded, 0)::double as refunded,
    coalesce(excess, 0)::double as "in question"
from joined
cross join period
where isWithin
    or (
        not isCharged
        and (period.since is null or createdAt is null or createdAt >= period.since)
        and (period.until is null or createdAt is null or createdAt < period.until)
    )
order by createdAt nulls last, creditTransactionId nulls last, entityId nulls last, entityType, field, credits, purchase
