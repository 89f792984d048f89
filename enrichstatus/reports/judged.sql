-- The state of each record: whether it is still pending or has timed out, and how long it took.
--   history (segment, field, createdAt, updatedAt, status, and any columns beside them)
--   limits  (field, pendingSince, now, maximum, and any columns beside them)  the rule of the timeout, as for a lookup
with states as (
    select
        history.*,
        limits.* exclude (field),
        -- rule 4 of the lookup: pending, and older than the maximum processing time (strictly), is a timeout
        history.status = 'pending' and history.createdAt >= limits.pendingSince as pending,
        history.status = 'timeout' or (history.status = 'pending' and history.createdAt < limits.pendingSince) as timedOut
    from history
    inner join limits on limits.field = history.field
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
