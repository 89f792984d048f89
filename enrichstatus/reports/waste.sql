-- What bought records brought, by segment.
--   states (what states.sql gives, with entityId, entityType, id, dataFound and the price of the field)
--   $failed are the outcomes after which a task is bought again
with brought as (
    select
        states.*,
        -- a service may find data after it has given up
        states.outcome = 'data' or (states.outcome = 'timed_out_there' and states.dataFound is true) as data,
        not states.pending and not data as nothing
    from states
),

bought as (
    select
        brought.*,
        row_number() over purchases > 1 as repeated,
        -- what was bought after a failure or a timeout that brought nothing had to be bought again
        coalesce(
            lag(brought.nothing and list_contains($failed, brought.outcome)) over purchases, false
        ) as retried,
        repeated and not retried as again
    from brought
    window purchases as (
        partition by brought.entityId, brought.entityType, brought.field
        order by brought.createdAt nulls last, brought.updatedAt nulls last, brought.id
    )
)

select
    bought.segment,
    count(*) as bought,
    sum(bought.price) as spent,
    count(*) filter (where bought.retried) as retried,
    count(*) filter (where bought.again) as "bought again",
    count(*) filter (where bought.nothing) as nothing,
    count(*) filter (where bought.data and (bought.took > bought.maximum or bought.timedOut)) as late,
    coalesce(sum(bought.price) filter (where bought.again or bought.nothing), 0) as wasted,
    -- the same credits, each in one place: for a picture
    coalesce(sum(bought.price) filter (where bought.again), 0) as again,
    coalesce(sum(bought.price) filter (where bought.nothing and not bought.again), 0) as "for nothing",
    coalesce(sum(bought.price) filter (where bought.pending and not bought.again), 0) as "open",
    coalesce(sum(bought.price) filter (where not bought.pending and not bought.nothing and not bought.again), 0) as useful
from bought
group by bought.segment
order by bought.segment
