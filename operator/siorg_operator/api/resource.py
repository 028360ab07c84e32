"""The resource SiorgSyncWorker: what a person wants (``spec``) and what the operator says (``status``). Pure.

``parse`` reads what the API server holds, ``read_file`` what a person wrote. Inside, nothing asks a dict: the models
are immutable, have every default filled in, and name the fields in snake_case.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, AwareDatetime, ConfigDict, Field, PlainSerializer, ValidationError

from siorg_operator.api.errors import ResourceError, key, lines, shape, unknown
from siorg_operator.api.formats import FORMS, GROUP, LabelName
from siorg_operator.api.rules import Part, UniqueBy
from siorg_operator.api.spec import Spec
from siorg_operator.api.yaml_text import YamlError, documents

__all__ = ["GROUP", "ResourceError"]

VERSION: Final = "v1alpha1"
API_VERSION: Final = f"{GROUP}/{VERSION}"
KIND: Final = "SiorgSyncWorker"
PLURAL: Final = "siorgsyncworkers"
FINALIZER: Final = f"{GROUP}/finalizer"

LONGEST_NAME: Final = 40
"""Characters of a resource's name: the names of its Jobs and CronJobs begin with it and have 63 and 52 at most."""


Time = Annotated[
    AwareDatetime,
    AfterValidator(lambda time: time.astimezone(UTC).replace(microsecond=0)),
    PlainSerializer(lambda time: time.strftime("%Y-%m-%dT%H:%M:%SZ"), return_type=str, when_used="json"),
]
"""A moment, in whole seconds UTC as Kubernetes keeps it: what was written is equal to what is read back."""

Count = Annotated[int, Field(ge=0)]


class Metadata(Part):
    """Of an object's metadata, what is used."""

    model_config = ConfigDict(extra="ignore", strict=False)

    name: Annotated[LabelName, Field(max_length=LONGEST_NAME)]
    """Name of the resource. The names of its Jobs begin with it."""
    namespace: str = "default"
    """Where it is, and with it everything that it names or owns."""
    uid: str = ""
    """Of this very object: another of the same name has another."""
    generation: int = 0
    """Counts the changes of spec."""
    resource_version: str = ""
    """Of this state of the object."""
    creation_timestamp: Time | None = None
    """When it was made."""
    deletion_timestamp: Time | None = None
    """When it was deleted; None: it was not."""


# -- status -----------------------------------------------------------------------------------------------------------


class StatusPart(Part):
    """A part of the status: the operator's own words, so read with less severity than a person's."""

    model_config = ConfigDict(extra="ignore", strict=False)


class Condition(StatusPart):
    """One aspect of the state, as every Kubernetes object shows it."""

    type: Annotated[str, Field(max_length=316)]
    """Which aspect: Ready, InSync, QueueReachable, SiorgAvailable, ScalingActive, Degraded."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(min_length=1, max_length=1024, pattern="^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$")]
    """Why, in one word for programs."""
    message: Annotated[str, Field(max_length=32_768)] = ""
    """Why, in words for people, and what to do about it."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: Count = 0
    """The generation of the resource that this is about."""


class QueueStatus(StatusPart):
    """The queue, in items."""

    claimable: Count = 0
    """What a Job could claim now: the depth that decides. No more than 25001 are counted."""
    at_least: bool = False
    """Whether there may be more than claimable and due say: more than are counted."""
    due: Count = 0
    """Waiting, and their time has come."""
    scheduled: Count = 0
    """Waiting for a later time. No more than 25001 are counted."""
    processing: Count = 0
    """In the hands of a Job."""
    failed: Count = 0
    """Given up: a person should look (siorg-job status)."""
    conflict: Count = 0
    """Both sides changed: a person has to decide (siorg-job conflicts)."""
    held: Count = 0
    """Ends and overwrites beyond a limit: a person has to release or drop them (siorg-job held). Not among conflict."""
    oldest_due_seconds: Count | None = None
    """Age of the oldest due item in seconds; not there: none is due."""


class Departures(StatusPart):
    """Values that are not SIORG's, by the reason for it."""

    conflict: Count = 0
    """Both sides changed: a person has to decide, or did not want to."""
    held: Count = 0
    """An end or an overwrite beyond a limit: waits for a person."""
    ended: Count = 0
    """SIORG ended the organization: waits for a person."""
    failed: Count = 0
    """SIORG's answer cannot be used, or that of the parent: it is asked again."""
    waiting: Count = 0
    """On the queue."""
    outside: Count = 0
    """The unit or its parent is in an organization that is not registered, or in another one."""
    edited: Count = 0
    """A person's value, which SIORG did not contest."""


