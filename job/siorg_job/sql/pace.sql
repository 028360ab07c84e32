-- name: reserve
-- The next free moment of all processes of this database; what comes back is how long to wait for it (seconds).
-- An idle second may be used up at once, no more: a pause does not save up for a burst.
UPDATE siorg_request_pace AS p
SET next_at = greatest(p.next_at, clock_timestamp() - interval '1 second', p.paused_until) + make_interval(secs => 1.0 / %(per_second)s::float8)
WHERE p.name = 'siorg'
RETURNING greatest(extract(epoch FROM p.next_at - clock_timestamp()) - 1.0 / %(per_second)s::float8,
                   extract(epoch FROM p.paused_until - clock_timestamp()), 0)::float8 AS wait_seconds

-- name: pause
UPDATE siorg_request_pace AS p
SET paused_until = greatest(p.paused_until, clock_timestamp() + make_interval(secs => %(seconds)s))
WHERE p.name = 'siorg'
