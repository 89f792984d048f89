-- What bought records brought, by segment.
--   states (what states.sql gives, with entityId, entityType, id, dataFound and the price of the field)
with outcomes as (
    select
        states.*,
        -- rule 5: what a pending record says of data is not known
        not states.pending and (states.status = 'pending' or states.dataFound is not true) as nothing
    from states
),

bought as (
    select
        outcomes.*,
        row_number() over purchases > 1 as repeated,
        -- what was bought after a failure or a timeout that brought nothing had to be bought again
        coalesce(
            lag(outcomes.nothing and (outcomes.timedOut or outcomes.status = 'failed')) over purchases, false
        ) as retried,
        repeated and not retried as again
    from outcomes
    window purchases as (
        partition by outcomes.entityId, outcomes.entityType, outcomes.field
        order by outcomes.createdAt nulls last, outcomes.updatedAt nulls last, outcomes.id
    )
)

select
    bought.segment,
    count(*) as bought,
    sum(bought.price) as spent,
    count(*) filter (where bought.retried) as retried,
    count(*) filter (where bought.again) as "bought again",
    count(*) filter (where bought.nothing) as nothing,
    count(*) filter (
        where bought.status <> 'pending' and bought.dataFound and (bought.took > bought.maximum or bought.status = 'timeout')
    ) as late,
    coalesce(sum(bought.price) filter (where bought.again or bought.nothing), 0) as wasted,
    -- the same credits, each in one place: for a picture
    coalesce(sum(bought.price) filter (where bought.again), 0) as again,
    coalesce(sum(bought.price) filter (where bought.nothing and not bought.again), 0) as "for nothing",
    coalesce(sum(bought.price) filter (where bought.pending and not bought.again), 0) as "open",
    coalesce(sum(bought.price) filter (where not bought.pending and not bought.nothing and not bought.again), 0) as useful
from bought
group by bought.segment
order by bought.segment
