"""What a person wants of one SiorgSyncWorker: every field with its meaning, unit, default and limits.

The docstrings of the fields become the descriptions in the CRD, so ``kubectl explain`` shows them. Limits on the job's
own settings are the job's (``siorg_job.settings``): what it would refuse at start is refused here, before a pod exists.

A null is an absent field, absent lists and maps are empty, and a part that is not given is its defaults: the API server
and this model agree on all of that.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from siorg_operator.api.formats import DAY, LISTS, ObjectName, Schedule, SecretKey, TimeZone
from siorg_operator.api.pods import JobSpec
from siorg_operator.api.rules import Part, Rule, UniqueBy, literal

# The address of SIORG is where the token goes: only the plain form, the same for every parser (siorg_job.siorg.address).
_WORD = r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
# A name that ends in digits or 0x… would be read as a number: its last word begins with a letter.
_LAST_WORD = r"[A-Za-z_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_OCTET = r"(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_NAME = rf"({_WORD}\.)*{_LAST_WORD}"
_PORT = r"(:([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5]))?"
_PATH = r"(/[A-Za-z0-9._~-]*[A-Za-z0-9_~-][A-Za-z0-9._~-]*)*/*"  # no segment of dots alone
_ADDRESS = rf"^https?://({_NAME}|({_OCTET}\.){{3}}{_OCTET}|\[::1\]){_PORT}{_PATH}$"
# Of such an address: a single word, a number, brackets, or a name that only some network knows.
_PRIVATE_HOST = (
    r"(?i)^https://([^./:@?#]+|[0-9.]+|\[[^/]*|[^/:@?#]*\.(localhost|local|internal|svc|localdomain|home\.arpa))"
    r"(:[0-9]+)?(/|$)"
)
_LONG_HOST = r"^https?://[^/:@?#]{254}"

_PLAIN_ADDRESS = "https://host[:port][/path] in plain ASCII"


# -- where things are -------------------------------------------------------------------------------------------------


class DatabaseUrlKey(Part):
    """A key of a Secret in the resource's own namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: SecretKey = "DATABASE_URL"
    """Key in the Secret's data."""


class TokenKey(Part):
    """A key of a Secret in the resource's own namespace."""

    name: ObjectName
    """Name of the Secret."""
    key: SecretKey = "SIORG_API_TOKEN"
    """Key in the Secret's data."""


class Database(Part):
    """The PostgreSQL database with the queue."""

    url_secret_ref: DatabaseUrlKey
    """Where the connection URL is (postgresql://user:password@host:port/database). The operator reads it in this
    namespace and again when it changes; Jobs take it from the Secret. It is never copied."""


class Siorg(Part):
    """The remote side: whom Jobs ask."""

    url: Annotated[str, Field(min_length=1, max_length=2048)] = "https://api.siorg.gov.br"
    """Address of SIORG: https, a host name, no user information, query or fragment. The public open-data service is
    https://estruturaorganizacional.dados.gov.br/doc. The token is sent there."""
    token_secret_ref: TokenKey | None = None
    """Where the token for SIORG is, sent as a bearer token. Not given: requests carry none."""
    max_requests_per_second: Annotated[int, Field(ge=0, le=10_000)] = 50
    """Requests to SIORG a second of all Jobs on one database together; 0: no limit. It also limits the number of Jobs:
    more than share this budget would only wait for each other. 50 is what the public service has been seen to bear."""
    allow_insecure: bool = False
    """Also http, IP addresses and private names: for the simulator and test clusters. A token is then sent in the clear."""

    # Rules of the object and not of the text: the API server repeats a text that breaks a rule, and this one may hold a password.
    rules = (
        Rule(
            cel="!self.url.contains('@')",
            holds=lambda siorg: "@" not in siorg.url,
            field="url",
            wrong="holds user information (what stands before an @)",
            allowed=f"{_PLAIN_ADDRESS}; a token goes into tokenSecretRef",
        ),
        Rule(
            cel="!self.url.contains('?') && !self.url.contains('#')",
            holds=lambda siorg: "?" not in siorg.url and "#" not in siorg.url,
            field="url",
            wrong="holds a query or a fragment",
            allowed=_PLAIN_ADDRESS,
        ),
        Rule(
            cel=f"self.url.matches('[@?#]') || self.url.matches({literal(_ADDRESS)})",
            holds=lambda siorg: bool(re.search("[@?#]", siorg.url) or re.search(_ADDRESS, siorg.url)) and "\n" not in siorg.url,
            field="url",
            wrong="is not a plain address",
            allowed=_PLAIN_ADDRESS,
        ),
        Rule(
            cel="self.allowInsecure || !self.url.startsWith('http:')",
            holds=lambda siorg: siorg.allow_insecure or not siorg.url.startswith("http:"),
            field="url",
            wrong="is not https",
            allowed="https://…; http only with allowInsecure: true (the simulator, a test cluster)",
        ),
        Rule(
            cel=f"self.allowInsecure || !self.url.matches({literal(_PRIVATE_HOST)})",
            holds=lambda siorg: siorg.allow_insecure or not re.search(_PRIVATE_HOST, siorg.url),
            field="url",
            wrong="has an IP address or a private name as host (localhost, *.local, *.internal, *.svc, a single word …)",
            allowed="a public host name; others only with allowInsecure: true (the simulator, a test cluster)",
        ),
        Rule(
            cel=f"!self.url.matches({literal(_LONG_HOST)})",
            holds=lambda siorg: not re.search(_LONG_HOST, siorg.url),
            field="url",
            wrong="has a host that is too long",
            allowed="a host of at most 253 characters",
        ),
    )


