-- What became of a record, in the words of outcomes.py. Rule 4: one that is pending, and older than the maximum processing time
-- (strictly), has timed out
        case
            when record.status = 'pending' and record.createdAt < pendingSince then 'timed_out_here'
            when record.status = 'pending' then 'pending'
            when record.status = 'timeout' then 'timed_out_there'
            when record.status = 'failed' then 'failed'
            when record.dataFound then 'data'
            when record.status = 'finished' or not record.dataFound then 'no_data'
            else 'unknown'
        end
