-- What a store's file holds beside its records since version 3: what changed with which load.
-- Of each key of each organization its newest record.
create view enrichment_winners as select enrichments.* exclude (superseded, load) from enrichments where not enrichments.superseded;

-- The loads that changed anything, each with a word that tells it from the same load of another file, and when it was done.
create table enrichment_log (load bigint not null, word varchar not null, done timestamptz not null);
insert into enrichment_log select loads, left(md5(uuid()::varchar), 12), now() from enrichment_loads;

-- The versions of records that later ones have replaced: what was known from one load until another.
create table enrichment_versions as
select enrichments.* exclude (probe, superseded), null::bigint as until from enrichments limit 0;
