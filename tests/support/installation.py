"""siorg-sync in a namespace of its own on a real cluster, installed from ``manifests/`` as a person would."""

from __future__ import annotations

import json
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from support.fleet import eventually
from support.kube import condition
from support.kubectl import Body, Kubectl, KubectlError
from support.rendered import MANIFESTS, rendered
from support.siorg_world import is_finished
from support.target import RefusedTarget, Target

ORGANIZATION = 471
OURS = "app.kubernetes.io/name=siorg-sync"
CLUSTER_WIDE = ("customresourcedefinition/siorgsyncworkers.siorg.waterswamp.dev", "clusterrole/siorgsyncworkers-view",
                "clusterrole/siorgsyncworkers-edit")  # fmt: skip

_READY_SECONDS = 240.0  # images may have to be pulled


@dataclass(frozen=True, slots=True)
class Installation:
    """One installation, and what can be asked of it."""

    target: Target
    kubectl: Kubectl

    @property
    def namespace(self) -> str:
        return self.kubectl.namespace

    @property
    def siorg_url(self) -> str:
        return self.target.siorg_url or "http://siorg-simulator:8080/doc"

    # -- installing ---------------------------------------------------------------------------------------------------

    def apply(self, *folders: str) -> None:
        """Apply folders of ``manifests/``, in this namespace and with the images of the target."""
        self.kubectl.apply(*self.manifests(*folders))

    def manifests(self, *folders: str) -> list[Body]:
        """What these folders come to, by ``manifests/render``."""
        images = {"OPERATOR_IMAGE": self.target.operator_image, "JOB_IMAGE": self.target.job_image}
        if any(folder.startswith("overlays/kind") for folder in folders):
            images = {}  # it has its own; they are the target's unless somebody says otherwise
        bodies = deepcopy(rendered(*folders, NAMESPACE=self.namespace, **images))
        for body in bodies:
            self._adapt(body)
        return bodies

    def secret(self, name: str, **values: str) -> None:
        """Make a Secret from a file that only we may read, as the documents say; replaces one that is there."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "secret.env"
            file.touch(mode=0o600)
            file.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
            made = self.kubectl(
                "create", "secret", "generic", name, f"--from-env-file={file}", "--dry-run=client", "--output=json"
            )
        self.kubectl.apply(json.loads(made))

    def example(self, **changes: Any) -> Body:
        """``manifests/siorgsyncworker.yaml`` as it is, for the SIORG of this installation; ``changes``: of the spec's parts."""
        manifest: Body = yaml.safe_load((MANIFESTS / "siorgsyncworker.yaml").read_text(encoding="utf-8"))
        spec = manifest["spec"]
        spec["siorg"] |= {"url": self.siorg_url, "allowInsecure": self.siorg_url.startswith("http:")}
        for part, values in changes.items():
            spec[part] = {**spec.get(part, {}), **values} if isinstance(values, dict) else values
        return manifest

    # -- asking -------------------------------------------------------------------------------------------------------

    def tool(self, *arguments: str, seconds: float = 60.0) -> str:
        """What a command prints in the tools pod."""
        return self.kubectl("exec", "siorg-tools", "--", *arguments, seconds=seconds)

    def queue(self) -> dict[str, int]:
        counts: dict[str, int] = json.loads(self.tool("siorg-job", "status", "--json"))
        return counts

    def rows(self, statement: str) -> list[list[Any]]:
        """Rows of a SELECT, for what no command tells."""
        script = (
            "import json, os, sys, psycopg\n"
            "with psycopg.connect(os.environ['DATABASE_URL']) as connection:\n"
            "    print(json.dumps(connection.execute(sys.argv[1]).fetchall(), default=str))"
        )
        found: list[list[Any]] = json.loads(self.tool("python", "-c", script, statement))
        return found

    def change(self, statement: str) -> None:
        """What a person does by SQL: an INSERT or UPDATE."""
        self.rows(f"WITH changed AS ({statement} RETURNING 1) SELECT count(*) FROM changed")

    def worker(self, name: str = "siorg") -> Body:
        found = self.kubectl.get("siorgsyncworker", name)
        assert found is not None
        return found

    def shown(self, column: str) -> str:
        """What ``kubectl get ssw siorg -o wide`` shows there; the column is not empty."""
        header, line = self.kubectl("get", "ssw/siorg", "--output=wide").splitlines()
        return line[header.index(column) :].split(maxsplit=1)[0]

    def condition(self, kind: str) -> tuple[str, str]:
        """Status and reason of a condition; empty where it is not there yet."""
        for each in self.worker().get("status", {}).get("conditions", ()):
            if each["type"] == kind:
                return each["status"], each["reason"]
        return "", ""

    def jobs(self, component: str = "drain") -> list[Body]:
        return self.kubectl.list("jobs", f"{OURS},app.kubernetes.io/component={component}")

    def unfinished(self) -> list[Body]:
        """Drain Jobs that have neither completed nor failed."""
        return [job for job in self.jobs() if not is_finished(job)]

    def leader(self) -> str:
        """The pod that leads; empty while nobody does."""
        lease = self.kubectl.get("lease", "siorg-operator")
        holder: str = ((lease or {}).get("spec") or {}).get("holderIdentity") or ""
        for pod in self.kubectl.list("pods", f"{OURS},app.kubernetes.io/component=operator"):
            if holder.startswith(pod["metadata"]["name"]):
                name: str = pod["metadata"]["name"]
                return name
        return ""

    def run_cron_job(self, name: str) -> Body:
        """Start a CronJob once, now, and wait for its end; the Job as it ended."""
        made = f"{name}-{secrets.token_hex(3)}"
        self.kubectl("create", "job", made, f"--from=cronjob/{name}")
        return self.ended_job(made)

    def ready(self, *question: str) -> None:
        """Wait as ``kubectl wait`` and ``kubectl rollout status`` do; images may have to be pulled."""
        self.kubectl(*question, f"--timeout={_READY_SECONDS:.0f}s", seconds=_READY_SECONDS + 10)

    def ended_job(self, name: str, *, seconds: float = _READY_SECONDS) -> Body:
        """A Job, when it has ended."""

        def found() -> Body | None:
            job = self.kubectl.get("job", name)
            return job if job is not None and is_finished(job) else None

        job = eventually(found, seconds=seconds, every=0.5)
        assert job is not None
        return job

    def log(self, job: str) -> str:
        return self.kubectl("logs", f"--selector=batch.kubernetes.io/job-name={job}", "--tail=-1")

    def refusals(self) -> list[str]:
        """What admission refused in this namespace, as the events tell: Pod Security, quotas."""
        return [
            event["message"]
            for event in self.kubectl.list("events")
            if event["reason"].startswith("Failed") and ("forbidden" in event["message"] or "violates" in event["message"])
        ]

    def collect(self, folder: Path) -> None:
        """Everything that tells why something failed, into a folder: objects, events, logs. Secrets stay where they are."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, command in {
            "objects.txt": ("get", "siorgsyncworkers,all,cronjobs,leases,networkpolicies", "--output=wide"),
            "siorgsyncworkers.yaml": ("get", "siorgsyncworkers", "--output=yaml"),
            "jobs.yaml": ("get", "jobs,pods", "--output=yaml"),
            "events.txt": ("get", "events", "--sort-by=.lastTimestamp", "--output=wide"),
            "describe.txt": ("describe", "deployments,jobs,pods"),
        }.items():
            (folder / name).write_text(self.kubectl.run(*command).stdout)
        for pod in self.kubectl.list("pods"):
            name = pod["metadata"]["name"]
            logs = self.kubectl.run("logs", name, "--all-containers", "--timestamps", "--tail=5000")
            (folder / f"{name}.log").write_text(logs.stdout + logs.stderr)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _adapt(self, body: Body) -> None:
        """What differs from one installation to another, and people would write into their own copy."""
        if body["kind"] == "Pod" and body["metadata"]["name"] == "siorg-tools":
            variables = body["spec"]["containers"][0]["env"]
            next(each for each in variables if each["name"] == "SIORG_API_URL")["value"] = self.siorg_url
            if not any(each["name"] == "SIORG_ALLOW_INSECURE" for each in variables):
                variables.append({"name": "SIORG_ALLOW_INSECURE", "value": "true"})
        if body["kind"] == "Deployment" and body["metadata"]["name"] == "siorg-simulator":
            body["spec"]["template"]["spec"]["containers"][0]["image"] = self.target.simulator_image


@contextmanager
def installation(target: Target) -> Iterator[Installation]:
    """A fresh namespace that enforces Pod Security ``restricted``, with everything in it but a resource; gone at the end.

    What is cluster-wide (the CRD, the aggregated roles) goes too, unless it was there before.

    Raises:
        KubectlError: the cluster refused something.
    """
    cluster = Kubectl(target.kubeconfig, target.context, program=shutil.which("kubectl") or "kubectl")
    there = {each for each in CLUSTER_WIDE if cluster.run("get", each).returncode == 0}
    name = f"siorg-e2e-{secrets.token_hex(3)}"
    try:
        with namespace(cluster, name, keep=target.keep):
            yield Installation(target, replace(cluster, namespace=name))
    finally:
        if not target.keep:
            for each in CLUSTER_WIDE:
                if each not in there:
                    cluster.run("delete", each, "--wait=true", "--timeout=60s", seconds=90)


@contextmanager
def namespace(kubectl: Kubectl, name: str, *, keep: bool = False) -> Iterator[None]:
    """A namespace that enforces Pod Security ``restricted``; gone at the end, unless it is to be kept."""
    kubectl.apply(*rendered("namespace", NAMESPACE=name))
    try:
        yield
    finally:
        if not keep:
            kubectl.run("delete", "namespace", name, "--wait=true", "--timeout=120s", seconds=150)


def install(made: Installation) -> None:
    """Servers or the Secret that leads to them, the tables, the operator; returns when all of it is ready.

    Raises:
        RefusedTarget: the database outside the cluster is not empty; nothing was changed in it.
        KubectlError: the cluster refused something.
    """
    if made.target.brings_servers:
        made.secret("siorg-database", DATABASE_URL=made.target.database_url)
        made.kubectl.apply(_way_out(made.target))
    else:
        made.apply("overlays/kind/servers")
        made.ready("rollout", "status", "statefulset/siorg-database")
        made.ready("rollout", "status", "deployment/siorg-simulator")
    made.kubectl("create", "configmap", "siorg-certs", "--from-literal=ca.pem=of-an-authority-of-ours")
    made.secret("siorg-token", SIORG_API_TOKEN="none-is-wanted")  # the simulator asks for none
    made.apply("base", "tools")  # the operator touches no database while there is no resource
    made.ready("wait", "--for=condition=Ready", "pod/siorg-tools")
    tables = "SELECT count(*) FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p')"
    if there := made.rows(f"{tables} AND nspname NOT IN ('pg_catalog', 'information_schema')")[0][0]:
        raise RefusedTarget(
            f"the database of E2E_DATABASE_URL has {there} tables: the suite wants an empty one, and will fill it"
        )
    made.apply("migrate")
    migrated = made.ended_job("siorg-migrate")
    if not succeeded(migrated):
        raise KubectlError(f"siorg-job migrate failed:\n{made.log('siorg-migrate')}")
    made.ready("rollout", "status", "deployment/siorg-operator")


def succeeded(job: Body) -> bool:
    return condition(job, "Complete") == "True"


def _way_out(target: Target) -> Body:
    """A NetworkPolicy towards the servers outside the cluster, whatever their ports."""
    database, siorg = urlsplit(target.database_url), urlsplit(target.siorg_url)
    ports = {database.port or 5432, siorg.port or (443 if siorg.scheme == "https" else 80)}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "siorg-e2e-servers"},
        "spec": {
            "podSelector": {"matchLabels": {"app.kubernetes.io/name": "siorg-sync"}},
            "policyTypes": ["Egress"],
            "egress": [{"ports": [{"protocol": "TCP", "port": port} for port in sorted(ports)]}],
        },
    }