# -- how much ---------------------------------------------------------------------------------------------------------


class Scaling(Part):
    """How many Jobs there are for how much work. A Job drains the queue until nothing is claimable, then ends."""

    min_jobs: Annotated[int, Field(ge=0, le=1000)] = 0
    """Fewest Jobs while there is work; they count as capacity, not on top. An empty queue launches nothing, whatever
    this says: a Job would find nothing and end at once. 0 and 1 mean the same. At most maxJobs, unless that is 0."""
    max_jobs: Annotated[int, Field(ge=0, le=1000)] = 5
    """Most Jobs whose worker works or can, at one time; what kubectl scale sets. 0 launches nothing more, as suspend does; what
    runs drains or stops, as whenSuspended says. A smaller number ends no Job: fewer are launched. The database's free connections
    and SIORG's request budget may hold the number below this."""
    items_per_job: Annotated[int, Field(ge=1, le=1_000_000)] = 50
    """Claimable items that are worth a Job of their own: depth 480 wants 10 Jobs. 50 items take a Job some seconds,
    about as long as its start."""
    target_drain_seconds: Annotated[int, Field(ge=1, le=7 * DAY)] | None = None
    """Seconds in which what is claimable now should be done. Wants more Jobs than itemsPerJob does where the rate that
    Jobs have shown makes them necessary. Not given: by size alone."""
    max_launches_per_step: Annotated[int, Field(ge=1, le=1000)] = 10
    """Most Jobs launched by one decision, so that a burst does not meet the scheduler, the database and SIORG at once."""
    poll_interval_seconds: Annotated[int, Field(ge=1, le=3600)] = 30
    """Seconds between looks at the queue when nothing wakes the operator. New items do, within milliseconds, where the
    database's notifications arrive; this is the safety net."""

    rules = (
        Rule(
            cel="self.maxJobs == 0 || self.minJobs <= self.maxJobs",  # kubectl scale --replicas=0 stops, whatever minJobs says
            holds=lambda scaling: scaling.max_jobs == 0 or scaling.min_jobs <= scaling.max_jobs,
            field="minJobs",
            wrong="is more than maxJobs",
            allowed="at most maxJobs; anything where maxJobs is 0",
        ),
    )


class Worker(Part):
    """How one Job works. The ranges are those of siorg-job itself."""

    batch_size: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Items claimed at once, at most; not set: as many as there is room for."""
    concurrency: Annotated[int, Field(ge=1, le=256)] | None = None
    """Items in flight at once in one Job, at most, and requests too; not set: the Job finds what serves best."""
    max_retries: Annotated[int, Field(ge=1, le=100)] = 3
    """Attempts of an item before it ends FAILED, the first one included."""
    retry_base_delay_milliseconds: Annotated[int, Field(ge=1, le=1000 * DAY)] = 1000
    """Longest pause before the second attempt, in milliseconds; doubles from there."""
    retry_max_delay_milliseconds: Annotated[int, Field(ge=1, le=1000 * DAY)] = 60_000
    """Longest pause before any attempt, in milliseconds; not less than retryBaseDelayMilliseconds."""
    linger_seconds: Annotated[int, Field(ge=0, le=3600)] = 10
    """A Job waits for an item that is due again within so many seconds, and else ends: shorter than a new Job's start
    would waste it, longer would hold a pod for nothing."""
    log_format: Literal["text", "json"] = "json"
    """Form of the log. json, since in a cluster a program reads it first."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severe level that is logged."""

    rules = (
        Rule(
            cel="self.retryMaxDelayMilliseconds >= self.retryBaseDelayMilliseconds",
            holds=lambda worker: worker.retry_max_delay_milliseconds >= worker.retry_base_delay_milliseconds,
            field="retryMaxDelayMilliseconds",
            wrong="is less than retryBaseDelayMilliseconds",
            allowed="at least retryBaseDelayMilliseconds",
        ),
    )


