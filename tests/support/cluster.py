"""A cluster for one test or one module: the small API server with its controllers, or a real one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

from kube_double.authorizer import Rule
from kube_double.job_controller import JobController
from kube_double.kubelet import Images, Kubelet
from kube_double.server import ApiServer
from support.fleet import eventually
from support.kube import Kube


class WrongCluster(RuntimeError):
    """KUBECONFIG names a cluster, and nobody said that tests may use it."""


@dataclass(frozen=True, slots=True)
class Cluster:
    """Where a test runs."""

    kubeconfig: Path
    namespace: str
    kube: Kube
    kubelet: Kubelet
    server: ApiServer | None
    """The small server; None on a real cluster."""


def real_kubeconfig() -> Path | None:
    """The real cluster to test on; None for the small one.

    Raises:
        WrongCluster: KUBECONFIG is set without SIORG_TEST_CLUSTER=1: it may be somebody's own.
    """
    given, allowed = os.environ.get("KUBECONFIG", ""), os.environ.get("SIORG_TEST_CLUSTER", "")
    if allowed not in ("", "0", "1"):
        raise WrongCluster(f"SIORG_TEST_CLUSTER is {allowed!r}; it may be 1, 0 or unset")
    if allowed != "1":
        return None
    if not given or not Path(given).is_file():
        raise WrongCluster("SIORG_TEST_CLUSTER=1 needs KUBECONFIG to name the kubeconfig of a cluster that tests may use")
    return Path(given)


@contextmanager
def small_cluster(folder: Path, images: Images | None = None, *, server: ApiServer | None = None) -> Iterator[Cluster]:
    """The small server with a Job controller and a node, and a fresh namespace in it.

    Args:
        folder: Where the kubeconfig and the pods' output go.
        images: See ``Kubelet``.
        server: One that runs already; otherwise one of its own.
    """
    with ExitStack() as stack:
        server = server or stack.enter_context(ApiServer())
        kubeconfig = server.kubeconfig(folder)
        stack.enter_context(JobController(kubeconfig))
        node = stack.enter_context(Kubelet(kubeconfig, images or {}, folder / "pods"))
        kube = stack.enter_context(_fresh_namespace(kubeconfig))
        yield Cluster(server.kubeconfig(folder, namespace=kube.namespace), kube.namespace, kube, node, server)


@contextmanager
def real_cluster(folder: Path, kubeconfig: Path, images: Images | None = None) -> Iterator[Cluster]:
    """A fresh namespace on a real cluster, whose controllers and scheduler do their own work, and a node of ours."""
    with (
        _fresh_namespace(kubeconfig) as kube,
        Kubelet(kubeconfig, images or {}, folder / "pods", schedule=False, namespace=kube.namespace) as node,
    ):
        try:
            yield Cluster(_in_namespace(kubeconfig, folder, kube.namespace), kube.namespace, kube, node, None)
        finally:
            # While the node is there: nobody else ends its pods, and without that the namespace would never go.
            kube.delete("namespaces", kube.namespace)
            eventually(lambda: not kube.list("pods"), seconds=60)


@contextmanager
def any_cluster(
    folder: Path, images: Images | None = None, *, rules: Mapping[str, Sequence[Rule]] | None = None
) -> Iterator[Cluster]:
    """The small server, or a real one when KUBECONFIG and SIORG_TEST_CLUSTER=1 say so.

    Args:
        folder: As ``small_cluster`` and ``real_cluster`` want it.
        images: See ``Kubelet``.
        rules: Of the small server, see ``ApiServer``.
    """
    kubeconfig = real_kubeconfig()
    if kubeconfig is not None:
        with real_cluster(folder, kubeconfig, images) as real:
            yield real
    else:
        with ApiServer(rules=rules, bookmark_seconds=1.0) as server, small_cluster(folder, images, server=server) as small:
            yield small


def _in_namespace(kubeconfig: Path, folder: Path, namespace: str) -> Path:
    """A copy of the kubeconfig whose current context is in ``namespace``."""
    config = yaml.safe_load(kubeconfig.read_text())
    for each in config["contexts"]:
        if each["name"] == config["current-context"]:
            each["context"]["namespace"] = namespace
    copy = folder / "kubeconfig.yaml"
    copy.touch(mode=0o600)
    copy.write_text(yaml.safe_dump(config))
    return copy


@contextmanager
def _fresh_namespace(kubeconfig: Path) -> Iterator[Kube]:
    name = f"siorg-test-{secrets.token_hex(4)}"
    kube = Kube(kubeconfig, namespace=name)
    kube.create_namespace(name)
    try:
        yield kube
    finally:
        kube.delete("namespaces", name)
        kube.close()
