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

told as (
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
    told.entityId::varchar as entityId,
    told.entityType::varchar as entityType,
    told.field::varchar as field,
    told.status_a,
    told.status_b,
    told.dataFound_a,
    told.dataFound_b,
    -- where the status is the same it is the data that differ
    case
        when told.said_a <> told.said_b then told.said_a || ' → ' || told.said_b
        else told.said_a || ': ' || told.data_a || ' → ' || told.data_b
    end as change
from told
where told.position_a is null
    or told.position_b is null
    or told.status_a is distinct from told.status_b
    or told.dataFound_a is distinct from told.dataFound_b
order by told.position_a nulls last, told.position_b nulls last
