-- The good rows of `staged` into `enrichments`: of all versions of an organization's id, given or stored, the newest stays.
--   $newest_version is the text of newest_version.sql
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
select staged.* exclude (file, problems), null::bigint as storedAt
from staged
semi join contested on contested.id = staged.id
where staged.problems is null
union all by name
select enrichments.*, enrichments.rowid as storedAt
from enrichments
semi join contested on contested.id = enrichments.id;

create temp table ranked as
select
    newest_version.*,
    bool_or(newest_version.storedAt is not null) over (partition by newest_version.orgId, newest_version.id) as known
from ($newest_version) as newest_version;

delete from enrichments where rowid in (select ranked.storedAt from ranked where ranked.rank > 1);

insert into enrichments
select staged.* exclude (file, problems)
from staged
anti join contested on contested.id = staged.id
where staged.problems is null;

insert into enrichments
select ranked.* exclude (storedAt, rank, known)
from ranked
where ranked.rank = 1 and ranked.storedAt is null;
