-- How long enrichments take, by field: Kaplan and Meier's estimate of the share that is still pending after so many seconds.
--   evidence (field, seconds, observed)  how long each took; where its end was not observed, for how long it has been pending at least
-- One row comes out for each moment at which some ended. Those whose end was not observed count among the ones at risk until then.
with moments as (
    select
        evidence.field,
        evidence.seconds,
        count(*) filter (where evidence.observed) as ends,
        count(*) as leaves
    from evidence
    group by evidence.field, evidence.seconds
),

exposed as (
    select
        moments.*,
        sum(moments.leaves) over (partition by moments.field order by moments.seconds desc) as atRisk
    from moments
),

survivors as (
    select
        exposed.*,
        product(1 - exposed.ends / exposed.atRisk) over (partition by exposed.field order by exposed.seconds) as pending
    from exposed
)

select survivors.field, survivors.seconds, survivors.ends, survivors.atRisk::bigint as atRisk, survivors.pending
from survivors
where survivors.ends > 0
order by survivors.field, survivors.seconds
