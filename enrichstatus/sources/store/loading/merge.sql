-- The good rows of `staged` into `enrichments`: of all versions of an organization's id, given or stored, the newest stays; of all records
-- of a key the newest wins, and the others are superseded.
--   $newest_version, $newest  the texts of newest_version.sql and of lookup/newest.sql
-- Ids are compared within an organization, or one could replace another's record by naming it.
-- An id that comes once and is not stored yet, nearly all of them in a first load, needs no comparing.
create temp table contested as
with versions as (
    select staged.id from staged where staged.problems is null
    union all
    select enrichments.id from enrichments semi join staged on staged.id = enrichments.id
)

select versions.id from versions group by versions.id having count(*) > 1;

create temp table versions as
select staged.* exclude (file, problems), staged.rowid as stagedAt, null::bigint as storedAt
from staged
semi join contested on contested.id = staged.id
where staged.problems is null
union all by name
select enrichments.* exclude (superseded, load), enrichments.rowid as storedAt
from enrichments
semi join contested on contested.id = enrichments.id;

create temp table ranked as
select
    newest_version.*,
    bool_or(newest_version.storedAt is not null) over (partition by newest_version.orgId, newest_version.id) as known
from ($newest_version) as newest_version;

insert into enrichment_versions
select enrichments.* exclude (probe, superseded), enrichment_loads.loads as until
from enrichments, enrichment_loads
where enrichments.rowid in (select ranked.storedAt from ranked where ranked.rank > 1);

delete from enrichments where rowid in (select ranked.storedAt from ranked where ranked.rank > 1);

create temp view entering as
select staged.* exclude (file, problems), staged.rowid as stagedAt
from staged
anti join (select ranked.stagedAt from ranked where ranked.rank > 1) as outdated on outdated.stagedAt = staged.rowid
where staged.problems is null;

-- The digests of keys whose newest record may be another one now: those of several records, of which one is new, and those that a
-- record had which was replaced. All others need no comparing.
create temp table touched as
with digests as (
    select entering.probe from entering
    union all
    select enrichments.probe from enrichments semi join entering on entering.probe = enrichments.probe
)

select digests.probe from digests group by digests.probe having count(*) > 1
union
select ranked.probe from ranked where ranked.rank > 1 and ranked.storedAt is not null;

create temp table decided as
with contending as (
    select
        entering.id,
        entering.createdAt,
        entering.updatedAt,
        entering.entityId,
        entering.entityType,
        entering.field,
        entering.status,
        entering.dataFound,
        entering.orgId,
        entering.stagedAt,
        null::bigint as storedAt,
        null::boolean as superseded
    from entering
    semi join touched on touched.probe = entering.probe
    union all by name
    select
        enrichments.id,
        enrichments.createdAt,
        enrichments.updatedAt,
        enrichments.entityId,
        enrichments.entityType,
        enrichments.field,
        enrichments.status,
        enrichments.dataFound,
        enrichments.orgId,
        enrichments.rowid as storedAt,
        enrichments.superseded
    from enrichments
    semi join touched on touched.probe = enrichments.probe
)

select newest.stagedAt, newest.storedAt, newest.superseded as was, newest.rank > 1 as superseded
from ($newest) as newest;

update enrichments
set superseded = decided.superseded
from decided
where decided.storedAt = enrichments.rowid and decided.superseded <> decided.was;

-- in the order of the organizations, each of which then reads little besides its own
insert into enrichments
select
    entering.* exclude (stagedAt),
    entering.stagedAt in (select decided.stagedAt from decided where decided.superseded and decided.stagedAt is not null) as superseded,
    enrichment_loads.loads as load
from entering, enrichment_loads
order by entering.orgId;
