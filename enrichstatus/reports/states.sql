-- The state of each record: whether it is still pending or has timed out, and how long it took.
--   history    (segment, field, createdAt, updatedAt, status, and any columns beside them)
--   asker      (field, pendingSince, now, maximum, and any columns beside them)  as for a lookup
--   $timed_out is the text of timed_out.sql, the lookup's rule
with timed as (
    select
        record.*,
        asker.* exclude (field),
        $timed_out as timedOutHere
    from history as record
    inner join asker on asker.field = record.field
),

states as (
    select
        timed.* exclude (timedOutHere),
        timed.status = 'pending' and not timed.timedOutHere as pending,
        timed.status = 'timeout' or timed.timedOutHere as timedOut
    from timed
)

select
    states.*,
    (epoch_us(states.updatedAt) - epoch_us(states.createdAt)) / 1e6 as took,
    -- of what is pending or has timed out it is known that it takes longer; clocks that disagree are taken for at once
    case
        when states.pending then greatest((epoch_us(states.now) - epoch_us(states.createdAt)) / 1e6, 0)
        when states.timedOut then states.maximum
        else greatest((epoch_us(states.updatedAt) - epoch_us(states.createdAt)) / 1e6, 0)
    end as seconds
from states
