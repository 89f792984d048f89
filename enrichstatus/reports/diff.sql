-- Where two lookups disagree: a row for each task whose status or dataFound differ, or that only one of them has.
--   a, b  (position, entityId, entityType, field, status, dataFound)  distinct tasks, in the order of their lists
--   names (a, b)                                                      what the two are called
with joined as (
    select
        entityId,
        entityType,
        field,
        a.position as position_a,
        b.position as position_b,
        a.status as status_a,
        b.status as status_b,
        a.dataFound as dataFound_a,
        b.dataFound as dataFound_b
    from a
    full join b using (entityId, entityType, field)
),

worded as (
    select
        joined.*,
        case when position_a is null then 'not in ' || names.a else coalesce(status_a, 'no record') end as said_a,
        case when position_b is null then 'not in ' || names.b else coalesce(status_b, 'no record') end as said_b,
        case when dataFound_a then 'data' when not dataFound_a then 'no data' else 'nothing known of data' end as data_a,
        case when dataFound_b then 'data' when not dataFound_b then 'no data' else 'nothing known of data' end as data_b
    from joined
    cross join names
)

select
    worded.entityId::varchar as entityId,
    worded.entityType::varchar as entityType,
    worded.field::varchar as field,
    worded.status_a,
    worded.status_b,
    worded.dataFound_a,
    worded.dataFound_b,
    -- where the status is the same it is the data that differ
    case
        when worded.said_a <> worded.said_b then worded.said_a || ' → ' || worded.said_b
        else worded.said_a || ': ' || worded.data_a || ' → ' || worded.data_b
    end as change
from worded
where worded.position_a is null
    or worded.position_b is null
    or worded.status_a is distinct from worded.status_b
    or worded.dataFound_a is distinct from worded.dataFound_b
order by worded.position_a nulls last, worded.position_b nulls last
