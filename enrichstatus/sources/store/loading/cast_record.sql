-- Records as they came, in the order they came, cast to the types of a store; what is wrong with a row is named in `problems`.
--   checked   (a record's columns as they came, its instants as they are read, its `file` and its `clash`, and what keys.sql and
--             problems.sql say of its key)
--   $owner    the organization of the records that carry none
--   $statuses what a status means, by its word in lower case
--   $outer    the pattern of outer white space
with cast_columns as (
    select
        checked.* replace (
            -- what no calendar or other database can hold is not an instant either
            case when checked.castCreatedAt between '0001-01-01'::timestamptz and '9999-12-31 23:59:59.999999'::timestamptz
                then checked.castCreatedAt end as castCreatedAt,
            case when checked.castUpdatedAt between '0001-01-01'::timestamptz and '9999-12-31 23:59:59.999999'::timestamptz
                then checked.castUpdatedAt end as castUpdatedAt
        ),
        coalesce(try_cast(checked.id as uuid), try_cast(trim(checked.id::varchar) as uuid)) as castId,
        -- the words that are known, in any case and with outer white space; any other as it came within it
        case
            when checked.status in ('pending', 'finished', 'timeout', 'failed') then checked.status
            when checked.status[1] in ('{', '[') then null
            else coalesce(
                map_extract_value($statuses, lower(checked.status)),
                map_extract_value($statuses, lower(regexp_replace(checked.status, $outer, '', 'g'))),
                nullif(regexp_replace(checked.status, $outer, '', 'g'), '')
            )
        end as castStatus,
        coalesce(try_cast(checked.dataFound as boolean), try_cast(trim(checked.dataFound::varchar) as boolean)) as castDataFound,
        -- an object or a list names no organization, and the record is nobody else's either
        case when checked.orgId[1] in ('{', '[') then null else coalesce(
            nullif(
                case when regexp_matches(checked.orgId, $outer) then regexp_replace(checked.orgId, $outer, '', 'g')
                    else checked.orgId
                end,
                ''
            ),
            $owner::varchar
        ) end as castOrgId
    from checked
)

select
    -- a record without an id gets the same one each time it is read
    coalesce(
        castId,
        md5(concat_ws('|', castOrgId, castEntityType, castField, castEntityId, epoch_us(castCreatedAt)))::uuid
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
    castOrgId as orgId,
    nullif(globalEnrichmentId, '') as globalEnrichmentId,
    nullif(creditTransactionId, '') as creditTransactionId,
    file,
    case
        when keyProblems is null and clash is null
            and castCreatedAt is not null and castStatus is not null and castOrgId is not null
            and (castId is not null or coalesce(trim(id::varchar), '') = '')
            and (castUpdatedAt is not null or coalesce(trim(updatedAt::varchar), '') = '')
            and (castDataFound is not null or coalesce(trim(dataFound::varchar), '') = '')
        then null
        else list_concat(coalesce(keyProblems, []), list_filter([
            clash,
            case when castId is null and trim(id::varchar) <> ''
                then {'name': 'id', 'value': id::varchar, 'reason': 'is not a UUID'} end,
            case when castCreatedAt is null then {
                'name': 'createdAt',
                'value': createdAt::varchar,
                'reason': case when coalesce(trim(createdAt::varchar), '') = '' then 'is missing' else 'is not an ISO 8601 timestamp' end
            } end,
            case when castUpdatedAt is null and trim(updatedAt::varchar) <> ''
                then {'name': 'updatedAt', 'value': updatedAt::varchar, 'reason': 'is not an ISO 8601 timestamp'} end,
            case when castStatus is null then {
                'name': 'status',
                'value': status,
                'reason': case when status[1] in ('{', '[') then 'is not text' else 'is missing' end
            } end,
            case when castDataFound is null and trim(dataFound::varchar) <> ''
                then {'name': 'dataFound', 'value': dataFound::varchar, 'reason': 'is not true or false'} end,
            case when castOrgId is null and orgId[1] in ('{', '[') then {'name': 'orgId', 'value': null, 'reason': 'is not text'}
                when castOrgId is null
                then {'name': 'orgId', 'value': orgId, 'reason': 'is missing, and no organization was given'} end
        ], lambda problem: problem is not null))
    end as problems
from cast_columns