class VerificationStatus(StatusPart):
    """The last complete comparison of the copy with SIORG (siorg-job verify); the condition InSync judges it."""

    finished_time: Time
    """When it was complete."""
    organizations: Count = 0
    """Organizations that were compared."""
    rows: Count = 0
    """Rows that were compared."""
    drift: Count = 0
    """Values that are not SIORG's, without a reason."""
    enqueued: Count = 0
    """Items that it put on the queue to mend that."""
    departures: Departures = Departures()
    """Values that are not SIORG's, by the reason for it."""


class JobsStatus(StatusPart):
    """The Jobs of this resource."""

    desired: Count = 0
    """Wanted at the last decision, those that run included."""
    active: Count = 0
    """Jobs whose worker runs, on a node that answers."""
    pending: Count = 0
    """Jobs whose worker can still begin; those whose admission is pending too."""
    succeeded: Count = 0
    """Jobs whose worker has ended well, as far as they are still there."""
    failed: Count = 0
    """Jobs that failed, as far as they are still there."""
    last_round: Count = 0
    """Numbers at the end of Jobs' names are used up to here; later Jobs have higher ones, so no name is used twice."""
    last_finished_time: Time | None = None
    """When the newest of the finished ones ended."""


class DiscoveryStatus(StatusPart):
    """The discovery by its CronJob."""

    begun_time: Time | None = None
    """When the first discovery was seen to have begun. The operator launches it as soon as the CronJob is there, once for the
    resource, whatever becomes of the CronJob; all later ones are by the clock."""


class LastDecision(StatusPart):
    """The newest decision."""

    time: Time
    """When it was made, or first made of those that said the same and launched nothing."""
    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """Why, in one word for programs."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """The whole sum in one sentence: depth, wish, limits, result."""
    launched: Count = 0
    """Jobs that it launched."""


class BackoffStatus(StatusPart):
    """Why fewer Jobs are launched than the work wants, and until when; an absence that is over is kept for five minutes."""

    reason: Annotated[str, Field(min_length=1, max_length=1024)]
    """How the newest failed Job ended, in one word for programs."""
    streak: Count = 0
    """Failures in a row."""
    since: Time | None = None
    """When it began."""
    last_failure_time: Time | None = None
    """When the newest failure was."""
    retry_time: Time | None = None
    """When the next Job may be launched; not there: it is over."""
    recovered_time: Time | None = None
    """Since when it is over; not there: it is not."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """What is known, in words for people."""
    template: Annotated[str, Field(max_length=63)] = ""
    """Hash of the template that the newest failure was made from: another template is worth a try at once."""


class FailedRun(StatusPart):
    """A run of a CronJob that failed, after which none has succeeded; its Job may be gone."""

    job: Annotated[str, Field(min_length=1, max_length=253)]
    """Name of its Job."""
    time: Time
    """When it failed."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """Why, as Kubernetes says it."""


class FailedRuns(StatusPart):
    """The last runs of CronJobs, as far as they failed."""

    cleanup: FailedRun | None = None
    """Of the CronJob cleanup."""
    discovery: FailedRun | None = None
    """Of the CronJob discovery."""
    verification: FailedRun | None = None
    """Of the CronJob verification."""

    def of(self, component: Literal["cleanup", "discovery", "verification"]) -> FailedRun | None:
        """That of one of them."""
        return {"cleanup": self.cleanup, "discovery": self.discovery, "verification": self.verification}[component]


class Status(StatusPart):
    """What the operator says. Written by it alone, and only when something changed."""

    observed_generation: Count = 0
    """The generation of spec that all of this is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=16), UniqueBy("type")] = ()
    """The state by aspects; Ready sums up."""
    queue: QueueStatus | None = None
    """The queue as it is read; not there: it cannot be read now."""
    verification: VerificationStatus | None = None
    """The last complete comparison of the copy with SIORG; not there: none is stored."""
    jobs: JobsStatus = JobsStatus()
    """The Jobs of this resource."""
    discovery: DiscoveryStatus | None = None
    """The discovery by its CronJob; not there: none has begun yet."""
    selector: Annotated[str, Field(max_length=1024)] | None = None
    """Label selector of the pods, for whoever scales this resource."""
    rate: Annotated[float, Field(ge=0)] | None = None
    """Items a second that one Job brings to an end, as learned from the Jobs so far."""
    request_rate: Annotated[float, Field(ge=0)] | None = None
    """Requests to SIORG a second of one Job, as learned from the Jobs so far."""
    predicted_drain_seconds: Count | None = None
    """Seconds until what is claimable will be done, at this rate with these Jobs."""
    last_decision: LastDecision | None = None
    """The newest decision."""
    backoff: BackoffStatus | None = None
    """Why fewer Jobs are launched than the work wants, or has just been; not there: nothing holds back."""
    failed_runs: FailedRuns | None = None
    """The last runs of CronJobs, as far as they failed; only a later good one ends it. Not there: none did."""


