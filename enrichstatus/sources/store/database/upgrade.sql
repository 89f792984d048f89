-- The file of a store of version 1, which decided nothing when it was loaded, becomes one of today's: its records are loaded anew.
--   $database, $merge  the texts of database.sql and of merge.sql
drop index if exists enrichment_probes;
alter table enrichments rename to enrichments_of_version_1;

$database

create temp table staged as
select earlier.*, null::varchar as file, null::varchar[] as problems from enrichments_of_version_1 as earlier;

$merge

drop table enrichments_of_version_1;
