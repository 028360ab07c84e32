"""What is explained: a resource, its queue and its Jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from siorg_operator.api.resource import SiorgSyncWorker
from siorg_operator.decide.state import Backlog, Job


@dataclass(slots=True)
class Subject:
    """A resource as the operator would see it now."""

    resource: SiorgSyncWorker
    backlog: Backlog
    jobs: list[Job]
    assumed: list[str] = field(default_factory=list)
    """What was taken for granted, in words that follow "Assumed: "."""

    def assume_image(self, default: str | None, newest: Mapping[str, Any] | None = None) -> None:
        """Put in the image that the operator would take where the resource names none.

        Args:
            default: as it is set here; None or empty: it is not.
            newest: the newest Job in the cluster, which the operator made.
        """
        if self.resource.spec.job.image:
            return
        image, whence = default, "SIORG_OPERATOR_JOB_IMAGE as it is set here"
        if not image and newest is not None:
            image = newest["spec"]["template"]["spec"]["containers"][0]["image"]
            whence = f"the newest Job, {newest['metadata']['name']}"
        if not image:
            self.assumed.append(
                "that the operator has a default image (SIORG_OPERATOR_JOB_IMAGE), for spec.job.image is not set. Without one it"
                " refuses this resource: InvalidSpec, and nothing is launched"
            )
            return
        self.resource = self.resource.with_image(image)
        self.assumed.append(f"image {image} (from {whence}), for spec.job.image is not set: the operator takes its default")
