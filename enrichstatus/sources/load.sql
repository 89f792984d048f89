-- Records as they came, in the order they came, cast to the types of a store; what is wrong with a row is named in `problems`.
--   keyed     (a record's columns as they came, but for the keys, which are cast; problems of the keys)
--   $org_id   the organization of the records that carry none
with cast_columns as (
    select
        keyed.*,
        coalesce(try_cast(keyed.id as uuid), try_cast(trim(keyed.id::varchar) as uuid)) as castId,
        -- what no calendar or other engine can hold is no instant either
        case when try_cast(keyed.createdAt as timestamptz) between '0001-01-01'::timestamptz and '9999-12-31'::timestamptz
            then try_cast(keyed.createdAt as timestamptz) end as castCreatedAt,
        case when try_cast(keyed.updatedAt as timestamptz) between '0001-01-01'::timestamptz and '9999-12-31'::timestamptz
            then try_cast(keyed.updatedAt as timestamptz) end as castUpdatedAt,
        nullif(trim(keyed.status), '') as castStatus,
        coalesce(try_cast(keyed.dataFound as boolean), try_cast(trim(keyed.dataFound::varchar) as boolean)) as castDataFound,
        coalesce(nullif(trim(keyed.orgId), ''), $org_id) as castOrgId
    from keyed
)

select
    -- a record without an id gets the same one each time it is loaded
    coalesce(
        castId,
        md5(concat_ws('|', castOrgId, entityType, field, entityId, epoch_us(castCreatedAt)))::uuid
    ) as id,
    castCreatedAt as createdAt,
    castUpdatedAt as updatedAt,
    entityId,
    entityType,
    field,
    castStatus as status,
    nullif(error, '') as error,
    castDataFound as dataFound,
    nullif(createdBy, '') as createdBy,
    castOrgId as orgId,
    nullif(globalEnrichmentId, '') as globalEnrichmentId,
    nullif(creditTransactionId, '') as creditTransactionId,
    enrichment_probe(entityId, field) as probe,
    file,
    case
        when problems is null and castCreatedAt is not null and castStatus is not null and castOrgId is not null
            and (castId is not null or coalesce(trim(id::varchar), '') = '')
            and (castUpdatedAt is not null or coalesce(trim(updatedAt::varchar), '') = '')
            and (castDataFound is not null or coalesce(trim(dataFound::varchar), '') = '')
        then null
        else list_concat(coalesce(problems, []), list_filter([
            case when castId is null and trim(id::varchar) <> ''
                then {'name': 'id', 'value': id::varchar, 'reason': 'is not a UUID'} end,
            case when castCreatedAt is null then {
                'name': 'createdAt',
                'value': createdAt::varchar,
                'reason': case when coalesce(trim(createdAt::varchar), '') = '' then 'is missing' else 'is not an ISO 8601 timestamp' end
            } end,
            case when castUpdatedAt is null and trim(updatedAt::varchar) <> ''
                then {'name': 'updatedAt', 'value': updatedAt::varchar, 'reason': 'is not an ISO 8601 timestamp'} end,
            case when castStatus is null then {'name': 'status', 'value': status, 'reason': 'is missing'} end,
            case when castDataFound is null and trim(dataFound::varchar) <> ''
                then {'name': 'dataFound', 'value': dataFound::varchar, 'reason': 'is not true or false'} end,
            case when castOrgId is null
                then {'name': 'orgId', 'value': orgId, 'reason': 'is missing, and no org_id= was given'} end
        ], lambda problem: problem is not null))
    end as problems
from cast_columns
