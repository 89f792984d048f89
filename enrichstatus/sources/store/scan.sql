-- Records where they lie, cast to the types of a store as they are read: what load.sql does with those that are loaded.
--   keyed    (a record's columns as they came, and what keys.sql says of its key)
--   $org_id  whose are read
--   $owner   whose those are that name nobody
--   $since   null, or an instant: records created before it are left out
--   $strict  whether a bad record is an error, or left out
with own as (
    select keyed.*
    from keyed
    where coalesce(nullif(trim(keyed.orgId), ''), nullif(trim($owner::varchar), '')) = $org_id
),

cast_columns as (
    select
        own.*,
        coalesce(try_cast(own.id as uuid), try_cast(trim(own.id::varchar) as uuid)) as castId,
        case when try_cast(own.createdAt as timestamptz) between '0001-01-01'::timestamptz and '9999-12-31'::timestamptz
            then try_cast(own.createdAt as timestamptz) end as castCreatedAt,
        case when try_cast(own.updatedAt as timestamptz) between '0001-01-01'::timestamptz and '9999-12-31'::timestamptz
            then try_cast(own.updatedAt as timestamptz) end as castUpdatedAt,
        nullif(trim(own.status), '') as castStatus,
        coalesce(try_cast(own.dataFound as boolean), try_cast(trim(own.dataFound::varchar) as boolean)) as castDataFound
    from own
)

select
    coalesce(
        castId,
        md5(concat_ws('|', $org_id, castEntityType, castField, castEntityId, epoch_us(castCreatedAt)))::uuid
    ) as id,
    castCreatedAt as createdAt,
    castUpdatedAt as updatedAt,
    castEntityId as entityId,
    castEntityType as entityType,
    castField as field,
    castStatus as status,
    nullif(error, '') as error,
    castDataFound as dataFound,
    nullif(createdBy, '') as createdBy,
    $org_id as orgId,
    nullif(globalEnrichmentId, '') as globalEnrichmentId,
    nullif(creditTransactionId, '') as creditTransactionId
from cast_columns
where ($since is null or castCreatedAt is null or castCreatedAt >= $since)
    and case
        when castEntityId is not null and castEntityType is not null and castField is not null
            and castCreatedAt is not null and castStatus is not null
            and (castId is not null or id is null or trim(id::varchar) = '')
            and (castUpdatedAt is not null or updatedAt is null or trim(updatedAt::varchar) = '')
            and (castDataFound is not null or dataFound is null or trim(dataFound::varchar) = '')
        then true
        when $strict then error(concat(
            'enrichstatus: a record in ', file, ' has the ',
            case
                when castEntityId is null then 'entityId ' || coalesce('''' || entityId::varchar || '''', 'null') || ', which is not a UUID'
                when castEntityType is null then 'entityType ' || coalesce('''' || entityType::varchar || '''', 'null') || ', which is not one of '
                    || array_to_string(enum_range(null::enrichment_entity_type), ', ')
                when castField is null then 'field ' || coalesce('''' || field::varchar || '''', 'null') || ', which is not one of '
                    || array_to_string(enum_range(null::enrichment_field), ', ')
                when castCreatedAt is null then 'createdAt ' || coalesce('''' || createdAt::varchar || '''', 'null') || ', which is not an ISO 8601 timestamp'
                when castStatus is null then 'status null'
                when castId is null and trim(id::varchar) <> '' then 'id ''' || id::varchar || ''', which is not a UUID'
                when castUpdatedAt is null and trim(updatedAt::varchar) <> '' then 'updatedAt ''' || updatedAt::varchar || ''', which is not an ISO 8601 timestamp'
                else 'dataFound ''' || dataFound::varchar || ''', which is not true or false'
            end
        ))::boolean
        else false
    end
