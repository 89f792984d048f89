-- The rows of a snapshot, as layout.py has them: numbers, and the end of the wire object as ready JSON.
--   enrichment_winners  the newest record of each key of each organization, as a store's load has decided
--   organizations (orgId, code) and statuses (status, code)
select
    (winner.entityId::uhugeint >> 64)::ubigint as high,
    (winner.entityId::uhugeint & 18446744073709551615)::ubigint as low,
    (winner.id::uhugeint >> 64)::ubigint as idHigh,
    (winner.id::uhugeint & 18446744073709551615)::ubigint as idLow,
    epoch_us(winner.createdAt) as created,
    epoch_us(winner.updatedAt) as updated,
    organizations.code as organization,
    enum_code(winner.entityType) * len(enum_range(null::enrichment_field)) + enum_code(winner.field) as kind,
    statuses.code as status,
    -- rule 5: nothing is known of the data while the record itself is pending
    case when winner.status <> 'pending' then winner.dataFound end as known,
    case when known then 2 when not known then 1 else 0 end as found,
    -- without the brace at its beginning, where the other half comes
    substr(json_object(
        'error', winner.error,
        'dataFound', known,
        'createdBy', winner.createdBy,
        'orgId', winner.orgId,
        'globalEnrichmentId', winner.globalEnrichmentId,
        'creditTransactionId', winner.creditTransactionId
    ), 2) as tail
from enrichment_winners as winner
inner join organizations on organizations.orgId = winner.orgId
inner join statuses on statuses.status = winner.status