# -- what runs by the clock -------------------------------------------------------------------------------------------


class Cleanup(Part):
    """A CronJob that ends dangling items and deletes old ones."""

    enabled: bool = True
    """Whether there is this CronJob."""
    schedule: Schedule = "17 3 * * *"
    """When: cron's five fields (minute hour day month weekday; Sunday is 0) or @hourly, @daily …. By default in the night,
    beside the full hour."""
    time_zone: TimeZone | None = None
    """Zone of the schedule, as in America/Sao_Paulo. Not given: that of Kubernetes' controller manager, mostly UTC."""
    retention_days: Annotated[int, Field(ge=1, le=3650)] = 30
    """Days for which finished items are kept. History is not touched."""


class Discovery(Part):
    """A CronJob that asks SIORG what changed and puts it into the queue. The first one begins as soon as it is there."""

    enabled: bool = True
    """Whether there is this CronJob."""
    schedule: Schedule = "7 * * * *"
    """When: cron's five fields (minute hour day month weekday; Sunday is 0) or @hourly, @daily …. By default each hour,
    beside the full hour."""
    time_zone: TimeZone | None = None
    """Zone of the schedule, as in America/Sao_Paulo. Not given: that of Kubernetes' controller manager, mostly UTC."""
    organizations: Annotated[
        tuple[Annotated[int, Field(ge=1, le=2_147_483_647)], ...], LISTS, Field(max_length=200), UniqueBy()
    ] = ()
    """SIORG codes of the organizations to ask for. Empty: all that are registered in the database."""
    max_ends: Annotated[int, Field(ge=0, le=100_000)] = 10
    """Units of one organization that may end within 24 hours without a person, or maxEndsPercent of it, whichever is more. Beyond
    that, and beyond half of its units in any case, all its ends are held: siorg-job held lists, releases and drops them.
    Holds for the Jobs and for the verification too."""
    max_ends_percent: Annotated[int, Field(ge=0, le=50)] = 5
    """The same in percent of the organization's active units."""
    max_ends_total_percent: Annotated[int, Field(ge=0, le=50)] = 2
    """Units of all organizations together that may end within 24 hours, in percent of all active units; never less than the
    largest limit of a single organization."""


class Verification(Part):
    """A CronJob that compares every row with SIORG's, and leaves the result in the database for the condition InSync."""

    enabled: bool = True
    """Whether there is this CronJob."""
    schedule: Schedule = "47 4 * * 0"
    """When: cron's five fields (minute hour day month weekday; Sunday is 0) or @hourly, @daily …. By default each Sunday
    before dawn, beside the full hour. A result that is older than twice the interval says nothing any more."""
    time_zone: TimeZone | None = None
    """Zone of the schedule, as in America/Sao_Paulo. Not given: that of Kubernetes' controller manager, mostly UTC."""
    enqueue: bool = True
    """Put what differs without a reason on the queue, so that it is mended. false: only tell of it."""


class Spec(Part):
    """What is wanted: which queue is drained, by how many Jobs, and what they are made of."""

    suspend: bool = False
    """Launch nothing more. The CronJobs are suspended too. What becomes of Jobs that run, whenSuspended says."""
    when_suspended: Literal["Drain", "Stop"] = "Drain"
    """What becomes of Jobs that run, with suspend and with maxJobs 0. Drain: they go on until the queue is empty. Stop: they get
    SIGTERM, finish or give back what they hold, and are gone within terminationGracePeriodSeconds; with suspend, those of the
    CronJobs too."""
    mode: Literal["Active", "Observe"] = "Active"
    """Active: decide and act. Observe: decide and say so in status, launch nothing; for a first look beside another system."""
    database: Database
    """The PostgreSQL database with the queue."""
    siorg: Siorg = Siorg()
    """The remote side: whom Jobs ask."""
    scaling: Scaling = Scaling()
    """How many Jobs there are for how much work."""
    worker: Worker = Worker()
    """How one Job works."""
    job: JobSpec = JobSpec()
    """What the Jobs are made of."""
    cleanup: Cleanup = Cleanup()
    """Cleans up, by the clock."""
    discovery: Discovery = Discovery()
    """Finds out what changed, by the clock."""
    verification: Verification = Verification()
    """Compares the copy with SIORG, by the clock."""
