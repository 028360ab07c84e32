"""The resource as a person writes it and as the API server holds it: what is read, what is refused, and what is said of it."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from siorg_job.settings import ENVIRONMENT
from siorg_job.siorg.address import check_base_url
from siorg_operator.api.pods import LEFT_TO_PEOPLE, SET_BY_THE_OPERATOR
from siorg_operator.api.resource import Condition, QueueStatus, ResourceError, SiorgSyncWorker, Status, parse, read_file
from siorg_operator.decide import manifests
from support.rows import holds_for
from support.worker_manifests import BAD, GOOD, STATUS, Bad, Good, manifest

SMALLEST = """\
apiVersion: siorg.waterswamp.dev/v1alpha1
kind: SiorgSyncWorker
metadata:
  name: worker
spec:
  database:
    urlSecretRef:
      name: database
"""


def refusal(read: Callable[[Any], SiorgSyncWorker], given_: object) -> tuple[str, ...]:
    try:
        read(given_)
    except ResourceError as error:
        return error.errors
    return ()


def errors(text: str | dict[str, Any]) -> tuple[str, ...]:
    return refusal(read_file, text if isinstance(text, str) else json.dumps(text))


def with_spec(lines: str) -> str:
    return SMALLEST + "".join(f"  {line}\n" for line in lines.splitlines())


# -- what is read -----------------------------------------------------------------------------------------------------


def test_the_smallest_file_has_every_default() -> None:
    worker = read_file(SMALLEST)
    assert (worker.metadata.name, worker.metadata.namespace, worker.metadata.generation) == ("worker", "default", 0)
    assert worker.spec.database.url_secret_ref.key == "DATABASE_URL"
    assert worker.spec.siorg.token_secret_ref is None
    assert (worker.spec.scaling.min_jobs, worker.spec.scaling.max_jobs, worker.spec.scaling.items_per_job) == (0, 5, 50)
    assert worker.spec.job.pod_template.spec.env == ()
    assert worker.spec.job.pod_template.spec.shutdown_grace_seconds == 25
    assert worker.status == Status()


def test_a_good_manifest_is_read_and_written_as_the_same() -> None:
    def check(good: Good) -> None:
        worker = read_file(json.dumps(good.manifest))
        assert worker.spec == parse(good.manifest).spec
        assert parse({**good.manifest, "spec": worker.spec.body()}).spec == worker.spec

    holds_for(GOOD, check)


def test_a_null_is_an_absent_field_as_it_is_for_the_api_server() -> None:
    text = with_spec("siorg:\nscaling: {minJobs: null, maxJobs: 7}\njob: {podTemplate: {metadata: {labels: {a: null, b: c}}}}")
    spec = read_file(text).spec
    assert (spec.siorg.max_requests_per_second, spec.scaling.min_jobs, spec.scaling.max_jobs) == (50, 0, 7)
    assert spec.job.pod_template.metadata.labels == {"b": "c"}


def test_an_object_of_a_newer_definition_is_read() -> None:
    body = manifest(
        {"spec.scaling.coolDownSeconds": 5, "spec.fancy": {"a": 1}, "spec.scaling.maxJobs": 7, "metadata.labels": {"a": "b"}}
    )
    assert parse(body).spec == parse(manifest({"spec.scaling.maxJobs": 7})).spec


def test_what_is_used_of_the_metadata_is_read() -> None:
    metadata = {
        "name": "worker", "namespace": "siorg", "uid": "1-2-3", "generation": 4, "resourceVersion": "17",
        "creationTimestamp": "2026-11-23T10:00:00Z", "deletionTimestamp": "2026-11-23T11:00:00Z",
        "managedFields": [{"manager": "kubectl"}],
    }  # fmt: skip
    read = parse({**manifest(), "metadata": metadata}).metadata
    assert (read.namespace, read.uid, read.generation, read.resource_version) == ("siorg", "1-2-3", 4, "17")
    assert read.deletion_timestamp is not None
    assert read.deletion_timestamp.isoformat() == "2026-11-23T11:00:00+00:00"


# -- status -----------------------------------------------------------------------------------------------------------


def test_a_status_is_read_as_it_was_written() -> None:
    status = parse({**manifest(), "status": STATUS}).status
    assert status.queue is not None
    assert (status.queue.claimable, status.jobs.active, status.rate, status.request_rate) == (480, 3, 12.5, 3)
    assert status.conditions[0].type == "Ready"
    assert parse({**manifest(), "status": status.body()}).status == status


def test_a_status_that_cannot_be_read_counts_as_empty_and_an_unknown_queue_is_not_an_empty_one() -> None:
    table: list[object] = [None, {}, [], "x", {"queue": "x"}, {"conditions": [{}]}, {"rate": -1}]
    assert [status for status in table if parse({**manifest(), "status": status}).status != Status()] == []
    assert Status().queue is None
    assert "queue" not in Status().body()
    assert QueueStatus().claimable == 0


def test_times_are_whole_seconds_in_utc_as_kubernetes_keeps_them() -> None:
    condition = Condition.model_validate(
        {"type": "Ready", "status": "True", "reason": "Fine", "lastTransitionTime": "2026-11-23T10:00:00.987654-03:00"}
    )
    assert condition.body()["lastTransitionTime"] == "2026-11-23T13:00:00Z"
    assert Condition.model_validate(condition.body()) == condition


# -- what is refused --------------------------------------------------------------------------------------------------


def test_a_bad_manifest_is_refused_and_the_field_is_named() -> None:
    def check(bad: Bad) -> None:
        told = errors(bad.manifest)
        assert {line.split(": ")[0] for line in told} == {bad.field}
        assert any(line.startswith(f"{bad.field}: {bad.says}") for line in told)
        assert all("; allowed: " in line for line in told)

    holds_for(BAD, check)


def test_the_operator_refuses_it_as_well_whatever_the_definition_let_through() -> None:
    taken = [bad for bad in BAD if bad.breaks != "unknown" and not refusal(parse, bad.manifest)]
    assert taken == []


def test_all_errors_are_listed_at_once() -> None:
    text = """\
