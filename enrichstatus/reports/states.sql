-- The state of each record: what became of it, whether that was for nothing, and how long it took.
--   history    (segment, field, createdAt, updatedAt, status, dataFound, and any columns beside them)
--   asker      (field, pendingSince, now, maximum, and any columns beside them)  as for a lookup
--   $outcome is the text of outcome.sql, as in a lookup
with stated as (
    select
        record.*,
        asker.* exclude (field),
        $outcome as outcome
    from history as record
    inner join asker on asker.field = record.field
)

select
    stated.*,
    stated.outcome = 'pending' as pending,
    stated.outcome in ('timed_out_here', 'timed_out_there') as timedOut,
    -- a service may find data after it has given up
    stated.outcome = 'data' or (stated.outcome = 'timed_out_there' and stated.dataFound is true) as data,
    -- what a status means that nobody knows, is not known: it is neither data nor nothing
    stated.outcome = 'unknown' as strange,
    not pending and not data and not strange as nothing,
    (epoch_us(stated.updatedAt) - epoch_us(stated.createdAt)) / 1e6 as took,
    -- of what is pending or has timed out it is known that it takes longer; where clocks disagree it took no time
    case
        when pending then greatest((epoch_us(stated.now) - epoch_us(stated.createdAt)) / 1e6, 0)
        when timedOut then stated.maximum
        else greatest(took, 0)
    end as seconds
from stated
