-- The good rows of `staged` into `enrichments`: of all versions of an organization's id, given or stored, the newest stays.
-- Ids are compared within an organization, or one could replace another's record by naming it.
-- An id that comes once and is not stored yet, nearly all of them in a first load, needs no comparing.
create temp table contested as
with versions as (
    select staged.id from staged where staged.problems is null
    union all
    select enrichments.id from enrichments semi join staged on staged.id = enrichments.id
)

select versions.id from versions group by versions.id having count(*) > 1;

create temp table ranked as
with versions as (
    select staged.* exclude (file, problems), null::bigint as storedAt
    from staged
    semi join contested on contested.id = staged.id
    where staged.problems is null
    union all by name
    select enrichments.*, enrichments.rowid as storedAt
    from enrichments
    semi join contested on contested.id = enrichments.id
)

select
    versions.*,
    bool_or(versions.storedAt is not null) over (partition by versions.orgId, versions.id) as known,
    row_number() over (
        partition by versions.orgId, versions.id
        order by
            versions.updatedAt desc nulls last,
            -- of two with the same time an ended one knows more; after that any order will do that is the same each time
            versions.status <> 'pending' desc,
            versions.createdAt desc,
            versions.status desc,
            versions.dataFound desc nulls last,
            versions.error desc nulls last,
            versions.entityId desc,
            versions.entityType desc,
            versions.field desc,
            versions.createdBy desc nulls last,
            versions.globalEnrichmentId desc nulls last,
            versions.creditTransactionId desc nulls last,
            versions.storedAt nulls last
    ) as rank
from versions;

delete from enrichments where rowid in (select ranked.storedAt from ranked where ranked.rank > 1);

insert into enrichments
select staged.* exclude (file, problems)
from staged
anti join contested on contested.id = staged.id
where staged.problems is null;

insert into enrichments
select ranked.* exclude (storedAt, known, rank)
from ranked
where ranked.rank = 1 and ranked.storedAt is null;
