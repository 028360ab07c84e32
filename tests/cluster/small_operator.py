"""A kopf operator as small as one can be: a Widget has one Job, and says how it stands."""

# mypy: disable-error-code="no-untyped-def,no-untyped-call,no-any-return,untyped-decorator,arg-type"
from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import kopf
from kubernetes import client, config

WAITERS: dict[str, asyncio.Event] = {}


@kopf.on.startup()
def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
    config.load_kube_config()
    settings.persistence.finalizer = "tests.siorg.dev/finalizer"
    settings.scanning.disabled = True


@kopf.on.login()
def login(**kwargs: Any):
    return kopf.login_with_kubeconfig(**kwargs)


@kopf.index("batch", "v1", "jobs")
def jobs(body, **_: Any):
    owner = next((each["uid"] for each in body["metadata"].get("ownerReferences", ())), None)
    status = body.get("status", {})
    return {owner: {"name": body["metadata"]["name"], "succeeded": status.get("succeeded", 0)}}


@kopf.on.event("batch", "v1", "jobs")
async def wake(body, **_: Any) -> None:
    for owner in body["metadata"].get("ownerReferences", ()):
        if owner["uid"] in WAITERS:
            WAITERS[owner["uid"]].set()


@kopf.daemon("tests.siorg.dev", "v1", "widgets", cancellation_timeout=5.0)
async def reconcile(uid, name, namespace, body, stopped, jobs, spec, **_: Any) -> None:
    waiter = WAITERS[uid] = asyncio.Event()
    said: Any = None
    batch, custom = client.BatchV1Api(), client.CustomObjectsApi()
    while not stopped:
        waiter.clear()
        mine = list(jobs.get(uid, ()))
        if not mine:
            with suppress(client.ApiException):
                await asyncio.to_thread(batch.create_namespaced_job, namespace, job_of(name, body, spec))
        status = {"phase": "Done" if any(job["succeeded"] for job in mine) else "Working", "jobs": len(mine)}
        if status != said:
            with suppress(client.ApiException):
                await asyncio.to_thread(
                    custom.patch_namespaced_custom_object_status, "tests.siorg.dev", "v1", namespace, "widgets", name,
                    {"status": status},
                )  # fmt: skip
                said = status
        with suppress(TimeoutError):
            await asyncio.wait_for(waiter.wait(), 5)


def job_of(name, body, spec):
    owner = {"apiVersion": body["apiVersion"], "kind": body["kind"], "name": name, "uid": body["metadata"]["uid"],
             "controller": True}  # fmt: skip
    container = {"name": "main", "image": "python:test", "args": ["-c", spec.get("program", "print('done')")]}
    pod = {"restartPolicy": "Never", "containers": [container], "nodeSelector": {"siorg-test-node": "true"},
           "tolerations": [{"key": "siorg-test-node", "operator": "Exists"}]}  # fmt: skip
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": f"{name}-1", "ownerReferences": [owner]},
            "spec": {"template": {"spec": pod}}}  # fmt: skip
