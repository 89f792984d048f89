-- An organization's good records where they lie, cast to the types of a store as they are read.
--   records   (what cast_record.sql gives)
--   $org_id   whose are read
--   $since    null, or an instant: records created before it are left out
--   $strict   whether a bad record is an error, or left out
select records.* exclude (file, problems)
from records
where records.orgId = $org_id
    and ($since is null or records.createdAt is null or records.createdAt >= $since)
    and case
        when records.problems is null then true
        when $strict then error(concat(
            'enrichstatus: A bad record in ', records.file, ': ', records.problems[1].name,
            coalesce(' ''' || nullif(trim(records.problems[1].value), '') || '''', ''), ' ', records.problems[1].reason
        ))::boolean
        else false
    end
