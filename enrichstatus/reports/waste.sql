-- What bought records brought, by segment.
--   states (what states.sql gives, with entityId, entityType, id, dataFound and the price)
--   $failed are the outcomes after which a task is bought again
with bought as (
    select
        states.*,
        row_number() over purchases > 1 as repeated,
        -- what was bought after a failure or a timeout that brought nothing had to be bought again
        coalesce(
            lag(states.nothing and list_contains($failed, states.outcome)) over purchases, false
        ) as retried,
        repeated and not retried as again
    from states
    window purchases as (
        partition by states.entityId, states.entityType, states.field
        order by states.createdAt nulls last, states.updatedAt nulls last, states.id
    )
)

select
    bought.segment,
    count(*) as bought,
    sum(bought.price) as spent,
    count(*) filter (where bought.retried) as retried,
    count(*) filter (where bought.again) as "bought again",
    count(*) filter (where bought.nothing) as nothing,
    count(*) filter (where bought.strange) as "unknown status",
    count(*) filter (where bought.data and (bought.took > bought.maximum or bought.timedOut)) as late,
    coalesce(sum(bought.price) filter (where bought.again or bought.nothing), 0) as wasted,
    -- the same credits, each in one place: for a picture
    coalesce(sum(bought.price) filter (where bought.again), 0) as again,
    coalesce(sum(bought.price) filter (where bought.nothing and not bought.again), 0) as "for nothing",
    coalesce(sum(bought.price) filter (where bought.pending and not bought.again), 0) as "open",
    coalesce(sum(bought.price) filter (where bought.strange and not bought.again), 0) as "unknown",
    coalesce(sum(bought.price) filter (where bought.data and not bought.again), 0) as useful
from bought
group by bought.segment
order by bought.segment