apiVersion: siorg.waterswamp.dev/v1
kind: SiorgSyncWorker
metadata: {name: My_Worker}
spec:
  mode: Obsrve
  siorg: {url: "http://siorg.gov.br", tokenSecretRef: {}}
  scaling: {minJobs: 3, maxJobs: 2, itemsPerJob: "50"}
  worker: {maxRetries: 0, retryMaxDelayMiliseconds: 5}
  job: {podTemplate: {spec: {env: [{name: LOG_LEVEL, value: debug}, {name: A, value: 5}]}}}
  cleanup: {schedule: "0 22-6 * * *"}
status: {}
extra: 1
"""
    expected = [
        "extra: unknown field; allowed: apiVersion, kind, metadata, spec, status",
        "apiVersion: is not supported; value: a string of 23 characters; allowed: siorg.waterswamp.dev/v1alpha1",
        (
            "metadata.name: is not in the form that Kubernetes takes; value: a string of 9 characters; allowed: lower-case"
            " letters, digits and -, a letter or a digit first and last, 1 to 40 characters"
        ),
        "spec.mode: is not one of the allowed values; value: 'Obsrve'; allowed: Active, Observe",
        "spec.database: is required; allowed: an object of urlSecretRef",
        (
            "spec.siorg.tokenSecretRef.name: is required; allowed: lower-case letters, digits, - and ., a letter or a"
            " digit first and last, 1 to 253 characters"
        ),
        "spec.scaling.itemsPerJob: must be an integer; value: a string of 2 characters; allowed: an integer, 1 to 1000000",
        "spec.worker.maxRetries: is too small; value: 0; allowed: an integer, 1 to 100",
        (
            "spec.worker.retryMaxDelayMiliseconds: unknown field; did you mean retryMaxDelayMilliseconds?; allowed: batchSize,"
            " concurrency, maxRetries, retryBaseDelayMilliseconds, retryMaxDelayMilliseconds, lingerSeconds, logFormat, logLevel"
        ),
        (
            "spec.job.podTemplate.spec.env[0].name: has a field of its own; value: a string of 9 characters; allowed: set"
            " spec.worker.logLevel instead"
        ),
        "spec.job.podTemplate.spec.env[1].value: must be a string; value: a number; allowed: a string, at most 32768 characters",
        (
            "spec.cleanup.schedule: has a range that goes from the larger to the smaller; value: a string of 12 characters;"
            " allowed: the smaller first; a range across the end is written as two: 22-23,0-6 or sat,sun"
        ),
    ]
    assert list(errors(text)) == expected


def test_what_is_compared_with_a_default_says_so_and_an_unknown_field_gets_a_suggestion() -> None:
    (line,) = errors(with_spec("worker: {retryBaseDelayMilliseconds: 60001}"))
    assert line == (
        "spec.worker.retryMaxDelayMilliseconds: is less than retryBaseDelayMilliseconds; value: 60000 (the default);"
        " allowed: at least retryBaseDelayMilliseconds"
    )
    for key, meant in (("minjobs", "minJobs"), ("min_jobs", "minJobs"), ("maxLaunchPerStep", "maxLaunchesPerStep"), ("zzz", "")):
        (line,) = errors(with_spec(f"scaling: {{{key}: 1}}"))
        suggestion = f"; did you mean {meant}?" if meant else ""
        assert line.startswith(f"spec.scaling.{key}: unknown field{suggestion}; allowed: minJobs, maxJobs, ")


# -- nothing secret is said -------------------------------------------------------------------------------------------

SECRET = "hunter2-s3cr3t"


def test_an_error_does_not_repeat_a_value() -> None:
    env = "spec.job.podTemplate.spec.env"
    table: list[tuple[str, object]] = [
        ("spec.siorg.url", f"https://user:{SECRET}@siorg.gov.br"),
        ("spec.siorg.tokenSecretRef", SECRET),
        ("spec.siorg.tokenSecretRef.name", SECRET.upper()),
        ("spec.database.urlSecretRef.name", f"postgresql://siorg:{SECRET}@db/siorg"),
        ("spec.database.urlSecretRef.key", f"a {SECRET}"),
        ("spec.mode", SECRET),
        ("spec.scaling.maxJobs", SECRET),
        ("spec.cleanup.schedule", SECRET),
        ("spec.job.image", f"https://{SECRET}"),
        (env, [{"name": "SIORG_API_TOKEN", "value": SECRET}]),
        (env, [{"name": f"{SECRET}=", "value": SECRET}]),
        (env, [{"name": "A", "value": [SECRET]}, SECRET]),
        (env, [{"name": "PIN", "value": 12345678}]),
        ("spec.job.podTemplate.metadata.annotations", {f"a {SECRET}": SECRET}),
        ("spec.job.resources.limits", {"cpu": SECRET}),
    ]

    def check(text: str) -> None:
        with pytest.raises(ResourceError) as refused:
            read_file(text)
        error = refused.value
        shown = "".join(traceback.TracebackException.from_exception(error, capture_locals=False).format()) + repr(error)
        assert SECRET.lower() not in shown.lower()
        assert "12345678" not in shown
        assert error.__cause__ is None
        assert error.__context__ is None or SECRET not in str(error.__context__)

    holds_for([*(json.dumps(manifest({path: value})) for path, value in table), f"a: [{SECRET}\nb: {{{SECRET}"], check)


# -- files ------------------------------------------------------------------------------------------------------------


def test_other_documents_are_left_alone_and_a_list_is_read_as_kubectl_prints_it() -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: database}\n"
    listed = {"apiVersion": "v1", "kind": "List", "items": [manifest(), {"kind": "Secret"}]}
    for text in (f"---\n{secret}---\n{SMALLEST}---\n\n---\n", yaml.safe_dump(listed)):
        assert read_file(text) == read_file(SMALLEST)


def test_a_file_without_exactly_one_resource_of_ours_is_refused() -> None:
    table = [
        ("", "kind: the file has 0 documents of kind SiorgSyncWorker; kinds: none; allowed: exactly one"),
        ("a", "kind: the file has 0 documents of kind SiorgSyncWorker; kinds: none; allowed: exactly one"),
        (SMALLEST.replace("kind: SiorgSync", "kind: siorgSync"),
         "kind: the file has 0 documents of kind SiorgSyncWorker; kinds: siorgSyncWorker; allowed: exactly one"),
        (f"{SMALLEST}---\n{SMALLEST}",
         "kind: the file has 2 documents of kind SiorgSyncWorker; kinds: SiorgSyncWorker, SiorgSyncWorker; allowed: exactly one"),
        (SMALLEST.replace("apiVersion: siorg.waterswamp.dev/v1alpha1\n", ""),
         "apiVersion: is not supported; value: null; allowed: siorg.waterswamp.dev/v1alpha1"),
    ]  # fmt: skip
    assert [errors(text) for text, _ in table] == [(line,) for _, line in table]


LAUGHS = "a: &a [1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{','.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefg")
)
"""Nine to the seventh values, from aliases of aliases."""


def test_what_is_not_yaml_that_can_be_used_is_refused_with_its_place() -> None:
    table = [
        ("a: [1", "the file is not YAML at line 1, column 6: "),
        ("a: 1\nb: 2\na: 3", "the file is not YAML at line 3, column 1: a duplicate key"),
        ("a:\n\t- 1", "the file is not YAML at line 2, column 1: "),
        ("a: !!python/object:os.system {}", "the file is not YAML at line 1, column 4: "),
        ("a: !!binary aGVsbG8=", "the file is not YAML at line 1, column 4: "),
        ("a: .nan", "the file has a number that JSON does not have"),
        ("? [1]\n: 2", "the file is not YAML at line 1, column 3: "),
        ("1.5: 2", "the file has a key that is neither"),
        ("a: &a [*a]", "the file is nested too deeply"),
        ("[" * 3000, "the file is nested too deeply"),
        ("a: \x00", "the file is not YAML that can be read"),
        (LAUGHS, "the file has too many values"),
        ("a" * 1_000_001, "the file is too large"),
    ]

    def check(row: tuple[str, str]) -> None:
        (line,) = errors(row[0])
        assert line.startswith(row[1])
        assert len(line) < 200

    holds_for(table, check)


def test_yaml_is_read_as_kubectl_reads_it() -> None:
    text = with_spec(
        "job: {podTemplate: {metadata: {annotations: {day: 2026-11-23, time: 12:30, 1: one, true: yes!}},"
        " spec: {env: [{name: A, value: 2026-11-23T10:00:00Z}, {name: B, value: 1:30.5}]}}}"
    )
    template = read_file(text).spec.job.pod_template
    assert template.metadata.annotations == {"day": "2026-11-23", "time": "12:30", "1": "one", "true": "yes!"}
    assert [variable.value for variable in template.spec.env] == ["2026-11-23T10:00:00Z", "1:30.5"]


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
_PATHS = st.sampled_from(sorted({bad.path for bad in BAD} | {"metadata", "spec.job", "spec.job.podTemplate", "spec.scaling"}))


@given(_PATHS, _JSON)
def test_whatever_stands_somewhere_is_read_or_refused(path: str, value: object) -> None:
    body = manifest({path: value})
    for read, given_ in ((parse, body), (read_file, json.dumps(body))):
        assert all("; allowed: " in line for line in refusal(read, given_))


@given(st.text(max_size=60))
def test_whatever_is_in_a_file_is_read_or_refused(text: str) -> None:
    assert errors(text)


# -- never what the job would refuse ----------------------------------------------------------------------------------


def test_every_setting_of_the_job_is_the_operators_or_may_be_given_by_people() -> None:
    assert {*SET_BY_THE_OPERATOR, *LEFT_TO_PEOPLE} == {one.name for one in ENVIRONMENT.variables}
    assert not {*SET_BY_THE_OPERATOR} & {*LEFT_TO_PEOPLE}


def test_the_defaults_are_those_of_the_job() -> None:
    ours = manifests.environment(read_file(SMALLEST))
    theirs = {one.name: one.default for one in ENVIRONMENT.variables}
    differ = {name for name, text in ours.items() if theirs[name] != text}
    # In a cluster a program reads the log first, and the pod's grace is 30 s by Kubernetes' own default.
    assert differ == {"LOG_FORMAT", "WORKER_SHUTDOWN_GRACE_SECS"}


_HOSTS = st.from_regex(r"\A[a-zA-Z0-9_.:\[\]-]{1,20}\Z") | st.sampled_from(
    ("localhost", "127.0.0.1", "[::1]", "siorg.local", "0x7f.1")
)
_URLS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(("https://", "http://", "HTTPS://", "https:/", "")),
    _HOSTS,
    st.just("") | st.from_regex(r"\A:[0-9]{0,6}\Z"),
    st.just("") | st.from_regex(r"\A/[A-Za-z0-9._~/%@?#-]{0,12}\Z"),
) | st.text(max_size=30).map("https://{}".format)


@given(_URLS, st.booleans())
def test_an_address_that_is_taken_is_taken_by_the_job(url: str, insecure: bool) -> None:
    if not refusal(parse, manifest({"spec.siorg.url": url, "spec.siorg.allowInsecure": insecure})):
        check_base_url(url, allow_insecure=insecure)
