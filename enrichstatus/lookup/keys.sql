-- Keys as they came become keys that compare (rule 2 of the lookup); null is what cannot become one.
--   given (entityId, entityType, field, and any columns beside them)
select
    given.*,
    -- the cast folds case and reads braces and missing dashes; outer white space it does not, and rarely meets
    coalesce(
        try_cast(given.entityId as uuid),
        try_cast(regexp_replace(given.entityId::varchar, '^[\s\pZ]+|[\s\pZ]+$', '', 'g') as uuid)
    ) as castEntityId,
    try_cast(given.entityType as enrichment_entity_type) as castEntityType,
    try_cast(given.field as enrichment_field) as castField
from given
