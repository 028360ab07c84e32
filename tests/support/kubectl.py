"""kubectl, as people use it: the end-to-end suite does nothing that they could not do by hand."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Body = dict[str, Any]

_SECONDS = 60.0


class KubectlError(AssertionError):
    """kubectl did not end with 0; the text says what was asked and what it answered."""


@dataclass(frozen=True, slots=True)
class Kubectl:
    """kubectl for one context of one kubeconfig; and for one namespace, where a command wants one."""

    kubeconfig: str
    context: str
    namespace: str = ""
    program: str = "kubectl"

    def __call__(self, *arguments: str, stdin: str | None = None, seconds: float = _SECONDS) -> str:
        """What a command prints on stdout.

        Args:
            arguments: of kubectl.
            stdin: what it reads, for ``-f -``.
            seconds: after which it counts as failed.

        Raises:
            KubectlError: it failed.
        """
        done = self.run(*arguments, stdin=stdin, seconds=seconds)
        if done.returncode != 0:
            raise KubectlError(f"kubectl {' '.join(arguments)}: exit {done.returncode}\n{done.stderr}{done.stdout}")
        return done.stdout

    def run(self, *arguments: str, stdin: str | None = None, seconds: float = _SECONDS) -> subprocess.CompletedProcess[str]:
        """The same, where a failure is an answer too."""
        command = [self.program, f"--kubeconfig={self.kubeconfig}", f"--context={self.context}"]
        if self.namespace:
            command.append(f"--namespace={self.namespace}")
        try:
            return subprocess.run(
                [*command, *arguments], input=stdin, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise KubectlError(f"kubectl {' '.join(arguments)}: no end within {seconds:.0f} s") from None

    # -- objects ------------------------------------------------------------------------------------------------------

    def get(self, kind: str, name: str) -> Body | None:
        """One object; None where there is none."""
        text = self("get", kind, name, "--ignore-not-found", "--output=json")
        found: Body | None = json.loads(text) if text.strip() else None
        return found

    def list(self, kind: str, labels: Mapping[str, str] | str = "") -> list[Body]:
        """All of a kind, with those labels (a mapping, or a selector's text)."""
        selector = labels if isinstance(labels, str) else ",".join(f"{key}={value}" for key, value in labels.items())
        items: list[Body] = json.loads(self("get", kind, f"--selector={selector}", "--output=json"))["items"]
        return items

    def apply(self, *bodies: Body, options: Sequence[str] = ()) -> str:
        """Server-side apply, as the documents say."""
        return self("apply", "--server-side", "--force-conflicts", *options, "--filename=-", stdin=listed(bodies))


def listed(bodies: Sequence[Body]) -> str:
    """Objects as one document: not all versions of kubectl take JSON behind JSON."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies})
