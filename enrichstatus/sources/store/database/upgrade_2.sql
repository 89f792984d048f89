-- The file of a store of version 2, which did not keep what changed with which load: from now on it does.
--   $history  the text of history.sql
drop index if exists enrichment_probes;
drop view enrichment_winners;
alter table enrichments add column load bigint default 0;

$history

update enrichment_version set version = 3;
