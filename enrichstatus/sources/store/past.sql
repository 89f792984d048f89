-- An organization's records as they were known after a load: those that had come by then, each in the version that stood then.
--   $load, $org_id
select $columns from enrichments as record where record.orgId = $org_id and record.load <= $load
union all
select $columns
from enrichment_versions as record
where record.orgId = $org_id and record.load <= $load and record.until > $load
