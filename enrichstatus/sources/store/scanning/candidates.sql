-- The records that can answer the temporary table `tasks`, where they lie, as a store would have them: of each id its newest version.
--   columns  (a record's columns, null where nobody needs them)  the records where they lie, of one organization, each version
--   arrived  (id, …)                                             the same as they came
-- Gives the tables candidates, of the versions with the key of a task, and contested, of their ids that have other versions too:
-- these may be of another key. Only then are the records read once more.
create or replace temp table candidates as
select columns.*
from columns
semi join tasks
    on tasks.entityId = columns.entityId
    and tasks.entityType = columns.entityType
    and tasks.field = columns.field;

create or replace temp table contested as
with given as (
    select coalesce(try_cast(arrived.id as uuid), try_cast(trim(arrived.id::varchar) as uuid)) as id
    from arrived
),

versions as (
    select candidates.id, count(*) as number from candidates group by candidates.id
    union all
    select given.id, count(*) as number from given semi join candidates on candidates.id = given.id group by given.id
)

select distinct versions.id from versions where versions.number > 1;
