-- What became of the keys of a store, by field: how many have which outcome, and since when the oldest of them is there.
--   enrichment_winners  the newest record of each key of each organization
--   asker               (field, pendingSince)  since when a record that is still pending has timed out
--   $org_id             whose; all where it is null
--   $outcome is the text of outcome.sql, as in a lookup
with stated as (
    select
        record.field::varchar as field,
        record.createdAt,
        $outcome as outcome
    from enrichment_winners as record
    inner join asker on asker.field = record.field
    where record.orgId = coalesce($org_id, record.orgId)
)

select field, outcome, count(*) as keys, min(createdAt) as oldest
from stated
group by field, outcome
order by field, outcome
