-- The lines of a bill, cast; castCredits and castCreatedAt are null where that cannot be.
--   given (line, creditTransactionId, credits, createdAt, field, entityId, orgId)  as they came
--   $org is whose bill it is, $fields are the fields there are; $text is whether amounts are text, which is read as $amount, $grouping
--   and $decimal say; instants are read by what is put for the words that follow
with spelled as (
    select
        given.* replace (
            nullif(regexp_replace(given.creditTransactionId::varchar, '^[\s\pZ]+|[\s\pZ]+$', '', 'g'), '') as creditTransactionId,
            nullif(trim(given.field::varchar), '') as field
        ),
        regexp_replace(
            regexp_replace(given.credits::varchar, '\x{2212}', '-'),
            '^\s*[A-Z]{3}\b|\b([A-Z]{3}|(?i:credits?))\s*$|[\s\pZ\p{Sc}''\x{2019}]',
            '',
            'g'
        ) as bare
    from given
)

select
    line,
    coalesce(nullif(trim(orgId::varchar), ''), $org) = $org as isOurs,
    creditTransactionId,
    by_value(creditTransactionId) as transaction,
    list_filter($fields, lambda name: lower(name) = lower(field))[1] as ofField,
    coalesce(ofField, field) as field,
    try_cast(trim(entityId::varchar) as uuid)::varchar as ofEntity,
    credits::varchar as credits,
    case
        when not $text then try_cast(credits as decimal(27, 6))
        -- currency, white space and apostrophes between thousands are no part of a number; a refund may stand in brackets, or its minus
        -- behind it
        when regexp_full_match(bare, $amount) and regexp_matches(bare, '[0-9]') then
            try_cast(replace(replace(regexp_extract(bare, '[0-9.,]+'), $grouping, ''), $decimal, '.') as decimal(27, 6))
            * case when bare like '%-%' or bare like '(%' then -1 else 1 end
    end::decimal(27, 6) as castCredits,
    nullif(trim(createdAt::varchar), '') as createdAt,
    $instant as castCreatedAt,
    -- a bill may have dates without times: such a line lasts until the end of the day
    coalesce($isDate, false) as isDate,
    castCreatedAt + case when isDate then interval 1 day else interval 1 microsecond end as ends
from spelled
