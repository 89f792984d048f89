-- The records of an organization that came or changed after a load, in the order in which they did, each with what it was then.
--   $since   the load; what came with a later one is given
select $columns, earlier.status as previousStatus
from enrichments as record
left join enrichment_versions as earlier
    on earlier.orgId = record.orgId
    and earlier.id = record.id
    and earlier.load <= $since
    and earlier.until > $since
where record.orgId = $org_id and record.load > $since
order by record.rowid
