-- name: reserve
-- The next free moments of all processes of this database, %(count)s of them; what comes back is how long to wait for the
-- first (seconds), the others follow at the pace, and whether they were taken: a turn that is too far away is left to
-- others. An idle second may be used up at once, no more: silence does not save up for a burst. A next moment that is further away
-- than any turn can be was written by another clock.
WITH pace AS MATERIALIZED (
    SELECT p.name, p.next_at, least(p.paused_until, clock_timestamp() + interval '1 year') AS paused_until
    FROM siorg_request_pace AS p WHERE p.name = 'siorg' FOR NO KEY UPDATE
), turn AS MATERIALIZED (
    -- The clock is read once, and after the wait for whoever held the row.
    SELECT pace.name, clock.now, pace.paused_until, greatest(
        CASE WHEN pace.next_at < clock.now + interval '1 day' THEN pace.next_at END, clock.now - interval '1 second', pace.paused_until) AS at
    FROM pace CROSS JOIN LATERAL (SELECT clock_timestamp() AS now WHERE pace.name IS NOT NULL OFFSET 0) AS clock
), judged AS MATERIALIZED (
    SELECT turn.name, turn.at, extract(epoch FROM turn.at - turn.now)::float8 AS seconds,
           turn.at <= turn.now + make_interval(secs => %(longest_wait)s)
               AND turn.paused_until <= turn.now + make_interval(secs => %(longest_pause)s) AS reserved
    FROM turn
), taken AS (
    UPDATE siorg_request_pace AS p SET next_at = judged.at + make_interval(secs => %(count)s::float8 / %(per_second)s::float8)
    FROM judged WHERE p.name = judged.name AND judged.reserved
)
SELECT judged.seconds AS wait_seconds, judged.reserved FROM judged

-- name: paused
SELECT greatest(extract(epoch FROM least(p.paused_until, clock_timestamp() + interval '1 year') - clock_timestamp()), 0)::float8 AS wait_seconds
FROM siorg_request_pace AS p WHERE p.name = 'siorg' AND p.paused_until > clock_timestamp()

-- name: pause
UPDATE siorg_request_pace AS p
SET paused_until = greatest(p.paused_until, clock_timestamp() + make_interval(secs => %(seconds)s))
WHERE p.name = 'siorg'
