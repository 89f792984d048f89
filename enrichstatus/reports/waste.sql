-- What bought records brought, by segment.
--   judged (what judged.sql gives, with entityId, entityType, id, dataFound and the price of the field)
with bought as (
    select
        judged.*,
        row_number() over (
            partition by judged.entityId, judged.entityType, judged.field
            order by judged.createdAt nulls last, judged.updatedAt nulls last, judged.id
        ) > 1 as again,
        -- rule 5: what a pending record says of data is not known
        not judged.pending and (judged.status = 'pending' or judged.dataFound is not true) as nothing
    from judged
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
