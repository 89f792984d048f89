-- rule 3: of several records the newest wins, which has the rank 1.
--   contending (the columns of a record, and any beside them)
--   $place     the columns that say for what a record contends: for a task at a lookup, for its key where a store is loaded
-- Where records lie in files one id may come several times, as it was and as it is: of two that look alike one with a known status
-- knows more, and then one that has ended.
select
    contending.*,
    row_number() over (
        partition by $place
        order by
            contending.createdAt desc nulls last,
            contending.updatedAt desc nulls last,
            contending.id desc nulls last,
            contending.status in ('pending', 'finished', 'timeout', 'failed') desc,
            contending.status <> 'pending' desc,
            contending.status desc,
            contending.dataFound desc nulls last
    ) as rank
from contending
