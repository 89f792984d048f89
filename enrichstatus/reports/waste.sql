-- What bought records brought, by segment.
--   states (what states.sql gives, with entityId, entityType, id, dataFound and the price of the field)
with bought as (
    select
        states.*,
        row_number() over (
            partition by states.entityId, states.entityType, states.field
            order by states.createdAt nulls last, states.updatedAt nulls last, states.id
        ) > 1 as again,
        -- rule 5: what a pending record says of data is not known
        not states.pending and (states.status = 'pending' or states.dataFound is not true) as nothing
    from states
)

select
    bought.segment,
    count(*) as bought,
    sum(bought.price) as spent,
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
