-- Keys as they came become keys that compare; what cannot become one is named in `problems` (null where there are none).
--   given (entityId, entityType, field, and any columns beside them)
with cast_keys as (
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
)

select
    * exclude (entityId, entityType, field, castEntityId, castEntityType, castField),
    castEntityId as entityId,
    castEntityType as entityType,
    castField as field,
    case when castEntityId is null or castEntityType is null or castField is null then list_filter([
        case when castEntityId is null then {
            'name': 'entityId',
            'value': entityId::varchar,
            'reason': case when coalesce(trim(entityId::varchar), '') = '' then 'is missing' else 'is not a UUID' end
        } end,
        case when castEntityType is null then {
            'name': 'entityType',
            'value': entityType::varchar,
            'reason': case when coalesce(trim(entityType::varchar), '') = '' then 'is missing' else
                'is not one of ' || array_to_string(enum_range(null::enrichment_entity_type), ', ') end
        } end,
        case when castField is null then {
            'name': 'field',
            'value': field::varchar,
            'reason': case when coalesce(trim(field::varchar), '') = '' then 'is missing' else
                'is not one of ' || array_to_string(enum_range(null::enrichment_field), ', ') end
        } end
    ], lambda problem: problem is not null) end as problems
from cast_keys
