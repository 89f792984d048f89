-- Of all versions of an organization's record (one id) the newest has the rank 1, the same one in whatever order they come.
--   versions (the columns of a record, cast to the types of a store, and any beside them)
select
    versions.*,
    row_number() over (
        partition by versions.orgId, versions.id
        order by
            versions.updatedAt desc nulls last,
            -- of two with the same time a status that is known knows more than one that was not, read without its meaning, and one
            -- that has ended more than one that has not; after that any order will do that is the same each time
            versions.status in ('pending', 'finished', 'timeout', 'failed') desc,
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
from versions