class SiorgSyncWorker(Part):
    """Drains the queue siorg_sync_queue of one database with Jobs that end when nothing is left."""

    metadata: Metadata
    """Name and identity."""
    spec: Spec
    """What is wanted."""
    status: Status = Status()
    """What the operator says."""

    def with_image(self, image: str) -> SiorgSyncWorker:
        """The same with another image of its Jobs."""
        job = self.spec.job.model_copy(update={"image": image})
        return self.model_copy(update={"spec": self.spec.model_copy(update={"job": job})})


# -- reading ----------------------------------------------------------------------------------------------------------


def parse(body: Mapping[str, Any]) -> SiorgSyncWorker:
    """Read an object of the API server. What this version does not know is ignored: the CRD may be newer than the operator.

    Raises:
        ResourceError: with every error in metadata and spec. A status that cannot be read counts as empty instead:
            the operator writes it anew.
    """
    return _validated(body, extra="ignore")


def read_file(text: str) -> SiorgSyncWorker:
    """Read the one SiorgSyncWorker among the YAML documents that a person wrote. What is not known is refused.

    Raises:
        ResourceError: with every error.
    """
    try:
        found = documents(text)
    except YamlError as wrong:
        raise ResourceError([f"the file {wrong}"]) from None
    body = _the_only_one([item for document in found for item in _unpacked(document)])
    errors = [unknown([name], _FIELDS) for name in body if name not in _FIELDS]
    if body.get("apiVersion") != API_VERSION:
        errors.append(f"apiVersion: is not supported; value: {shape(body.get('apiVersion'))}; allowed: {API_VERSION}")
    try:
        resource = _validated(body, extra="forbid")
    except ResourceError as error:
        errors += error.errors
    else:
        if not errors:
            return resource
    raise ResourceError(errors)


_FIELDS: Final = ("apiVersion", "kind", "metadata", "spec", "status")


def _unpacked(document: Any) -> list[Any]:
    """The document, or what is in it where it is a list, as ``kubectl get -o yaml`` prints it."""
    items = document.get("items") if isinstance(document, dict) else None
    return items if isinstance(items, list) else [document]


def _the_only_one(bodies: list[Any]) -> dict[str, Any]:
    kinds = [body.get("kind") if isinstance(body, dict) else None for body in bodies]
    ours: list[dict[str, Any]] = [body for body, kind in zip(bodies, kinds, strict=True) if kind == KIND]
    if len(ours) == 1:
        return ours[0]
    found = ", ".join(key(kind) if isinstance(kind, str) else "none" for kind in kinds) or "none"
    raise ResourceError([f"kind: the file has {len(ours)} documents of kind {KIND}; kinds: {found}; allowed: exactly one"])


def _validated(body: Mapping[str, Any], *, extra: Literal["ignore", "forbid"]) -> SiorgSyncWorker:
    # Metadata is Kubernetes': of its fields only those that are used are looked at, and no other is refused.
    metadata = body.get("metadata")
    known = {field.alias for field in Metadata.model_fields.values()}
    used = {name: metadata[name] for name in metadata if name in known} if isinstance(metadata, Mapping) else metadata
    given = {"metadata": used, "spec": body.get("spec")}
    try:
        resource = SiorgSyncWorker.model_validate(given, by_alias=True, by_name=False, extra=extra)
    except ValidationError as error:
        errors = tuple(lines(error, given, SiorgSyncWorker, FORMS))
    else:
        return resource.model_copy(update={"status": _status(body.get("status"))})
    # Outside of the handler: attached to what is raised, pydantic's error would bring the values along.
    raise ResourceError(errors)


def _status(given: object) -> Status:
    try:
        return Status.model_validate(given, by_alias=True, by_name=False, extra="ignore")
    except ValidationError:
        return Status()
