-- What is wrong with the keys of a row, each with its value and a reason; null where nothing is.
--   keyed (what keys.sql gives)
select
    keyed.*,
    case when castEntityId is null or castEntityType is null or castField is null then list_filter([
        case when castEntityId is null then {
            'name': 'entityId',
            'value': entityId::varchar,
            'reason': case when coalesce(trim(entityId::varchar), '') = '' then 'is missing'
                -- 1.23E+17: what Excel makes of digits, and keeps 15 of
                when regexp_full_match(trim(entityId::varchar), '[0-9]([.,][0-9]+)?[eE]\+?[0-9]{2,3}')
                    then 'is a number that Excel made of an id, whose last digits are lost: format the column as text, and fill in the ids anew'
                when regexp_full_match(trim(entityId::varchar), '[0-9]{16,19}')
                    then 'is a number, not a UUID; where Excel made it of an id, format the column as text, and fill in the ids anew'
                else 'is not a UUID' end
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
    ], lambda problem: problem is not null) end as keyProblems
from keyed
