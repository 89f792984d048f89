-- The newest record of each key of each organization (rule 3 of the lookup): what a snapshot holds.
-- Nearly all keys have one record. Only the others are ranked, found by `probe`, which digests the entity and the field.
with contested as (
    select enrichments.orgId, enrichments.probe
    from enrichments
    group by enrichments.orgId, enrichments.probe
    having count(*) > 1
),

ranked as (
    select
        enrichments.rowid as place,
        row_number() over (
            partition by enrichments.orgId, enrichments.entityId, enrichments.entityType, enrichments.field
            order by enrichments.createdAt desc, enrichments.updatedAt desc nulls last, enrichments.id desc
        ) as rank
    from enrichments
    semi join contested
        on contested.orgId = enrichments.orgId
        and contested.probe = enrichments.probe
),

older as (
    select ranked.place from ranked where ranked.rank > 1
)

select enrichments.*
from enrichments
anti join older on older.place = enrichments.rowid
